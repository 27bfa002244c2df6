//! Network namespaces for tests. Nothing here touches the namespace that the tests were started in.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Runs a body in a thread with a new network namespace whose loopback is up. Panics go to the caller.
pub(crate) fn in_new_netns<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        ip("link set lo up");
        body()
    });
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A network namespace, kept by a descriptor.
pub(crate) struct Netns(File);

impl Netns {
    /// A new one, with loopback up.
    pub(crate) fn new() -> Netns {
        let (sender, receiver) = mpsc::channel();
        in_new_netns(move || sender.send(Netns::current()).unwrap());
        receiver.recv().unwrap()
    }

    /// The calling thread's.
    pub(crate) fn current() -> Netns {
        Netns(File::open("/proc/thread-self/ns/net").unwrap())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Moves an interface of the calling thread's namespace inside.
    pub(crate) fn take(&self, interface: &str) {
        // ip(8) takes the namespace of a process or a name below /run/netns; a descriptor of ours is neither, but a
        // program that it starts can be: `ip` opens the path itself.
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&self.0));
        ip(&format!("link set {interface} netns {path}"));
    }

    /// Runs a body in a thread inside.
    pub(crate) fn enter<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.fd(), CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// In the environment of a test process that runs one test alone.
const ALONE: &str = "SBX_TEST_ALONE";

/// Runs the body of a test in a process of its own (limits and the like belong to the process): the test binary again,
/// with this test only. `name` is the test's full name.
pub(crate) fn in_own_process(name: &str, body: impl FnOnce() + Send + 'static) {
    if std::env::var(ALONE).as_deref() == Ok(name) {
        return in_new_netns(body);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{name} is not the name of a test: {text}");
}

/// Runs `ip ARGUMENTS` in the calling thread's namespace.
pub(crate) fn ip(arguments: &str) -> String {
    command("ip", arguments)
}

/// Runs `nft ARGUMENTS` in the calling thread's namespace.
pub(crate) fn nft(arguments: &str) -> String {
    command("nft", arguments)
}

fn command(program: &str, arguments: &str) -> String {
    // A child is forked from the calling thread, so it inherits that thread's namespace.
    let Output { status, stdout, stderr } = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
