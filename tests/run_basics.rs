//! `sbx run`: exit codes, standard streams, terminals, detaching, removal.

mod support;

use std::process::{Child, Stdio};
use std::time::Duration;

use support::machine::Mode;
use support::output::Running;
use support::terminal::Terminal;
use support::{BUSYBOX, DEADLINE, Machine, each_mode, eventually};

/// Arguments after `run --rm`, and the exit code that Docker gives.
const EXIT_CODES: [(&[&str], i32); 40] = [
    // What the program says is what comes out.
    (&[BUSYBOX, "true"], 0),
    (&[BUSYBOX, "false"], 1),
    (&[BUSYBOX, "sh", "-c", "exit 2"], 2),
    (&[BUSYBOX, "sh", "-c", "exit 125"], 125),
    (&[BUSYBOX, "sh", "-c", "exit 255"], 255),
    (&[BUSYBOX, "sh", "-c", "exit 256"], 0),
    (&["-t", BUSYBOX, "sh", "-c", "exit 9"], 9),
    (&["--init", BUSYBOX, "sh", "-c", "exit 4"], 4),
    (&["-u", "1000", BUSYBOX, "sh", "-c", "exit 5"], 5),
    (&["--read-only", BUSYBOX, "sh", "-c", "exit 6"], 6),
    (&["--network", "none", BUSYBOX, "sh", "-c", "exit 7"], 7),
    (&["--network", "host", BUSYBOX, "sh", "-c", "exit 8"], 8),
    (&["--entrypoint", "sh", BUSYBOX, "-c", "exit 10"], 10),
    // A signal that ends it is 128 and its number. Process 1 of a namespace ignores what it has no handler for, so
    // these are sent from outside or hit a child of --init.
    (&["--init", BUSYBOX, "sh", "-c", "kill -TERM $$"], 143),
    (&["--init", BUSYBOX, "sh", "-c", "kill -KILL $$"], 137),
    (&["--init", BUSYBOX, "sh", "-c", "kill -INT $$"], 130),
    (&["--init", BUSYBOX, "sh", "-c", "kill -HUP $$"], 129),
    (&["--init", BUSYBOX, "sh", "-c", "kill -SEGV $$"], 139),
    (&["--init", BUSYBOX, "sh", "-c", "kill -ABRT $$"], 134),
    (&["--init", BUSYBOX, "sh", "-c", "kill -USR1 $$"], 138),
    (&[BUSYBOX, "sh", "-c", "kill -TERM $$; exit 3"], 3),
    (&[BUSYBOX, "sh", "-c", "sh -c 'kill -KILL $$'; exit $?"], 137),
    // 127: there is no such program.
    (&[BUSYBOX, "no-such-program"], 127),
    (&[BUSYBOX, "/no/such/program"], 127),
    (&["--entrypoint", "no-such-program", BUSYBOX], 127),
    (&["-e", "PATH=/nowhere", BUSYBOX, "true"], 127),
    (&["--init", BUSYBOX, "sh", "-c", "no-such-program"], 127),
    // 126: there is one, but it cannot be run.
    (&[BUSYBOX, "/etc/not-executable"], 126),
    (&[BUSYBOX, "/etc"], 126),
    (&["-u", "1000", BUSYBOX, "/usr/bin/cannot-read"], 126),
    // 125: it was never tried.
    (&["--no-such-flag", BUSYBOX, "true"], 125),
    (&["--pull", "never", "test/no-such-image:1", "true"], 125),
    (&["-u", "nobody-of-that-name", BUSYBOX, "true"], 125),
    (&["-w", "relative/path", BUSYBOX, "true"], 125),
    (&["--memory", "lots", BUSYBOX, "true"], 125),
    (&["-v", "/etc:relative", BUSYBOX, "true"], 125),
    (&["--cap-add", "NO_SUCH_CAPABILITY", BUSYBOX, "true"], 125),
    (&["--network", "no-such-network", BUSYBOX, "true"], 125),
    (&["--security-opt", "seccomp=/no/such/file", BUSYBOX, "true"], 125),
    (&["UPPER/Case", "true"], 125),
];

