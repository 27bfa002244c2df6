//! Images from a real registry, and the verbs that keep them.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::registry::{Access, Registry};
use support::tarball::{Entry, archive};
use support::terminal::Terminal;
use support::{BUSYBOX, Image, Machine, machine};

/// A registry with the busybox image as `NAME:1`.
fn stocked<'a>(m: &'a Machine, access: Access, name: &str, options: &str) -> Registry<'a> {
    let registry = Registry::start(m, 5000, access);
    let archive = format!("docker-archive:{}", Image::busybox().archive().display());
    registry.push(&archive, &format!("{name}:1"), options);
    registry
}

/// The digest that a registry gives to a manifest, as an independent program sees it.
fn digest_of(m: &Machine, reference: &str) -> String {
    m.sh(&format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{reference}"))
        .expect_ok()
        .text()
        .to_owned()
}

#[test]
fn pull_tells_what_it_does_and_what_it_got() {
    machine(|m| {
        let registry = stocked(m, Access::Open, "library/box", "");
        let name = registry.reference("library/box:1");
        let digest = digest_of(m, &name);
        let output = m.sbx(&["pull", &name]).expect_ok();
        for text in [
            "1: Pulling from library/box",
            "Pull complete",
            &format!("Digest: {digest}"),
            "Status: Downloaded newer image for",
            &name,
        ] {
            assert!(output.stdout.contains(text), "no `{text}`\n{output}");
        }
        assert!(!output.stdout.contains('\u{1b}'), "no escape sequences off a terminal\n{output}");
        m.sbx(&["pull", &name]).expect_ok().expect_stdout("Status: Image is up to date for");
        assert_eq!(m.ok(&["run", "--rm", &name, "echo", "runs"]), "runs");
        m.ok(&["rmi", &name]);
    });
}

#[test]
fn pull_at_a_terminal_draws_progress() {
    machine(|m| {
        let registry = stocked(m, Access::Open, "box", "");
        let mut terminal = Terminal::sbx(m, &["pull", &registry.reference("box:1")]);
        let shown = terminal.expect("Status: Downloaded newer image");
        assert!(shown.contains('\u{1b}') && shown.contains("Pull complete"), "{shown:?}");
        assert_eq!(terminal.finish().0, 0);
    });
}

#[test]
fn run_pulls_what_is_missing() {
    machine(|m| {
        let registry = stocked(m, Access::Open, "box", "");
        let name = registry.reference("box:1");
        let output = m.sbx(&["run", "--rm", &name, "echo", "runs"]).expect_ok();
        assert_eq!(output.stdout, "runs\n", "progress goes to standard error");
        output.expect_stderr(&format!("Unable to find image '{name}' locally"));
    });
}

#[test]
fn pull_policies_decide_when_the_registry_is_asked() {
    machine(|m| {
        let registry = stocked(m, Access::Open, "box", "");
        let name = registry.reference("box:1");
        m.fails(&["run", "--rm", "--pull", "never", &name, "true"], 125, "box");
        m.ok(&["run", "--rm", "--pull", "missing", &name, "true"]);
        let newer = Image::busybox_with("test/newer:1", &[("Env", json!(["NEWER=yes", "PATH=/bin"]))]);
        registry.push(&format!("docker-archive:{}", newer.archive().display()), "box:1", "");
        let script = ["sh", "-c", "echo ${NEWER:-no}"];
        assert_eq!(m.ok(&[&["run", "--rm", "--pull", "missing", &name], &script[..]].concat()), "no");
        assert_eq!(m.ok(&[&["run", "--rm", "--pull", "always", "-q", &name], &script[..]].concat()), "yes");
        m.fails(&["run", "--rm", "--pull", "sometimes", &name, "true"], 125, "sometimes");
    });
}

#[test]
fn quiet_prints_only_what_was_asked_for() {
    machine(|m| {
        let registry = stocked(m, Access::Open, "box", "");
        let name = registry.reference("box:1");
        assert_eq!(m.ok(&["pull", "-q", &name]), name);
        m.ok(&["rmi", &name]);
        let output = m.sbx(&["run", "--rm", "--quiet", &name, "echo", "only"]).expect_ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("only\n", ""));
    });
}

