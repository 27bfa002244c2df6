//! Restart policies.

mod support;

use support::{BUSYBOX, each_mode, eventually};

#[test]
fn on_failure_starts_again_as_often_as_allowed() {
    each_mode(|m| {
        let id = m.detached(&["--restart", "on-failure:2"], &["sh", "-c", "echo run; exit 3"]);
        m.await_inspect(&id, "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}", "2 exited 3");
        assert_eq!(m.ok(&["logs", &id]), "run\nrun\nrun");
    });
}

#[test]
fn on_failure_does_not_restart_what_succeeded() {
    each_mode(|m| {
        let id = m.detached(&["--restart", "on-failure"], &["sh", "-c", "echo run"]);
        m.await_inspect(&id, "{{.State.Status}} {{.State.ExitCode}}", "exited 0");
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(m.inspect(&id, "{{.RestartCount}}"), "0");
    });
}

#[test]
fn always_restarts_until_it_is_stopped() {
    each_mode(|m| {
        for policy in ["always", "unless-stopped"] {
            let id = m.detached(&["--restart", policy], &["sh", "-c", "echo run; sleep 0.1"]);
            eventually("two restarts", || {
                m.inspect(&id, "{{.RestartCount}}").parse::<u32>().is_ok_and(|n| n >= 2).then_some(())
            });
            m.ok(&["stop", "-t", "1", &id]);
            assert_eq!(m.inspect(&id, "{{.State.Status}}"), "exited");
            let count = m.inspect(&id, "{{.RestartCount}}");
            std::thread::sleep(std::time::Duration::from_millis(700));
            assert_eq!(m.inspect(&id, "{{.State.Status}} {{.RestartCount}}"), format!("exited {count}"));
            m.ok(&["rm", &id]);
        }
    });
}

#[test]
fn a_killed_program_is_restarted_by_always() {
    each_mode(|m| {
        let id = m.detached(&["--restart", "always"], &["sleep", "1000"]);
        let pid = m.inspect(&id, "{{.State.Pid}}");
        m.sh(&format!("kill -KILL {pid}")).expect_ok();
        eventually("another process", || {
            let now = m.inspect(&id, "{{.State.Running}} {{.State.Pid}}");
            (now.starts_with("true ") && !now.ends_with(&format!(" {pid}")) && !now.ends_with(" 0")).then_some(())
        });
        m.ok(&["kill", &id]);
        m.await_inspect(&id, "{{.State.Running}}", "false");
    });
}

#[test]
fn a_container_that_cannot_be_run_at_all_is_not_tried_again() {
    each_mode(|m| {
        m.sbx(&["run", "-d", "--name", "bad", "--restart", "always", BUSYBOX, "no-such-program"]).expect_status(127);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(m.inspect("bad", "{{.State.Running}}"), "false");
    });
}

#[test]
fn restart_policies_that_make_no_sense_are_refused() {
    each_mode(|m| {
        m.fails(&["run", "--rm", "--restart", "always", BUSYBOX, "true"], 125, "restart");
        m.fails(&["run", "-d", "--restart", "sometimes", BUSYBOX, "true"], 125, "restart");
        m.fails(&["run", "-d", "--restart", "always:3", BUSYBOX, "true"], 125, "restart");
        m.fails(&["run", "-d", "--restart", "on-failure:x", BUSYBOX, "true"], 125, "restart");
    });
}
