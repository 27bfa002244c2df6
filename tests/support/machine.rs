//! A private machine with `sbx` in it, and the frame of every end-to-end test.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use super::census::Census;
use super::image::{BUSYBOX, Image};
use super::output::{Output, Running};
use super::peer::Peer;
use super::wait::{DEADLINE, eventually, within};

/// How a container is isolated. One test body runs in every mode that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Namespaces and a cgroup of the host's kernel.
    Process,
    /// A virtual machine of its own.
    Vm,
}

impl Mode {
    /// The word of `--isolation`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Vm => "vm",
        }
    }
}

/// The modes under test: `SBX_TEST_MODES`, a list with commas. `scripts/test` runs every suite on this machine with
/// `process` and, where KVM is needed, in a machine that has it with `vm`.
pub fn modes() -> Vec<Mode> {
    let named = std::env::var("SBX_TEST_MODES").unwrap_or_else(|_| "process".to_owned());
    let mode = |word: &str| match word {
        "process" => Mode::Process,
        "vm" => Mode::Vm,
        other => panic!("SBX_TEST_MODES names {other}, not process or vm"),
    };
    named.split(',').map(mode).collect()
}

/// Runs one body in every mode, on a machine that has the busybox image and nothing of any other test. In VM mode a machine
/// that is as it was before is given to the next test: in a nested machine, making one takes longer than most bodies.
#[track_caller]
pub fn each_mode(body: impl Fn(&Machine)) {
    for mode in modes() {
        match super::exceptions::reason_of_this_test() {
            Some((name, reason)) if mode == Mode::Vm => super::skip(&name, reason),
            _ => Warm::take(mode).run(&body).give_back(),
        }
    }
}

/// Runs a body on a machine without images, for what does not depend on the mode.
#[track_caller]
pub fn machine(body: impl Fn(&Machine)) {
    if !modes().contains(&Mode::Process) {
        return; // It runs where process mode is under test.
    }
    let machine = Machine::warm(Mode::Process);
    machine.ok(&["rmi", BUSYBOX]);
    drop(Warm::of(machine).run(&body));
}

/// Folders of a machine that are its tests'.
const TESTS_FOLDERS: [&str; 2] = ["home", "tmp"];

/// Machines as their tests have left them: as they were before.
static CLEAN: Mutex<Vec<Warm>> = Mutex::new(Vec::new());

/// A machine, and what it is like without a test's doings.
struct Warm {
    machine: Machine,
    images: Vec<String>,
    before: Census,
    /// What is in its folder.
    own: Vec<PathBuf>,
}

impl Warm {
    #[track_caller]
    fn take(mode: Mode) -> Self {
        let clean = if mode == Mode::Vm { clean_machines().pop() } else { None };
        clean.unwrap_or_else(|| Self::of(Machine::warm(mode)))
    }

    #[track_caller]
    fn of(machine: Machine) -> Self {
        let images = machine.images();
        let before = Census::settled(&machine);
        let own = machine.entries();
        Self { machine, images, before, own }
    }

    /// Runs a body and then fails if something of it is left.
    #[track_caller]
    fn run(self, body: &impl Fn(&Machine)) -> Self {
        body(&self.machine);
        self.machine.clear(&self.images);
        self.machine.expect_as_before(&self.before);
        self
    }

    /// Leaves the machine to another test, with nothing in its folder that the last one has put there.
    fn give_back(self) {
        if self.machine.mode != Mode::Vm || !self.machine.peer.is_sbx() {
            return;
        }
        for path in self.machine.entries() {
            let is_tests = TESTS_FOLDERS.iter().any(|folder| path == self.machine.path(folder));
            if self.own.contains(&path) && !is_tests {
                continue;
            }
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
            let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.expect("what a test has made can be removed");
        }
        for folder in TESTS_FOLDERS {
            fs::create_dir(self.machine.path(folder)).expect("a new folder");
        }
        self.machine.share_templates(&self.machine.path("root/templates"), &shared_templates());
        static AT_EXIT: Once = Once::new();
        AT_EXIT.call_once(|| super::sys::at_exit(end_machines));
        clean_machines().push(self);
    }
}

