//! Out of memory: being told when a cgroup's limit is hit, and how many processes the kernel killed for it.
//!
//! The count is the truth and survives the processes, not the cgroup: it must be read before `remove`. The watch only
//! says when to look.
//!
//! Linux 6.18 no longer moves v1's `memory.failcnt`; `oom_kill` is right in all versions since 4.13.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd;

use super::error::{Error, Result};
use super::{Cgroup, Version, files, processes};

/// Becomes readable when a cgroup may have run out of memory, and once more when it is removed. Wait for `POLLIN`
/// on its descriptor, [`OomWatch::clear`] it, then look at [`Cgroup::oom_kill_count`].
#[derive(Debug)]
pub struct OomWatch {
    events: OwnedFd,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl OomWatch {
    /// Makes the descriptor unreadable until the next event.
    pub fn clear(&self) -> std::io::Result<()> {
        let mut buffer = [0_u8; 4096];
        loop {
            match unistd::read(&self.events, &mut buffer) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Cgroup {
    /// Starts watching. An error when no hierarchy has the memory controller.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        let place = self.require("OOM notification", "memory")?;
        match place.version {
            Version::V1 => watch_v1(&place.directory),
            Version::V2 => watch_v2(&place.directory),
        }
    }

    /// How many processes in the cgroup, and in those nested in it, the kernel has killed because memory ran out.
    /// 0 where there is no memory controller, which has no limit to run into.
    pub fn oom_kill_count(&self) -> Result<u64> {
        let Some(place) = self.place("memory") else {
            return Ok(0);
        };
        if place.version == Version::V2 {
            // Hierarchical unless mounted with memory_localevents.
            let events = files::read_existing(&place.directory.join("memory.events"))?;
            return Ok(events.and_then(|text| files::keyed(&text, "oom_kill")).unwrap_or(0));
        }
        // v1 counts at the victim's own cgroup (`memcg_memory_event` stops there).
        let mut count = 0;
        for directory in processes::tree(&place.directory)? {
            let control = files::read_existing(&directory.join("memory.oom_control"))?;
            count += control.and_then(|text| files::keyed(&text, "oom_kill")).unwrap_or(0);
        }
        Ok(count)
    }
}

/// An eventfd registered in `cgroup.event_control` (`Documentation/admin-guide/cgroup-v1/memory.rst`, "OOM Control").
fn watch_v1(directory: &Path) -> Result<OomWatch> {
    let control = directory.join("memory.oom_control");
    let file = File::open(&control).map_err(Error::io("open", &control))?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let events = EventFd::from_flags(flags).map_err(|error| io_error("watch", &control, error))?;
    let register = directory.join("cgroup.event_control");
    let line = format!("{} {}", events.as_fd().as_raw_fd(), file.as_raw_fd());
    files::write(&register, &line).map_err(Error::io("write", &register))?;
    Ok(OomWatch { events: events.into() })
}

/// `memory.events` is reported to inotify when any of its counters changes (cgroup-v2.rst, "memory.events").
fn watch_v2(directory: &Path) -> Result<OomWatch> {
    let file = directory.join("memory.events");
    let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
    let inotify = Inotify::init(flags).map_err(|error| io_error("watch", &file, error))?;
    let wanted = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE_SELF;
    inotify.add_watch(&file, wanted).map_err(|error| io_error("watch", &file, error))?;
    Ok(OomWatch { events: inotify.into() })
}

fn io_error(step: &'static str, path: &Path, error: Errno) -> Error {
    Error::Io { step, path: path.to_path_buf(), source: error.into() }
}
