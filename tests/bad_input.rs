//! Bad input: each case gives one clear error and the documented exit code, and leaves nothing behind.
//!
//! Bad flags are in `run_flags.rs` and `run_resources.rs` too; hostile layers are in `hostile_layers.rs`.

mod support;

use std::fs;
use std::time::Instant;

use support::double::{Double, Fault};
use support::output::Running;
use support::tarball::{Entry, archive};
use support::{BUSYBOX, DEADLINE, Image, Machine, Output, each_mode, machine};

/// Command line, exit code, and a word that the error must contain.
type Case = (&'static [&'static str], i32, &'static str);

const REFERENCES: [Case; 14] = [
    (&["pull", ""], 1, "invalid reference"),
    (&["pull", "UPPER"], 1, "lowercase"),
    (&["pull", "a//b"], 1, "invalid reference"),
    (&["pull", "--", "-bad"], 1, "invalid reference"),
    (&["pull", "box:"], 1, "invalid reference"),
    (&["pull", "box:white space"], 1, "invalid reference"),
    (&["pull", "box@sha256:short"], 1, "invalid reference"),
    (&["pull", "box@md5:d41d8cd98f00b204e9800998ecf8427e"], 1, ""),
    (&["pull", "../../etc/passwd"], 1, "invalid reference"),
    (&["pull", "127.0.0.1:99999/box"], 1, ""),
    (&["pull", "http://127.0.0.1/box"], 1, "invalid reference"),
    (&["run", "--rm", "box:a:b", "true"], 125, "invalid reference"),
    (&["tag", BUSYBOX, "bad tag"], 1, "bad tag"),
    (&["rmi", "???"], 1, ""),
];

const COMMAND_LINES: [Case; 25] = [
    (&["no-such-verb"], 1, "no-such-verb"),
    (&["run"], 1, "run"),
    (&["run", "--rm"], 1, "run"),
    (&["exec", "only-a-name"], 1, "exec"),
    (&["run", "--name"], 125, "name"),
    (&["run", "-e", "=x", BUSYBOX, "true"], 125, "env"),
    (&["run", "--env-file", "/no/such/file", BUSYBOX, "true"], 125, "/no/such/file"),
    (&["run", "--label-file", "/no/such/file", BUSYBOX, "true"], 125, "/no/such/file"),
    (&["run", "-v", "", BUSYBOX, "true"], 125, "volume"),
    (&["run", "-v", "a:b:c:d", BUSYBOX, "true"], 125, "a:b:c:d"),
    (&["run", "-v", "/etc:/m:sideways", BUSYBOX, "true"], 125, "sideways"),
    (&["run", "-v", "/etc:/", BUSYBOX, "true"], 125, "/"),
    (&["run", "-v", "bad name:/m", BUSYBOX, "true"], 125, "bad name"),
    (&["run", "--tmpfs", "relative", BUSYBOX, "true"], 125, "relative"),
    (&["run", "--device", "/dev/null:/dev/x:q", BUSYBOX, "true"], 125, "q"),
    (&["run", "--device-cgroup-rule", "nonsense", BUSYBOX, "true"], 125, "nonsense"),
    (&["run", "--stop-signal", "NONSENSE", BUSYBOX, "true"], 125, "NONSENSE"),
    (&["run", "--health-cmd", "true", "--health-interval", "1ns", BUSYBOX, "true"], 125, "interval"),
    (&["run", "--health-interval", "soon", BUSYBOX, "true"], 125, "soon"),
    (&["run", "--cgroupns", "nonsense", BUSYBOX, "true"], 125, "cgroup"),
    (&["run", "--group-add", "no-such-group", BUSYBOX, "true"], 125, "no-such-group"),
    (&["run", "--sysctl", "nonsense", BUSYBOX, "true"], 125, "nonsense"),
    (&["run", "-d", "--rm", "--restart", "always", BUSYBOX, "true"], 125, "restart"),
    (&["run", "--privileged=maybe", BUSYBOX, "true"], 125, "maybe"),
    (&["ps", "-n", "nonsense"], 125, "nonsense"),
];

/// Where sbx is stricter than Docker, which finds out later (127 for a device, 1 for detach keys), or never.
const STRICTER: [Case; 5] = [
    (&["run", "--device", "/no/such/device", BUSYBOX, "true"], 125, "/no/such/device"),
    (&["run", "--detach-keys", "ctrl-", BUSYBOX, "true"], 125, "detach"),
    (&["run", "--detach-keys", "nonsense", BUSYBOX, "true"], 125, "detach"),
    (&["exec", "--detach-keys", "nonsense", "nobody", "true"], 125, "detach"),
    (&["logs", "--tail", "nonsense", "nobody"], 1, "nonsense"),
];

