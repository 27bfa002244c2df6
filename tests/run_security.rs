//! What a container may not do: capabilities, system calls, paths, devices, privileges.

mod support;

use support::{BUSYBOX, Image, Machine, each_mode};

/// Docker's fourteen default capabilities as the kernel shows them (capabilities(7)).
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

#[test]
fn root_has_dockers_fourteen_capabilities_and_no_inheritable_ones() {
    each_mode(|m| {
        let shown = m.in_busybox(&[], "grep Cap /proc/self/status | awk '{ print $1 $2 }'");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(shown.contains(&format!("{set}:{DEFAULT_CAPABILITIES}")), "{shown}");
        }
        for set in ["CapInh", "CapAmb"] {
            // Docker before 20.10.14 had inheritable ones (CVE-2022-24769).
            assert!(shown.contains(&format!("{set}:0000000000000000")), "{shown}");
        }
    });
}

#[test]
fn another_user_has_no_capabilities_but_can_be_bounded_by_them() {
    each_mode(|m| {
        let shown = m.in_busybox(&["-u", "1000"], "grep Cap /proc/self/status | awk '{ print $1 $2 }'");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(shown.contains(&format!("{set}:0000000000000000")), "{shown}");
        }
        assert!(shown.contains(&format!("CapBnd:{DEFAULT_CAPABILITIES}")), "{shown}");
    });
}

#[test]
fn capabilities_are_added_and_dropped_in_any_spelling() {
    each_mode(|m| {
        let eff = |flags: &[&str]| m.in_busybox(flags, "awk '/CapEff/ { print $2 }' /proc/self/status");
        assert_eq!(eff(&["--cap-drop", "all", "--cap-add", "cap_net_raw"]), "0000000000002000");
        assert_eq!(eff(&["--cap-drop", "CAP_CHOWN"]), "00000000a80425fa");
        if short_of_capabilities(m) {
            return; // Docker gives all or nothing.
        }
        assert_eq!(eff(&["--cap-add", "all", "--cap-drop", "SYS_ADMIN"]).chars().last(), Some('f'));
        let all = u64::from_str_radix(&eff(&["--cap-add", "ALL"]), 16).expect("a number");
        let own = m.sh("awk '/CapBnd/ { print $2 }' /proc/self/status").expect_ok();
        assert_eq!(all, u64::from_str_radix(own.text(), 16).expect("a number"), "everything that the caller has");
    });
}

/// Whether Docker is under test by a root that has not every capability itself, which Docker cannot cope with.
fn short_of_capabilities(m: &Machine) -> bool {
    let script = "test $(awk '/CapBnd/ { print $2 }' /proc/self/status) = \
                  $(printf %016x $(( (1 << ($(cat /proc/sys/kernel/cap_last_cap) + 1)) - 1 )))";
    !m.peer().is_sbx() && m.sh(script).status != 0
}

/// Runs a command that must be denied inside; the text is what busybox says.
fn denied(m: &Machine, flags: &[&str], command: &str) {
    let output = m.sbx(&[&["run", "--rm"], flags, &[BUSYBOX, "sh", "-c", command]].concat());
    let said =
        output.stderr.contains("ermitted") || output.stderr.contains("denied") || output.stderr.contains("ead-only");
    assert!(output.status != 0 && said, "not denied\n{output}");
}

#[test]
fn a_seccomp_filter_is_on_and_denies_what_docker_denies() {
    each_mode(|m| {
        let shown = m.in_busybox(&[], "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status");
        assert_eq!(shown, "NoNewPrivs:\t0\nSeccomp:\t2");
        for command in
            ["unshare -U true", "unshare -m true", "mount -t tmpfs x /tmp", "umount /dev/shm", "pivot_root / /tmp"]
        {
            denied(m, &[], command);
        }
        assert_eq!(m.in_busybox(&["--security-opt", "seccomp=unconfined"], "unshare -U true && echo made"), "made");
        // A capability opens the system calls that need it.
        assert_eq!(m.in_busybox(&["--cap-add", "SYS_ADMIN"], "mount -t tmpfs x /tmp && echo mounted"), "mounted");
    });
}

#[test]
fn a_seccomp_profile_of_the_user_is_used() {
    each_mode(|m| {
        let file = m.at("profile.json");
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
        std::fs::write(&file, profile).expect("a new file");
        let option = format!("seccomp={file}");
        let shown = m.in_busybox(&["--security-opt", &option], "mkdir /x 2>&1 || true; unshare -U true && echo other");
        assert!(shown.contains("No space left on device") && shown.contains("other"), "{shown}");
        std::fs::write(&file, "{ not json").expect("a file");
        m.fails(&["run", "--rm", "--security-opt", &option, BUSYBOX, "true"], 125, "seccomp");
    });
}

#[test]
fn no_new_privileges_is_off_by_default_and_on_when_asked_for() {
    each_mode(|m| {
        for word in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"] {
            let shown = m.in_busybox(&["--security-opt", word], "awk '/NoNewPrivs/ { print $2 }' /proc/self/status");
            assert_eq!(shown, "1", "{word}");
        }
        m.fails(&["run", "--rm", "--security-opt", "nonsense=1", BUSYBOX, "true"], 125, "nonsense");
    });
}

