//! Programs in the running kernel.

use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::thread;

use nix::errno::Errno;

use super::super::arch::Arch;
use super::super::{Error, Program, compile, install, table};
use super::sys::{call, confine};
use crate::plan::{Seccomp, SeccompArg, SeccompRule};

/// Docker's default profile for its default capabilities. `sbx-sandbox` tests that this is what it makes.
pub(super) fn docker() -> Seccomp {
    serde_json::from_str(include_str!("docker.json")).expect("is a filter")
}

fn rule(names: &[&str], action: &str, errno: Option<u32>) -> SeccompRule {
    SeccompRule {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: action.to_owned(),
        errno,
        args: vec![],
    }
}

fn allowing(rules: Vec<SeccompRule>) -> Result<Program, Error> {
    compile(&Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        default_errno: None,
        architectures: vec![],
        flags: vec![],
        rules,
    })
}

/// Runs `probe` in a thread of its own under a filter, which ends with the thread.
fn under<T: Send>(program: &Program, probe: impl FnOnce() -> T + Send) -> T {
    let confined = || {
        nix::sys::prctl::set_no_new_privs().expect("set no_new_privs");
        let listener = install(program).expect("install the filter");
        assert_eq!(listener.is_some(), program.wants_listener());
        probe()
    };
    thread::scope(|scope| scope.spawn(confined).join()).expect("the thread ends")
}

fn shell(program: &Program, script: &str) -> Output {
    let mut command = Command::new("/bin/sh");
    confine(command.args(["-c", script]), program.clone()).output().expect("run the shell")
}

#[test]
fn denied_calls_fail_with_their_errno_and_others_work() {
    let program = allowing(vec![
        rule(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", None),
        rule(&["clone3"], "SCMP_ACT_ERRNO", Some(38)),
        rule(&["getsid"], "SCMP_ACT_ERRNO", Some(4094)),
    ])
    .expect("compiles");
    let results = under(&program, || {
        [libc::SYS_mkdirat, libc::SYS_clone3, libc::SYS_getsid, libc::SYS_getpgid]
            .map(|number| call(number, [0; 3]).err())
    });
    assert_eq!(results[..2], [Some(Errno::EPERM), Some(Errno::ENOSYS)]);
    assert_eq!(results[2], Some(Errno::UnknownErrno), "4094 is not the name of an errno");
    assert_eq!(results[3], None);
}

#[test]
fn arguments_are_compared_by_the_kernel_too() {
    let mut personality = rule(&["personality"], "SCMP_ACT_ERRNO", Some(5));
    let arg = |op: &str, value| SeccompArg { index: 0, value, value_two: 0, op: format!("SCMP_CMP_{op}") };
    personality.args = vec![arg("GT", 0xffff_ffff)];
    let mut masked = rule(&["personality"], "SCMP_ACT_ERRNO", Some(6));
    masked.args = vec![arg("EQ", 0x0123_4567)];
    let program = allowing(vec![personality, masked]).expect("compiles");
    let results = under(&program, || {
        [0xffff_ffff, 0x1_0000_0000, 0x0123_4567].map(|value| call(libc::SYS_personality, [value, 0, 0]).err())
    });
    assert_eq!(results, [None, Some(Errno::EIO), Some(Errno::ENXIO)]);
}

#[test]
fn killing_actions_kill() {
    let directory = tempfile::tempdir().expect("make a directory");
    let target = directory.path().join("made");
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let program = allowing(vec![rule(&["mkdir", "mkdirat"], action, None)]).expect("compiles");
        let mut command = Command::new("mkdir");
        let status = confine(command.arg(&target), program).status().expect("run mkdir");
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{action}");
        assert!(!target.exists(), "{action}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn calls_through_the_gate_of_another_architecture_are_killed_or_filtered() {
    use super::sys::getpid_i386;
    if thread::scope(|scope| scope.spawn(getpid_i386).join()).ok() != Some(i64::from(std::process::id())) {
        println!("SKIP: this kernel has no IA-32 emulation");
        return;
    }
    let mut filter = Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        default_errno: None,
        architectures: vec!["SCMP_ARCH_X86".to_owned()],
        flags: vec![],
        rules: vec![rule(&["getpid"], "SCMP_ACT_ERRNO", Some(7))],
    };
    assert_eq!(under(&compile(&filter).expect("compiles"), getpid_i386), -7);
    filter.architectures.clear();
    filter.rules = vec![];
    // A killed thread never joins, so watch it from outside: it must not answer.
    let program = compile(&filter).expect("compiles");
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().expect("set no_new_privs");
        install(&program).expect("install the filter");
        sender.send(None).expect("is received");
        sender.send(Some(getpid_i386())).expect("is received");
    });
    assert_eq!(receiver.recv().expect("the filter is installed"), None);
    assert!(receiver.recv_timeout(std::time::Duration::from_millis(300)).is_err(), "the call was let through");
}

