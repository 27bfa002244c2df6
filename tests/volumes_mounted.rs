//! Volumes that stand for a mount (`--opt type=…,device=…,o=…`) and images as mounts: made at the start, shared by all who
//! use them, gone with the last of them, however that ends.

mod support;

use std::fs;

use serde_json::json;
use support::tarball::{Entry, archive};
use support::{BUSYBOX, Image, Machine, each_mode, eventually};

fn create(m: &Machine, name: &str, options: &[&str]) {
    let options: Vec<&str> = options.iter().flat_map(|option| ["--opt", option]).collect();
    assert_eq!(m.ok(&[&["volume", "create"], &options[..], &[name]].concat()), name);
}

/// Whether something is mounted on the data of a volume, on the host.
fn is_mounted(m: &Machine, volume: &str) -> bool {
    let path = m.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]);
    m.sh(&format!("grep -c ' {path} ' /proc/self/mountinfo || true")).expect_ok().text() != "0"
}

/// Kills a container's supervisor, and waits until no process of it is left.
fn kill_supervisor(m: &Machine, id: &str) {
    // The brackets keep the pattern from finding the shell that looks for it.
    m.sh(&format!("kill -KILL $(pgrep -f '[s]upervise {id}')")).expect_ok();
    eventually("the end of the supervisor", || {
        (m.sh(&format!("pgrep -f '[s]upervise {id}' || true")).expect_ok().text().is_empty()).then_some(())
    });
}

#[test]
fn a_tmpfs_volume_is_shared_while_it_is_used_and_empty_afterwards() {
    each_mode(|m| {
        create(m, "fast", &["type=tmpfs", "device=tmpfs", "o=size=2m,mode=1750,noexec"]);
        assert!(!is_mounted(m, "fast"), "nobody uses it");
        let one = m.detached(&["-v", "fast:/fast"], &["sleep", "1000"]);
        assert!(is_mounted(m, "fast"));
        let script = "stat -c %a /fast; df -k /fast | awk 'END { print $2 }'; echo hello >/fast/x";
        assert_eq!(m.ok(&["exec", &one, "sh", "-c", script]), "1750\n2048");
        assert_eq!(m.in_busybox(&["-v", "fast:/other:ro"], "cat /other/x"), "hello");
        assert!(is_mounted(m, "fast"), "one of two has ended");
        m.fails(&["volume", "rm", "fast"], 1, "in use");
        m.ok(&["restart", "-t", "0", &one]);
        assert_eq!(m.ok(&["exec", &one, "ls", "-A", "/fast"]), "", "nothing outlives the last use");
        m.ok(&["rm", "-f", &one]);
        assert!(!is_mounted(m, "fast"));
        // Docker shows nothing of the image either: it fills such a volume before the start, and unmounts it.
        assert_eq!(m.in_busybox(&["-v", "fast:/data"], "ls -A /data"), "");
        m.ok(&["volume", "rm", "fast"]);
    });
}

#[test]
fn a_bind_volume_is_its_folder_with_its_options() {
    each_mode(|m| {
        let folder = m.at("shared");
        fs::create_dir_all(m.path("shared/sub")).expect("a new folder");
        fs::write(m.path("shared/sub/file"), "outside\n").expect("a new file");
        create(m, "bound", &["type=none", &format!("device={folder}"), "o=bind"]);
        create(m, "readable", &["type=none", &format!("device={folder}"), "o=bind,ro"]);
        assert_eq!(m.in_busybox(&["-v", "bound:/m"], "cat /m/sub/file; echo x >/m/new"), "outside");
        assert_eq!(m.in_busybox(&["-v", "readable:/m"], "cat /m/new; touch /m/no 2>/dev/null || echo ro"), "x\nro");
        let below = "type=volume,src=bound,dst=/m,volume-subpath=sub";
        assert_eq!(m.in_busybox(&["--mount", below], "ls /m"), "file");
        // Without a name it goes with its container, and only the volume does.
        let text = format!("type=volume,dst=/m,volume-opt=type=none,volume-opt=device={folder},volume-opt=o=bind");
        assert_eq!(m.in_busybox(&["--mount", &text], "ls /m"), "new\nsub");
        m.ok(&["volume", "rm", "bound", "readable"]);
        assert_eq!(m.ok(&["volume", "ls", "-q"]), "");
        assert_eq!(fs::read_to_string(m.path("shared/sub/file")).expect("the file"), "outside\n");
        // An empty folder is filled from the image, as any empty volume.
        fs::create_dir(m.path("empty")).expect("a new folder");
        create(m, "filled", &["type=none", &format!("device={}", m.at("empty")), "o=bind"]);
        assert_eq!(m.in_busybox(&["-v", "filled:/data"], "cat /data/seed"), "from the image");
        assert!(m.path("empty/seed").exists());
        m.ok(&["volume", "rm", "filled"]);
    });
}

