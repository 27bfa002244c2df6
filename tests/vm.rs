//! What only a machine of its own can show, and what it refuses. Everything else is tested by the same bodies as process
//! mode (`SBX_TEST_MODES=vm`).

mod support;

use support::machine::{Mode, modes};
use support::unix_socket::Server;
use support::{BUSYBOX, Machine, each_mode};

/// Runs a body where VM mode is under test.
#[track_caller]
fn in_vm(name: &str, body: impl Fn(&Machine)) {
    if !modes().contains(&Mode::Vm) {
        return support::skip(name, "VM mode is not under test here (SBX_TEST_MODES)");
    }
    each_mode(|m| {
        if m.mode() == Mode::Vm {
            body(m);
        }
    });
}

#[test]
fn the_container_runs_on_a_kernel_of_its_own() {
    in_vm("the_container_runs_on_a_kernel_of_its_own", |m| {
        let ours = m.sh("uname -r").expect_ok().text().to_owned();
        let its = m.in_busybox(&[], "uname -r");
        assert_ne!(ours, its);
        assert!(its.starts_with("6.12"), "{its}");
        assert_eq!(m.in_busybox(&["--isolation=hyperv"], "uname -r"), its);
        assert_eq!(m.in_busybox(&["--isolation=auto"], "uname -r"), its, "where virtual machines run, auto takes one");
        assert_eq!(m.in_busybox(&["--isolation=process"], "uname -r"), ours);
    });
}

#[test]
fn inspect_says_which_mode_it_is_and_where_limits_are_enforced() {
    in_vm("inspect_says_which_mode_it_is_and_where_limits_are_enforced", |m| {
        let id = m.ok(&["create", "--memory", "64m", "--cpus", "0.5", BUSYBOX, "true"]);
        assert_eq!(m.inspect(&id, "{{.HostConfig.Isolation}}"), "vm");
        assert_eq!(m.inspect(&id, "{{.Enforcement.Memory}}"), "guest cgroup");
    });
}

#[test]
fn the_writable_disk_has_the_size_asked_for() {
    in_vm("the_writable_disk_has_the_size_asked_for", |m| {
        let script = "df -m / | tail -1 | awk '{ print $2 }'";
        let size: u64 = m.in_busybox(&["--storage-opt", "size=512m"], script).parse().expect("MiB");
        assert!((400..=512).contains(&size), "{size}");
        let output = m.in_busybox(&["--storage-opt", "size=64m"], "dd if=/dev/zero of=/x bs=1M count=100 2>&1; true");
        assert!(output.contains("No space left on device"), "{output}");
    });
}

#[test]
fn doctor_knows_that_both_modes_can_be_used() {
    in_vm("doctor_knows_that_both_modes_can_be_used", |m| {
        assert_eq!(m.ok(&["doctor", "--isolation", "vm", "--format", "{{.Vm}}"]), "true");
        assert_eq!(m.ok(&["info", "--format", "{{json .VmObstacle}}"]), "null");
        let report: serde_json::Value = serde_json::from_str(&m.ok(&["doctor", "--format", "json"])).expect("JSON");
        let checks = report["Checks"].as_array().expect("a list of checks");
        assert!(checks.iter().any(|check| check["Name"] == "KVM" && check["Verdict"] == "ok"), "{report}");
    });
}

#[test]
fn what_would_need_the_hosts_kernel_is_refused_by_name() {
    in_vm("what_would_need_the_hosts_kernel_is_refused_by_name", |m| {
        for (flag, text) in [
            ("--network=host", "--network host is not possible with --isolation=vm"),
            ("--pid=host", "--pid host"),
            ("--ipc=host", "--ipc host"),
            ("--uts=host", "--uts host"),
            ("--cgroupns=host", "--cgroupns host"),
            ("-v=/:/host:rshared", "bind propagation rshared"),
            ("-v=/dev/null:/null", "/dev/null is a device of the host"),
            ("--device=/dev/sbx-none", "/dev/sbx-none"),
        ] {
            let output = m.sbx(&["run", "--rm", flag, BUSYBOX, "true"]);
            assert_eq!(output.status, 125, "{flag}: {output}");
            assert!(output.stderr.contains(text), "{flag}: {output}");
        }
    });
}

