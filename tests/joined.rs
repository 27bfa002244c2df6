//! Containers that join the namespaces of another (`container:NAME`): sidecars, as in a pod. In VM mode they share its machine.

mod support;

use std::fs;

use support::machine::Mode;
use support::unix_socket::Server;
use support::{BUSYBOX, Machine, each_mode, eventually};

/// Fetches from inside a container. (busybox's wget cannot look names up in a static binary, and crashes.)
fn get(port: u16) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 127.0.0.1 {port} | tail -1")
}

/// The script of a server that answers each connection with a word.
fn serve(port: u16, word: &str) -> String {
    format!("mkdir -p /www; echo {word} >/www/index.html; exec httpd -f -p {port} -h /www")
}

fn await_port(m: &Machine, container: &str, port: u16) {
    let script = format!("netstat -ltn | grep -q ':{port} '");
    eventually("the server listens", || (m.sbx(&["exec", container, "sh", "-c", &script]).status == 0).then_some(()));
}

#[test]
fn a_server_of_a_sidecar_is_reached_by_the_ports_of_the_container_that_it_joins() {
    each_mode(|m| {
        let pause = m.detached(&["--name", "pause", "-p", "8080:80"], &["sleep", "1000"]);
        let web = m.detached(&["--network", "container:pause"], &["sh", "-c", &serve(80, "sidecar")]);
        await_port(m, &pause, 80);
        let fetched = eventually("an answer", || {
            let output = m.sh("curl -sS -g --max-time 5 http://127.0.0.1:8080/");
            (output.status == 0).then(|| output.text().to_owned())
        });
        assert_eq!(fetched, "sidecar");
        // A third one joins the second, and finds both on loopback, with the files of the one that has the address.
        let third = ["--network".to_owned(), format!("container:{web}")];
        let third: Vec<&str> = third.iter().map(String::as_str).collect();
        let script = format!("{}; cat /etc/hosts; hostname", get(80));
        let own = m.ok(&["exec", &pause, "sh", "-c", "cat /etc/hosts; hostname"]);
        assert_eq!(m.in_busybox(&third, &script), format!("sidecar\n{}", own.trim_end()));
        assert_eq!(m.inspect(&web, "{{.HostConfig.NetworkMode}}"), format!("container:{pause}"));
        assert_eq!(m.inspect(&web, "{{.HostConfig.Isolation}}"), m.mode().word());
    });
}

#[test]
fn a_sidecar_has_files_limits_and_processes_of_its_own() {
    each_mode(|m| {
        m.detached(&["--name", "first"], &["sleep", "1000"]);
        fs::create_dir(m.path("home/shared")).expect("a folder");
        fs::write(m.path("home/shared/in"), "from outside").expect("a file");
        let bind = format!("{}:/shared", m.at("home/shared"));
        let file = format!("{}:/etc/one:ro", m.at("home/shared/in"));
        let joined = [
            "--network",
            "container:first",
            "-v",
            &bind,
            "-v",
            &file,
            "-v",
            "kept:/kept",
            "--tmpfs",
            "/t",
            "-m",
            "64m",
        ];
        let script = "cat /shared/in /etc/one; echo; echo out >/shared/out; echo >/etc/one || echo read-only; echo x >/kept/x; \
                      grep -c ' /t tmpfs ' /proc/mounts; ls /proc | grep -c '^[0-9]*$'; \
                      cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; hostname; \
                      touch /own; ls /own";
        let seen = m.in_busybox(&joined, script);
        let lines: Vec<&str> = seen.lines().filter(|line| !line.contains("can't create")).collect();
        assert_eq!(lines[..4], ["from outsidefrom outside", "read-only", "1", lines[3]], "{seen}");
        assert!(lines[3].parse::<u32>().expect("a count") <= 4, "the neighbour's processes are not seen: {seen}");
        assert_eq!(lines[4], "67108864", "{seen}");
        assert_eq!(lines[5], m.ok(&["exec", "first", "hostname"]).trim_end());
        assert_eq!(lines[6], "/own");
        assert_eq!(fs::read_to_string(m.path("home/shared/out")).expect("what the sidecar wrote"), "out\n");
        assert_eq!(m.in_busybox(&["-v", "kept:/kept"], "cat /kept/x"), "x");
        m.ok(&["volume", "rm", "kept"]);
        assert_eq!(m.sbx(&["exec", "first", "ls", "/own"]).status, 1, "each has a root of its own");
        m.fails(
            &[
                "run",
                "--rm",
                "--network",
                "container:first",
                "-m",
                "32m",
                "--memory-swap",
                "32m",
                BUSYBOX,
                "sh",
                "-c",
                EAT,
            ],
            137,
            "",
        );
        m.ok(&["exec", "first", "true"]);
    });
}

