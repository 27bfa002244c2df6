//! The mount that a volume with options stands for (`--opt type=…,device=…,o=…`), made as Docker's driver "local" makes it
//! (moby `daemon/volume/local/local_unix.go`, `github.com/moby/sys/mount`).
//!
//! It is made whole before it is seen: mount(2), changes of its flags and of its propagation happen in a mount namespace
//! of their own, and a detached copy of the result is attached at once. Whoever finds it mounted may use it, even after a
//! crash in the middle.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sbx_container::sys::{OPEN_TREE_CLONE, move_mount, open_tree};
use sbx_sandbox::volumes::VolumeMount;

const NONE: Option<&str> = None;

/// Words of mount(8) that are no data of the file system: what they set and what they clear.
const FLAGS: [(&str, MsFlags, MsFlags); 30] = {
    const NO: MsFlags = MsFlags::empty();
    [
        ("defaults", NO, NO),
        ("ro", MsFlags::MS_RDONLY, NO),
        ("rw", NO, MsFlags::MS_RDONLY),
        ("suid", NO, MsFlags::MS_NOSUID),
        ("nosuid", MsFlags::MS_NOSUID, NO),
        ("dev", NO, MsFlags::MS_NODEV),
        ("nodev", MsFlags::MS_NODEV, NO),
        ("exec", NO, MsFlags::MS_NOEXEC),
        ("noexec", MsFlags::MS_NOEXEC, NO),
        ("async", NO, MsFlags::MS_SYNCHRONOUS),
        ("sync", MsFlags::MS_SYNCHRONOUS, NO),
        ("dirsync", MsFlags::MS_DIRSYNC, NO),
        ("nomand", NO, MsFlags::MS_MANDLOCK),
        ("mand", MsFlags::MS_MANDLOCK, NO),
        ("atime", NO, MsFlags::MS_NOATIME),
        ("noatime", MsFlags::MS_NOATIME, NO),
        ("diratime", NO, MsFlags::MS_NODIRATIME),
        ("nodiratime", MsFlags::MS_NODIRATIME, NO),
        ("relatime", MsFlags::MS_RELATIME, NO),
        ("norelatime", NO, MsFlags::MS_RELATIME),
        ("strictatime", MsFlags::MS_STRICTATIME, NO),
        ("nostrictatime", NO, MsFlags::MS_STRICTATIME),
        ("bind", MsFlags::MS_BIND, NO),
        ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC), NO),
        ("private", MsFlags::MS_PRIVATE, NO),
        ("rprivate", MsFlags::MS_PRIVATE.union(MsFlags::MS_REC), NO),
        ("shared", MsFlags::MS_SHARED, NO),
        ("rshared", MsFlags::MS_SHARED.union(MsFlags::MS_REC), NO),
        ("slave", MsFlags::MS_SLAVE, NO),
        ("rslave", MsFlags::MS_SLAVE.union(MsFlags::MS_REC), NO),
    ]
};
const PROPAGATION: MsFlags = MsFlags::MS_PRIVATE.union(MsFlags::MS_SHARED).union(MsFlags::MS_SLAVE);
/// What mount(2) heeds of a bind mount only when it is asked a second time.
const OF_THE_MOUNT: MsFlags = MsFlags::MS_RDONLY
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_NOATIME)
    .union(MsFlags::MS_NODIRATIME)
    .union(MsFlags::MS_RELATIME)
    .union(MsFlags::MS_STRICTATIME);

/// Options as mount(2) takes them.
#[derive(Debug, PartialEq)]
struct Options {
    flags: MsFlags,
    propagation: MsFlags,
    data: Vec<String>,
}

impl Options {
    fn parse(words: &[String]) -> Self {
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        for word in words {
            match FLAGS.iter().find(|(name, ..)| name == word) {
                Some((_, set, clear)) => flags = (flags | *set) - *clear,
                None => data.push(word.clone()),
            }
        }
        let mut propagation = flags & PROPAGATION;
        // `rbind` and `rshared` have the same bit for "and all below".
        let below = |prefix: &str| words.iter().any(|word| word.starts_with(prefix) && word != "rbind");
        if !propagation.is_empty() && ["rprivate", "rshared", "rslave"].iter().any(|word| below(word)) {
            propagation |= MsFlags::MS_REC;
        }
        flags -= PROPAGATION;
        if !words.iter().any(|word| word == "rbind") {
            flags -= MsFlags::MS_REC;
        }
        Self { flags, propagation, data }
    }
}

