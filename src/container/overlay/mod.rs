//! A container's root: an overlay of its layers that no other process sees.
//!
//! The overlay is made from descriptors and handed over as one (`fsmount(2)`): it has no place in any mount table until
//! the container moves it into its own, so a crash at any instruction leaves nothing to unmount.
//!
//! Two ways lead there. Linux 6.15 takes layers by descriptor, detached ones too. On older kernels a thread enters a
//! mount namespace of its own, attaches the layers there under short names (an option string has one page), mounts by
//! `mount(2)`, and takes a detached copy out with it. That thread has ended when the call returns.

mod attributes;
pub mod sys;
mod upper;

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AtFlags, OFlag};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::chdir;

pub use self::attributes::copy_attributes;
use self::sys::FsContext;
pub use self::upper::{has_upper, make_upper};

/// What overlayfs looks for on directories that hide the lower ones: name and value of an extended attribute.
pub const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");
/// Our mark on a root that its layer does not describe. Overlayfs hides all `trusted.overlay.*`.
pub const IMPLIED_ROOT: (&[u8], &[u8]) = (b"trusted.overlay.sbx-implied", b"y");
/// Linux's `OVL_MAX_STACK`.
const MAX_LAYERS: usize = 500;

/// As Docker's overlays, said aloud because each default belongs to the kernel's configuration: no index, no files that
/// are only metadata, no renamed directories. Redirects are not even followed: only a hostile layer could hold one.
/// `xino` makes one `st_dev` of several file systems, as all of Docker's layers are on one: `find -xdev` and
/// `tar --one-file-system` depend on it.
const OPTIONS: [(&CStr, &CStr); 4] =
    [(c"index", c"off"), (c"metacopy", c"off"), (c"redirect_dir", c"nofollow"), (c"xino", c"on")];

/// Why there is no overlay.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// An operation on a file failed.
    #[error("{step} {}: {source}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel cannot do what is needed.
    #[error("{what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An overlay needs between 1 and 500 layers.
    #[error("an image of {count} layers cannot be mounted{hint}")]
    LayerCount {
        /// How many there are.
        count: usize,
        /// The way out.
        hint: &'static str,
    },
}

/// What an overlay may need beyond its layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct OverlayOptions<'a> {
    /// The container's user namespace: files of uid 0 on disk belong to its root. `None` is the caller's. Needs Linux 5.19.
    pub user_namespace: Option<BorrowedFd<'a>>,
    /// What becomes of the writable layer.
    pub upper: UpperFate,
    /// How the kernel is told.
    pub method: OverlayMethod,
}

/// What becomes of the writable layer when the container has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpperFate {
    /// It is kept: unmounting syncs the whole file system that it is on, as with Docker.
    #[default]
    Kept,
    /// It is removed (`--rm`): nothing is ever synced (`volatile`, Linux 5.10). It cannot be mounted again.
    Discarded,
}

/// How the kernel is told of the layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverlayMethod {
    /// By descriptor where it can, else in a mount namespace.
    #[default]
    Auto,
    /// By descriptor (Linux 6.15).
    Descriptors,
    /// In a mount namespace that lives as long as the call.
    Namespace,
}

/// Stacks the layers, lowest first (the order of `diff_ids` in the image's config), and on top the writable layer that
/// [`make_upper`] made in a directory.
///
/// The result is a detached mount: give it to `move_mount(2)`, in this or in another mount namespace. It vanishes with its
/// last descriptor. Without a writable layer it is read-only.
pub fn overlay(
    layers: &[BorrowedFd<'_>],
    writable: Option<&Path>,
    options: &OverlayOptions<'_>,
) -> Result<OwnedFd, OverlayError> {
    static NO_DESCRIPTORS: AtomicBool = AtomicBool::new(false);
    let stack = Stack::open(layers, writable, options)?;
    match options.method {
        OverlayMethod::Descriptors => stack.by_descriptors(),
        OverlayMethod::Namespace => stack.in_namespace(),
        OverlayMethod::Auto if NO_DESCRIPTORS.load(Ordering::Relaxed) => stack.in_namespace(),
        OverlayMethod::Auto => match stack.by_descriptors() {
            // EBADF: before 6.13 fsconfig(2) takes no descriptors of mounts, which is what mapped layers are.
            Err(OverlayError::Kernel { source, .. })
                if matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EBADF)) =>
            {
                let mount = stack.in_namespace()?;
                NO_DESCRIPTORS.store(true, Ordering::Relaxed);
                Ok(mount)
            }
            result => result,
        },
    }
}

/// A detached mount of the directory `dir` (`open_tree(2)` with `OPEN_TREE_CLONE`).
pub fn clone_mount(dir: BorrowedFd<'_>) -> Result<OwnedFd, OverlayError> {
    sys::clone_tree(dir, c"").map_err(|source| kernel("clone a mount".to_owned(), source))
}

