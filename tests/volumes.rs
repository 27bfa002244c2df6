//! Binds, named and anonymous volumes, tmpfs mounts, and the verbs of `volume`.

mod support;

use std::fs;

use support::machine::Mode;
use support::{BUSYBOX, Image, Machine, each_mode};

/// A folder outside with one file in it.
fn shared(m: &Machine, name: &str) -> String {
    let folder = m.path(name);
    fs::create_dir(&folder).expect("a new folder");
    fs::write(folder.join("file"), "outside\n").expect("a new file");
    m.at(name)
}

#[test]
fn a_folder_of_the_host_is_the_same_folder_inside() {
    each_mode(|m| {
        let folder = shared(m, "shared");
        let shown = m.in_busybox(
            &["-v", &format!("{folder}:/mnt/in")],
            "cat /mnt/in/file; echo inside >/mnt/in/new; chown 7:8 /mnt/in/new",
        );
        assert_eq!(shown, "outside");
        assert_eq!(fs::read_to_string(format!("{folder}/new")).expect("the new file"), "inside\n");
        assert_eq!(m.sh(&format!("stat -c %u:%g {folder}/new")).expect_ok().text(), "7:8");
    });
}

#[test]
fn read_only_means_read_only_for_the_mounts_below_as_well() {
    each_mode(|m| {
        let folder = shared(m, "shared");
        m.sh(&format!("mkdir {folder}/sub; mount -t tmpfs sub {folder}/sub")).expect_ok();
        let script = "for f in /m/x /m/sub/x; do touch $f 2>/dev/null && echo wrote $f; done; cat /m/file";
        let shown = m.in_busybox(&["-v", &format!("{folder}:/m:ro")], script);
        if m.peer().is_sbx() {
            assert_eq!(shown, "outside"); // Docker does so since 25.0
        }
        let shown =
            m.in_busybox(&["--mount", &format!("type=bind,src={folder},dst=/m,readonly")], "touch /m/x 2>&1 || true");
        assert!(shown.contains("Read-only file system"), "{shown}");
        m.sh(&format!("umount {folder}/sub")).expect_ok();
    });
}

#[test]
fn a_single_file_can_be_bound_alone() {
    each_mode(|m| {
        let folder = shared(m, "shared");
        fs::write(format!("{folder}/other"), "").expect("a new file");
        let shown =
            m.in_busybox(&["-v", &format!("{folder}/file:/opt/made/file:ro")], "cat /opt/made/file; ls /opt/made");
        assert_eq!(shown, "outside\nfile");
    });
}

#[test]
fn v_makes_a_missing_source_and_mount_does_not() {
    each_mode(|m| {
        let missing = m.at("made/by/v");
        m.in_busybox(&["-v", &format!("{missing}:/m")], "touch /m/x");
        assert!(fs::exists(format!("{missing}/x")).expect("a path can be looked at"));
        let missing = m.at("never/made");
        m.fails(
            &["run", "--rm", "--mount", &format!("type=bind,src={missing},dst=/m"), BUSYBOX, "true"],
            125,
            &missing,
        );
        assert!(!fs::exists(&missing).expect("a path can be looked at"));
    });
}

#[test]
fn mount_takes_what_v_takes_and_more() {
    each_mode(|m| {
        let folder = shared(m, "shared");
        let run = |mount: &str, script: &str| m.in_busybox(&["--mount", mount], script);
        assert_eq!(run(&format!("type=bind,source={folder},target=/m"), "cat /m/file"), "outside");
        assert_eq!(
            run("type=tmpfs,dst=/m,tmpfs-size=2m,tmpfs-mode=700", "stat -c %a /m; df -k /m | awk 'END { print $2 }'"),
            "700\n2048"
        );
        run("type=volume,src=kept,dst=/m", "echo v >/m/x");
        assert_eq!(run("src=kept,dst=/m,ro", "cat /m/x; touch /m/y 2>/dev/null || echo ro"), "v\nro");
        assert_eq!(run("type=volume,src=bare,dst=/data,volume-nocopy", "ls /data"), "");
        for wrong in [
            "type=bind,src=/etc",
            "type=nonsense,src=/etc,dst=/m",
            "type=bind,dst=/m",
            "type=bind,src=/etc,dst=/m,colour=red",
            "type=bind,src=relative,dst=/m",
            "type=tmpfs,src=/etc,dst=/m",
        ] {
            m.fails(&["run", "--rm", "--mount", wrong, BUSYBOX, "true"], 125, "mount");
        }
        m.ok(&["volume", "rm", "kept", "bare"]);
    });
}