#[test]
fn a_volume_that_cannot_be_mounted_says_why_and_leaves_nothing() {
    each_mode(|m| {
        let missing = m.at("nowhere");
        for (options, words) in [
            (vec!["type=none".to_owned(), format!("device={missing}"), "o=bind".to_owned()], "nowhere"),
            (vec!["type=tmpfs".to_owned(), "device=tmpfs".to_owned(), "o=colour=red".to_owned()], "colour=red"),
            (vec!["type=nfs".to_owned(), "device=:/export".to_owned(), "o=vers=4".to_owned()], "o=addr="),
            (
                vec!["type=nfs".to_owned(), "device=:/export".to_owned(), "o=addr=no.such.host.invalid".to_owned()],
                "no.such.host.invalid",
            ),
            (
                vec![
                    "type=nfs".to_owned(),
                    "device=:/export".to_owned(),
                    "o=addr=localhost,vers=4,soft,timeo=1,retrans=0".to_owned(),
                ],
                "mount :/export",
            ),
        ] {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            create(m, "broken", &options);
            m.fails(&["run", "--rm", "-v", "broken:/m", BUSYBOX, "true"], 125, words);
            assert!(!is_mounted(m, "broken"));
            m.ok(&["volume", "rm", "broken"]);
        }
        m.fails(&["volume", "create", "-o", "type=ext4", "-o", "device=/dev/sda1", "x"], 1, "ext4");
    });
}

#[test]
fn mounts_of_killed_supervisors_are_taken_away_by_the_next_command() {
    each_mode(|m| {
        let folder = m.at("shared");
        fs::create_dir(m.path("shared")).expect("a new folder");
        fs::write(m.path("shared/file"), "precious\n").expect("a new file");
        create(m, "bound", &["type=none", &format!("device={folder}"), "o=bind"]);
        let image = format!("type=image,src={BUSYBOX},dst=/image");
        let id = m.detached(&["-v", "bound:/m", "--mount", &image], &["sleep", "1000"]);
        kill_supervisor(m, &id);
        assert!(!is_mounted(m, "bound"), "the command that asks has cleared it");
        m.ok(&["rm", "-f", &id]);
        m.ok(&["volume", "rm", "bound"]);
        assert_eq!(fs::read_to_string(m.path("shared/file")).expect("the file"), "precious\n");
        // What is mounted by somebody else is not removed either.
        create(m, "busy", &["type=none", &format!("device={folder}"), "o=bind"]);
        let data = m.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "busy"]);
        m.sh(&format!("mount --bind {folder} {data}")).expect_ok();
        m.fails(&["volume", "rm", "busy"], 1, "busy");
        m.sh(&format!("umount {data}")).expect_ok();
        m.ok(&["volume", "rm", "busy"]);
        assert!(m.path("shared/file").exists());
    });
}

#[test]
fn an_image_is_mounted_read_only_with_all_its_layers() {
    each_mode(|m| {
        let upper = archive(&[
            Entry::folder("tools/", 0o755),
            Entry::file("tools/hello", 0o755, "#!/bin/sh\necho hello\n"),
            Entry::file("data/.wh.seed", 0o644, ""),
            Entry::symlink("out", "/etc"),
        ]);
        m.load(&Image::busybox_under("test/tools:1", vec![upper]));
        let run = |mount: &str, script: &str| m.in_busybox(&["--mount", mount], script);
        let whole = "type=image,source=test/tools:1,target=/t";
        assert_eq!(run(whole, "/t/tools/hello; ls /t/data; touch /t/x 2>&1 | grep -c 'Read-only'"), "hello\n1");
        assert_eq!(run("type=image,src=test/tools:1,dst=/t,image-subpath=tools", "ls /t"), "hello");
        assert_eq!(run("type=image,src=test/tools:1,dst=/h,image-subpath=tools/hello", "/h"), "hello");
        let fails = |mount: &str, words: &str| {
            m.fails(&["run", "--rm", "--mount", mount, BUSYBOX, "true"], 125, words);
        };
        fails("type=image,src=test/tools:1,dst=/t,image-subpath=nothing", "nothing");
        fails("type=image,src=test/tools:1,dst=/t,image-subpath=../etc", "subpath");
        fails("type=image,src=test/tools:1,dst=/t,image-subpath=out/passwd", "out/passwd");
        fails("type=image,src=test/nothing:1,dst=/t", "test/nothing:1");
        fails("type=image,dst=/t", "source");
    });
}

#[test]
fn a_mounted_image_is_shared_and_stays_with_its_containers() {
    each_mode(|m| {
        let added = archive(&[Entry::file("added", 0o644, "one\n")]);
        m.load(&Image::busybox_under("test/tools:1", vec![added]));
        let flags = ["--mount", "type=image,src=test/tools:1,dst=/t"];
        let ids: Vec<String> = (0..2).map(|_| m.detached(&flags, &["sleep", "1000"])).collect();
        let mounted = "awk '$5 ~ \"/image-\" { n += 1 } END { print n + 0 }' /proc/self/mountinfo";
        assert_eq!(m.sh(mounted).expect_ok().text(), "1", "one mount for both");
        let shown: serde_json::Value = serde_json::from_str(&m.inspect(&ids[0], "{{json .Mounts}}")).expect("JSON");
        assert_eq!(
            (&shown[0]["Type"], &shown[0]["Destination"], &shown[0]["RW"]),
            (&json!("image"), &json!("/t"), &json!(false))
        );
        m.fails(&["rmi", "test/tools:1"], 1, "is using its referenced image");
        m.ok(&["rm", "-f", &ids[0]]);
        // The name may go to another image: what is mounted, and what a restart mounts, stays.
        let other = archive(&[Entry::file("added", 0o644, "two\n")]);
        m.load(&Image::busybox_under("test/tools:1", vec![other]));
        m.ok(&["restart", "-t", "0", &ids[1]]);
        assert_eq!(m.ok(&["exec", &ids[1], "cat", "/t/added"]), "one");
        assert_eq!(m.in_busybox(&flags, "cat /t/added"), "two");
        m.ok(&["rm", "-f", &ids[1]]);
        assert_eq!(m.sh(mounted).expect_ok().text(), "0");
    });
}
