//! The processes in a cgroup: listing, freezing and killing them, cgroups nested inside included.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Error, Result};
use super::files::{self, Patience};
use super::{Cgroup, Place, Version};

/// How long a freeze may take: tasks in uninterruptible sleep are not frozen before they wake.
const FREEZE_TIME: Duration = Duration::from_secs(10);
/// How long processes may take to die of SIGKILL.
const KILL_TIME: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Ids, in the reader's PID namespace, of all processes in the cgroup and in cgroups nested in it, sorted. Ones
    /// that the namespace does not show are left out.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = BTreeSet::new();
        for place in &self.places {
            pids.extend(below(&place.directory)?);
        }
        Ok(pids.into_iter().collect())
    }

    /// Stops every process from running until [`Cgroup::thaw`]; returns when all of them stand still. On failure
    /// everything runs again.
    pub fn freeze(&self) -> Result<()> {
        let place = self.freezer()?;
        let mut patience = Patience::new(FREEZE_TIME);
        loop {
            // v1 wants the write repeated: a task forked while the freeze is under way may have been missed
            // (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
            request(place, Wish::Frozen)?;
            if is_frozen(place)? {
                return Ok(());
            }
            if !patience.wait() {
                request(place, Wish::Thawed)?;
                return Err(patience.over("freeze", &place.directory, String::new()));
            }
        }
    }

    /// Lets frozen processes run again.
    pub fn thaw(&self) -> Result<()> {
        let place = self.freezer()?;
        let mut patience = Patience::new(FREEZE_TIME);
        request(place, Wish::Thawed)?;
        while is_frozen(place)? {
            if !patience.wait() {
                return Err(patience.over("thaw", &place.directory, String::new()));
            }
        }
        Ok(())
    }

    /// Whether the processes are frozen.
    pub fn frozen(&self) -> Result<bool> {
        is_frozen(self.freezer()?)
    }

    /// Kills every process with SIGKILL, frozen ones and fork bombs too, and returns when the cgroup is empty.
    /// The processes may then still be zombies of their parents. After the end of a PID namespace that held all of
    /// them there is nothing to kill, and [`Cgroup::remove`] alone is cheaper.
    pub fn kill(&self) -> Result<()> {
        let mut patience = Patience::new(KILL_TIME);
        let mut at_once = self.kill_at_once();
        loop {
            let left = self.pids()?;
            if left.is_empty() {
                return Ok(());
            }
            if !at_once {
                self.kill_each()?;
            }
            if !patience.wait() {
                let step = "kill the processes in";
                return Err(patience.over(step, Path::new(&self.path), format!("; still there: {left:?}")));
            }
            // From the second round on also one by one: a process can be in one hierarchy alone.
            at_once = false;
        }
    }

    /// v2 since Linux 5.14: the kernel kills the whole subtree, and whatever is being forked in it.
    fn kill_at_once(&self) -> bool {
        let place = self.places.iter().find(|place| place.version == Version::V2);
        place.is_some_and(|place| files::write(&place.directory.join("cgroup.kill"), "1").is_ok())
    }

    /// Signals every process by its id. While that happens the cgroup is frozen as far as it can be, so that no id is
    /// used again for somebody else's process and a fork bomb does not outrun the list.
    fn kill_each(&self) -> Result<()> {
        let freezer = self.freezer().ok();
        if let Some(place) = freezer {
            request(place, Wish::Frozen)?;
        }
        let killed = self.pids()?.into_iter().try_for_each(|pid| match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => {
                Err(Error::Io { step: "kill a process in", path: PathBuf::from(&self.path), source: error.into() })
            }
        });
        if let Some(place) = freezer {
            request(place, Wish::Thawed)?;
        }
        killed
    }

    /// v2's freezer where there is one, since a process that it holds can still be killed.
    fn freezer(&self) -> Result<&Place> {
        let v2 = self.places.iter().find(|place| place.version == Version::V2);
        let v2 = v2.filter(|place| place.directory.join("cgroup.freeze").exists());
        let v1 = || self.places.iter().find(|place| place.has("freezer"));
        v2.or_else(v1)
            .ok_or_else(|| Error::unsupported("pause", "neither cgroup.freeze nor a v1 freezer hierarchy exists"))
    }
}

/// What the freezer is asked for.
#[derive(Clone, Copy)]
enum Wish {
    Frozen,
    Thawed,
}

fn request(place: &Place, wish: Wish) -> Result<()> {
    let (file, value) = match (place.version, wish) {
        (Version::V2, Wish::Frozen) => ("cgroup.freeze", "1"),
        (Version::V2, Wish::Thawed) => ("cgroup.freeze", "0"),
        (Version::V1, Wish::Frozen) => ("freezer.state", "FROZEN"),
        (Version::V1, Wish::Thawed) => ("freezer.state", "THAWED"),
    };
    match files::write(&place.directory.join(file), value) {
        // A cgroup that is gone has nothing to freeze or thaw.
        Err(error) if !files::is_gone(&error) => {
            Err(Error::Io { step: "write", path: place.directory.join(file), source: error })
        }
        _ => Ok(()),
    }
}

fn is_frozen(place: &Place) -> Result<bool> {
    Ok(match place.version {
        Version::V2 => {
            let events = files::read_existing(&place.directory.join("cgroup.events"))?;
            events.is_some_and(|text| files::keyed(&text, "frozen") == Some(1))
        }
        Version::V1 => {
            let state = files::read_existing(&place.directory.join("freezer.state"))?;
            state.is_some_and(|text| text.trim() == "FROZEN")
        }
    })
}

/// Processes in a directory and in all below it.
pub(super) fn below(directory: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for directory in tree(directory)? {
        pids.extend(directly_in(&directory)?);
    }
    Ok(pids)
}

/// Processes of one directory alone; none when it is gone or when its processes are listed with an ancestor
/// (threaded v2 cgroups, EOPNOTSUPP).
pub(super) fn directly_in(directory: &Path) -> Result<Vec<i32>> {
    let path = directory.join("cgroup.procs");
    match fs::read_to_string(&path) {
        // 0 is a process that this PID namespace does not show.
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).collect()),
        Err(error) if files::is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(source) => Err(Error::Io { step: "read", path, source }),
    }
}

/// A cgroup directory and all below it, parents first. Directories that vanish meanwhile are left out.
pub(super) fn tree(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_path_buf()];
    let mut next = 0;
    while next < found.len() {
        let children = children(&found[next])?;
        found.extend(children);
        next += 1;
    }
    Ok(found)
}

/// The cgroups directly below a directory.
pub(super) fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    // The kernel counts child directories in st_nlink (kernfs: `2 + subdirs`): a stat(2) saves the usual, empty listing.
    match fs::metadata(directory) {
        Ok(found) if found.nlink() == 2 => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        _ => {}
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::Io { step: "list", path: directory.to_path_buf(), source });
        }
    };
    let mut children = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => children.push(entry.path()),
            Ok(_) => {}
            Err(error) if files::is_gone(&error) => break,
            Err(source) => {
                return Err(Error::Io { step: "list", path: directory.to_path_buf(), source });
            }
        }
    }
    Ok(children)
}