#[test]
fn masked_paths_show_nothing() {
    each_mode(|m| {
        let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do \
                        [ ! -e $f ] || [ \"$(head -c 10 $f | wc -c)\" = 0 ] || echo $f; done; \
                      for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do \
                        [ ! -e $d ] || [ -z \"$(ls $d)\" ] || echo $d; done";
        assert_eq!(m.in_busybox(&[], script), "");
        // The mask is not taken away by asking, and is with Docker's word for it.
        let open = m.in_busybox(&["--security-opt", "systempaths=unconfined"], "head -c 10 /proc/timer_list | wc -c");
        assert_ne!(open, "0");
    });
}

#[test]
fn paths_of_the_kernel_are_read_only() {
    each_mode(|m| {
        let writable = "find /proc/sys /proc/irq /proc/bus /proc/fs /sys -type f -perm -200 2>/dev/null";
        for folder in ["/proc/sys", "/proc/irq", "/sys"] {
            // Opening for writing is enough to know, and does no harm where it is not denied.
            denied(m, &[], &format!("file=$({writable} | grep -m 1 ^{folder}/); : >>$file"));
        }
        denied(m, &[], "d=/sys/fs/cgroup; [ ! -d $d/memory ] || d=$d/memory; mkdir $d/x");
    });
}

#[test]
fn the_devices_are_dockers_and_no_others_open() {
    each_mode(|m| {
        // Kernels without /proc/kcore have no /dev/core.
        let listed = m.in_busybox(&[], "cd /dev; ls -d * | grep -v '^core$' | sort | tr '\\n' ' '");
        assert_eq!(listed, "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero");
        let modes =
            m.in_busybox(&[], "stat -c '%n %a %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty");
        let expected = "/dev/null 666 1:3\n/dev/zero 666 1:5\n/dev/full 666 1:7\n/dev/random 666 1:8\n\
                        /dev/urandom 666 1:9\n/dev/tty 666 5:0";
        assert_eq!(modes, expected);
        // Nodes can be made (CAP_MKNOD is a default) but not opened: here the memory, a console, a disk.
        for (kind, numbers) in [("c", "1 1"), ("c", "4 1"), ("b", "7 0")] {
            denied(m, &[], &format!("mknod /tmp/d {kind} {numbers} && cat /tmp/d"));
        }
    });
}

#[test]
fn privileged_gives_everything_that_the_caller_has() {
    each_mode(|m| {
        if short_of_capabilities(m) {
            return support::skip("privileged_gives_everything_that_the_caller_has", "Docker gives all or nothing");
        }
        let shown = m.in_busybox(&["--privileged"], "awk '/CapEff|^Seccomp:/ { print $2 }' /proc/self/status");
        let own = m.sh("awk '/CapBnd/ { print $2 }' /proc/self/status").expect_ok();
        assert_eq!(shown, format!("{}\n0", own.text()));
        assert_eq!(m.in_busybox(&["--privileged"], "mount -t tmpfs x /tmp && echo mounted"), "mounted");
        let devices = m.in_busybox(&["--privileged"], "ls -d /dev/loop-control /dev/kmsg");
        assert_eq!(devices, "/dev/kmsg\n/dev/loop-control");
        assert_eq!(
            m.in_busybox(&["--privileged"], "touch /sys/fs/cgroup && [ -w /proc/sys/kernel/hostname ] && echo w"),
            "w"
        );
    });
}

#[test]
fn the_first_process_inherits_no_descriptor_but_its_three() {
    each_mode(|m| {
        // The fourth is the folder that ls itself reads.
        let leaky = "exec 7</etc/passwd 9</etc; exec \"$@\"";
        let mut command = m.command("sh");
        command.args(["-c", leaky, "sh", &m.peer().program()]);
        m.peer().add_arguments(m, &mut command, &["run", "--rm", BUSYBOX, "ls", "/proc/self/fd"]);
        let output = support::output::Running::start(command, Some(b"")).finish(support::DEADLINE).expect_ok();
        assert_eq!(output.stdout, "0\n1\n2\n3\n");
        let id = m.detached(&[], &["sleep", "1000"]);
        assert_eq!(m.ok(&["exec", &id, "ls", "/proc/self/fd"]), "0\n1\n2\n3");
        assert_eq!(m.ok(&["exec", &id, "ls", "/proc/1/fd"]), "0\n1\n2");
    });
}

#[test]
fn users_that_are_out_of_range_never_become_root() {
    each_mode(|m| {
        // CVE-2024-40635: a number that does not fit must not wrap around, nor be looked up as something else.
        for user in ["4294967296", "2147483648", "-1", "0x0", "1:99999999999", "99999999999", "1000:nobody"] {
            let output = m.sbx(&["run", "--rm", &format!("--user={user}"), BUSYBOX, "id"]);
            assert_ne!(output.status, 0, "{user} is no user\n{output}");
        }
        assert_eq!(m.in_busybox(&["-u", "2147483647"], "id -u"), "2147483647");
    });
}

#[test]
fn groups_are_only_those_of_the_image() {
    each_mode(|m| {
        assert_eq!(m.in_busybox(&[], "id -G"), "0");
        assert_eq!(m.in_busybox(&["-u", "alice"], "id -G"), "1000 50");
        assert_eq!(m.in_busybox(&["-u", "alice:audio"], "id -u; id -g; id -G"), "1000\n29\n29");
        assert_eq!(m.in_busybox(&["-u", "1234:5678"], "id -u; id -G"), "1234\n5678");
        assert_eq!(m.in_busybox(&["-u", "0:0", "--group-add", "staff"], "id -G"), "0 50");
        m.load(&Image::busybox_with("test/user:1", &[("User", serde_json::json!("alice"))]));
        assert_eq!(m.ok(&["run", "--rm", "test/user:1", "id", "-un"]), "alice");
    });
}

#[test]
fn the_host_name_cannot_be_changed_and_the_clock_cannot_be_set() {
    each_mode(|m| {
        denied(m, &[], "hostname other");
        denied(m, &[], "date -s 2001-01-01 2>&1 | grep ermitted >&2; false");
        denied(m, &[], "swapoff -a || swapon /etc/passwd");
    });
}

#[test]
fn paths_inside_that_point_outside_stay_inside() {
    each_mode(|m| {
        // CVE-2024-21626 and the family of swapped mount targets: everything is resolved inside the root.
        use support::tarball::{Entry, archive};
        let layer = archive(&[
            Entry::symlink("escape", "/../../../../etc"),
            Entry::symlink("data/link", "/etc"),
            Entry::symlink("dev", "/etc"),
            Entry::symlink("var/run", "/data"),
        ]);
        m.load(&Image::busybox_under("test/escape:1", vec![layer]));
        let canary = m.at("canary");
        std::fs::create_dir(&canary).expect("a new folder");
        let run = |flags: &[&str], script: &str| {
            m.sbx(&[&["run", "--rm"], flags, &["test/escape:1", "sh", "-c", script]].concat())
        };
        let before = m.sh("find /etc -maxdepth 1 | sort | md5sum").expect_ok().stdout;
        run(&["-v", &format!("{canary}:/escape/made")], "ls -d /etc/made");
        run(&["-w", "/proc/self/fd/7"], "pwd");
        run(&["--tmpfs", "/data/link/tmp"], "true");
        run(&[], "ls /dev");
        assert_eq!(m.sh("find /etc -maxdepth 1 | sort | md5sum").expect_ok().stdout, before, "the host's /etc changed");
        for fd in 3..20 {
            let output = run(&["-w", &format!("/proc/self/fd/{fd}")], "ls -d ../../../../etc/not-executable");
            let inside = output.status != 0 || output.stdout.contains("not-executable");
            assert!(inside, "the working folder leads out of the container\n{output}");
        }
    });
}

#[test]
fn a_private_user_namespace_is_a_container_like_any_other() {
    each_mode(|m| {
        let flags = ["--userns", "private", "-v", "owned:/data", "--tmpfs", "/fast", "--memory", "64m", "--init"];
        let c = m.detached(&flags, &["sleep", "1000"]);
        let sh = |script: &str| m.ok(&["exec", &c, "sh", "-c", script]);
        assert_eq!(sh("awk '{ print $1, $3 }' /proc/self/uid_map /proc/self/gid_map"), "0 65536\n0 65536");
        assert_eq!(sh("stat -c '%u:%g %a' / /bin/busybox /dev/null /data/seed"), "0:0 755\n0:0 755\n0:0 666\n0:0 644");
        assert_eq!(sh("touch /new /data/new /fast/new && stat -c %u /new /data/new /fast/new"), "0\n0\n0");
        assert_eq!(
            sh("chown 1000:1000 /data/new && stat -c %u:%g /data/new; echo x >/dev/null; hostname"),
            format!("1000:1000\n{}", &c[..12])
        );
        assert_eq!(
            m.ok(&["exec", "-u", "1000:1000", &c, "sh", "-c", "id -u; touch /tmp/mine; stat -c %u /tmp/mine"]),
            "1000\n1000"
        );
        assert_eq!(m.ok(&["exec", "-t", &c, "tty"]), "/dev/pts/0");
        m.ok(&["restart", "-t", "0", &c]);
        assert_eq!(sh("cat /proc/1/oom_score_adj; stat -c %u:%g /new /data/new"), "0\n0:0\n1000:1000");
        let limits = ["--userns", "private", "--oom-score-adj", "300", "--ulimit", "nofile=100:200"];
        assert_eq!(m.in_busybox(&limits, "cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn"), "300\n100\n200");
        let own = m.in_busybox(&["--userns", "private", "--read-only"], "touch /x 2>/dev/null || echo fixed");
        assert_eq!(own, "fixed");
        m.ok(&["rm", "-f", &c]);
        m.ok(&["volume", "rm", "owned"]);
    });
}
