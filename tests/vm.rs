//! What only a machine of its own can show, and what it refuses. Everything else is tested by the same bodies as process
//! mode (`SBX_TEST_MODES=vm`).

mod support;

use std::os::unix::net::UnixListener;

use support::machine::{Mode, modes};
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
fn a_unix_socket_in_a_bind_works_across_the_border() {
    in_vm("a_unix_socket_in_a_bind_works_across_the_border", |m| {
        let path = m.path("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("what the container said");
            stream.write_all(text.to_uppercase().as_bytes()).expect("an answer");
        });
        let bind = format!("{}:/sock", path.display());
        // Busybox has no client for such sockets: this static program is one.
        let own = std::env::current_exe().expect("this program");
        let program = format!("{}:/client:ro", own.display());
        let flags = ["-v", &bind, "-v", &program, "-e", "SBX_TEST_SOCKET=/sock"];
        let script = "/client --exact the_client_of_a_unix_socket --nocapture";
        let answer = m.in_busybox(&flags, script);
        server.join().expect("the server");
        assert!(answer.contains("answer: HELLO"), "{answer}");
    });
}

/// Runs inside the container of the test above, and does nothing elsewhere.
#[test]
fn the_client_of_a_unix_socket() {
    use std::io::{Read, Write};
    let Some(path) = std::env::var_os("SBX_TEST_SOCKET") else { return };
    let mut stream = std::os::unix::net::UnixStream::connect(path).expect("a connection");
    stream.write_all(b"hello").expect("somebody who listens");
    // The input ends before the answer comes: each direction ends for itself.
    stream.shutdown(std::net::Shutdown::Write).expect("a half-closed connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    println!("answer: {answer}");
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
        let templates = || std::fs::read_dir(m.path("root/templates")).expect("the templates").count();
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
        let known = m.sh(&format!("ls {}/*.needed", m.path("root/templates").display())).expect_ok();
        assert_eq!(known.text().lines().count(), 1, "what a start needs is learned from the first one");
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