/// Makes a detached mount show its files' owners through a user namespace: uid 0 on disk is the namespace's root.
///
/// The file system must allow it (ext4, xfs, btrfs, EROFS since 5.19, tmpfs since 6.3), and nobody may have written
/// through the mount.
pub fn idmap(mount: OwnedFd, user_namespace: BorrowedFd<'_>) -> Result<OwnedFd, OverlayError> {
    let mapped = sys::set_idmap(mount.as_fd(), user_namespace);
    mapped.map_err(|source| kernel("map the owners of a mount to a user namespace".to_owned(), source))?;
    Ok(mount)
}

fn kernel(what: String, source: io::Error) -> OverlayError {
    OverlayError::Kernel { what, source }
}

fn overlay_failed(context: Option<&FsContext>, source: io::Error) -> OverlayError {
    let said = context.map(FsContext::messages).unwrap_or_default().join("; ");
    let said = if said.is_empty() { said } else { format!(" ({said})") };
    kernel(format!("make the container's overlay{said}"), source)
}

/// The directories of an overlay, open and mapped.
struct Stack {
    /// Topmost first, as the kernel wants them.
    lowers: Vec<Place>,
    /// The mount that has both upper and work: the kernel wants them on the same.
    writable: Option<Place>,
    /// As whom the overlay writes there: overlayfs acts as whoever made it, and the initial root has no place in a mapped
    /// mount.
    writer: Option<(u32, u32)>,
    fate: UpperFate,
}

/// A directory of an overlay.
enum Place {
    /// The root of a mount that nobody else has.
    Detached(OwnedFd),
    /// In a mount that others have.
    Attached(OwnedFd),
}

impl Place {
    /// The directory as the overlay shall see it.
    fn new(dir: BorrowedFd<'_>, user_namespace: Option<BorrowedFd<'_>>) -> Result<Self, OverlayError> {
        match user_namespace {
            Some(namespace) => idmap(clone_mount(dir)?, namespace).map(Self::Detached),
            None => dir.try_clone_to_owned().map(Self::Attached).map_err(|e| kernel("keep a layer open".to_owned(), e)),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Detached(fd) | Self::Attached(fd) => fd.as_fd(),
        }
    }

    /// A mount that can be attached somewhere; a detached one only once.
    fn into_mount(self) -> io::Result<OwnedFd> {
        match self {
            Self::Detached(fd) => Ok(fd),
            Self::Attached(fd) => sys::clone_tree(fd.as_fd(), c""),
        }
    }
}

impl Stack {
    fn open(
        layers: &[BorrowedFd<'_>],
        writable: Option<&Path>,
        options: &OverlayOptions<'_>,
    ) -> Result<Self, OverlayError> {
        let user_namespace = options.user_namespace;
        let count = layers.len();
        if count > MAX_LAYERS {
            return Err(OverlayError::LayerCount { count, hint: " (Linux stacks up to 500); squash some of them" });
        }
        if count == 0 && writable.is_none() {
            return Err(OverlayError::LayerCount { count, hint: " read-only: there is nothing in it" });
        }
        let mut lowers = Vec::with_capacity(count + 1);
        for layer in layers.iter().rev() {
            lowers.push(Place::new(*layer, user_namespace)?);
            // The kernel heeds this mark everywhere but on the root of a layer.
            if has_mark(*layer).map_err(|e| kernel("read the layer's attributes".to_owned(), e))? {
                break;
            }
        }
        // A stack needs two directories (and an image without layers one below its upper). An empty one changes nothing.
        if lowers.len() + usize::from(writable.is_some()) < 2 || lowers.is_empty() {
            lowers.push(Place::Detached(empty_directory()?));
        }
        let writable = writable.map(|path| {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let step = "open the container's directory";
            let dir = nix::fcntl::open(path, flags, Mode::empty()).map_err(|error| OverlayError::Io {
                step,
                path: path.to_owned(),
                source: error.into(),
            })?;
            Place::new(dir.as_fd(), user_namespace)
        });
        let writable = writable.transpose()?;
        let writer = match (&writable, user_namespace) {
            (Some(place), Some(_)) => {
                Some(owner_of_work(place).map_err(|e| kernel("find the user namespace's root".to_owned(), e))?)
            }
            _ => None,
        };
        Ok(Self { lowers, writable, writer, fate: options.upper })
    }

    fn by_descriptors(&self) -> Result<OwnedFd, OverlayError> {
        let context = FsContext::open(c"overlay").map_err(|e| overlay_failed(None, e))?;
        let made = match self.writer {
            None => self.configure(&context),
            Some((uid, gid)) => in_thread(|| sys::act_as(uid, gid).and_then(|()| self.configure(&context))),
        };
        made.map_err(|e| overlay_failed(Some(&context), e))
    }

    fn configure(&self, context: &FsContext) -> io::Result<OwnedFd> {
        context.set_string(c"source", c"overlay")?;
        for lower in &self.lowers {
            context.set_fd(c"lowerdir+", lower.fd())?;
        }
        if let Some(writable) = &self.writable {
            let upper = open_directory(writable.fd(), "upper")?;
            let work = open_directory(writable.fd(), "work")?;
            context.set_fd(c"upperdir", upper.as_fd())?;
            context.set_fd(c"workdir", work.as_fd())?;
            if self.fate == UpperFate::Discarded {
                context.set_flag(c"volatile")?;
            }
        }
        for (key, value) in OPTIONS {
            context.set_string(key, value)?;
        }
        context.create()?;
        context.mount(if self.writable.is_some() { 0 } else { libc::MOUNT_ATTR_RDONLY })
    }

    fn in_namespace(self) -> Result<OwnedFd, OverlayError> {
        // Copies are made here: a mount namespace clones only mounts of its own.
        let mounts = self.lowers.into_iter().map(Place::into_mount).collect::<io::Result<Vec<_>>>();
        let writable = self.writable.map(Place::into_mount).transpose();
        let (mounts, writable) =
            mounts.and_then(|mounts| Ok((mounts, writable?))).map_err(|e| overlay_failed(None, e))?;
        let writer = self.writer;
        let fate = self.fate;
        in_thread(|| mount_in_namespace(&mounts, writable.as_ref(), writer, fate)).map_err(|e| overlay_failed(None, e))
    }
}

/// Runs what changes a thread's identity or namespaces in one that ends with it.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
}

