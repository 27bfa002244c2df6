//! Health checks.

mod support;

use serde_json::json;
use support::{BUSYBOX, Image, each_mode};

#[test]
fn health_goes_from_starting_to_healthy_to_unhealthy() {
    each_mode(|m| {
        let flags =
            ["--health-cmd", "echo probed; test -e /root/well", "--health-interval", "200ms", "--health-retries", "2"];
        let id = m.detached(&flags, &["sleep", "1000"]);
        assert_eq!(m.inspect(&id, "{{.State.Health.Status}}"), "starting");
        m.ok(&["exec", &id, "touch", "/root/well"]);
        m.await_inspect(&id, "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", "healthy 0");
        assert!(m.ok(&["ps"]).contains("(healthy)"));
        assert_eq!(m.ok(&["ps", "-q", "--filter", "health=healthy"]), id[..12]);
        m.ok(&["exec", &id, "rm", "/root/well"]);
        m.await_inspect(&id, "{{.State.Health.Status}}", "unhealthy");
        assert!(m.ok(&["ps"]).contains("(unhealthy)"));
        let last = m.inspect(&id, "{{json .State.Health.Log}}");
        let log: serde_json::Value = serde_json::from_str(&last).expect("JSON");
        let last = log.as_array().and_then(|log| log.last()).expect("an entry");
        assert_eq!((last["ExitCode"].as_i64(), last["Output"].as_str()), (Some(1), Some("probed\n")), "{last}");
        assert!(log.as_array().is_some_and(|log| log.len() <= 5), "{log}");
    });
}

#[test]
fn failures_in_the_start_period_do_not_count() {
    each_mode(|m| {
        let flags = [
            "--health-cmd",
            "false",
            "--health-interval",
            "100ms",
            "--health-retries",
            "1",
            "--health-start-period",
            "30s",
        ];
        let id = m.detached(&flags, &["sleep", "1000"]);
        support::eventually("a few probes", || {
            m.inspect(&id, "{{len .State.Health.Log}}").parse::<u32>().is_ok_and(|n| n >= 3).then_some(())
        });
        assert_eq!(m.inspect(&id, "{{.State.Health.Status}}"), "starting");
    });
}

#[test]
fn a_probe_that_takes_too_long_is_a_failure() {
    each_mode(|m| {
        let flags = [
            "--health-cmd",
            "sleep 100",
            "--health-interval",
            "100ms",
            "--health-retries",
            "1",
            "--health-timeout",
            "1s",
        ];
        let id = m.detached(&flags, &["sleep", "1000"]);
        m.await_inspect(&id, "{{.State.Health.Status}}", "unhealthy");
        assert_eq!(m.ok(&["top", &id]).matches("sleep 100\n").count(), 0, "the probe is killed");
    });
}

#[test]
fn no_healthcheck_switches_that_of_the_image_off() {
    each_mode(|m| {
        let check = json!({ "Test": ["CMD-SHELL", "true"], "Interval": 200_000_000 });
        m.load(&Image::busybox_with("test/checked:1", &[("Healthcheck", check)]));
        let on = m.ok(&["run", "-d", "test/checked:1", "sleep", "1000"]);
        m.await_inspect(&on, "{{.State.Health.Status}}", "healthy");
        let off = m.ok(&["run", "-d", "--no-healthcheck", "test/checked:1", "sleep", "1000"]);
        assert_eq!(m.inspect(&off, "{{if .State.Health}}on{{else}}off{{end}}"), "off");
        m.fails(&["run", "-d", "--no-healthcheck", "--health-cmd", "true", BUSYBOX, "true"], 125, "health");
    });
}
