//! The end of the machine: asked for, or because nothing better can be done.

use std::convert::Infallible;
use std::fs;
use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, sync};

/// How long processes may take to die and file systems to become idle.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends everything that runs, writes everything to the disks and restarts, which the virtual machine monitor takes as the
/// end. `mounted` are the mount points of the machine's own root, in the order in which they were mounted.
pub(crate) fn power_off(mounted: &[String]) -> ! {
    end_processes();
    for target in mounted.iter().rev() {
        detach(target);
    }
    restart()
}

/// Kills and reaps everybody else.
fn end_processes() {
    let deadline = Instant::now() + PATIENCE;
    let everybody = Pid::from_raw(-1);
    // Nobody is left to kill when this fails.
    let _ = kill(everybody, Signal::SIGKILL);
    while Instant::now() < deadline {
        match waitpid(everybody, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => sleep(Duration::from_millis(1)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Unmounts, so that the file system is marked clean. The kernel lets go of a dead container's mounts a moment after its
/// last process, so one that is busy is tried again; one that stays busy is at least made read-only.
fn detach(target: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            Err(nix::Error::EBUSY) if Instant::now() < deadline => sleep(Duration::from_millis(1)),
            Err(nix::Error::EBUSY) => break,
            _ => return,
        }
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    // What is left is written by sync(2) and mended from the journal.
    let _ = mount(None::<&str>, target, None::<&str>, flags, None::<&str>);
}

fn restart() -> ! {
    sync();
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT) as nix::Result<Infallible>;
    say(&format!("restart: {}", error.desc()));
    // The kernel panics when PID 1 ends, and with panic=-1 that restarts too.
    std::process::abort()
}

/// Ends the machine for a reason that its host should know.
pub(crate) fn give_up(reason: &str) -> ! {
    say(reason);
    restart()
}

/// Makes a panic of PID 1 the end of the machine. A panic in a child that is becoming a container's process ends that child
/// alone, as anything else that goes wrong there.
pub(crate) fn end_machine_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("panic: {panic}"));
        if getpid() == Pid::from_raw(1) {
            restart();
        }
    }));
}

/// One line on the console.
fn say(text: &str) {
    let line = format!("sbx-agent: {}\n", text.replace('\n', " "));
    let console = fs::OpenOptions::new().write(true).open("/dev/console");
    // There is no third place to say it.
    let _ = match console {
        Ok(mut console) => console.write_all(line.as_bytes()),
        Err(_) => std::io::stderr().write_all(line.as_bytes()),
    };
}