#[test]
fn a_machine_is_shared_only_by_those_who_are_in_it() {
    in_vm("a_machine_is_shared_only_by_those_who_are_in_it", |m| {
        let first = m.detached(&["--name", "first"], &["sleep", "1000"]);
        let outside = m.detached(&["--isolation=process", "--name", "outside"], &["sleep", "1000"]);
        let alone = m.detached(&["--name", "alone", "--ipc=shareable"], &["sleep", "1000"]);
        let joins = |name: &str| format!("--network=container:{name}");
        for (flags, text) in [
            (vec!["--isolation=process", joins("first").as_str()], "container first is in a virtual machine"),
            (vec!["--isolation=vm", joins("outside").as_str()], "container outside runs on the host's kernel"),
            (
                vec![joins("first").as_str(), "--ipc=container:alone"],
                "name containers in two virtual machines, first and alone",
            ),
            (vec![joins("outside").as_str(), "--ipc=container:alone"], "nobody can join both"),
            (
                vec![joins("first").as_str(), "--cpuset-cpus=0"],
                "--cpuset-cpus is not possible with --isolation=vm and --network",
            ),
            (vec![joins("first").as_str(), "--device-read-bps=/dev/loop0:1m"], "--device-read-bps is not possible"),
        ] {
            let output = m.sbx(&[&["run", "--rm"], &flags[..], &[BUSYBOX, "true"]].concat());
            assert_eq!(output.status, 125, "{flags:?}: {output}");
            assert!(output.stderr.contains(text), "{flags:?}: {output}");
        }
        // Whoever leaves it open, or open where it can be, is where the other is.
        let auto = m.detached(&["--isolation=auto", &joins("outside")], &["sleep", "1000"]);
        assert_eq!(m.inspect(&auto, "{{.HostConfig.Isolation}}"), "process");
        let kernel = |flags: &[&str]| m.in_busybox(flags, "uname -v; cat /proc/sys/kernel/random/boot_id");
        let boot = m.ok(&["exec", &first, "sh", "-c", "uname -v; cat /proc/sys/kernel/random/boot_id"]);
        assert_eq!(kernel(&[&joins("first")]), boot.trim_end());
        assert_ne!(kernel(&[&joins("alone")]), boot.trim_end());
        for id in [first, outside, alone, auto] {
            m.ok(&["rm", "-f", &id]);
        }
    });
}

#[test]
fn who_shares_a_machine_that_is_killed_ends_with_it_and_can_start_again() {
    in_vm("who_shares_a_machine_that_is_killed_ends_with_it_and_can_start_again", |m| {
        m.detached(&["--name", "first"], &["sleep", "1000"]);
        let script = "echo x >>/file; sync; exec sleep 1000";
        let flags = ["--network=container:first", "-v", "kept:/kept"];
        m.detached(&[&flags[..], &["--name", "second"]].concat(), &["sh", "-c", script]);
        support::eventually("what it writes", || {
            (m.sbx(&["exec", "second", "cat", "/file"]).status == 0).then_some(())
        });
        let machine: i32 = m.inspect("first", "{{.State.Pid}}").parse().expect("a process id");
        assert_eq!(m.inspect("second", "{{.State.Pid}}"), machine.to_string(), "there is one machine");
        m.sh(&format!("kill -9 {machine}")).expect_ok();
        for name in ["first", "second"] {
            m.await_inspect(name, "{{.State.Running}} {{.State.ExitCode}}", "false 137");
            let reason = m.inspect(name, "{{.State.Error}}");
            assert!(reason.contains("virtual machine") && reason.contains("ended"), "{name}: {reason}");
        }
        m.ok(&["start", "first"]);
        m.ok(&["start", "second"]);
        support::eventually("its second life", || {
            let lines = m.sbx(&["exec", "second", "wc", "-l", "/file"]);
            (lines.status == 0 && lines.text() == "2 /file").then_some(())
        });
        m.ok(&["rm", "-f", "first", "second"]);
        m.ok(&["volume", "rm", "kept"]);
    });
}

#[test]
fn a_unix_socket_in_a_bind_works_across_the_border() {
    in_vm("a_unix_socket_in_a_bind_works_across_the_border", |m| {
        let answer = Server::start(m, "socket").asked_by(m, &[], "the_client_of_a_unix_socket");
        assert_eq!(answer, "HELLO");
    });
}

/// Runs inside the container of the test above.
#[test]
fn the_client_of_a_unix_socket() {
    support::unix_socket::client();
}

#[test]
fn a_single_file_bind_shows_that_file_alone() {
    in_vm("a_single_file_bind_shows_that_file_alone", |m| {
        std::fs::write(m.path("one"), "one").expect("a file");
        std::fs::write(m.path("secret"), "secret").expect("another");
        let bind = format!("{}:/one", m.at("one"));
        let shown =
            m.in_busybox(&["-v", &bind, "--privileged"], "cat /one; mkdir /m; mount -t virtiofs share0 /m && ls /m");
        assert_eq!(shown, "oneone", "the share itself holds nothing else");
    });
}

#[test]
fn read_only_is_enforced_by_the_host() {
    in_vm("read_only_is_enforced_by_the_host", |m| {
        std::fs::create_dir(m.path("shared")).expect("a folder");
        let bind = format!("{}:/shared:ro", m.at("shared"));
        let script = "mkdir /m; mount -t virtiofs -o rw share0 /m && touch /m/x 2>&1; true";
        let output = m.in_busybox(&["-v", &bind, "--privileged"], script);
        assert!(output.contains("Read-only file system"), "{output}");
        assert!(!m.path("shared/x").exists());
    });
}