#[test]
fn every_kind_of_manifest_and_compression_is_pulled_and_runs() {
    machine(|m| {
        let archive = format!("docker-archive:{}", Image::busybox().archive().display());
        for (port, kind, options) in [
            (5000, "oci-gzip", "--format oci --dest-compress-format gzip"),
            (5001, "oci-zstd", "--format oci --dest-compress-format zstd"),
            (5002, "docker-gzip", "--format v2s2 --dest-compress-format gzip"),
        ] {
            if kind == "oci-zstd" && !m.peer().is_sbx() {
                continue; // Debian's Docker is too old for it.
            }
            // Another registry each time: skopeo has one that holds the layer already use it again, compressed as it is.
            let registry = Registry::start(m, port, Access::Open);
            registry.push(&archive, &format!("{kind}:1"), options);
            let raw = m.sh(&format!(
                "skopeo inspect --raw --tls-verify=false docker://{}",
                registry.reference(&format!("{kind}:1"))
            ));
            let wanted = if kind == "docker-gzip" {
                "docker.distribution.manifest.v2"
            } else {
                kind.rsplit('-').next().unwrap_or_default()
            };
            assert!(raw.stdout.contains(wanted), "{kind}: {raw}");
            assert_eq!(
                m.ok(&["run", "--rm", "-q", &registry.reference(&format!("{kind}:1")), "echo", "runs"]),
                "runs",
                "{kind}"
            );
        }
    });
}

/// Puts an index over two images into the registry: this machine's architecture and another. Each sets a variable.
fn push_index(m: &Machine, registry: &Registry<'_>, name: &str) {
    let own = support::image::architecture();
    let mut entries = Vec::new();
    for (architecture, variable) in [("s390x", "ELSEWHERE=1"), (own, "HERE=1")] {
        let image = Image::busybox_with("test/part:1", &[("Env", json!([variable, "PATH=/bin"]))]);
        registry.push(
            &format!("docker-archive:{}", image.on(architecture).archive().display()),
            &format!("{name}:{architecture}"),
            "--format oci",
        );
        let reference = registry.reference(&format!("{name}:{architecture}"));
        let raw = m.sh(&format!("skopeo inspect --raw --tls-verify=false docker://{reference}")).expect_ok().stdout;
        let digest = format!("sha256:{}", support::image::sha256(raw.as_bytes()));
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": raw.len(),
            "platform": { "os": "linux", "architecture": architecture },
        }));
    }
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries });
    fs::write(m.path("index.json"), index.to_string()).expect("a new file");
    let url = format!("http://{}/v2/{name}/manifests/1", registry.address());
    m.sh(&format!(
        "curl -sSf -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' --data-binary @{} {url}",
        m.at("index.json")
    ))
    .expect_ok();
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    machine(|m| {
        let registry = Registry::start(m, 5000, Access::Open);
        push_index(m, &registry, "multi");
        let name = registry.reference("multi:1");
        let architecture = || m.ok(&["image", "inspect", "--format", "{{.Architecture}}", &name]);
        assert!(m.ok(&["run", "--rm", "-q", &name, "env"]).contains("HERE=1"));
        assert_eq!(architecture(), support::image::architecture());
        let own = m.ok(&["images", "-q", "--no-trunc", &name]);
        // The other platform takes the name over; the image that had it stays, without a name.
        m.ok(&["pull", "-q", "--platform", "linux/s390x", &name]);
        assert_eq!(architecture(), "s390x");
        assert_ne!(m.ok(&["images", "-q", "--no-trunc", &name]), own);
        assert!(m.ok(&["images", "-aq", "--no-trunc"]).contains(&own));
        m.fails(&["pull", "--platform", "linux/riscv64", &name], 1, "riscv64");
        assert_eq!(architecture(), "s390x", "a pull that fails changes nothing");
        m.sbx(&["pull", &name]).expect_ok().expect_stdout("Status: Downloaded newer image");
        assert_eq!(m.ok(&["images", "-q", "--no-trunc", &name]), own);
    });
}

#[test]
fn an_image_of_one_other_platform_is_pulled_with_a_warning_and_not_run() {
    machine(|m| {
        let registry = stocked(m, Access::Open, "box", "");
        let name = registry.reference("box:1");
        let words = "does not match the specified platform (linux/s390x)";
        m.sbx(&["pull", "--platform", "linux/s390x", &name]).expect_ok().expect_stdout(words);
        m.fails(&["run", "--rm", "--platform", "linux/s390x", &name, "true"], 125, words);
        m.fails(&["run", "--rm", "--pull", "never", "--platform", "linux/s390x", &name, "true"], 125, words);
        assert_eq!(m.ok(&["run", "--rm", &name, "echo", "runs"]), "runs");
    });
}