const NOT_THERE: [Case; 16] = [
    (&["start", "nobody"], 1, "nobody"),
    (&["stop", "nobody"], 1, "nobody"),
    (&["kill", "nobody"], 1, "nobody"),
    (&["restart", "nobody"], 1, "nobody"),
    (&["pause", "nobody"], 1, "nobody"),
    (&["unpause", "nobody"], 1, "nobody"),
    (&["rm", "nobody"], 1, "nobody"),
    (&["attach", "nobody"], 1, "nobody"),
    (&["port", "nobody"], 1, "nobody"),
    (&["top", "nobody"], 1, "nobody"),
    (&["rename", "nobody", "somebody"], 1, "nobody"),
    (&["inspect", "nobody"], 1, "nobody"),
    (&["stats", "--no-stream", "nobody"], 1, "nobody"),
    (&["history", "test/nothing:1"], 1, "test/nothing:1"),
    (&["save", "test/nothing:1"], 1, "test/nothing:1"),
    (&["load", "-i", "/no/such/file"], 1, "/no/such/file"),
];

/// One error, not several and no panic; nothing created.
fn fault(output: &Output, code: i32, word: &str) -> Option<String> {
    let said = output.stderr.to_lowercase();
    let clear = !output.stderr.trim().is_empty() && !said.contains("panicked") && !said.contains("backtrace");
    let good = output.status == code && clear && said.contains(&word.to_lowercase());
    (!good).then(|| format!("expected {code} and `{word}`:\n{output}"))
}

fn all_fail(m: &Machine, cases: &[Case]) {
    let before = m.ok(&["ps", "-aq"]);
    let faults: Vec<String> = cases.iter().filter_map(|(args, code, word)| fault(&m.sbx(args), *code, word)).collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
    let left: Vec<String> =
        m.ok(&["ps", "-aq"]).lines().filter(|id| !before.contains(*id)).map(str::to_owned).collect();
    // Docker keeps a container whose start failed; a container that could not be created is not there.
    for id in left {
        assert_eq!(m.inspect(&id, "{{.State.Status}}"), "created", "only what was created and could not start");
    }
}

#[test]
fn bad_references_are_refused() {
    each_mode(|m| all_fail(m, &REFERENCES));
}

#[test]
fn bad_command_lines_are_refused() {
    each_mode(|m| {
        all_fail(m, &COMMAND_LINES);
        if m.peer().is_sbx() {
            all_fail(m, &STRICTER);
        }
    });
}

#[test]
fn what_is_not_there_is_named() {
    each_mode(|m| all_fail(m, &NOT_THERE));
}

/// Pulls from a registry that does one thing wrong; gives what the command left and the highest memory it used, in KiB.
fn pull_from(m: &Machine, fault: Fault) -> Output {
    let double = Double::start(m, 5001, fault);
    let output = Running::start(m.sbx_command(&["pull", &double.reference()]), Some(b"")).finish(DEADLINE);
    drop(double);
    fs::remove_file(m.path("double-5001")).expect("the socket is there");
    output
}

