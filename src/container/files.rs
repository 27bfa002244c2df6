//! A container's files from outside of it: looking at them, packing them, unpacking others beside them (`cp`).
//!
//! A process of ours enters the container's mount namespace and does it there. It sees what the container sees, so that
//! no path leads out of it however often its links change (CVE-2018-15664, CVE-2026-42306), and it executes and loads
//! nothing of the container's (CVE-2019-14271). It is in none of the container's cgroups or PID namespaces: nobody in there can
//! stop it or look into it, and a frozen container can be copied from.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, umask};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::setsid;
use sbx_archive::{Options, Origin, Owners};
use serde::{Deserialize, Serialize};

use crate::channel::{Channel, Word};
use crate::child::become_root;
use crate::error::{Error, ErrorKind, Step};
use crate::join::{Target, hear, kill};
use crate::namespaces;
use crate::path::{RootDir, without_dots};
use crate::plan::{Namespace, User};
use crate::process;
use crate::stdio::{Pipes, Running, TheirEnds};
use crate::sys::{self, Cloned};
use crate::user;

/// Longest chain of symbolic links that is followed (path_resolution(7)).
const LINKS: usize = 40;
/// What the file system could not take of an archive, in lines.
const WARNINGS: usize = 20;

/// What is done with the files.
///
/// Paths are absolute inside the container, or taken from its root. `.` and `..` in them mean what they are written as, and
/// the last part is not followed if it is a symbolic link, unless a slash or `/.` comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Tell what there is: a [`PathStat`] on standard output.
    Stat {
        /// Of what.
        path: String,
    },
    /// Pack a file or a directory with all that is in it: a tar stream on standard output.
    Read {
        /// What.
        path: String,
        /// What the archive calls it; `.` for the contents of a directory.
        name: String,
    },
    /// Pack the root file system without what is mounted on it: a tar stream on standard output.
    Export,
    /// Unpack a tar stream, from standard input.
    Write {
        /// Into which directory; the last part is followed.
        directory: String,
        /// Whose the files become; `None` leaves them to those whom the archive names.
        owner: Option<User>,
    },
}

impl Task {
    /// Whether it has a standard input.
    #[must_use]
    pub fn reads(&self) -> bool {
        matches!(self, Self::Write { .. })
    }
}

/// What there is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// The last part of the path; `/` for the root.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Type and permission bits (inode(7)).
    pub mode: u32,
    /// Time of the last modification: seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    pub mtime_nanos: i64,
    /// What a symbolic link leads to in the end, as a path from the root; empty for anything else.
    pub link_target: String,
}

impl PathStat {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }

    /// From what [`Task::Stat`] has put out; `None` where it is something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

/// Starts the task in the container that runs. A path that is not there fails here, with [`ErrorKind::NotFound`]; what goes
/// wrong later is on standard error, and in the exit status.
pub fn visit(target: Target<'_>, task: &Task) -> Result<Running, Error> {
    let Pipes { ours, theirs } = Pipes::make(task.reads())?;
    let (channel, childs_end) = Channel::pair().step(|| "make a channel".into())?;
    let (pid, pidfd) = match sys::clone3(0, None).step(|| "make a process".into())? {
        Cloned::Child => Visitor { target, task, channel: childs_end, pipes: theirs }.run(),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((childs_end, theirs));
    match hear(&channel) {
        Ok(_) => Ok(Running { pid, pidfd, io: ours.into_io() }),
        Err(error) => {
            kill(pid, &pidfd);
            Err(error)
        }
    }
}

struct Visitor<'a> {
    target: Target<'a>,
    task: &'a Task,
    channel: Channel,
    pipes: TheirEnds,
}

impl Visitor<'_> {
    fn run(self) -> ! {
        let Self { target, task, channel, pipes } = self;
        let ready = enter(target, &channel, &pipes).and_then(|root| {
            let opened = open(RootDir::new(root.as_fd()), task)?;
            Ok((root, opened))
        });
        let (_root, opened) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                // A creator that is gone cannot be told.
                let _ = channel.send(&Word::Failed(error));
                sys::exit_now(1);
            }
        };
        // Its end says that the task has begun.
        drop(channel);
        sys::exit_now(match opened.work() {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(io::stderr(), "{error}");
                1
            }
        });
    }
}