/// Whoever panicked had no machine of these.
fn clean_machines() -> MutexGuard<'static, Vec<Warm>> {
    CLEAN.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn end_machines() {
    let machines = std::mem::take(&mut *clean_machines());
    drop(machines);
}

/// Namespaces of their own, folders of their own, and `sbx` (or its peer) in them.
pub struct Machine {
    folder: tempfile::TempDir,
    holder: Child,
    mode: Mode,
    peer: Peer,
    next_name: Cell<u32>,
}

impl Machine {
    /// Starts a machine. It ends with this value, or with this process however that ends.
    #[track_caller]
    pub fn start(mode: Mode) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the end-to-end tests need root: they make namespaces and cgroups");
        // Cargo makes it when it builds, and a copy of what was built has none.
        fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).expect("a folder for machines");
        let folder = tempfile::Builder::new().prefix("m").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        for name in ["root", "run", "home", "tmp"] {
            fs::create_dir(folder.path().join(name)).expect("a new folder");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/private-machine");
        // The machine lives as long as its standard input is open, so it ends when this process does.
        let holder = Command::new(script)
            .args(["-d".as_ref(), folder.path(), "cat".as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("scripts/private-machine starts");
        let machine = Self { folder, holder, mode, peer: Peer::chosen(), next_name: Cell::new(0) };
        machine.share_templates(&shared_templates(), &machine.path("root/templates"));
        eventually("the private machine", || machine.path("ready").exists().then_some(()));
        machine.peer.start(&machine);
        machine
    }

    /// Machines to begin with do not depend on where they are kept, and the tests' machines have the same sizes.
    fn share_templates(&self, from: &Path, to: &Path) {
        if self.mode != Mode::Vm {
            return;
        }
        fs::create_dir_all(to).expect("a folder for templates");
        for entry in fs::read_dir(from).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().contains('-') {
                // Another test may have been faster.
                let _ = fs::hard_link(entry.path(), to.join(name));
            }
        }
    }

    /// Starts a machine that has the busybox image and has run a container. The first one makes what stays for all:
    /// the bridge, its rules, the parents of cgroups, the folders of the store.
    #[track_caller]
    fn warm(mode: Mode) -> Self {
        let machine = Self::start(mode);
        machine.load(&Image::busybox());
        if machine.peer.is_sbx() {
            machine.ok(&["run", "--rm", "-v", "/anonymous", BUSYBOX, "true"]);
        }
        machine
    }

    /// Everything in its folder.
    fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path()).expect("the machine's folder");
        entries.map(|entry| entry.expect("an entry of the machine's folder").path()).collect()
    }

    /// Ids of all images.
    #[track_caller]
    fn images(&self) -> Vec<String> {
        self.ok(&["images", "-q", "--no-trunc"]).lines().map(str::to_owned).collect()
    }

    /// Removes every container, and every image but those given.
    #[track_caller]
    fn clear(&self, keep: &[String]) {
        for id in self.ok(&["ps", "-aq", "--no-trunc"]).lines() {
            // With --rm it may be going away at this moment.
            drop(self.sbx(&["rm", "-f", "-v", id]));
        }
        for id in self.images().iter().filter(|id| !keep.contains(id)) {
            // One id stands in several lines when it has several names, and goes with the first.
            drop(self.sbx(&["rmi", "-f", id]));
        }
    }

    /// Compares the census with an earlier one, until they agree.
    #[track_caller]
    fn expect_as_before(&self, before: &Census) {
        if !self.peer.is_sbx() {
            return; // Docker keeps what it likes between its containers.
        }
        let start = std::time::Instant::now();
        loop {
            let difference = before.difference(&Census::take(self));
            if difference.is_empty() {
                return;
            }
            // A machine that was asked to end may take its time to write what it has to write.
            let patience = if self.mode == Mode::Vm { DEADLINE } else { DEADLINE / 4 };
            assert!(start.elapsed() < patience, "left behind:\n{difference}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The mode that containers of this machine run in.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Who answers: `sbx` or, when the suites are being checked, Docker.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// A path in the machine's folder. The file system is the real one, so it is the same inside and outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text, for command lines.
    pub fn at(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Process id of the machine's first process, seen from outside.
    pub fn first_pid(&self) -> String {
        let door = fs::read_to_string(self.path("ready")).expect("the machine's door");
        let pid = door.split("--target ").nth(1).and_then(|rest| rest.split(' ').next());
        pid.expect("a process id in the machine's door").to_owned()
    }

    /// A command inside the machine, with a clean environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.path("ready"));
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp")).env("LC_ALL", "C.UTF-8");
        command.args(["env", "-C", &self.at("home"), program]);
        command
    }

    /// Runs a shell script inside the machine, outside of any container.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        let mut command = self.command("sh");
        command.args(["-euc", script]);
        Running::start(command, Some(b"")).finish(DEADLINE)
    }

    /// A command line of `sbx`: `run` and `create` get the mode of this machine.
    pub fn sbx_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(&self.peer.program());
        self.peer.add_arguments(self, &mut command, args);
        command
    }

    /// Runs `sbx` to its end.
    #[track_caller]
    pub fn sbx(&self, args: &[&str]) -> Output {
        self.sbx_with(args, b"")
    }

    /// Runs `sbx` to its end with something on its standard input.
    #[track_caller]
    pub fn sbx_with(&self, args: &[&str], input: &[u8]) -> Output {
        Running::start(self.sbx_command(args), Some(input)).finish(DEADLINE)
    }

    /// Starts `sbx` with a standard input to write to.
    pub fn start_sbx(&self, args: &[&str]) -> Running {
        Running::start(self.sbx_command(args), None)
    }

    /// Runs `sbx`, which must succeed; gives its standard output without white space around it.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.sbx(args).expect_ok().text().to_owned()
    }

    /// Runs `run --rm FLAGS busybox sh -c SCRIPT`, which must succeed; gives its standard output.
    #[track_caller]
    pub fn in_busybox(&self, flags: &[&str], script: &str) -> String {
        self.ok(&[&["run", "--rm"], flags, &[BUSYBOX, "sh", "-c", script]].concat())
    }

    /// Runs `sbx`, which must fail with `code` and one clear error that contains `text`.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32, text: &str) -> Output {
        let output = self.sbx(args).expect_status(code).expect_stderr(text);
        assert!(!output.stderr.contains("panicked at"), "a panic is no clear error\n{output}");
        output
    }

    /// Starts `run -d FLAGS busybox ARGS`; gives the container's id.
    #[track_caller]
    pub fn detached(&self, flags: &[&str], args: &[&str]) -> String {
        self.ok(&[&["run", "-d"], flags, &[BUSYBOX], args].concat())
    }

    /// A container name that nothing else on this machine has.
    pub fn name(&self, stem: &str) -> String {
        let number = self.next_name.get();
        self.next_name.set(number + 1);
        format!("{stem}{number}")
    }

    /// One value out of `inspect`, by a Go template.
    #[track_caller]
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.ok(&["inspect", "--format", template, container])
    }

    /// Waits until a value out of `inspect` is what is expected.
    #[track_caller]
    pub fn await_inspect(&self, container: &str, template: &str, expected: &str) {
        let mut last = String::new();
        let start = std::time::Instant::now();
        while start.elapsed() < DEADLINE {
            last = self.inspect(container, template);
            if last == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{container}: {template} is `{last}` and not `{expected}`");
    }

    /// Waits until the log of a container contains a text; gives the whole log, both streams.
    #[track_caller]
    pub fn await_log(&self, container: &str, text: &str) -> String {
        let what = format!("`{text}` in the log of {container}");
        within(DEADLINE, &what, || {
            let logs = self.sbx(&["logs", container]);
            let all = logs.stdout + &logs.stderr;
            all.contains(text).then_some(all)
        })
    }

    /// Loads an image.
    #[track_caller]
    pub fn load(&self, image: &Image) {
        let archive = image.archive();
        self.ok(&["load", "-q", "-i", &archive.to_string_lossy()]);
    }
}

/// Where machines of one run of the tests leave their templates for each other.
fn shared_templates() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates")
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.share_templates(&self.path("root/templates"), &shared_templates());
        self.peer.stop(self);
        self.holder.stdin = None;
        let ended = self.holder.wait();
        if !std::thread::panicking() {
            let ended = ended.expect("scripts/private-machine can be waited for");
            assert!(ended.success(), "scripts/private-machine could not clean up: {ended}");
        }
    }
}