#[test]
fn a_machine_that_is_killed_ends_its_container_with_a_reason() {
    in_vm("a_machine_that_is_killed_ends_its_container_with_a_reason", |m| {
        let id = m.detached(&[], &["sleep", "1000"]);
        let machine: i32 = m.inspect(&id, "{{.State.Pid}}").parse().expect("the machine's process");
        let outside = m.sh(&format!("cat /proc/{machine}/comm")).expect_ok().text().to_owned();
        assert_eq!(outside, "sbx-vmm");
        m.sh(&format!("kill -9 {machine}")).expect_ok();
        m.await_inspect(&id, "{{.State.Running}}", "false");
        assert_eq!(m.inspect(&id, "{{.State.ExitCode}}"), "137");
        assert!(m.inspect(&id, "{{.State.Error}}").contains("virtual machine has ended"), "the reason");
        // The disk that it wrote to is whole.
        m.ok(&["start", &id]);
        m.ok(&["exec", &id, "true"]);
    });
}

/// They come from one saved machine, so whatever that one had drawn they would all draw again.
#[test]
fn machines_from_one_template_are_not_alike() {
    in_vm("machines_from_one_template_are_not_alike", |m| {
        let templates =
            || m.sh(&format!("cd {}; ls | grep -v '[.]' | grep -c -", m.at("root/templates"))).expect_ok().stdout;
        let before = templates();
        let script =
            "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; date +%s; cat /proc/uptime";
        let seen: Vec<String> = (0..4).map(|_| m.in_busybox(&[], script)).collect();
        let line = |number: usize| -> std::collections::BTreeSet<&str> {
            seen.iter().filter_map(|text| text.lines().nth(number)).collect()
        };
        assert_eq!((line(0).len(), line(1).len()), (4, 4), "{seen:?}");
        let host =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970").as_secs();
        let last: u64 = seen[3].lines().nth(2).and_then(|text| text.parse().ok()).expect("seconds");
        assert!(host.abs_diff(last) < 30, "the clock of a machine says {last}, that of the host {host}");
        assert_eq!(templates(), before, "none was made anew");
        let known = m.sh(&format!("cd {}; ls | grep -c '[.]needed$'", m.at("root/templates"))).expect_ok();
        assert_eq!(known.stdout, before, "what a start needs is learned from the first one of each");
    });
}

#[test]
fn a_template_that_was_not_finished_is_not_taken() {
    in_vm("a_template_that_was_not_finished_is_not_taken", |m| {
        let files = || -> Vec<std::path::PathBuf> {
            let entries = std::fs::read_dir(m.path("root/templates")).expect("the templates");
            let paths = entries.map(|entry| entry.expect("a template").path());
            paths.filter(|path| !path.ends_with("lock") && path.extension().is_none()).collect()
        };
        // Whoever was killed while making one leaves such a file, and it is no template.
        let before = files();
        for template in &before {
            std::fs::rename(template, m.path("root/templates/.new")).expect("a template in the making");
        }
        assert_eq!(m.in_busybox(&[], "echo made anew"), "made anew");
        let [template] = &files()[..] else { panic!("{:?}", files()) };
        assert!(before.contains(template), "{template:?} is none of {before:?}");
    });
}

#[test]
fn what_was_written_is_there_after_a_restart_and_a_kill() {
    in_vm("what_was_written_is_there_after_a_restart_and_a_kill", |m| {
        let id = m.detached(&[], &["sh", "-c", "cat /kept; sleep 1000"]);
        m.ok(&["exec", &id, "sh", "-c", "echo kept > /kept; sync"]);
        let machine: i32 = m.inspect(&id, "{{.State.Pid}}").parse().expect("the machine's process");
        m.sh(&format!("kill -9 {machine}")).expect_ok();
        m.await_inspect(&id, "{{.State.Running}}", "false");
        m.ok(&["start", &id]);
        m.await_log(&id, "kept");
        m.ok(&["exec", &id, "sh", "-c", "echo again > /kept"]);
        m.ok(&["restart", "-t", "0", &id]);
        m.await_log(&id, "again");
    });
}

#[test]
fn vm_mode_without_kvm_fails_at_once_with_the_reason() {
    if modes().contains(&Mode::Vm) {
        let name = "vm_mode_without_kvm_fails_at_once_with_the_reason";
        return support::skip(name, "this machine has a KVM");
    }
    each_mode(|m| {
        let usable = m.sbx(&["doctor", "--isolation", "vm"]).status == 0;
        if usable {
            return support::skip("vm_mode_without_kvm_fails_at_once_with_the_reason", "this machine has a KVM");
        }
        let output =
            m.fails(&["run", "--rm", "--isolation=vm", BUSYBOX, "true"], 125, "--isolation=vm is not possible");
        assert!(output.stderr.contains("sbx doctor"), "{output}");
        let told = m.ok(&["info", "--format", "{{.VmObstacle}}"]);
        assert!(output.stderr.contains(&told) && m.ok(&["info"]).contains(&told), "{told}\n{output}");
        // The same machine runs it as a process where it may choose, and says why.
        let id = m.ok(&["create", "--isolation=auto", BUSYBOX, "true"]);
        assert_eq!(m.inspect(&id, "{{.HostConfig.Isolation}}"), "process");
    });
}
