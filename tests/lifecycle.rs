//! A container's life by the verbs: create, start, stop, restart, kill, rm, wait, rename, exec, ps and inspect.

mod support;

use std::time::{Duration, Instant};

use support::{BUSYBOX, DEADLINE, each_mode, eventually};

/// Ends at once when asked to: its shell handles SIGTERM, and the sleep is short.
const POLITE: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";

#[test]
fn create_start_stop_start_rm() {
    each_mode(|m| {
        let id = m.ok(&["create", "--name", "life", BUSYBOX, "sh", "-c", POLITE]);
        let status = || m.inspect("life", "{{.State.Status}}");
        assert_eq!(status(), "created");
        assert!(m.ok(&["ps", "-a"]).contains("Created"));
        assert_eq!(m.ok(&["ps", "-q"]), "", "ps without -a shows what runs");
        assert_eq!(m.ok(&["start", "life"]), "life");
        assert_eq!(status(), "running");
        assert_eq!(m.ok(&["ps", "-q", "--no-trunc"]), id);
        assert!(m.ok(&["ps"]).contains("Up "));
        m.ok(&["start", "life"]); // a second time is no error
        assert_eq!(m.ok(&["stop", "life"]), "life");
        assert_eq!(status(), "exited");
        assert!(m.ok(&["ps", "-a"]).contains("Exited (0)"));
        m.ok(&["stop", "life"]);
        m.ok(&["start", "life"]);
        assert_eq!(status(), "running");
        m.fails(&["rm", "life"], 1, "running");
        m.ok(&["rm", "-f", "life"]);
        m.fails(&["inspect", "life"], 1, "life");
    });
}

#[test]
fn files_written_survive_a_stop_and_go_with_the_container() {
    each_mode(|m| {
        m.ok(&["run", "--name", "writer", BUSYBOX, "sh", "-c", "echo kept >>/root/file; cat /root/file"]);
        assert_eq!(m.ok(&["start", "-a", "writer"]), "kept\nkept");
        m.ok(&["rm", "writer"]);
        assert_eq!(m.in_busybox(&[], "cat /root/file 2>/dev/null || echo gone"), "gone");
    });
}

#[test]
fn start_a_and_i_attach_and_give_the_exit_code() {
    each_mode(|m| {
        m.ok(&["create", "-i", "--name", "reader", BUSYBOX, "sh", "-c", "read a; echo got $a; exit 6"]);
        m.sbx_with(&["start", "-ai", "reader"], b"it\n").expect_status(6).expect_stdout("got it");
    });
}

#[test]
fn stop_sends_the_stop_signal_and_kills_after_the_timeout() {
    each_mode(|m| {
        let script = "trap 'echo usr1; exit 9' USR1; echo ready; while :; do sleep 0.05; done";
        let id = m.detached(&["--stop-signal", "SIGUSR1"], &["sh", "-c", script]);
        m.await_log(&id, "ready");
        m.ok(&["stop", &id]);
        assert_eq!(m.inspect(&id, "{{.State.ExitCode}}"), "9");
        assert!(m.ok(&["logs", &id]).contains("usr1"));
        for (flags, stop) in [(&["--stop-timeout", "1"][..], &["stop"][..]), (&[], &["stop", "-t", "1"])] {
            // `sleep` as process 1 does not handle SIGTERM, so the kernel does not deliver it.
            let id = m.detached(flags, &["sleep", "1000"]);
            let start = Instant::now();
            m.ok(&[stop, &[&id]].concat());
            let took = start.elapsed();
            assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&took), "{took:?}");
            assert_eq!(m.inspect(&id, "{{.State.ExitCode}} {{.State.OOMKilled}}"), "137 false");
        }
    });
}