#[test]
fn the_exit_code_is_dockers_in_40_cases() {
    each_mode(|m| {
        let mut faults = Vec::new();
        for (args, expected) in EXIT_CODES {
            // A machine has a network of its own, and says so.
            let refused = m.mode() == Mode::Vm && args.contains(&"host");
            let expected = if refused { 125 } else { expected };
            let output = m.sbx(&[&["run", "--rm"], args].concat());
            if output.status != expected {
                faults.push(format!("expected {expected}:\n{output}"));
            }
            if expected == 125 && args.last() == Some(&"true") && output.stderr.trim().is_empty() {
                faults.push(format!("no word of what is wrong:\n{output}"));
            }
        }
        assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), EXIT_CODES.len(), faults.join("\n"));
    });
}

#[test]
fn a_detached_container_that_cannot_start_fails_at_once() {
    each_mode(|m| {
        for (program, code) in [("no-such-program", 127), ("/etc", 126)] {
            m.fails(&["run", "-d", "--name", "bad", BUSYBOX, program], code, program);
            assert_eq!(m.inspect("bad", "{{.State.ExitCode}}"), code.to_string());
            m.ok(&["rm", "bad"]);
        }
    });
}

#[test]
fn stdout_and_stderr_stay_apart() {
    each_mode(|m| {
        let output = m.sbx(&["run", "--rm", BUSYBOX, "sh", "-c", "echo to-out; echo to-err >&2"]).expect_ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("to-out\n", "to-err\n"));
    });
}

#[test]
fn output_of_any_size_and_any_bytes_comes_through_complete() {
    each_mode(|m| {
        let script = "dd if=/dev/zero bs=65536 count=160 2>/dev/null | tr '\\0' 'x'; echo end";
        let output = m.sbx(&["run", "--rm", BUSYBOX, "sh", "-c", script]).expect_ok();
        assert_eq!(output.stdout.len(), 160 * 65536 + 4, "bytes were lost or made up");
        assert!(output.stdout.ends_with("xend\n"));
        let bytes = m.sh(&format!(
            "{} --root {} --run {} run --rm {BUSYBOX} printf '\\000\\377\\200\\r\\n' | od -An -tx1",
            m.peer().program(),
            m.at("root"),
            m.at("run"),
        ));
        if m.peer().is_sbx() {
            assert_eq!(bytes.expect_ok().text(), "00 ff 80 0d 0a");
        }
    });
}

#[test]
fn stdin_reaches_the_program_only_with_i() {
    each_mode(|m| {
        let with = m.sbx_with(&["run", "-i", "--rm", BUSYBOX, "cat"], b"one\ntwo\n").expect_ok();
        assert_eq!(with.stdout, "one\ntwo\n");
        let without = m.sbx_with(&["run", "--rm", BUSYBOX, "sh", "-c", "cat; echo done"], b"one\n").expect_ok();
        assert_eq!(without.stdout, "done\n");
    });
}

#[test]
fn the_end_of_stdin_is_the_end_for_the_program() {
    each_mode(|m| {
        let mut running = m.start_sbx(&["run", "-i", "--rm", BUSYBOX, "wc", "-c"]);
        running.write("12345");
        assert!(running.is_running());
        running.close_stdin();
        assert_eq!(running.finish(DEADLINE).expect_ok().text(), "5");
    });
}

#[test]
fn ten_megabytes_go_in_and_come_back() {
    each_mode(|m| {
        let input = vec![b'y'; 10 << 20];
        let output = m.sbx_with(&["run", "-i", "--rm", BUSYBOX, "cat"], &input).expect_ok();
        assert_eq!(output.stdout.len(), input.len());
    });
}