#[test]
fn a_listener_is_a_descriptor_that_is_closed_on_exec() {
    let program = allowing(vec![rule(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY", None)]).expect("compiles");
    let flags = thread::scope(|scope| {
        let listen = || {
            nix::sys::prctl::set_no_new_privs().expect("set no_new_privs");
            let listener = install(&program).expect("install the filter").expect("wants a listener");
            assert!(listener.as_raw_fd() > 2);
            nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_GETFD).expect("is open")
        };
        scope.spawn(listen).join().expect("the thread ends")
    });
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}

#[test]
fn installing_without_the_right_to_is_refused() {
    use crate::capabilities::{CapSets, set};
    let program = allowing(vec![rule(&["swapon"], "SCMP_ACT_ERRNO", None)]).expect("compiles");
    let result = thread::scope(|scope| {
        let powerless = || {
            set(&CapSets::default()).expect("drop all capabilities");
            install(&program).map(|listener| listener.is_some())
        };
        scope.spawn(powerless).join().expect("the thread ends")
    });
    assert_eq!(result, Err(Errno::EACCES));
}

#[test]
fn dockers_profile_lets_programs_work_and_stops_what_it_should() {
    let program = compile(&docker()).expect("compiles");
    let results = under(&program, || {
        [
            (libc::SYS_getpid, 0),
            (libc::SYS_clone3, 0),
            (libc::SYS_mount, 0),
            (libc::SYS_unshare, 0x1000_0000),
            (libc::SYS_swapon, 0),
            (libc::SYS_keyctl, 0),
            (libc::SYS_io_uring_setup, 0),
            (libc::SYS_socket, 1),
            (libc::SYS_socket, 38),
            (libc::SYS_socket, 40),
            (libc::SYS_socket, 0x1_0000_0026),
            (libc::SYS_socket, 0x1_0000_0028),
            (libc::SYS_personality, 0xffff_ffff),
            (libc::SYS_personality, 0x4_0000),
            (5000, 0),
        ]
        .map(|(number, arg)| (number, arg, call(number, [arg, u64::from(arg == 1), 0]).err()))
    });
    let errno: Vec<_> = results.iter().map(|(_, _, errno)| *errno).collect();
    let (works, denied, absent) = (None, Some(Errno::EPERM), Some(Errno::ENOSYS));
    let expected = [
        works, absent, denied, denied, denied, denied, denied, works, denied, denied, denied, denied, works, denied,
        absent,
    ];
    assert_eq!(errno, expected, "{results:?}");
    let output =
        shell(&program, "a=$(printf %s out); (exit 3); echo $? $a; sleep 0.01 & wait $!; mount -t tmpfs x /mnt");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 out\n");
    assert!(!output.status.success(), "mount was let through");
}

#[test]
fn dockers_profile_is_short_and_quick() {
    use super::bpf::{Data, run};
    let program = compile(&docker()).expect("compiles");
    let instructions = program.instructions();
    assert!(instructions.len() < 1200, "{} instructions", instructions.len());
    let docker = docker();
    let conditional = docker.rules.iter().filter(|rule| !rule.args.is_empty());
    let conditional: Vec<u32> =
        conditional.flat_map(|rule| &rule.names).filter_map(|name| table::find(name)?.number(Arch::NATIVE)).collect();
    let steps = |number: u32| {
        let data = Data { number, arch: Arch::NATIVE.audit(), args: [0; 6] };
        run(instructions, &data).steps
    };
    let others = (0..470).filter(|number| !conditional.contains(number));
    let worst = others.map(steps).max().expect("are some");
    let length = instructions.len();
    println!("{length} instructions, {worst} steps at most without conditions");
    // Two loads, the architecture, eight or nine decisions, at most one long jump, the return.
    assert!(worst <= 14, "{worst} steps");
}