/// Pulls from registries that do something wrong: the error has a word, comes in time, and no image is kept.
fn are_caught(m: &Machine, kinds: &[(Fault, &str)]) {
    let mut faults = Vec::new();
    for &(kind, word) in kinds {
        let start = Instant::now();
        let output = pull_from(m, kind);
        faults.extend(fault(&output, 1, word).map(|text| format!("{kind:?}: {text}")));
        if start.elapsed().as_secs() > 45 {
            faults.push(format!("{kind:?}: took {} s to give up", start.elapsed().as_secs()));
        }
        if !m.ok(&["images", "-q"]).is_empty() {
            faults.push(format!("{kind:?}: an image was kept"));
            m.ok(&["rmi", "-f", &m.ok(&["images", "-q"])]);
        }
    }
    assert!(faults.is_empty(), "{} cases:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_registry_that_lies_is_caught_and_nothing_of_it_is_kept() {
    machine(|m| {
        if !m.peer().is_sbx() {
            return support::skip("a_registry_that_lies_is_caught_and_nothing_of_it_is_kept", "Docker never gives up");
        }
        are_caught(
            m,
            &[
                (Fault::LayerBit, "digest"),
                (Fault::ConfigBit, "digest"),
                (Fault::ManifestBit, "digest"),
                (Fault::LayerEndless, ""),
                (Fault::HtmlManifest, "manifest"),
                (Fault::EmptyManifest, "manifest"),
                (Fault::HugeManifest, "manifest"),
                (Fault::DeepManifest, "manifest"),
                (Fault::BothKinds, "manifest"),
                (Fault::RedirectLoop, "redirect"),
                (Fault::AlwaysBroken, "500"),
                (Fault::TooMany, "429"),
                (Fault::TokenIsNoToken, "token"),
            ],
        );
    });
}

#[test]
fn a_layer_that_is_never_whole_is_given_up_and_nothing_of_it_is_kept() {
    machine(|m| {
        if !m.peer().is_sbx() {
            return support::skip(
                "a_layer_that_is_never_whole_is_given_up_and_nothing_of_it_is_kept",
                "Docker never gives up",
            );
        }
        are_caught(
            m,
            &[
                (Fault::LayerShort, ""),
                (Fault::CutAlways, ""),
                // Gets the rest of what these have left for it.
                (Fault::WrongDiffId, "diff"),
                (Fault::WrongSize, "size"),
            ],
        );
    });
}

#[test]
fn a_registry_that_stumbles_is_asked_again_and_the_rest_is_resumed() {
    machine(|m| {
        for kind in [Fault::Nothing, Fault::BusyTwice, Fault::CutOnce, Fault::CutOnceNoRanges, Fault::Bearer] {
            let double = Double::start(m, 5001, kind);
            m.sbx(&["pull", &double.reference()]).expect_ok();
            if kind == Fault::CutOnce {
                assert!(double.asked("range=Some(") > 0, "the rest was not asked for: {:?}", double.requests);
            }
            assert_eq!(m.ok(&["run", "--rm", &double.reference(), "echo", "runs"]), "runs", "{kind:?}");
            m.ok(&["rmi", &double.reference()]);
            drop(double);
            fs::remove_file(m.path("double-5001")).expect("the socket is there");
        }
    });
}

#[test]
fn corrupt_archives_are_refused_and_nothing_of_them_is_kept() {
    machine(|m| {
        let good = Image::busybox().bytes();
        let parts = Image::busybox().parts();
        let mut flipped = good.clone();
        let middle = good.len() / 2;
        flipped[middle] ^= 1;
        let replace = |from: &str, to: &str| {
            let mut text = good.clone();
            let at = text.windows(from.len()).position(|window| window == from.as_bytes()).expect("it is in there");
            text[at..at + from.len()].copy_from_slice(to.as_bytes());
            text
        };
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty", Vec::new()),
            ("text", b"this is no archive at all".to_vec()),
            ("an empty tar", archive(&[])),
            ("a tar without an image", archive(&[Entry::file("hello", 0o644, "x")])),
            ("half an archive", good[..middle].to_vec()),
            ("one bit of the layer", flipped),
            ("gzip that breaks off", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b]),
            ("zstd that breaks off", vec![0x28, 0xb5, 0x2f, 0xfd, 4, 0]),
            ("manifest.json that is no JSON", archive(&[Entry::file("manifest.json", 0o644, "{")])),
            (
                "a path that leads out",
                archive(&[Entry::file(
                    "manifest.json",
                    0o644,
                    r#"[{"Config":"../../../etc/passwd","RepoTags":["test/x:1"],"Layers":[]}]"#,
                )]),
            ),
            (
                "a blob that is a link",
                archive(&[
                    Entry::file("manifest.json", 0o644, r#"[{"Config":"config","RepoTags":["test/x:1"],"Layers":[]}]"#),
                    Entry::symlink("config", "/etc/passwd"),
                ]),
            ),
            ("a configuration that is missing", replace(&parts.config.digest, &"0".repeat(64))),
        ];
        let mut faults = Vec::new();
        for (name, bytes) in &cases {
            let file = m.at("bad.tar");
            fs::write(&file, bytes).expect("a new file");
            for output in [m.sbx(&["load", "-i", &file]), m.sbx_with(&["load"], bytes)] {
                // Docker takes an archive without images for one with nothing to do.
                if m.peer().is_sbx() || output.status != 0 {
                    faults.extend(fault(&output, 1, "").map(|text| format!("{name}: {text}")));
                }
            }
            if m.peer().is_sbx() && !m.ok(&["images", "-q"]).is_empty() {
                faults.push(format!("{name}: an image was kept"));
            }
        }
        assert!(faults.is_empty(), "{} cases:\n{}", faults.len(), faults.join("\n"));
    });
}