#[test]
fn a_digest_pins_the_image() {
    machine(|m| {
        let registry = stocked(m, Access::Open, "box", "");
        let digest = digest_of(m, &registry.reference("box:1"));
        let pinned = registry.reference(&format!("box@{digest}"));
        assert_eq!(m.ok(&["run", "--rm", "-q", &pinned, "echo", "runs"]), "runs");
        assert!(m.ok(&["images", "--digests"]).contains(&digest));
        assert_eq!(m.ok(&["inspect", "--format", "{{index .RepoDigests 0}}", &pinned]), pinned);
        let other = registry.reference(&format!("box@sha256:{}", "0".repeat(64)));
        m.fails(&["pull", &other], 1, "");
        m.fails(&["pull", &registry.reference("box:none")], 1, "box");
        m.fails(&["pull", &registry.reference("no/such/repository:1")], 1, "");
        m.fails(&["pull", "127.0.0.1:9/box:1"], 1, "127.0.0.1:9");
    });
}

#[test]
fn private_registries_want_their_authority_and_a_password() {
    machine(|m| {
        let registry = stocked(m, Access::Private, "box", "");
        let (name, address) = (registry.reference("box:1"), registry.address());
        // On loopback Docker tries plain HTTP next, and tells of that.
        m.fails(&["pull", &name], 1, if m.peer().is_sbx() { "certificate" } else { "" });
        m.sh(&format!(
            "mkdir -p /etc/docker/certs.d/{address}; cp {} /etc/docker/certs.d/{address}/",
            m.at("registry-5000/ca.crt")
        ))
        .expect_ok();
        m.fails(&["pull", &name], 1, "");
        m.sbx_with(&["login", "-u", "bob", "--password-stdin", address], b"wrong")
            .expect_status(1)
            .expect_stderr("unauthorized");
        m.sbx_with(&["login", "-u", "bob", "--password-stdin", address], b"secret\n")
            .expect_ok()
            .expect_stdout("Login Succeeded");
        assert_eq!(m.ok(&["run", "--rm", "-q", &name, "echo", "runs"]), "runs");
        let config = fs::read_to_string(m.path("home/.docker/config.json")).expect("the client's configuration");
        let config: Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!(config["auths"][address]["auth"], "Ym9iOnNlY3JldA==");
        let mode = m.sh(&format!("stat -c %a {}", m.at("home/.docker/config.json"))).expect_ok();
        assert_eq!(mode.text(), "600");
        m.ok(&["logout", address]);
        m.ok(&["rmi", &name]);
        m.fails(&["pull", &name], 1, "");
    });
}

#[test]
fn credential_helpers_are_asked() {
    machine(|m| {
        let registry = stocked(m, Access::Private, "box", "");
        let (name, address) = (registry.reference("box:1"), registry.address());
        m.sh(&format!(
            "mkdir -p /etc/docker/certs.d/{address}; cp {} /etc/docker/certs.d/{address}/",
            m.at("registry-5000/ca.crt")
        ))
        .expect_ok();
        let helper = "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread -r server\n\
                      echo \"$server\" >>\"$HOME/asked\"\nprintf '{\"ServerURL\":\"%s\",\"Username\":\"bob\",\"Secret\":\"secret\"}' \"$server\"\n";
        fs::create_dir_all(m.path("home/.docker")).expect("a new folder");
        fs::write(m.path("home/.docker/config.json"), json!({ "credHelpers": { address: "test" } }).to_string())
            .expect("a new file");
        fs::write(m.path("home/docker-credential-test"), helper).expect("a new file");
        m.sh("chmod 755 docker-credential-test").expect_ok();
        let mut command = m.command("env");
        let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin", m.at("home"));
        command.args([path.as_str(), &m.peer().program()]);
        m.peer().add_arguments(m, &mut command, &["pull", "-q", &name]);
        support::output::Running::start(command, Some(b"")).finish(support::DEADLINE).expect_ok();
        assert_eq!(
            fs::read_to_string(m.path("home/asked")).expect("the helper was asked").lines().next(),
            Some(address)
        );
        m.ok(&["rmi", &name]);
    });
}

