//! Devices that come and go while Linux runs in a confined machine (`examples/pluggable.rs`, `examples/guest_init/plugged.rs`).

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use sbx_vmm::machine::{Boot, Builder, Initrd, MachineConfig, Remote, pair};

use crate::{Output, PATIENCE, Running, can_run, config, initramfs, log};

/// Bytes of each disk.
const DISK: usize = 256 << 10;

/// What the tests need, where it is there: a kernel and an initial file system.
fn kernel_and_init() -> Option<(OsString, Vec<u8>)> {
    if !can_run() {
        return None;
    }
    let Some(kernel) = env::var_os("SBX_KERNEL") else {
        println!("skipped: SBX_KERNEL does not name a guest kernel");
        return None;
    };
    Some((kernel, initramfs::archive(&initramfs::init()?)))
}

/// A confined machine in a process of its own.
struct Confined {
    child: Child,
    remote: Remote,
    output: Output,
}

impl Confined {
    fn start(arguments: &[PathBuf]) -> Self {
        let tests = env::current_exe().unwrap();
        let (remote, socket) = pair().unwrap();
        let mut child = Command::new(tests.parent().and_then(Path::parent).unwrap().join("examples/pluggable"))
            .args(arguments)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (output, stdout) = (Output::default(), child.stdout.take().unwrap());
        let mut copy = output.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                copy.write_all(&[line.unwrap(), b"\n".to_vec()].concat()).unwrap();
            }
            copy.write_all(b"(the process has ended)").unwrap();
        });
        Self { child, remote, output }
    }

    fn hear(&self, words: &str) {
        self.output.wait_for_text(&format!("plugged: {words}"));
    }

    /// Whether the machine's process has a file open.
    fn has_open(&self, path: &Path) -> bool {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).any(|open| open == path)
    }
}

/// A file in a folder.
fn disk(folder: &Path, name: &str, content: &[u8]) -> File {
    let content: Vec<u8> = content.iter().copied().cycle().take(DISK).collect();
    fs::write(folder.join(name), content).unwrap();
    OpenOptions::new().read(true).write(true).open(folder.join(name)).unwrap()
}

fn plug_disk(remote: &Remote, folder: &Path, name: &str, content: &[u8]) -> usize {
    let file = disk(folder, name, content);
    remote.plug(format!("disk {name}").as_bytes(), &[file.as_fd()]).unwrap()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The host's side of what the guest's program does.
fn play(mut machine: Confined, folder: &Path) {
    let owner = &machine.remote;
    // A disk and a share, used and let go.
    assert_eq!(plug_disk(owner, folder, "first", b"."), 0);
    machine.hear("the disk is in use");
    let refused = owner.unplug(0).unwrap_err().to_string();
    assert!(refused.contains("a driver holds the device at address 0"), "{refused}");
    assert!(owner.save(&tempfile::tempfile().unwrap()).is_err());
    fs::create_dir(folder.join("share")).unwrap();
    fs::write(folder.join("share/given"), b"from the host").unwrap();
    let share = folder.join("share");
    let directory = open(&share, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    assert_eq!(owner.plug(b"share share", &[directory.as_fd()]).unwrap(), 1);
    machine.hear("nothing is in use");
    owner.unplug(0).unwrap();
    owner.unplug(1).unwrap();
    assert!(!machine.has_open(&folder.join("first")) && !machine.has_open(&share));
    assert!(fs::read(folder.join("first")).unwrap().chunks(5).all(|chunk| b"first".starts_with(chunk)));
    assert_eq!(fs::read(share.join("folder/made")).unwrap(), b"from the host, and back");

    // Others at the same places, one of them of somebody else, who goes.
    let (party, socket) = pair().unwrap();
    owner.admit(socket).unwrap();
    let refused = party.plug(b"nothing", &[]).unwrap_err().to_string();
    assert!(refused.contains("no such device: what is nothing?"), "{refused}");
    assert_eq!(plug_disk(&party, folder, "theirs", b"theirs"), 0);
    assert_eq!(plug_disk(owner, folder, "second", b"second"), 1);
    assert_eq!(owner.plug(b"random go", &[]).unwrap(), 2);
    machine.hear("two disks are in use");
    drop(party);
    assert_eq!(owner.plug(b"random go", &[]).unwrap(), 3, "a driver still holds what was theirs");
    assert!(machine.has_open(&folder.join("theirs")));
    machine.hear("one disk is in use");
    wait("their disk is still there", || !machine.has_open(&folder.join("theirs")));
    assert_eq!(plug_disk(owner, folder, "third", b"third"), 0);
    assert_eq!(owner.plug(b"random go", &[]).unwrap(), 4);
    machine.hear("all went well");
    assert!(machine.child.wait().unwrap().success());
    machine.output.wait_for_text("vmm: Reset");
    let said = machine.output.text();
    assert!(!said.contains("needs a reset"), "{said}");
}

#[test]
fn devices_come_and_go_while_linux_runs() {
    let Some((kernel, archive)) = kernel_and_init() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("initrd"), archive).unwrap();
    let machine = Confined::start(&[kernel.into(), folder.path().join("initrd")]);
    machine.hear("waits for address 0");
    play(machine, folder.path());
}

#[test]
fn devices_come_and_go_after_a_restore() {
    let Some((kernel, archive)) = kernel_and_init() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = MachineConfig { addresses: 6, ..config(1, "console=ttyS0 quiet panic=-1 -- plugged") };
    let running = Running::start(
        || Builder::new(config, log()).unwrap(),
        |builder| {
            let kernel = File::open(kernel).unwrap();
            builder.boot(&Boot { kernel: &kernel, initrd: Some(Initrd::Bytes(&archive)) }).unwrap()
        },
    );
    // The whole line: a serial port that is saved in the middle of one stays silent.
    running.output.wait_for_text("plugged: waits for address 0\r\n");
    let saved = folder.path().join("saved");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&saved).unwrap();
    running.remote.save(&file).unwrap();
    running.stop();
    play(Confined::start(&[saved]), folder.path());
}