/// Enters the container with nothing but the pipes; its root.
fn enter(target: Target<'_>, channel: &Channel, pipes: &TheirEnds) -> Result<OwnedFd, Error> {
    sys::prctl(libc::PR_SET_DUMPABLE, 0).step(|| "become undumpable".into())?;
    let flags = namespaces::enter_flags(&target.plan.namespaces) & (libc::CLONE_NEWNS | libc::CLONE_NEWUSER);
    sys::setns(target.pidfd, flags).step(|| "enter the container's namespaces".into())?;
    if target.plan.namespaces.user == Namespace::New {
        become_root()?;
    }
    // A change of credentials takes the death signal away (prctl(2)).
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).step(|| "set the death signal".into())?;
    setsid().step(|| "make a session".into())?;
    umask(Mode::empty());
    nix::unistd::chdir("/").step(|| "enter the root".into())?;
    pipes.install()?;
    // What others wait for the end of must not stay open here.
    let kept = channel.as_fd().as_raw_fd();
    sys::close_between(3, kept - 1)
        .and_then(|()| sys::close_between(kept + 1, i32::MAX))
        .step(|| "close descriptors".into())?;
    process::open_root()
}

/// A task whose paths are there.
enum Opened<'a> {
    Stat(PathStat),
    Read { directory: OwnedFd, base: OsString, name: &'a str },
    Write { directory: OwnedFd, options: Options },
}

fn open<'a>(root: RootDir<'_>, task: &'a Task) -> Result<Opened<'a>, Error> {
    match task {
        Task::Stat { path } => look(root, path).and_then(|found| found.stat(root)).map(Opened::Stat).map_err(at(path)),
        Task::Read { path, name } => {
            let Found { directory, base, .. } = look(root, path).map_err(at(path))?;
            Ok(Opened::Read { directory, base, name })
        }
        Task::Export => {
            let flags = sys::OPEN_TREE_CLONE | libc::AT_EMPTY_PATH.cast_unsigned();
            let directory =
                sys::open_tree(Some(root.as_fd()), Path::new(""), flags).step(|| "open the root file system".into())?;
            Ok(Opened::Read { directory, base: OsString::from("."), name: "" })
        }
        Task::Write { directory: path, owner } => {
            let place = without_dots(path);
            let opened = open_directory(root, &place).map_err(at(path))?;
            refuse_read_only(root, &opened).map_err(at(path))??;
            let owners = match owner {
                Some(user) => user::resolve(user, root).map(|identity| Owners::One(identity.uid, identity.gid))?,
                None => Owners::Archived,
            };
            Ok(Opened::Write { directory: opened, options: Options { place, owners, origin: Origin::Trusted } })
        }
    }
}

impl Opened<'_> {
    fn work(self) -> Result<(), sbx_archive::Error> {
        let output = io::stdout();
        match self {
            Self::Stat(stat) => {
                let bytes = postcard::to_stdvec(&stat).map_err(|error| failed(io::Error::other(error)))?;
                (&output).write_all(&bytes).and_then(|()| (&output).flush()).map_err(failed)
            }
            Self::Read { directory, base, name } => {
                // Without the buffer of the standard library, which looks for lines.
                let output = output.as_fd().try_clone_to_owned().map_err(failed)?;
                sbx_archive::pack(directory.as_fd(), &base, Path::new(name), &mut std::fs::File::from(output))
            }
            Self::Write { directory, options } => {
                let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
                let mut input = std::fs::File::from(input);
                let unpacked = sbx_archive::unpack(&mut input, directory.as_fd(), &options)?;
                for warning in unpacked.warnings.iter().take(WARNINGS) {
                    // They are for whoever still listens.
                    let _ = writeln!(io::stderr(), "{warning}");
                }
                Ok(())
            }
        }
    }
}

fn failed(error: io::Error) -> sbx_archive::Error {
    sbx_archive::Error::Write(error)
}

/// What a path leads to: a name in a directory.
struct Found {
    directory: OwnedFd,
    /// `.` for the directory itself.
    base: OsString,
    path: PathBuf,
}

fn look(root: RootDir<'_>, path: &str) -> io::Result<Found> {
    let clean = without_dots(path);
    let asserts_directory = path.ends_with('/') || path.ends_with("/.") || path == ".";
    let (directory, base) = match (clean.parent(), clean.file_name()) {
        (Some(parent), Some(base)) if !asserts_directory => (open_directory(root, parent)?, base.to_owned()),
        _ => (open_directory(root, &clean)?, OsString::from(".")),
    };
    let found = Found { directory, base, path: clean };
    found.inode()?;
    Ok(found)
}

