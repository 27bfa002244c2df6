//! `logs` and the json-file log behind it.

mod support;

use support::{BUSYBOX, DEADLINE, each_mode, eventually};

#[test]
fn logs_keep_the_streams_apart_and_in_order() {
    each_mode(|m| {
        m.ok(&["run", "--name", "two", BUSYBOX, "sh", "-c", "echo a; echo b >&2; usleep 200000; echo c"]);
        let output = m.sbx(&["logs", "two"]).expect_ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("a\nc\n", "b\n"));
    });
}

#[test]
fn logs_take_tail_since_until_and_timestamps() {
    each_mode(|m| {
        m.ok(&[
            "run",
            "--name",
            "five",
            BUSYBOX,
            "sh",
            "-c",
            "for i in 1 2 3; do echo $i; done; sleep 2; echo 4; echo 5",
        ]);
        assert_eq!(m.ok(&["logs", "--tail", "2", "five"]), "4\n5");
        assert_eq!(m.ok(&["logs", "-n", "0", "five"]), "");
        assert_eq!(m.ok(&["logs", "--tail", "all", "five"]), "1\n2\n3\n4\n5");
        let stamped = m.ok(&["logs", "-t", "five"]);
        let times: Vec<&str> = stamped.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(times.iter().all(|time| time.len() >= 20 && time.ends_with('Z') && time.contains('T')), "{stamped}");
        assert!(times.is_sorted(), "{stamped}");
        assert_eq!(m.ok(&["logs", "--since", times[3], "five"]), "4\n5");
        assert_eq!(m.ok(&["logs", "--until", times[2], "five"]), "1\n2\n3");
        assert_eq!(m.ok(&["logs", "--since", "1h", "five"]), "1\n2\n3\n4\n5");
        m.fails(&["logs", "--since", "yesterday-ish", "five"], 1, "yesterday-ish");
        if m.peer().is_sbx() {
            m.fails(&["logs", "--tail", "some", "five"], 1, "some"); // Docker shows everything.
        }
        m.fails(&["logs", "nobody"], 1, "nobody");
    });
}

#[test]
fn logs_f_follows_to_the_end_of_the_container() {
    each_mode(|m| {
        let script = "echo first; while [ ! -e /data/go ]; do usleep 50000; done; echo last";
        let id = m.detached(&["-v", &format!("{}:/data", m.at("home"))], &["sh", "-c", script]);
        let following = m.start_sbx(&["logs", "-f", &id]);
        m.await_log(&id, "first");
        std::fs::write(m.path("home/go"), "").expect("a new file");
        assert_eq!(following.finish(DEADLINE).expect_ok().stdout, "first\nlast\n");
        assert_eq!(m.ok(&["logs", "-f", &id]), "first\nlast", "of one that has ended");
    });
}

#[test]
fn long_and_unfinished_lines_come_back_as_they_were() {
    each_mode(|m| {
        let script = "dd if=/dev/zero bs=1000 count=40 2>/dev/null | tr '\\0' x; echo; printf unfinished";
        m.ok(&["run", "--name", "long", BUSYBOX, "sh", "-c", script]);
        let log = m.sbx(&["logs", "long"]).expect_ok().stdout;
        assert_eq!(log, format!("{}\nunfinished", "x".repeat(40_000)));
    });
}

#[test]
fn the_log_is_dockers_json_file() {
    each_mode(|m| {
        m.ok(&["run", "--name", "file", BUSYBOX, "sh", "-c", "echo \"quote \\\" tab\t\"; echo err >&2"]);
        let path = m.inspect("file", "{{.LogPath}}");
        let id = m.inspect("file", "{{.Id}}");
        assert!(path.ends_with(&format!("{id}-json.log")), "{path}");
        let text = m.sh(&format!("cat {path}")).expect_ok().stdout;
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let mut shape: Vec<(&str, &str)> =
            lines.iter().map(|l| (l["stream"].as_str().unwrap_or(""), l["log"].as_str().unwrap_or(""))).collect();
        shape.sort_unstable();
        assert_eq!(shape, [("stderr", "err\n"), ("stdout", "quote \" tab\t\n")]);
        assert!(lines.iter().all(|line| line["time"].as_str().is_some_and(|time| time.ends_with('Z'))), "{text}");
    });
}

#[test]
fn logs_rotate_at_the_size_asked_for() {
    each_mode(|m| {
        let flags = ["--name", "rotated", "--log-opt", "max-size=10k", "--log-opt", "max-file=3"];
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
        m.ok(&[&["run"], &flags[..], &[BUSYBOX, "sh", "-c", script]].concat());
        let path = m.inspect("rotated", "{{.LogPath}}");
        let files = m.sh(&format!("ls {path}*; du -cb {path}* | tail -1 | cut -f1")).expect_ok().stdout;
        let lines: Vec<&str> = files.lines().collect();
        assert_eq!(lines.len(), 4, "three files and their size\n{files}");
        assert!(lines[3].parse::<u64>().is_ok_and(|bytes| bytes <= 3 * 11_000), "{files}");
        let log = m.ok(&["logs", "rotated"]);
        assert!(log.ends_with("line 1998\nline 1999"), "{}", &log[log.len().saturating_sub(200)..]);
        m.fails(&["run", "--rm", "--log-opt", "max-size=lots", BUSYBOX, "true"], 125, "lots");
        m.fails(&["run", "--rm", "--log-opt", "nonsense=1", BUSYBOX, "true"], 125, "nonsense");
    });
}

#[test]
fn log_driver_none_keeps_nothing_and_says_so() {
    each_mode(|m| {
        m.ok(&["run", "--name", "silent", "--log-driver", "none", BUSYBOX, "echo", "gone"]);
        m.fails(&["logs", "silent"], 1, "log");
        m.fails(&["run", "--rm", "--log-driver", "no-such-driver", BUSYBOX, "true"], 125, "no-such-driver");
    });
}

#[test]
fn a_log_that_nobody_reads_does_not_block_the_program() {
    each_mode(|m| {
        let id = m.detached(
            &[],
            &["sh", "-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\0' y; echo; touch /root/done; sleep 1000"],
        );
        eventually("the program wrote it all", || {
            (m.sbx(&["exec", &id, "ls", "/root/done"]).status == 0).then_some(())
        });
    });
}
