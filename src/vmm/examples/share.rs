//! Serves a directory by `/dev/fuse` and runs a command that sees it: the file server without a virtual machine, for test
//! suites and measurements.
//!
//! `share [--read-only] [--cache-names=MICROSECONDS] [--cache-attributes=MICROSECONDS] [--descriptors=COUNT] DIRECTORY MOUNTPOINT COMMAND…`

#[path = "../tests/support/fuse.rs"]
mod fuse;

use std::error::Error;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use sbx_vmm::virtio::fs::{Access, Caching, Limits, Root, Share};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let (mut access, mut caching, mut limits) = (Access::ReadWrite, Caching::default(), Limits::default());
    while let Some(flag) = arguments.next_if(|argument| argument.starts_with("--")) {
        match flag.split_once('=') {
            None if flag == "--read-only" => access = Access::ReadOnly,
            Some(("--cache-attributes", time)) => caching.attributes = Duration::from_micros(time.parse()?),
            Some(("--cache-names", time)) => caching.names = Duration::from_micros(time.parse()?),
            Some(("--descriptors", count)) => limits.descriptors = count.parse()?,
            _ => return Err(format!("{flag} is no flag").into()),
        }
    }
    let usage = "share [FLAGS] DIRECTORY MOUNTPOINT COMMAND…";
    let (source, target) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let command = arguments.next().ok_or(usage)?;
    let root = open(source.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let proc: OwnedFd = File::open("/proc/self/fd")?.into();
    let share =
        Share { tag: "share".into(), root: Root::Directory(root), proc, access, mappable: false, caching, limits };
    let mounted = fuse::Mounted::new(share, Path::new(&target))?;
    let status = Command::new(command).args(arguments).status()?;
    drop(mounted);
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(255)).unwrap_or(255)))
}