#[test]
fn kill_sends_any_signal_by_name_or_number() {
    each_mode(|m| {
        let script = "trap 'echo hup' HUP; trap 'echo usr2' USR2; echo ready; while :; do sleep 0.05; done";
        let id = m.detached(&[], &["sh", "-c", script]);
        m.await_log(&id, "ready");
        m.ok(&["kill", "-s", "HUP", &id]);
        m.await_log(&id, "hup");
        m.ok(&["kill", "--signal", "12", &id]);
        m.await_log(&id, "usr2");
        assert_eq!(m.inspect(&id, "{{.State.Running}}"), "true");
        m.fails(&["kill", "-s", "NOSUCH", &id], 1, "NOSUCH");
        m.ok(&["kill", &id]);
        m.await_inspect(&id, "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
        m.fails(&["kill", &id], 1, "not running");
    });
}

#[test]
fn restart_gives_a_new_process_in_the_same_container() {
    each_mode(|m| {
        let id = m.detached(&[], &["sh", "-c", POLITE]);
        let before = m.inspect(&id, "{{.State.Pid}} {{.State.StartedAt}}");
        m.ok(&["restart", &id]);
        assert_ne!(m.inspect(&id, "{{.State.Pid}} {{.State.StartedAt}}"), before);
        assert_eq!(m.inspect(&id, "{{.State.Status}}"), "running");
        m.ok(&["stop", &id]);
        m.ok(&["restart", &id]);
        assert_eq!(m.inspect(&id, "{{.State.Status}}"), "running");
    });
}

#[test]
fn wait_gives_the_exit_codes_of_all_that_it_was_given() {
    each_mode(|m| {
        let one = m.detached(&[], &["sh", "-c", "sleep 0.3; exit 11"]);
        let two = m.detached(&[], &["sh", "-c", "exit 12"]);
        assert_eq!(m.ok(&["wait", &one, &two]), "11\n12");
        assert_eq!(m.ok(&["wait", &one]), "11", "one that has ended already");
        m.fails(&["wait", "nobody"], 1, "nobody");
    });
}

#[test]
fn names_are_unique_ids_may_be_shortened() {
    each_mode(|m| {
        let id = m.ok(&["create", "--name", "taken", BUSYBOX]);
        let output = m.fails(&["run", "--rm", "--name", "taken", BUSYBOX, "true"], 125, "already in use");
        assert!(output.stderr.contains(&id[..12]), "who has the name?\n{output}");
        for prefix in [&id[..], &id[..12], &id[..6]] {
            assert_eq!(m.inspect(prefix, "{{.Id}}"), id);
        }
        m.fails(&["run", "--rm", "--name", "-bad", BUSYBOX, "true"], 125, "name");
        m.fails(&["run", "--rm", "--name", "x", BUSYBOX, "true"], 125, "name");
        m.fails(&["run", "--rm", "--name", "white space", BUSYBOX, "true"], 125, "name");
        m.fails(&["inspect", "ffffffffffff"], 1, "ffffffffffff");
        // A name wins over a prefix of an id.
        m.ok(&["create", "--name", &id[..4], BUSYBOX]);
        assert_ne!(m.inspect(&id[..4], "{{.Id}}"), id);
        let made_up = m.inspect(&m.ok(&["create", BUSYBOX]), "{{.Name}}");
        assert!(made_up.starts_with('/') && made_up.contains('_'), "{made_up}");
    });
}

#[test]
fn an_ambiguous_prefix_names_nothing() {
    each_mode(|m| {
        let ids: Vec<String> = (0..17).map(|_| m.ok(&["create", BUSYBOX])).collect();
        // Among 17 ids two begin with the same of 16 digits.
        let shared =
            ids.iter().map(|id| &id[..1]).find(|digit| ids.iter().filter(|id| id.starts_with(digit)).count() > 1);
        let shared = shared.expect("pigeons in holes");
        let output = m.sbx(&["inspect", shared]);
        assert_ne!(output.status, 0, "{output}");
    });
}

#[test]
fn rename_frees_the_old_name() {
    each_mode(|m| {
        let id = m.ok(&["create", "--name", "old", BUSYBOX]);
        m.ok(&["rename", "old", "new"]);
        assert_eq!(m.inspect("new", "{{.Id}}"), id);
        m.fails(&["inspect", "old"], 1, "old");
        m.ok(&["create", "--name", "old", BUSYBOX]);
        m.fails(&["rename", "old", "new"], 1, "already in use");
        m.fails(&["rename", "old", ""], 1, "");
    });
}

#[test]
fn rm_takes_several_and_goes_on_after_an_error() {
    each_mode(|m| {
        let one = m.ok(&["create", BUSYBOX]);
        let two = m.ok(&["create", BUSYBOX]);
        let output = m.fails(&["rm", &one, "nobody", &two], 1, "nobody");
        assert_eq!(output.stdout.lines().collect::<Vec<_>>(), [&one, &two]);
        assert_eq!(m.ok(&["ps", "-aq"]), "");
        // What is not there is no error for the one who wanted it gone.
        m.ok(&["rm", "-f", "nobody"]);
    });
}

#[test]
fn rm_v_takes_the_anonymous_volumes_along() {
    each_mode(|m| {
        m.ok(&["create", "--name", "vol", "-v", "/anonymous", "-v", "named:/named", BUSYBOX]);
        assert_eq!(m.ok(&["volume", "ls", "-q"]).lines().count(), 2);
        m.ok(&["rm", "-v", "vol"]);
        assert_eq!(m.ok(&["volume", "ls", "-q"]), "named");
        m.ok(&["volume", "rm", "named"]);
    });
}

#[test]
fn exec_runs_in_the_same_namespaces_with_its_own_exit_code() {
    each_mode(|m| {
        let id = m.detached(&["-e", "FROM=run", "-w", "/data", "-u", "1000"], &["sleep", "1000"]);
        m.sbx(&["exec", &id, "sh", "-c", "exit 13"]).expect_status(13);
        let missing = m.sbx(&["exec", &id, "no-such-program"]);
        assert!(missing.status == 127 || (missing.status == 126 && !m.peer().is_sbx()), "{missing}");
        m.sbx(&["exec", &id, "/etc"]).expect_status(126);
        m.sbx(&["exec", &id, "sh", "-c", "kill -KILL $$"]).expect_status(137);
        let shown = m.ok(&["exec", "-e", "MORE=exec", &id, "sh", "-c", "echo $FROM $MORE; pwd; id -u; hostname"]);
        assert_eq!(shown, format!("run exec\n/data\n1000\n{}", &id[..12]));
        assert_eq!(m.ok(&["exec", "-u", "0", "-w", "/root", &id, "sh", "-c", "id -u; pwd"]), "0\n/root");
        assert_eq!(m.sbx_with(&["exec", "-i", &id, "cat"], b"through").expect_ok().stdout, "through");
        assert_eq!(m.sbx_with(&["exec", &id, "cat"], b"through").expect_ok().stdout, "");
        for kind in ["pid", "net", "mnt", "uts", "ipc", "cgroup"] {
            let script = format!("[ $(readlink /proc/self/ns/{kind}) = $(readlink /proc/1/ns/{kind}) ] || echo {kind}");
            assert_eq!(m.ok(&["exec", &id, "sh", "-c", &script]), "", "not in the same namespace");
        }
        m.fails(&["exec", "nobody", "true"], 1, "nobody");
        m.ok(&["kill", &id]);
        m.await_inspect(&id, "{{.State.Status}}", "exited");
        m.fails(&["exec", &id, "true"], 1, "not running");
    });
}

#[test]
fn exec_has_the_filter_and_the_capabilities_of_the_container() {
    each_mode(|m| {
        let id = m.detached(&["--cap-drop", "CHOWN"], &["sleep", "1000"]);
        let script = "awk '/CapEff|^Seccomp:/ { print $2 }' /proc/self/status";
        assert_eq!(m.ok(&["exec", &id, "sh", "-c", script]), "00000000a80425fa\n2");
        let own = m.sh("awk '/CapBnd/ { print $2 }' /proc/self/status").expect_ok();
        if !m.peer().is_sbx() {
            return; // Docker gives all capabilities or fails.
        }
        let privileged =
            m.ok(&["exec", "--privileged", &id, "sh", "-c", "awk '/CapEff/ { print $2 }' /proc/self/status"]);
        assert_eq!(privileged, own.text());
        assert_eq!(
            m.ok(&["exec", "--privileged", &id, "sh", "-c", "awk '/CapInh/ { print $2 }' /proc/self/status"]),
            "0000000000000000"
        );
    });
}

#[test]
fn exec_gives_a_terminal_and_detaches() {
    each_mode(|m| {
        let id = m.detached(&[], &["sleep", "1000"]);
        let mut terminal = support::terminal::Terminal::sbx(m, &["exec", "-it", &id, "sh"]);
        terminal.type_keys("test -t 0 && echo t\"\"ty; exit 8\n");
        terminal.expect("tty");
        assert_eq!(terminal.finish().0, 8);
        m.ok(&["exec", "-d", &id, "sh", "-c", "echo done >/root/flag"]);
        eventually("the detached command", || {
            (m.sbx(&["exec", &id, "cat", "/root/flag"]).text() == "done").then_some(())
        });
    });
}

#[test]
fn streams_carry_megabytes_both_ways() {
    each_mode(|m| {
        let id = m.detached(&[], &["sleep", "1000"]);
        // More than all windows and pipes on the way take together, and no two chunks alike.
        let numbers: String = (0..700_000).map(|number| format!("{number}\n")).collect();
        let output = m.sbx_with(&["exec", "-i", &id, "cat"], numbers.as_bytes()).expect_ok();
        assert!(output.stdout == numbers, "{} of {} bytes came back", output.stdout.len(), numbers.len());
        let output = m.sbx(&["run", "--rm", BUSYBOX, "sh", "-c", "seq 700000; seq 100000 >&2"]).expect_ok();
        assert_eq!(output.stdout.lines().count(), 700_000);
        assert_eq!(output.stderr.lines().count(), 100_000);
    });
}

#[test]
fn processes_of_exec_end_with_the_container() {
    each_mode(|m| {
        let id = m.detached(&[], &["sleep", "1000"]);
        let running = m.start_sbx(&["exec", &id, "sleep", "1000"]);
        eventually("the second sleep", || (m.ok(&["top", &id]).matches("sleep 1000").count() == 2).then_some(()));
        m.ok(&["kill", &id]);
        running.finish(DEADLINE).expect_status(137);
    });
}

#[test]
fn ps_filters_formats_and_counts() {
    each_mode(|m| {
        let web = m.detached(&["--name", "web", "--label", "tier=front"], &["sleep", "1000"]);
        m.sbx(&["run", "--name", "job", "--label", "tier=back", BUSYBOX, "sh", "-c", "exit 4"]).expect_status(4);
        m.ok(&["create", "--name", "fresh", BUSYBOX]);
        let names = |filters: &[&str]| {
            let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
            for filter in filters {
                args.extend(["--filter", filter]);
            }
            m.ok(&args).lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["fresh", "job", "web"], "newest first");
        assert_eq!(names(&["status=running"]), ["web"]);
        assert_eq!(names(&["status=exited", "status=created"]), ["fresh", "job"]);
        assert_eq!(names(&["exited=4"]), ["job"]);
        assert_eq!(names(&["label=tier"]), ["job", "web"]);
        assert_eq!(names(&["label=tier=front"]), ["web"]);
        assert_eq!(names(&["name=^we"]), ["web"]);
        assert_eq!(names(&[&format!("id={}", &web[..12])]), ["web"]);
        assert_eq!(names(&[&format!("ancestor={BUSYBOX}")]), ["fresh", "job", "web"]);
        m.fails(&["ps", "--filter", "nonsense=1"], 1, "nonsense");
        assert_eq!(m.ok(&["ps", "-n", "1", "--format", "{{.Names}}"]), "fresh");
        assert_eq!(m.ok(&["ps", "-l", "-q"]).len(), 12);
        let header = m.ok(&["ps"]);
        let columns = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        let places: Vec<Option<usize>> = columns.iter().map(|column| header.find(column)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{header}");
        assert!(header.contains("\"sleep 1000\""), "{header}");
        let table = m.ok(&["ps", "--format", "table {{.Names}}\t{{.Image}}"]);
        assert_eq!(
            table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>(),
            [vec!["NAMES", "IMAGE"], vec!["web", BUSYBOX]]
        );
        let json: serde_json::Value =
            serde_json::from_str(&m.ok(&["ps", "--format", "json"])).expect("one JSON object");
        assert_eq!((json["Names"].as_str(), json["State"].as_str()), (Some("web"), Some("running")));
        let size = m.ok(&["ps", "-s", "--format", "{{.Size}}"]);
        assert!(size.contains("virtual"), "{size}");
    });
}

#[test]
fn inspect_shows_what_was_asked_for_in_dockers_shape() {
    each_mode(|m| {
        let flags = ["--name", "shown", "-e", "A=b", "--memory", "64m", "-p", "8080:80", "--restart", "on-failure:3"];
        let id = m.ok(&[&["create"], &flags[..], &[BUSYBOX, "sleep", "5"]].concat());
        let all: serde_json::Value = serde_json::from_str(&m.ok(&["inspect", "shown"])).expect("JSON");
        let one = &all[0];
        assert_eq!(one["Id"], id.as_str());
        assert_eq!(one["Path"], "sleep");
        assert_eq!(one["Args"], serde_json::json!(["5"]));
        assert_eq!(one["Config"]["Image"], BUSYBOX);
        assert_eq!(one["HostConfig"]["Memory"], 64 << 20);
        assert_eq!(
            one["HostConfig"]["RestartPolicy"],
            serde_json::json!({ "Name": "on-failure", "MaximumRetryCount": 3 })
        );
        assert_eq!(one["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(one["State"]["Status"], "created");
        assert!(one["Config"]["Env"].as_array().is_some_and(|env| env.contains(&"A=b".into())), "{one}");
        if m.peer().is_sbx() {
            assert_eq!(one["HostConfig"]["Isolation"], m.mode().word());
            assert!(one["Enforcement"].is_object(), "where is each limit enforced? {one}");
        }
        assert_eq!(
            m.inspect("shown", "{{index .Config.Env 0}} {{len .Args}} {{.HostConfig.Memory}}"),
            "A=b 1 67108864"
        );
        m.fails(&["inspect", "--format", "{{.Nonsense}}", "shown"], 1, "Nonsense");
        let output = m.sbx(&["inspect", "--format", "{{", "shown"]).expect_stderr("template");
        assert_ne!(output.status, 0, "{output}"); // Docker says 64
    });
}

#[test]
fn info_and_version_tell_who_answers() {
    support::machine(|m| {
        let version = m.ok(&["version", "--format", "{{.Client.Version}}"]);
        assert!(version.split('.').count() >= 3, "{version}");
        let info = m.ok(&["info"]);
        for word in ["Containers:", "Images:", "Kernel Version:", "Architecture:", "Storage Driver:"] {
            assert!(info.contains(word), "{info}");
        }
    });
}