/// Takes more memory than there is.
const EAT: &str = "exec dd if=/dev/zero of=/dev/null bs=200M count=1";

#[test]
fn a_socket_in_a_bind_of_a_sidecar_leads_to_its_server() {
    each_mode(|m| {
        let first = m.detached(&[], &["sleep", "1000"]);
        let joined = format!("container:{first}");
        for socket in ["one", "two"] {
            let server = Server::start(m, socket);
            assert_eq!(server.asked_by(m, &["--network", &joined], "the_client_of_a_unix_socket"), "HELLO", "{socket}");
        }
    });
}

/// Runs inside the containers of the test above.
#[test]
fn the_client_of_a_unix_socket() {
    support::unix_socket::client();
}

#[test]
fn sidecars_come_and_go_and_keep_what_they_wrote() {
    each_mode(|m| {
        let first = m.detached(&[], &["sleep", "1000"]);
        let joined = format!("container:{first}");
        // More devices than a machine has places for: each time two disks and six shares.
        let binds: Vec<String> = (0..6).map(|number| format!("{}:/bind{number}", m.at("home"))).collect();
        let flags: Vec<&str> =
            binds.iter().flat_map(|bind| ["-v", bind.as_str()]).chain(["--network", &joined]).collect();
        for round in 0..5 {
            assert_eq!(m.in_busybox(&flags, &format!("echo {round}")), round.to_string());
        }
        let script = "echo life >>/lives; wc -l </lives; exec sleep 1000";
        m.detached(&["--network", &joined, "--name", "cat"], &["sh", "-c", script]);
        for lives in 1..=3 {
            m.await_log("cat", &lives.to_string());
            match lives {
                1 => m.ok(&["restart", "-t", "0", "cat"]),
                2 => m.ok(&["kill", "cat"]) + &m.ok(&["start", "cat"]),
                _ => m.ok(&["stop", "-t", "0", "cat"]),
            };
        }
        let copied = m.path("home/lives");
        m.ok(&["cp", "cat:/lives", &copied.display().to_string()]);
        assert_eq!(fs::read_to_string(copied).expect("the copy"), "life\nlife\nlife\n");
        assert_eq!(m.inspect(&first, "{{.State.Running}}"), "true");
    });
}

#[test]
fn every_verb_means_the_sidecar_that_it_names() {
    each_mode(|m| {
        m.detached(&["--name", "first"], &["sleep", "1001"]);
        let flags = ["--network", "container:first", "--name", "second", "--restart", "on-failure:1"];
        m.detached(&flags, &["sh", "-c", "trap 'exit 3' TERM; echo up; sleep 1002 & wait"]);
        m.await_log("second", "up");
        let top = m.ok(&["top", "second", "-o", "pid,args"]);
        assert!(top.contains("sleep 1002") && !top.contains("sleep 1001"), "{top}");
        assert_eq!(m.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "second"]).trim_end(), "second 2");
        m.ok(&["pause", "second"]);
        assert_eq!(m.inspect("second", "{{.State.Status}}"), "paused");
        assert_eq!(m.ok(&["exec", "first", "echo", "not frozen"]).trim_end(), "not frozen");
        m.ok(&["unpause", "second"]);
        assert_eq!(
            m.ok(&["exec", "second", "sh", "-c", "echo in; ls /proc/1/root >/dev/null; cat /proc/1/comm"]),
            "in\nsh"
        );
        // A signal of `kill` would be the end of its restarts.
        m.ok(&["exec", "-d", "second", "kill", "1"]);
        m.await_inspect("second", "{{.RestartCount}}", "1");
        m.await_inspect("second", "{{.State.Running}}", "true");
        m.ok(&["rm", "-f", "second"]);
        assert_eq!(m.inspect("first", "{{.State.Status}}"), "running");
    });
}