impl Found {
    fn inode(&self) -> io::Result<FileStat> {
        Ok(fstatat(&self.directory, self.base.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    fn stat(&self, root: RootDir<'_>) -> io::Result<PathStat> {
        let inode = self.inode()?;
        let is_link = inode.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits();
        let name = self.path.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy());
        let link_target = if is_link { end_of_links(root, &self.path)? } else { PathBuf::new() };
        Ok(PathStat {
            name: name.into_owned(),
            size: inode.st_size,
            mode: inode.st_mode,
            mtime: inode.st_mtime,
            mtime_nanos: inode.st_mtime_nsec,
            link_target: link_target.to_string_lossy().into_owned(),
        })
    }
}

/// Where a chain of links ends, whether or not there is something.
fn end_of_links(root: RootDir<'_>, path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(found) = root.open(&path.to_string_lossy(), OFlag::O_PATH | OFlag::O_NOFOLLOW) else { return Ok(path) };
        if fstat(&found)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
            return Ok(path);
        }
        let target = readlinkat(&found, "")?;
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn open_directory(root: RootDir<'_>, path: &Path) -> io::Result<OwnedFd> {
    root.open(&path.to_string_lossy(), OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// One clear word before the first file, instead of the kernel's for each.
fn refuse_read_only(root: RootDir<'_>, directory: &OwnedFd) -> io::Result<Result<(), Error>> {
    if !fstatvfs(directory)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(Ok(()));
    }
    let top = root.open("/", OFlag::O_PATH)?;
    let what = match fstat(&top)?.st_dev == fstat(directory)?.st_dev {
        true => "container rootfs is marked read-only",
        false => "mounted volume is marked read-only",
    };
    Ok(Err(Error::of_kind(ErrorKind::Other, what)))
}

fn at(path: &str) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.raw_os_error() {
        Some(libc::ENOENT) => Error::of_kind(ErrorKind::NotFound, format!("no such file or directory: {path}")),
        _ => Error::new(path, crate::error::describe(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/file"), "1234").unwrap();
        for (target, name) in [("/a", "to-a"), ("to-a", "to-to-a"), ("/nowhere", "dangling"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        }
        let root = std::fs::File::open(folder.path()).unwrap().into();
        (folder, root)
    }

    #[test]
    fn the_last_part_of_a_path_is_followed_only_before_a_slash() {
        let (_folder, root) = tree();
        let root = RootDir::new(root.as_fd());
        let stat = |path: &str| look(root, path).and_then(|found| found.stat(root));
        let link = stat("/to-to-a").unwrap();
        assert!(link.is_link());
        assert_eq!((link.name.as_str(), link.link_target.as_str()), ("to-to-a", "/a"));
        for path in ["/to-to-a/", "/to-a/.", "a", "/a/b/..", "a/./"] {
            assert!(stat(path).unwrap().is_directory(), "{path}");
        }
        assert_eq!(stat("/to-a/file").unwrap().size, 4);
        assert_eq!(stat("/").unwrap().name, "/");
        assert_eq!(stat("dangling").unwrap().link_target, "/nowhere");
        assert_eq!(stat("../../a/b").unwrap().name, "b");
    }

    #[test]
    fn a_path_that_leads_nowhere_says_why() {
        let (_folder, root) = tree();
        let root = RootDir::new(root.as_fd());
        let error = |path: &str| look(root, path).and_then(|found| found.stat(root)).map_err(at(path)).unwrap_err();
        assert_eq!(error("/a/none").kind, ErrorKind::NotFound);
        assert_eq!(error("/none/x").kind, ErrorKind::NotFound);
        assert_eq!(error("/a/file/").message, "/a/file/: not a directory");
        assert_eq!(error("/loop").message, "/loop: too many symbolic links encountered");
    }

    #[test]
    fn a_stat_survives_the_way() {
        let (_folder, root) = tree();
        let root = RootDir::new(root.as_fd());
        let stat = look(root, "/a/file").unwrap().stat(root).unwrap();
        assert_eq!(PathStat::decode(&postcard::to_stdvec(&stat).unwrap()), Some(stat));
        assert_eq!(PathStat::decode(b"x"), None);
    }
}
