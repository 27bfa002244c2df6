//! The program's file, read while its process is being made.
//!
//! The mount of a layer that no other container uses comes with an empty page cache, so that the first page faults of a
//! program would wait for its file. The creator has nothing to do while the child builds its root; it reads the beginning
//! of the file meanwhile. Only a hint: whatever is not as expected is left to execve(2), which says what is wrong.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{SFlag, fstat};

use crate::path::RootDir;
use crate::plan::ProcessPlan;
use crate::process::candidates;

/// How much of the file, in bytes: what starting a large program touches, while a small one is read as a whole.
const LENGTH: i64 = 2 << 20;
/// What the kernel reads for one call, in bytes: the default of a file system's readahead (`VM_READAHEAD_PAGES`).
const STEP: i64 = 128 << 10;

/// Where the program may be, and below which root.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    root: OwnedFd,
    candidates: Vec<PathBuf>,
}

impl ReadAhead {
    /// For the program of `plan` below the mount `root`.
    pub(crate) fn new(plan: &ProcessPlan, root: OwnedFd) -> Self {
        let path = plan.env.iter().filter_map(|entry| entry.strip_prefix("PATH=")).next_back();
        let candidates = candidates(&plan.args[0], path.map(str::as_bytes));
        let candidates = candidates.into_iter().map(|candidate| PathBuf::from(&plan.cwd).join(candidate)).collect();
        Self { root, candidates }
    }

    /// Reads the first file that there is.
    pub(crate) fn run(self) {
        let root = RootDir::new(self.root.as_fd());
        for candidate in &self.candidates {
            let Ok(found) = root.open(&candidate.to_string_lossy(), OFlag::O_PATH) else { continue };
            // Opening anything else may do something: a device, a pipe.
            if !fstat(&found).is_ok_and(|found| found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits()) {
                return;
            }
            if let Ok(file) = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())) {
                let end = i64::try_from(file.metadata().map_or(0, |file| file.len())).unwrap_or(LENGTH).min(LENGTH);
                for start in (0..end).step_by(STEP as usize) {
                    let _ = posix_fadvise(&file, start, STEP, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
                }
            }
            return;
        }
    }
}