#[test]
fn a_program_that_stops_reading_does_not_block_the_command() {
    each_mode(|m| {
        let input = vec![b'y'; 4 << 20];
        let output = m.sbx_with(&["run", "-i", "--rm", BUSYBOX, "sh", "-c", "head -c 3; exit 3"], &input);
        assert_eq!(output.expect_status(3).stdout, "yyy");
    });
}

#[test]
fn a_terminal_is_a_terminal_of_the_right_size() {
    each_mode(|m| {
        let mut terminal = Terminal::sbx(m, &["run", "-it", "--rm", BUSYBOX, "sh"]);
        terminal.type_keys("tty; test -t 0 && test -t 1 && test -t 2 && echo all\"\"three\n");
        let shown = terminal.expect("allthree");
        assert!(shown.contains("/dev/pts/0"), "{shown}");
        // Docker sets the size a moment after the start.
        terminal.type_keys("until stty size 2>&1 | grep -q '^24 80'; do usleep 50000; done; echo old\"\"size\n");
        terminal.expect("oldsize");
        terminal.resize(50, 132);
        terminal.type_keys("until stty size | grep -q '^50 132'; do usleep 50000; done; echo new\"\"size\n");
        terminal.expect("newsize");
        terminal.type_keys("exit 5\n");
        assert_eq!(terminal.finish().0, 5);
    });
}

#[test]
fn ctrl_c_at_a_terminal_interrupts_the_program_inside() {
    each_mode(|m| {
        let mut terminal = Terminal::sbx(m, &["run", "-it", "--rm", BUSYBOX, "sh"]);
        terminal.type_keys("trap 'echo got\"\"it' INT; echo re\"\"ady; sleep 5\n");
        terminal.expect("ready");
        terminal.type_keys("\u{3}");
        terminal.expect("gotit");
        terminal.type_keys("exit 4\n");
        assert_eq!(terminal.finish().0, 4);
    });
}

#[test]
fn t_without_a_terminal_outside_is_refused_with_i() {
    each_mode(|m| {
        let output = m.sbx(&["run", "-it", "--rm", BUSYBOX, "true"]);
        assert_ne!(output.status, 0, "{output}");
        output.expect_stderr("not a TTY");
        // Without -i it gives the program a terminal all the same, whose line discipline says \r\n.
        let output = m.sbx(&["run", "-t", "--rm", BUSYBOX, "sh", "-c", "test -t 1 && echo yes"]).expect_ok();
        assert_eq!(output.stdout, "yes\r\n");
    });
}

#[test]
fn detach_keys_leave_the_container_running_and_attach_comes_back() {
    each_mode(|m| {
        let mut terminal = Terminal::sbx(m, &["run", "-it", "--name", "shell", BUSYBOX, "sh"]);
        terminal.type_keys("echo re\"\"ady\n");
        terminal.expect("ready");
        terminal.type_keys("\u{10}\u{11}");
        assert_eq!(terminal.finish().0, 0);
        assert_eq!(m.inspect("shell", "{{.State.Status}}"), "running");
        let mut terminal = Terminal::sbx(m, &["attach", "--detach-keys", "ctrl-a,d", "shell"]);
        terminal.type_keys("\necho ba\"\"ck\n");
        terminal.expect("back");
        terminal.type_keys("\u{1}d");
        terminal.finish();
        assert_eq!(m.inspect("shell", "{{.State.Status}}"), "running");
        let mut terminal = Terminal::sbx(m, &["attach", "shell"]);
        terminal.type_keys("exit 3\n");
        assert_eq!(terminal.finish().0, 3);
    });
}

#[test]
fn d_prints_the_whole_id_and_returns_while_the_container_runs() {
    each_mode(|m| {
        let id = m.detached(&["--name", "later"], &["sh", "-c", "sleep 1000"]);
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(m.inspect("later", "{{.Id}}"), id);
        assert_eq!(m.inspect("later", "{{.State.Running}}"), "true");
    });
}