/// Mounts at `point`, an empty directory. The error says what was mounted where.
pub(crate) fn attach(volume: &VolumeMount, point: &Path) -> Result<(), String> {
    let mut options = Options::parse(&volume.options);
    if volume.fstype.starts_with("nfs") {
        resolve_server(&mut options.data)?;
    }
    let attached = make(volume, &options, point).and_then(|made| {
        let place = open_tree(None, point, 0)?;
        move_mount(made.as_fd(), place.as_fd())
    });
    attached.map_err(|error| {
        let VolumeMount { fstype, device, options } = volume;
        format!(
            "failed to mount local volume: mount {device}:{}, type {fstype}, options {:?}: {error}",
            point.display(),
            options.join(",")
        )
    })
}

/// The kernel knows no names: `addr=` gets the address that its host has now.
fn resolve_server(data: &mut [String]) -> Result<(), String> {
    let Some(word) = data.iter_mut().find(|word| word.starts_with("addr=")) else {
        return Err("an nfs volume needs its server's address: add o=addr=HOST".to_owned());
    };
    let host = word["addr=".len()..].to_owned();
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let failed = |why: String| format!("error resolving passed in network volume address {host:?}: {why}");
    let found: Vec<IpAddr> =
        (host.as_str(), 0).to_socket_addrs().map_err(|error| failed(error.to_string()))?.map(|at| at.ip()).collect();
    let address = found.iter().find(|address| address.is_ipv4()).or(found.first());
    *word = format!("addr={}", address.ok_or_else(|| failed("it has no address".to_owned()))?);
    Ok(())
}

fn make(volume: &VolumeMount, options: &Options, point: &Path) -> io::Result<OwnedFd> {
    // A thread of its own: its mounts are its own and go when it ends.
    let made = std::thread::scope(|scope| scope.spawn(|| make_here(volume, options, point)).join());
    made.unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
}

fn make_here(volume: &VolumeMount, options: &Options, point: &Path) -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let data = options.data.join(",");
    let data = (!data.is_empty()).then_some(data.as_str());
    mount(Some(volume.device.as_str()), point, Some(volume.fstype.as_str()), options.flags, data)?;
    if options.flags.contains(MsFlags::MS_BIND) && options.flags.intersects(OF_THE_MOUNT) {
        mount(NONE, point, NONE, options.flags | MsFlags::MS_REMOUNT, data)?;
    }
    if !options.propagation.is_empty() {
        mount(NONE, point, NONE, options.propagation, NONE)?;
    }
    open_tree(None, point, OPEN_TREE_CLONE | libc::AT_RECURSIVE as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Options {
        Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        let options = parsed("size=1m,ro,nodev,uid=5,rw,noexec,defaults");
        assert_eq!(options.flags, MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
        assert_eq!(options.data, ["size=1m", "uid=5"]);
        assert_eq!(options.propagation, MsFlags::empty());
    }

    #[test]
    fn bind_and_propagation_do_not_mix_what_they_reach() {
        let (bind, shared, below) = (MsFlags::MS_BIND, MsFlags::MS_SHARED, MsFlags::MS_REC);
        for (text, flags, propagation) in [
            ("bind,rshared", bind, shared | below),
            ("rbind,shared", bind | below, shared),
            ("rbind,rshared,ro", bind | below | MsFlags::MS_RDONLY, shared | below),
            ("rbind", bind | below, MsFlags::empty()),
        ] {
            let options = parsed(text);
            assert_eq!((options.flags, options.propagation), (flags, propagation), "{text}");
        }
    }

    #[test]
    fn a_server_gets_its_address() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut data = words("vers=4,addr=localhost");
        resolve_server(&mut data).unwrap();
        assert_eq!(data, ["vers=4", "addr=127.0.0.1"]);
        for kept in ["addr=192.0.2.1", "addr=2001:db8::1"] {
            let mut data = words(kept);
            resolve_server(&mut data).unwrap();
            assert_eq!(data, [kept]);
        }
        assert!(resolve_server(&mut words("vers=4")).unwrap_err().contains("o=addr="));
        let error = resolve_server(&mut words("addr=no.such.host.invalid")).unwrap_err();
        assert!(error.contains("no.such.host.invalid"), "{error}");
    }
}