#[test]
fn processes_of_a_joined_pid_namespace_are_seen_and_signalled() {
    each_mode(|m| {
        m.detached(&["--name", "first", "--ipc", "shareable"], &["sleep", "1001"]);
        let seen = m.in_busybox(&["--pid", "container:first"], "cat /proc/1/cmdline | tr '\\0' ' '");
        assert_eq!(seen.trim_end(), "sleep 1001");
        m.ok(&["exec", "first", "sh", "-c", "echo mine >/dev/shm/x"]);
        assert_eq!(m.in_busybox(&["--ipc", "container:first"], "cat /dev/shm/x"), "mine");
        // The first of a PID namespace dies only of what comes from outside; its neighbours are not.
        m.ok(&["exec", "-d", "first", "sleep", "1002"]);
        let kill = "pid() { ps -o pid,args | awk -v args=\"sleep $1\" '$2 \" \" $3 == args { print $1 }'; }; \
                    kill $(pid 1002); while [ \"$(pid 1002)\" ]; do sleep 0.1; done; pid 1001";
        assert_eq!(m.in_busybox(&["--pid", "container:first"], kill), "1");
    });
}

#[test]
fn a_killed_supervisor_of_a_sidecar_takes_only_the_sidecar_with_it() {
    each_mode(|m| {
        if !m.peer().is_sbx() {
            return support::skip(
                "a_killed_supervisor_of_a_sidecar_takes_only_the_sidecar_with_it",
                "Docker has other processes",
            );
        }
        let first = m.detached(&[], &["sleep", "1000"]);
        let joined = format!("container:{first}");
        m.detached(&["--network", &joined, "--name", "second"], &["sh", "-c", "echo x >>/file; exec sleep 1000"]);
        eventually("what it writes", || (m.sbx(&["exec", "second", "cat", "/file"]).status == 0).then_some(()));
        m.ok(&["exec", "second", "sync"]);
        let supervisor = supervisor_of(&m.inspect("second", "{{.Id}}"));
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).expect("the supervisor");
        m.await_inspect("second", "{{.State.Running}}", "false");
        assert_eq!(m.inspect(&first, "{{.State.Status}}"), "running");
        m.ok(&["start", "second"]);
        eventually("its second life", || {
            let lines = m.sbx(&["exec", "second", "wc", "-l", "/file"]);
            (lines.status == 0 && lines.text() == "2 /file").then_some(())
        });
        assert_eq!(m.ok(&["exec", &first, "echo", "well"]).trim_end(), "well");
    });
}

/// The process that supervises a container.
fn supervisor_of(id: &str) -> nix::unistd::Pid {
    let of = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let named = line.split(|byte| *byte == 0).any(|word| word == id.as_bytes());
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        named && words.any(|word| word == b"supervise") && name.trim() == "sbx-supervisor"
    };
    let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    nix::unistd::Pid::from_raw(pids.into_iter().find(|pid| of(*pid)).expect("the supervisor"))
}

#[test]
fn the_end_of_the_container_that_is_joined() {
    each_mode(|m| {
        let first = m.detached(&["--name", "first"], &["sleep", "1000"]);
        let joined = format!("container:{first}");
        m.detached(&["--network", &joined, "--name", "second"], &["sleep", "1000"]);
        m.ok(&["stop", "-t", "0", "first"]);
        if m.mode() == Mode::Vm {
            // A machine is its first container's.
            m.await_inspect("second", "{{.State.Running}}", "false");
            assert_eq!(m.inspect("second", "{{.State.ExitCode}}"), "137");
            let reason = m.inspect("second", "{{.State.Error}}");
            assert!(reason.contains(&format!("the virtual machine of container {first}")), "{reason}");
        } else {
            assert_eq!(m.inspect("second", "{{.State.Running}}"), "true");
            m.ok(&["stop", "-t", "0", "second"]);
        }
        m.fails(&["start", "second"], 1, "cannot join network namespace of a non running container");
        m.ok(&["start", "first"]);
        m.ok(&["start", "second"]);
        assert_eq!(m.ok(&["exec", "second", "echo", "again"]).trim_end(), "again");
        m.ok(&["rm", "-f", "first"]);
        m.fails(&["run", "--rm", "--network", &joined, BUSYBOX, "true"], 125, "No such container");
    });
}