/// Runs `work` in a mount namespace that ends with it, in a directory that is an empty tmpfs. What it opens stays.
pub(crate) fn on_scratch<T: Send>(options: &CStr, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    in_thread(|| {
        enter_scratch(options)?;
        work()
    })
}

fn enter_scratch(options: &CStr) -> io::Result<()> {
    const NONE: Option<&CStr> = None;
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    // Over a directory that surely exists.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some(c"tmpfs"), c"/proc", Some(c"tmpfs"), flags, Some(options))?;
    chdir(c"/proc")?;
    Ok(())
}

/// Who the initial uid 0 on disk is, seen through the mapped mount: `work` is made by us and belongs to it.
fn owner_of_work(writable: &Place) -> io::Result<(u32, u32)> {
    let stat = fstatat(writable.fd(), c"work", AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok((stat.st_uid, stat.st_gid))
}

/// Runs in a thread of its own, whose root, directory and mounts are its own and go when it ends.
fn mount_in_namespace(
    lowers: &[OwnedFd],
    writable: Option<&OwnedFd>,
    writer: Option<(u32, u32)>,
    fate: UpperFate,
) -> io::Result<OwnedFd> {
    // Room for mount points.
    enter_scratch(c"mode=0700")?;
    let attach = |mount: &OwnedFd, name: &str| {
        fs::create_dir(name)?;
        sys::move_mount(mount.as_fd(), &CString::new(name)?)
    };
    let mut names = Vec::with_capacity(lowers.len());
    for (index, lower) in lowers.iter().enumerate() {
        let name = index.to_string();
        attach(lower, &name)?;
        names.push(name);
    }
    let mut data = format!("lowerdir={}", names.join(":"));
    if let Some(writable) = writable {
        attach(writable, "w")?;
        data += ",upperdir=w/upper,workdir=w/work";
        if fate == UpperFate::Discarded {
            data += ",volatile";
        }
    }
    for (key, value) in OPTIONS {
        data += &format!(",{}={}", key.to_string_lossy(), value.to_string_lossy());
    }
    fs::create_dir("m")?;
    if let Some((uid, gid)) = writer {
        sys::act_as(uid, gid)?;
    }
    let flags = if writable.is_some() { MsFlags::empty() } else { MsFlags::MS_RDONLY };
    mount(Some(c"overlay"), c"m", Some(c"overlay"), flags, Some(CString::new(data)?.as_c_str()))?;
    sys::clone_tree(fs::File::open("m")?.as_fd(), c"")
}

/// A directory below `dir`, never through a link.
fn open_directory(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let resolve = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    crate::sys::openat2(dir, Path::new(name), flags, 0, resolve)
}

fn has_mark(root: BorrowedFd<'_>) -> io::Result<bool> {
    let (name, value) = OPAQUE;
    match sys::get_xattr(root, &CString::new(name)?) {
        Ok(found) => Ok(found == value),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn empty_directory() -> Result<OwnedFd, OverlayError> {
    let failed = |e| kernel("make an empty layer".to_owned(), e);
    let context = FsContext::open(c"tmpfs").map_err(failed)?;
    context.set_string(c"mode", c"0755").and_then(|()| context.create()).map_err(failed)?;
    context.mount(libc::MOUNT_ATTR_RDONLY).map_err(failed)
}
