//! Limits that bite: memory, processes, processors, files; and what happens when they do.

mod support;

use support::{BUSYBOX, each_mode};

#[test]
fn a_program_that_takes_too_much_memory_is_killed_and_it_shows() {
    each_mode(|m| {
        let flags = ["run", "--name", "greedy", "-m", "32m", "--memory-swap", "32m"];
        let script = "dd if=/dev/zero of=/dev/null bs=200M count=1";
        m.sbx(&[&flags[..], &[BUSYBOX, "sh", "-c", &format!("exec {script}")]].concat()).expect_status(137);
        assert_eq!(m.inspect("greedy", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
        m.ok(&["run", "--name", "modest", "-m", "32m", BUSYBOX, "true"]);
        assert_eq!(m.inspect("modest", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "false 0");
    });
}

#[test]
fn a_fork_bomb_stops_at_the_pids_limit() {
    each_mode(|m| {
        let script = "n=0; while [ $n -lt 40 ]; do sleep 100 & n=$((n+1)); done 2>/dev/null; echo never";
        let output = m.sbx(&["run", "--rm", "--pids-limit", "10", BUSYBOX, "sh", "-c", script]);
        assert!(output.status != 0 && !output.stdout.contains("never"), "{output}");
    });
}

#[test]
fn half_a_processor_is_half_a_processor() {
    each_mode(|m| {
        // Work for a fixed wall-clock time; the processor time used is what --cpus allows of it.
        let script = "used() { cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || \
                      awk '/usage_usec/ { print $2 * 1000 }' /sys/fs/cgroup/cpu.stat; }; \
                      used; timeout 2 sh -c 'while :; do :; done'; used";
        let used = m.in_busybox(&["--cpus", "0.25"], script);
        let used: Vec<f64> = used.lines().map(|line| line.parse().expect("nanoseconds")).collect();
        let seconds = (used[1] - used[0]) / 1e9;
        assert!((0.1..=0.9).contains(&seconds), "{seconds} s of processor time in 2 s with --cpus 0.25");
    });
}

#[test]
fn memory_limits_out_of_reason_are_refused() {
    each_mode(|m| {
        for (args, word) in [
            (&["-m", "1k"][..], "memory"),
            (&["-m", "64m", "--memory-swap", "32m"], "swap"),
            (&["--memory-swap", "64m"], "memory"),
            (&["-m", "32m", "--memory-reservation", "64m"], "reservation"),
            (&["-m", "-5"], "memory"),
            (&["--cpus", "-1"], "cpu"),
            (&["--cpus", "10000"], "cpu"),
            (&["--cpuset-cpus", "999"], "cpu"),
            (&["--cpuset-cpus", "x"], "cpu"),
            (&["--cpus", "1", "--cpu-quota", "5000"], "cpu"),
            (&["--blkio-weight", "5"], "weight"),
            (&["--oom-score-adj", "2000"], "oom"),
            (&["--ulimit", "nonsense=1"], "nonsense"),
            (&["--ulimit", "nofile=20:10"], "nofile"),
            (&["--shm-size", "-1"], "shm"),
            (&["--sysctl", "kernel.panic=1"], "kernel.panic"),
            (&["--device-read-bps", "/no/device:1m"], "/no/device"),
            (&["--memory-swappiness", "101"], "swappiness"),
        ] {
            if args[0] == "--blkio-weight" && !m.peer().is_sbx() {
                continue; // Docker drops it with a warning where the kernel has no weights.
            }
            m.fails(&[&["run", "--rm"], args, &[BUSYBOX, "true"]].concat(), 125, word);
        }
    });
}

#[test]
fn a_limit_above_that_of_the_caller_is_lowered_or_refused_by_name() {
    each_mode(|m| {
        // Raising a hard limit needs CAP_SYS_RESOURCE, which the caller may not have.
        let output = m.sbx(&["run", "--rm", "--ulimit", "nofile=1000000:1000000", BUSYBOX, "sh", "-c", "ulimit -n"]);
        let named = output.stderr.contains("nofile") || output.stderr.to_lowercase().contains("rlimit");
        assert!(output.text() == "1000000" || named, "{output}");
    });
}

#[test]
fn stats_and_top_show_what_runs() {
    each_mode(|m| {
        let id = m.detached(&["-m", "64m", "--name", "shown"], &["sleep", "1000"]);
        let stats = m.ok(&["stats", "--no-stream", "--format", "{{.Name}}|{{.MemUsage}}|{{.PIDs}}|{{.CPUPerc}}", &id]);
        let fields: Vec<&str> = stats.split('|').collect();
        assert_eq!(fields[0], "shown");
        assert!(fields[1].ends_with("/ 64MiB"), "{stats}");
        assert_eq!(fields[2], "1");
        assert!(fields[3].ends_with('%'), "{stats}");
        let header = m.ok(&["stats", "--no-stream"]);
        for column in ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"] {
            assert!(header.contains(column), "{header}");
        }
        let top = m.ok(&["top", &id]);
        assert!(top.lines().next().is_some_and(|line| line.contains("PID") && line.contains("CMD")), "{top}");
        assert!(top.contains("sleep 1000"), "{top}");
        assert!(m.ok(&["top", &id, "-o", "pid,comm"]).contains("sleep"), "top takes the options of ps");
    });
}

#[test]
fn pause_stops_every_process_and_unpause_goes_on() {
    each_mode(|m| {
        let script = "n=0; while :; do n=$((n+1)); echo $n >/data/count; usleep 20000; done";
        let id = m.detached(&["-v", &format!("{}:/data", m.at("home"))], &["sh", "-c", script]);
        let count = || std::fs::read_to_string(m.path("home/count")).unwrap_or_default();
        support::eventually("the counter runs", || (!count().is_empty()).then_some(()));
        m.ok(&["pause", &id]);
        assert_eq!(m.inspect(&id, "{{.State.Status}} {{.State.Paused}}"), "paused true");
        assert!(m.ok(&["ps"]).contains("(Paused)"));
        let before = count();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(count(), before, "a paused container works on");
        m.fails(&["exec", &id, "true"], 1, "paused");
        m.fails(&["pause", &id], 1, "paused");
        m.ok(&["unpause", &id]);
        support::eventually("the counter runs on", || (count() != before).then_some(()));
        m.fails(&["unpause", &id], 1, "paused");
    });
}
