//! `scripts/nested-kvm`: a command in it is like one outside, and its KVM is real.

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use support::{installed, skip};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/nested-kvm")
}

/// Whether this machine can run one, or else why the test is skipped.
fn possible(test: &str) -> bool {
    let there = installed("qemu-system-x86_64");
    if !there {
        skip(test, "QEMU is not installed (scripts/setup)");
    }
    there
}

fn run(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(script());
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("scripts/nested-kvm starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let bytes = input.to_vec();
    // The command may end without having read it all.
    let writer = thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn streams_and_the_exit_status_are_those_of_the_command() {
    if !possible("streams_and_the_exit_status_are_those_of_the_command") {
        return;
    }
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let output = run(&["sh", "-c", "cat; echo one >&2; pwd >&2; sleep 1000 & exit 42"], &bytes);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(42), "{said}");
    assert!(output.stdout == bytes, "{} of {} bytes, or others", output.stdout.len(), bytes.len());
    let here = std::env::current_dir().expect("a directory");
    assert_eq!(said, format!("one\n{}\n", here.display()));
}

#[test]
fn a_command_that_is_not_there_and_a_bad_option_are_told_apart_by_the_exit_status() {
    if !possible("a_command_that_is_not_there_and_a_bad_option_are_told_apart_by_the_exit_status") {
        return;
    }
    assert_eq!(run(&["--", "no-such-command"], b"").status.code(), Some(127));
    for args in [&["--memory", "much", "true"][..], &["--share", "/no/such/dir", "true"], &["--nonsense"], &[]] {
        let output = run(args, b"");
        assert_eq!(output.status.code(), Some(125), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).starts_with("nested-kvm: "), "{}", text(&output.stderr));
    }
}

#[test]
fn two_machines_at_once_keep_their_writes_apart_and_share_only_what_is_shared() {
    if !possible("two_machines_at_once_keep_their_writes_apart_and_share_only_what_is_shared") {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (kept, gone) = (folder.path().join("kept"), folder.path().join("gone"));
    std::fs::create_dir(&kept).expect("a folder");
    std::fs::create_dir(&gone).expect("a folder");
    let share = kept.to_str().expect("a name").to_owned();
    let lost = gone.to_str().expect("a name").to_owned();
    let one = |name: &'static str| {
        let (share, lost) = (share.clone(), lost.clone());
        thread::spawn(move || {
            let deed = format!("cd {lost} && ls && touch {name} && ls && echo {name} >{share}/{name}; df {lost}/disk");
            let disk = format!("1G:{lost}/disk");
            run(&["--memory", "1024", "--cpus", "1", "--share", &share, "--disk", &disk, "sh", "-c", &deed], b"")
        })
    };
    for (name, machine) in ["one", "two"].map(|name| (name, one(name))) {
        let output = machine.join().expect("it ends");
        let (out, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(out.starts_with(&format!("disk\ndisk\n{name}\n")), "{out}{said}");
        assert!(out.contains("/dev/vda"), "{out}");
        assert_eq!(std::fs::read_to_string(kept.join(name)).expect("a file"), format!("{name}\n"));
    }
    assert_eq!(std::fs::read_dir(&gone).expect("a folder").count(), 0);
}

#[test]
fn its_kvm_runs_guests_and_every_cgroup_controller_is_there() {
    if !possible("its_kvm_runs_guests_and_every_cgroup_controller_is_there") {
        return;
    }
    // The doctor's probe runs a few thousand instructions of a guest's kernel.
    let deed = "\"$0\" doctor; cat /sys/fs/cgroup/cgroup.subtree_control";
    let output = run(&["sh", "-c", deed, env!("CARGO_BIN_EXE_sbx")], b"");
    let out = text(&output.stdout);
    assert!(out.lines().any(|line| line.starts_with("ok") && line.contains(" KVM ")), "{out}{}", text(&output.stderr));
    let controllers = out.lines().last().unwrap_or_default();
    for controller in ["cpuset", "cpu", "io", "memory", "pids"] {
        assert!(controllers.split(' ').any(|word| word == controller), "{controller}: {controllers}");
    }
}