#[test]
fn images_tag_rmi_and_history() {
    machine(|m| {
        m.load(&Image::busybox());
        m.load(&Image::busybox_under("test/two:1", vec![archive(&[Entry::file("added", 0o644, "x")])]));
        let table = m.ok(&["images"]);
        let header: Vec<&str> = table
            .lines()
            .next()
            .map(|line| line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect())
            .unwrap_or_default();
        assert_eq!(header, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
        assert_eq!(m.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "test/two"]), "test/two:1");
        let id = m.ok(&["images", "-q", "--no-trunc", "test/two"]);
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        m.ok(&["tag", "test/two:1", "other.example:5000/team/two"]);
        assert_eq!(m.ok(&["images", "-q", "--no-trunc", "other.example:5000/team/two"]), id);
        m.fails(&["rmi", &id], 1, "");
        assert_eq!(m.ok(&["rmi", "test/two:1"]), "Untagged: test/two:1");
        let removed = m.ok(&["rmi", "other.example:5000/team/two:latest"]);
        assert!(removed.contains("Untagged: ") && removed.contains(&format!("Deleted: {id}")), "{removed}");
        m.fails(&["rmi", "test/two:1"], 1, "test/two:1");
        let history = m.ok(&["history", "--format", "{{.CreatedBy}}|{{.Comment}}", BUSYBOX]);
        assert_eq!(history, "layer 0|made by a test");
        m.fails(&["tag", BUSYBOX, "team/UPPER"], 1, "must be lowercase");
        m.fails(&["tag", "test/nothing:1", "x"], 1, "test/nothing:1");
    });
}

#[test]
fn an_image_in_use_is_not_removed() {
    machine(|m| {
        m.load(&Image::busybox());
        let running = m.detached(&[], &["sleep", "1000"]);
        let output = m.fails(&["rmi", BUSYBOX], 1, "");
        assert!(output.stderr.contains(&running[..12]), "who uses it?\n{output}");
        m.ok(&["rm", "-f", &running]);
        m.ok(&["rmi", BUSYBOX]);
        assert_eq!(m.ok(&["images", "-q"]), "");
    });
}

