//! The writable layer of a container: `upper` and `work` of an overlay, in a directory of its own.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat};

use super::{IMPLIED_ROOT, OverlayError, copy_attributes, sys};

/// Makes `upper` and `work` in `dir`, which becomes 0700 if it is made here. The upper root takes mode, owner, times and
/// attributes of the image's root, as the container will see it as `/`: that of the topmost of `layers` (lowest first)
/// which describes it.
pub fn make_upper(dir: &Path, layers: &[BorrowedFd<'_>]) -> Result<(), OverlayError> {
    let create = |path: &Path, mode| {
        let made = DirBuilder::new().recursive(true).mode(mode).create(path);
        made.map_err(|source| OverlayError::Io { step: "create", path: path.to_owned(), source })
    };
    let upper = dir.join("upper");
    create(dir, 0o700)?;
    create(&dir.join("work"), 0o700)?;
    create(&upper, 0o755)?;
    dress(&upper, layers).map_err(|source| {
        let step = "give the image root's attributes to";
        OverlayError::Io { step, path: upper.clone(), source }
    })
}

fn dress(upper: &Path, layers: &[BorrowedFd<'_>]) -> io::Result<()> {
    let to = File::open(upper)?;
    match described_root(layers)? {
        Some(root) => copy_attributes(root, &fstat(root)?, to.as_fd()),
        // The umask is not the image's.
        None => Ok(fchmodat(&to, c".", Mode::from_bits_truncate(0o755), FchmodatFlags::FollowSymlink)?),
    }
}

/// The root that a layer describes, topmost first.
fn described_root<'a>(layers: &[BorrowedFd<'a>]) -> io::Result<Option<BorrowedFd<'a>>> {
    let mark = CString::new(IMPLIED_ROOT.0)?;
    for layer in layers.iter().rev() {
        match sys::get_xattr(*layer, &mark) {
            Ok(_) => {}
            // No mark: it is described. A file system without such names can hold no mark.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => {
                return Ok(Some(*layer));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether [`make_upper`] has been here: both directories exist and are no links.
#[must_use]
pub fn has_upper(dir: &Path) -> bool {
    ["upper", "work"].iter().all(|name| fs::symlink_metadata(dir.join(name)).is_ok_and(|found| found.is_dir()))
}