#[test]
fn a_full_disk_is_an_error_and_the_store_stays_whole() {
    machine(|m| {
        if !m.peer().is_sbx() {
            return support::skip(
                "a_full_disk_is_an_error_and_the_store_stays_whole",
                "Docker's store is not so small",
            );
        }
        // The rest of the store comes along: the machine's bridge is what the store says it is.
        m.sh(&format!(
            "mkdir small; mount -t tmpfs -o size=3m small small; cp -a {root}/. small/; mount --move small {root}; rmdir small",
            root = m.at("root")
        ))
        .expect_ok();
        let archive = Image::busybox().archive();
        let output = m.fails(&["load", "-i", &archive.to_string_lossy()], 1, "");
        let said = output.stderr.to_lowercase();
        assert!(said.contains("no space left") || said.contains("disk"), "{output}");
        assert_eq!(m.ok(&["images", "-q"]), "");
        m.sh(&format!("mount -o remount,size=64m {}", m.at("root"))).expect_ok();
        m.load(&Image::busybox());
        m.sh(&format!("dd if=/dev/zero of={}/filler bs=64k 2>/dev/null || true", m.at("root"))).expect_ok();
        let output = m.sbx(&["run", "--rm", BUSYBOX, "true"]);
        assert!(output.status == 125 && output.stderr.to_lowercase().contains("space"), "{output}");
        m.sh(&format!("rm {}/filler", m.at("root"))).expect_ok();
        m.ok(&["run", "--rm", BUSYBOX, "true"]);
        m.ok(&["rmi", BUSYBOX]);
        m.sh(&format!("umount -l {}", m.at("root"))).expect_ok();
    });
}

#[test]
fn a_user_without_rights_is_told_so() {
    machine(|m| {
        if !m.peer().is_sbx() {
            return support::skip("a_user_without_rights_is_told_so", "the folders of this test are not Docker's");
        }
        let program = m.at("home/sbx");
        m.sh(&format!("cp {} {program}; chmod 755 . {program}; chmod 711 ..", m.peer().program())).expect_ok();
        let script = format!(
            "cd /; setpriv --reuid 65534 --regid 65534 --clear-groups {program} --root {} --run {} ps",
            m.at("root"),
            m.at("run")
        );
        let output = m.sh(&script);
        assert!(output.status != 0 && output.stderr.to_lowercase().contains("permission"), "{output}");
        let listed = m.sh(&format!(
            "setpriv --reuid 65534 --regid 65534 --clear-groups ls {} {} 2>&1 || true",
            m.at("root"),
            m.at("run")
        ));
        assert!(listed.stdout.matches("ermission denied").count() == 2, "others look into the store\n{listed}");
    });
}

#[test]
fn state_that_is_damaged_is_reported_and_does_not_stop_other_containers() {
    each_mode(|m| {
        if !m.peer().is_sbx() {
            return support::skip(
                "state_that_is_damaged_is_reported_and_does_not_stop_other_containers",
                "it is about sbx's files",
            );
        }
        let good = m.detached(&["--name", "good"], &["sleep", "1000"]);
        let bad = m.ok(&["create", "--name", "bad", BUSYBOX]);
        let files = m.sh(&format!("find {}/containers/{bad} -type f -name '*.json'", m.at("root"))).expect_ok().stdout;
        assert!(!files.is_empty(), "plain JSON for each object");
        for (file, content) in
            files.lines().flat_map(|file| ["", "{", "[]", "{\"schema\":99}"].map(|content| (file, content)))
        {
            let kept = fs::read(file).expect("a readable file");
            fs::write(file, content).expect("a writable file");
            let output = m.sbx(&["inspect", "bad"]);
            assert!(!output.stderr.contains("panicked"), "{output}");
            assert_eq!(m.ok(&["exec", &good, "echo", "well"]), "well");
            assert!(!m.sbx(&["ps", "-a"]).stderr.contains("panicked"));
            fs::write(file, kept).expect("a writable file");
        }
        assert_eq!(m.inspect("bad", "{{.State.Status}}"), "created");
    });
}
