//! The file systems of the machine's own root.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};
use sbx_container::Error;

use super::STAGE;

/// One of the kernel's file systems: where, of what type, how.
struct Attached {
    target: &'static str,
    fstype: &'static str,
    flags: MsFlags,
    options: &'static str,
}

/// In the order in which they are attached. What programs see of them they see in containers, whose plans mount their own.
fn kernel_file_systems() -> [Attached; 7] {
    let (suid, dev, exec) = (MsFlags::MS_NOSUID, MsFlags::MS_NODEV, MsFlags::MS_NOEXEC);
    let entry = |target, fstype, flags, options| Attached { target, fstype, flags, options };
    [
        entry("/proc", "proc", suid | dev | exec, ""),
        entry("/sys", "sysfs", suid | dev | exec, ""),
        entry("/dev", "devtmpfs", suid | exec, "mode=0755"),
        entry("/dev/pts", "devpts", suid | exec, "ptmxmode=0666,mode=0620,gid=5"),
        entry("/run", "tmpfs", suid | dev, "mode=0755"),
        entry("/tmp", "tmpfs", suid | dev, "mode=1777"),
        // As systemd mounts it, since a container can see the options.
        entry("/sys/fs/cgroup", "cgroup2", suid | dev | exec, "nsdelegate,memory_recursiveprot"),
    ]
}

fn failed(step: &str) -> impl Fn(nix::Error) -> Error {
    move |error| Error::new(step, error.desc())
}

/// Makes a tmpfs the root instead of the initramfs: pivot_root(2), which a container's child does, needs a root that is
/// mounted on something.
pub(crate) fn leave_initramfs() -> Result<(), Error> {
    const NEW: &str = "/root";
    make_directory(NEW)?;
    mount(Some("sbx"), NEW, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))
        .map_err(failed("mount the root"))?;
    chdir(NEW).map_err(failed("enter the root"))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(failed("move the root"))?;
    chroot(".").map_err(failed("change the root"))?;
    chdir("/").map_err(failed("enter the root"))?;
    // The first process has its root and directory together with the kernel's threads (`rest_init`), and who has them together with
    // others cannot visit the mount namespace of a container (setns(2)).
    unshare(CloneFlags::CLONE_FS).map_err(failed("have a root for itself"))
}

/// Mounts what the kernel offers, and makes the agent's own directory.
pub(crate) fn attach_kernel_file_systems() -> Result<(), Error> {
    for one in kernel_file_systems() {
        make_directory(one.target)?;
        mount(Some(one.fstype), one.target, Some(one.fstype), one.flags, Some(one.options))
            .map_err(|error| Error::new(format!("mount {} on {}", one.fstype, one.target), error.desc()))?;
    }
    make_directory(STAGE)
}

fn make_directory(path: &str) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|error| Error::new(format!("create {path}"), error)),
    }
}

/// Lets every controller that the kernel has count and limit in cgroups below the root.
pub(crate) fn delegate_controllers() -> Result<(), Error> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))
        .map_err(|error| Error::new("list the cgroup controllers", error))?;
    for controller in controllers.split_whitespace() {
        // One that cannot be delegated (a real-time task bars cpu, for one) is missed by the limit that needs it, by name.
        let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}
