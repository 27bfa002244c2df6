//! What a confined process can still do. Each case runs in a process of its own with a single thread: the program
//! `examples/confined.rs`.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::unistd::{getegid, geteuid};
use sbx_vmm::confine::FILE_SERVER;

fn start(case: &str) -> Child {
    let tests = env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples/confined");
    let (uid, gid) = user();
    Command::new(program)
        .args([uid.to_string(), gid.to_string()])
        .args(case.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// As whom the process is confined: somebody else, where it may.
fn user() -> (u32, u32) {
    if geteuid().is_root() { (12_345, 12_346) } else { (geteuid().as_raw(), getegid().as_raw()) }
}

/// What a case says, and the signal that ends it.
fn outcome(case: &str) -> (String, Option<i32>) {
    let output = start(case).wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.signal())
}

#[test]
fn a_forbidden_call_kills_the_process() {
    let cases = [
        "vcpu open",
        "vcpu socket",
        "vcpu exec",
        "vcpu executable",
        "vcpu thread",
        "main open",
        "main exec",
        "block open",
        "block socket",
        "files socket",
        "files exec",
        "files executable",
        "maker socket",
        "maker exec",
        "maker executable",
        "maker device-opens",
        "block device",
        "main device",
    ];
    for case in cases {
        let (said, signal) = outcome(case);
        assert!(said.contains("confined") && !said.contains("survived"), "{case}: {said}");
        assert_eq!(signal, Some(libc::SIGSYS), "{case}: {said}");
    }
}

#[test]
fn what_is_allowed_goes_on() {
    for role in ["vcpu", "main", "block", "files", "maker"] {
        let (said, signal) = outcome(&format!("{role} nothing"));
        assert!(said.contains("survived") && signal.is_none(), "{role}: {said} {signal:?}");
    }
}

#[test]
fn who_makes_devices_makes_threads_that_are_confined_further() {
    let (said, signal) = outcome("maker device");
    assert!(said.contains("a device: works") && said.contains("survived") && signal.is_none(), "{said} {signal:?}");
}

#[test]
fn a_file_server_opens_by_name_and_finds_an_empty_root() {
    let (said, signal) = outcome("files open");
    assert!(said.contains("survived") && said.contains("opened") && signal.is_none(), "{said}");
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

#[test]
fn the_process_has_nothing_but_what_is_open() {
    let mut child = start("wait");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("waiting")));
    let own = format!("/proc/{}", child.id());
    let expected: u64 = FILE_SERVER.iter().fold(0, |bits, number| bits | 1 << number);
    let mut seen = Vec::new();
    for task in fs::read_dir(format!("{own}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let name = field(&status, "Name");
        for (set, files) in [("CapEff", expected), ("CapPrm", expected), ("CapInh", 0), ("CapBnd", 0), ("CapAmb", 0)] {
            let has = u64::from_str_radix(&field(&status, set), 16).unwrap();
            let keeps = ["files", "maker"].contains(&name.as_str());
            assert_eq!(has, if keeps { files } else { 0 }, "{set} of {name}");
        }
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{name}");
        assert_eq!(field(&status, "Seccomp"), "2", "{name}");
        for (ids, id) in [("Uid", user().0), ("Gid", user().1)] {
            assert_eq!(field(&status, ids).split_whitespace().collect::<Vec<_>>(), vec![id.to_string(); 4]);
        }
        if geteuid().is_root() {
            assert_eq!(field(&status, "Groups"), "");
        }
        seen.push(name);
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(["files", "vcpu", "maker"].iter().all(|name| seen.iter().any(|seen| seen == name)), "{seen:?}");
    let limits = fs::read_to_string(format!("{own}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max open files") && line.contains(" 64 ")), "{limits}");
    if geteuid().is_root() {
        assert_eq!(fs::read_dir(format!("{own}/root/")).unwrap().count(), 0, "the root is not empty");
        assert!(File::create(format!("{own}/root/x")).is_err(), "the root can be written");
        for namespace in ["mnt", "net", "ipc", "uts"] {
            let of = |process: &str| fs::read_link(format!("{process}/ns/{namespace}")).unwrap();
            assert_ne!(of(&own), of("/proc/self"), "{namespace}");
        }
        assert_eq!(fs::read_to_string(format!("{own}/mountinfo")).unwrap().lines().count(), 1);
    }
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    assert!(child.wait().unwrap().success());
}