#[test]
fn a_named_volume_is_filled_from_the_image_once_and_survives() {
    each_mode(|m| {
        assert_eq!(m.in_busybox(&["-v", "vol:/data"], "cat /data/seed; echo more >/data/more"), "from the image");
        assert_eq!(m.in_busybox(&["-v", "vol:/data"], "cat /data/more; rm /data/seed"), "more");
        assert_eq!(m.in_busybox(&["-v", "vol:/data"], "ls /data"), "more");
        assert_eq!(
            m.in_busybox(&["-v", "vol:/home/alice"], "ls /home/alice"),
            "more",
            "a volume with content is left alone"
        );
        // Owner and mode of the folder that it covers come along with the content.
        assert_eq!(m.in_busybox(&["-v", "owned:/home/alice"], "stat -c '%u %g %a' /home/alice"), "1000 1000 750");
        m.ok(&["volume", "rm", "vol", "owned"]);
    });
}

#[test]
fn the_image_declares_volumes_that_are_made_for_each_container() {
    each_mode(|m| {
        m.load(&Image::busybox_with("test/volume:1", &[("Volumes", serde_json::json!({ "/data": {} }))]));
        m.ok(&["create", "--name", "one", "test/volume:1", "cat", "/data/seed"]);
        assert_eq!(m.ok(&["start", "-a", "one"]), "from the image");
        let name = m.inspect("one", "{{(index .Mounts 0).Name}}");
        assert_eq!((name.len(), m.inspect("one", "{{(index .Mounts 0).Destination}}").as_str()), (64, "/data"));
        m.ok(&["rm", "one"]);
        assert_eq!(m.ok(&["volume", "ls", "-q"]), name, "without -v it stays");
        m.ok(&["volume", "rm", &name]);
    });
}

#[test]
fn volumes_from_brings_the_volumes_of_another_container() {
    each_mode(|m| {
        let folder = shared(m, "shared");
        m.ok(&["create", "--name", "source", "-v", "/anonymous", "-v", &format!("{folder}:/bound"), BUSYBOX]);
        m.in_busybox(&["--volumes-from", "source"], "echo x >/anonymous/x; cat /bound/file");
        assert_eq!(
            m.in_busybox(
                &["--volumes-from", "source:ro"],
                "cat /anonymous/x; touch /anonymous/y 2>/dev/null || echo ro"
            ),
            "x\nro"
        );
        m.fails(&["run", "--rm", "--volumes-from", "nobody", BUSYBOX, "true"], 125, "nobody");
        m.fails(&["run", "--rm", "--volumes-from", "source:sideways", BUSYBOX, "true"], 125, "sideways");
    });
}

#[test]
fn volume_verbs_create_list_inspect_remove_and_prune() {
    each_mode(|m| {
        assert_eq!(m.ok(&["volume", "create", "--label", "a=b", "one"]), "one");
        assert_eq!(m.ok(&["volume", "create", "one"]), "one", "a second time is no error");
        let anonymous = m.ok(&["volume", "create"]);
        assert_eq!(anonymous.len(), 64);
        let shown: serde_json::Value = serde_json::from_str(&m.ok(&["volume", "inspect", "one"])).expect("JSON");
        assert_eq!(
            (&shown[0]["Name"], &shown[0]["Driver"], &shown[0]["Labels"]["a"]),
            (&"one".into(), &"local".into(), &"b".into())
        );
        let path = m.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "one"]);
        m.in_busybox(&["-v", "one:/m"], "echo here >/m/x");
        assert_eq!(m.sh(&format!("cat {path}/x")).expect_ok().text(), "here");
        assert!(m.ok(&["volume", "ls"]).starts_with("DRIVER"), "a table with a header");
        assert_eq!(m.ok(&["volume", "ls", "-q", "--filter", "label=a"]), "one");
        m.ok(&["create", "--name", "user", "-v", "one:/m", BUSYBOX]);
        m.fails(&["volume", "rm", "one"], 1, "in use");
        assert_eq!(m.ok(&["volume", "ls", "-q", "--filter", "dangling=false"]), "one");
        m.ok(&["rm", "user"]);
        m.ok(&["volume", "prune", "-f"]);
        assert!(!m.ok(&["volume", "ls", "-q"]).contains(&anonymous), "prune takes the anonymous ones");
        if m.peer().is_sbx() {
            m.ok(&["volume", "prune", "-f", "-a"]);
        } else {
            m.ok(&["volume", "rm", "-f", "one"]); // Debian's Docker prunes them all at once.
        }
        assert_eq!(m.ok(&["volume", "ls", "-q"]), "");
        m.fails(&["volume", "rm", "one"], 1, "one");
        m.ok(&["volume", "rm", "-f", "one"]);
        m.fails(&["volume", "inspect", "one"], 1, "one");
        m.fails(&["volume", "create", "../escape"], 1, "escape");
        m.fails(&["volume", "create", "-d", "no-such-driver", "x"], 1, "no-such-driver");
    });
}

