//! An agent in namespaces of its own, and its end.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sbx_container::cgroup::{Hierarchies, reap};
use sbx_protocol::{Hello, Purpose, SessionId, StreamKind, VERSION, write_frame};
use tempfile::TempDir;

use super::talk::Control;

/// How long anything may take before a test fails; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An agent that runs until this is dropped.
pub(crate) struct Agent {
    directory: TempDir,
    process: Child,
    /// Parent of its containers' cgroups.
    pub(crate) group: String,
}

impl Agent {
    /// `None` where it cannot run; says why.
    pub(crate) fn start() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: making containers needs root");
            return None;
        }
        let directory = TempDir::new().expect("a directory");
        furnish_layer(&directory.path().join("layer"));
        let process = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=KILL"])
            .arg(env!("CARGO_BIN_EXE_sbx-agent-over-unix"))
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run unshare(1)");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = format!("sbx-agent-{}-{number}", std::process::id());
        let agent = Self { directory, process, group };
        wait_for("the agent's socket", || agent.try_connect().is_some());
        Some(agent)
    }

    fn try_connect(&self) -> Option<UnixStream> {
        UnixStream::connect(self.path("agent")).ok()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A connection that has not said anything.
    pub(crate) fn connect(&self) -> UnixStream {
        let socket = self.try_connect().expect("connect to the agent");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn control(&self) -> Control {
        Control::new(self.greet(Purpose::Control))
    }

    pub(crate) fn stream(&self, session: SessionId, kind: StreamKind) -> UnixStream {
        self.greet(Purpose::Stream { session, kind })
    }

    fn greet(&self, purpose: Purpose) -> UnixStream {
        let mut socket = self.connect();
        write_frame(&mut socket, &Hello { version: VERSION, purpose }).expect("greet");
        socket
    }

    /// The agent's process, for a look at it from outside.
    pub(crate) fn pid(&self) -> i32 {
        let unshare = self.process.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("its child");
        children.split_whitespace().next().expect("unshare has a child").parse().expect("a process id")
    }

    /// A path of the agent's own root.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid())).join(path.trim_start_matches('/'))
    }

    /// Runs a command of the machine that the tests run on in the agent's namespaces.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let output = Command::new("nsenter")
            .args(["--mount", "--net", "--pid", "--target", &self.pid().to_string(), "--"])
            .args(command)
            .output()
            .expect("run nsenter(1)");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Asks for the end and returns what the agent says last.
    pub(crate) fn power_off(mut self) -> String {
        self.control().send(&sbx_protocol::Request::PowerOff);
        let mut said = String::new();
        self.process.stdout.take().expect("its output").read_to_string(&mut said).expect("its output");
        let status = self.process.wait().expect("its end");
        assert!(status.success(), "{status}");
        said
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Its PID namespace and everything in it goes with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let Ok(hierarchies) = Hierarchies::detect() else { return };
        wait_for("the end of the cgroups", || {
            let reaped = reap(&hierarchies, &self.group, &|_| false).is_ok();
            let gone = |hierarchy: &sbx_container::cgroup::Hierarchy| {
                let directory = hierarchy.mount_point.join(&self.group);
                !directory.exists() || fs::remove_dir(&directory).is_ok()
            };
            reaped && hierarchies.iter().all(gone)
        });
    }
}

/// Waits until `done`, and fails naming `what` when it never is.
pub(crate) fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A root that is busybox and nothing else.
fn furnish_layer(layer: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(layer.join(directory)).expect("a directory of the layer");
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let busybox = busybox.expect("busybox (Debian: busybox-static)");
    fs::copy(&busybox, layer.join("bin/busybox")).expect("copy busybox");
    let list = Command::new(&busybox).arg("--list").output().expect("run busybox");
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(name)).expect("a link to busybox");
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n").expect("users");
    fs::write(layer.join("etc/group"), "root:x:0:\nbob:x:1000:\n").expect("groups");
    fs::write(layer.join("bin/plain"), "not a program\n").expect("a file");
}