#[test]
fn inspect_of_an_image_is_dockers() {
    machine(|m| {
        m.load(&Image::busybox());
        let shown: Value = serde_json::from_str(&m.ok(&["image", "inspect", BUSYBOX])).expect("JSON");
        let one = &shown[0];
        assert_eq!(one["RepoTags"], json!([BUSYBOX]));
        assert_eq!((&one["Os"], &one["Architecture"]), (&json!("linux"), &json!(support::image::architecture())));
        assert_eq!(one["Config"]["Cmd"], json!(["sh"]));
        assert_eq!(one["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
        m.fails(&["image", "inspect", "test/nothing:1"], 1, "test/nothing:1");
    });
}

#[test]
fn save_and_load_keep_the_image_as_it_is() {
    machine(|m| {
        m.load(&Image::busybox());
        let id = m.ok(&["images", "-q", "--no-trunc", BUSYBOX]);
        let file = m.at("saved.tar");
        m.ok(&["save", "-o", &file, BUSYBOX]);
        // Another program finds it good.
        let copied = m.sh(&format!("skopeo --insecure-policy copy -q docker-archive:{file} oci:{}:1", m.at("copied")));
        copied.expect_ok();
        m.ok(&["rmi", BUSYBOX]);
        m.sbx(&["load", "-i", &file]).expect_ok().expect_stdout(&format!("Loaded image: {BUSYBOX}"));
        assert_eq!(m.ok(&["images", "-q", "--no-trunc", BUSYBOX]), id);
        assert_eq!(m.ok(&["run", "--rm", BUSYBOX, "echo", "runs"]), "runs");
        // Through pipes, too.
        let bytes = m.sh(&format!("gzip -k {file}; test -s {file}.gz")).expect_ok();
        drop(bytes);
        let zipped = fs::read(format!("{file}.gz")).expect("the compressed archive");
        m.sbx_with(&["load"], &zipped).expect_ok();
    });
}

#[test]
fn images_made_by_others_run() {
    machine(|m| {
        if m.peer().is_sbx() {
            oci_layout_of_umoci(m);
        }
        if support::installed("buildah") {
            archive_of_buildah(m);
        } else {
            support::skip("images_made_by_others_run (buildah)", "buildah is not installed");
        }
        let archive = format!("docker-archive:{}", Image::busybox().archive().display());
        m.sh(&format!("skopeo --insecure-policy copy -q {archive} docker-archive:{}:by/skopeo:1", m.at("skopeo.tar")))
            .expect_ok();
        m.ok(&["load", "-q", "-i", &m.at("skopeo.tar")]);
        assert_eq!(m.ok(&["run", "--rm", "by/skopeo:1", "echo", "runs"]), "runs");
    });
}

fn oci_layout_of_umoci(m: &Machine) {
    let script = "umoci init --layout u; umoci new --image u:1; umoci unpack --image u:1 b >/dev/null; \
        mkdir -p b/rootfs/bin b/rootfs/proc b/rootfs/sys b/rootfs/dev; cp $(command -v busybox) b/rootfs/bin/busybox; \
        ln -s busybox b/rootfs/bin/sh; umoci repack --image u:1 b >/dev/null; \
        umoci config --image u:1 --config.cmd /bin/sh --config.env PATH=/bin --config.env BY=umoci; \
        tar -C u -cf umoci.tar .";
    m.sh(script).expect_ok();
    let loaded = m.ok(&["load", "-i", &m.at("home/umoci.tar")]);
    let id = loaded.rsplit(' ').next().expect("a name or an id");
    assert_eq!(m.ok(&["run", "--rm", id, "sh", "-c", "echo $BY"]), "umoci");
}

fn archive_of_buildah(m: &Machine) {
    let script = "mkdir ctx; cp $(command -v busybox) ctx/busybox; \
        printf 'FROM scratch\\nCOPY busybox /bin/busybox\\nRUN [\"/bin/busybox\",\"ln\",\"-s\",\"busybox\",\"/bin/sh\"]\\nENV BY=buildah PATH=/bin\\nUSER 1000:1000\\nWORKDIR /work\\nCMD [\"sh\",\"-c\",\"echo $BY; id -u; pwd\"]\\n' >ctx/Dockerfile; \
        sed -i 's/id -u/busybox id -u/' ctx/Dockerfile; \
        B='buildah --root R --runroot RR --storage-driver vfs'; \
        $B bud -q --layers --isolation chroot --format oci -t by/buildah ctx >/dev/null; \
        $B push -q by/buildah docker-archive:buildah.tar:by/buildah:1";
    m.sh(script).expect_ok();
    m.ok(&["load", "-q", "-i", &m.at("home/buildah.tar")]);
    assert_eq!(m.ok(&["run", "--rm", "by/buildah:1"]), "buildah\n1000\n/work");
}

#[test]
fn import_makes_an_image_of_a_tar() {
    machine(|m| {
        let file = m.at("root.tar");
        fs::write(&file, support::image::busybox_layer()).expect("a new file");
        let id = m.ok(&[
            "import",
            "-c",
            "ENV A=b",
            "-c",
            "CMD [\"/bin/sh\", \"-c\", \"echo $A\"]",
            "-m",
            "a note",
            &file,
            "test/imported:1",
        ]);
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        assert_eq!(m.ok(&["run", "--rm", "test/imported:1"]), "b");
        assert!(m.ok(&["history", "--format", "{{.Comment}}", "test/imported:1"]).contains("a note"));
        let zipped = m.sh(&format!("gzip -k {file}")).expect_ok();
        drop(zipped);
        let bytes = fs::read(format!("{file}.gz")).expect("the compressed tar");
        m.sbx_with(&["import", "-", "test/piped:1"], &bytes).expect_ok();
        assert_eq!(m.ok(&["run", "--rm", "test/piped:1", "/bin/busybox", "echo", "runs"]), "runs");
        m.fails(&["import", "/no/such/file", "test/x:1"], 1, "/no/such/file");
        m.fails(&["import", "-c", "NONSENSE x", &file, "test/x:1"], 1, "NONSENSE");
    });
}

#[test]
fn a_shared_layer_is_stored_once() {
    machine(|m| {
        m.load(&Image::busybox());
        if !m.peer().is_sbx() {
            return;
        }
        let size =
            || m.sh(&format!("du -sk {} | cut -f1", m.at("root"))).expect_ok().text().parse::<u64>().expect("a number");
        let before = size();
        m.load(&Image::busybox_under("test/more:1", vec![archive(&[Entry::file("added", 0o644, "x")])]));
        assert!(size() < before + 500, "{before} KiB became {} KiB for one small file", size());
        m.ok(&["rmi", "test/more:1"]);
        assert!(size() <= before + 100, "what nobody uses any more is removed");
    });
}