#[test]
fn propagation_is_private_unless_asked_for() {
    each_mode(|m| {
        let folder = shared(m, "shared");
        m.sh(&format!("mount --bind {folder} {folder}; mount --make-shared {folder}; mkdir {folder}/late")).expect_ok();
        for (option, seen) in [("rprivate", "no"), ("rslave", "yes"), ("rshared", "yes")] {
            if m.mode() == Mode::Vm && seen == "yes" {
                let bind = format!("{folder}:/m:{option}");
                m.fails(&["run", "--rm", "-v", &bind, BUSYBOX, "true"], 125, &format!("bind propagation {option}"));
                continue;
            }
            let id = m.detached(&["-v", &format!("{folder}:/m:{option}")], &["sleep", "1000"]);
            m.sh(&format!("mount -t tmpfs late {folder}/late; touch {folder}/late/there")).expect_ok();
            let shown = m.ok(&["exec", &id, "sh", "-c", "[ -e /m/late/there ] && echo yes || echo no"]);
            m.sh(&format!("umount {folder}/late")).expect_ok();
            assert_eq!(shown, seen, "{option}");
            m.ok(&["rm", "-f", &id]);
        }
        m.sh(&format!("umount {folder}")).expect_ok();
    });
}

#[test]
fn mounts_inside_each_other_are_made_from_the_outermost() {
    each_mode(|m| {
        let folder = shared(m, "shared");
        let flags = ["-v", "inner:/a/b/c", "-v", &format!("{folder}:/a"), "--tmpfs", "/a/b"];
        assert_eq!(
            m.in_busybox(&flags, "cat /a/file; touch /a/b/c/x; awk '$2 ~ \"^/a\" { print $2 }' /proc/mounts | sort"),
            "outside\n/a\n/a/b\n/a/b/c"
        );
        m.ok(&["volume", "rm", "inner"]);
        m.fails(&["run", "--rm", "-v", "one:/m", "-v", "two:/m", BUSYBOX, "true"], 125, "/m");
    });
}

#[test]
fn binds_show_in_inspect_as_they_are() {
    each_mode(|m| {
        let folder = shared(m, "shared");
        let id = m.ok(&["create", "-v", &format!("{folder}:/m:ro"), BUSYBOX]);
        let mounts: serde_json::Value = serde_json::from_str(&m.inspect(&id, "{{json .Mounts}}")).expect("JSON");
        let one = &mounts[0];
        assert_eq!(
            (&one["Type"], &one["Source"], &one["Destination"], &one["RW"]),
            (&"bind".into(), &folder.clone().into(), &"/m".into(), &false.into())
        );
        assert_eq!(m.inspect(&id, "{{json .HostConfig.Binds}}"), format!("[\"{folder}:/m:ro\"]"));
    });
}

#[test]
fn relative_paths_of_v_are_those_of_the_caller() {
    each_mode(|m| {
        fs::create_dir(m.path("home/here")).expect("a new folder");
        fs::write(m.path("home/here/file"), "relative\n").expect("a new file");
        assert_eq!(m.in_busybox(&["-v", "./here:/m"], "cat /m/file"), "relative");
    });
}