#[test]
fn rm_removes_the_container_and_its_anonymous_volumes_when_it_ends() {
    each_mode(|m| {
        m.ok(&["run", "--rm", "--name", "brief", "-v", "/anonymous", BUSYBOX, "true"]);
        m.fails(&["inspect", "brief"], 1, "brief");
        assert_eq!(m.ok(&["volume", "ls", "-q"]), "");
        let id = m.detached(&["--rm"], &["sleep", "1000"]);
        m.ok(&["kill", &id]);
        eventually("the container is removed", || m.ok(&["ps", "-aq"]).is_empty().then_some(()));
    });
}

#[test]
fn without_rm_the_container_stays_with_its_exit_code_and_log() {
    each_mode(|m| {
        m.sbx(&["run", "--name", "stays", BUSYBOX, "sh", "-c", "echo kept; exit 3"]).expect_status(3);
        assert_eq!(m.inspect("stays", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
        assert_eq!(m.ok(&["logs", "stays"]), "kept");
    });
}

#[test]
fn signals_to_the_command_go_on_to_the_program() {
    each_mode(|m| {
        let script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
        let running = m.start_sbx(&["run", "--rm", "--name", "proxied", BUSYBOX, "sh", "-c", script]);
        m.await_log("proxied", "ready");
        m.sh(&format!("kill -TERM $(pgrep -of '{}.*--name proxied')", m.peer().program())).expect_ok();
        running.finish(DEADLINE).expect_status(7).expect_stdout("caught");
    });
}

#[test]
fn without_sig_proxy_a_signal_ends_only_the_command() {
    each_mode(|m| {
        if !m.peer().is_sbx() {
            return support::skip("without_sig_proxy_a_signal_ends_only_the_command", "Docker's command takes three");
        }
        let flags = ["run", "--sig-proxy=false", "--name", "alone"];
        let running = m.start_sbx(&[&flags[..], &[BUSYBOX, "sh", "-c", "echo ready; sleep 1000"]].concat());
        m.await_log("alone", "ready");
        m.sh(&format!("kill -TERM $(pgrep -of '{}.*--name alone')", m.peer().program())).expect_ok();
        let output = running.finish(DEADLINE);
        assert_ne!(output.status, 0, "{output}");
        assert_eq!(m.inspect("alone", "{{.State.Status}}"), "running");
    });
}

#[test]
fn a_killed_command_leaves_a_container_that_attach_finds() {
    each_mode(|m| {
        let script = "echo ready; while :; do sleep 0.2; echo tick; done";
        let running = m.start_sbx(&["run", "--name", "orphan", BUSYBOX, "sh", "-c", script]);
        m.await_log("orphan", "ready");
        m.sh(&format!("kill -KILL $(pgrep -of '{}.*--name orphan')", m.peer().program())).expect_ok();
        running.finish(DEADLINE).expect_status(137);
        assert_eq!(m.inspect("orphan", "{{.State.Status}}"), "running");
        let attached = m.start_sbx(&["attach", "--no-stdin", "orphan"]);
        eventually("attached", || (m.sh("pgrep -f 'attach --no-stdin'").status == 0).then_some(()));
        std::thread::sleep(Duration::from_millis(800));
        m.ok(&["kill", "orphan"]);
        attached.finish(DEADLINE).expect_status(137).expect_stdout("tick");
    });
}

#[test]
fn the_command_line_is_given_to_the_program_word_by_word() {
    each_mode(|m| {
        let words = ["a b", "", "$HOME", "*", "'\"\\", "--rm", "é\n"];
        let args = [&["run", "--rm", BUSYBOX, "printf", "<%s>"], &words[..]].concat();
        assert_eq!(m.ok(&args), words.map(|word| format!("<{word}>")).concat());
    });
}

#[test]
fn the_default_command_and_entrypoint_come_from_the_image() {
    each_mode(|m| {
        let image = support::Image::busybox_with(
            "test/entry:1",
            &[("Entrypoint", serde_json::json!(["echo", "entry"])), ("Cmd", serde_json::json!(["default"]))],
        );
        m.load(&image);
        assert_eq!(m.ok(&["run", "--rm", "test/entry:1"]), "entry default");
        assert_eq!(m.ok(&["run", "--rm", "test/entry:1", "mine"]), "entry mine");
        assert_eq!(m.ok(&["run", "--rm", "--entrypoint", "printf", "test/entry:1", "%s", "x"]), "x");
        assert_eq!(m.ok(&["run", "--rm", "--entrypoint", "", "test/entry:1", "echo", "bare"]), "bare");
        // An entry point of the user drops the command of the image.
        assert_eq!(m.ok(&["run", "--rm", "--entrypoint", "echo", "test/entry:1"]), "");
        m.ok(&["rmi", "test/entry:1"]);
    });
}

#[test]
fn vm_isolation_says_that_it_is_not_built_yet() {
    support::machine(|m| {
        if !m.peer().is_sbx() {
            return support::skip("vm_isolation_says_that_it_is_not_built_yet", "Docker has no --isolation=vm");
        }
        for word in ["vm", "hyperv"] {
            m.fails(&["run", &format!("--isolation={word}"), BUSYBOX, "true"], 125, "isolation");
        }
        m.fails(&["run", "--isolation=nonsense", BUSYBOX, "true"], 125, "nonsense");
    });
}

#[test]
fn twenty_at_once_each_give_their_own_output() {
    each_mode(|m| {
        let running: Vec<(String, Running)> = (0..20)
            .map(|n| {
                let text = format!("number {n}");
                (text.clone(), m.start_sbx(&["run", "--rm", BUSYBOX, "echo", &text]))
            })
            .collect();
        for (text, running) in running {
            assert_eq!(running.finish(DEADLINE).expect_ok().text(), text);
        }
    });
}

/// A pipe whose other end is closed.
fn unread() -> Stdio {
    Stdio::from(std::io::pipe().expect("a pipe").1)
}

/// Runs a command whose standard output nobody reads any more; gives its exit code and its errors, where they are piped.
fn end_of(m: &Machine, args: &[&str], errors: Stdio) -> (i32, String) {
    let mut command = m.sbx_command(args);
    command.stdin(Stdio::null()).stdout(unread()).stderr(errors);
    let output = command.spawn().and_then(Child::wait_with_output).expect("the command runs");
    (support::output::code(output.status), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_output_that_nobody_reads_ends_a_verb_quietly() {
    each_mode(|m| {
        let names = ["one", "two"];
        for name in names {
            m.detached(&["--name", name], &["sleep", "1000"]);
        }
        let quiet = (141, String::new()); // as after SIGPIPE
        for args in [
            &["images"][..],
            &["ps"],
            &["version"],
            &["inspect", "one"],
            &["create", "--name", "three", BUSYBOX],
            &["run", "-d", "--name", "four", BUSYBOX, "sleep", "1000"],
            &["start", "three"],
            &["pause", "one", "two"],
            &["unpause", "one", "two"],
            &["restart", "-t", "0", "one"],
        ] {
            assert_eq!(end_of(m, args, Stdio::piped()), quiet, "{args:?}");
        }
        // What cannot be told is done all the same, to every name.
        assert_eq!(end_of(m, &["kill", "one", "two"], Stdio::piped()), quiet);
        for name in names {
            m.await_inspect(name, "{{.State.Status}}", "exited");
        }
        assert_eq!(m.inspect("four", "{{.State.Status}}"), "running");
        assert_eq!(end_of(m, &["rm", "-f", "one", "two", "three", "four"], Stdio::piped()), quiet);
        assert_eq!(m.ok(&["ps", "-aq"]), "");
        // A failure that cannot be told keeps its exit code.
        for args in [&["rm", "nobody"][..], &["port", "nobody"], &["kill", "nobody", "none"]] {
            assert_eq!(end_of(m, args, unread()).0, 1, "{args:?}");
        }
        assert_eq!(end_of(m, &["run", "--no-such-flag", BUSYBOX], unread()).0, 125);
    });
}
