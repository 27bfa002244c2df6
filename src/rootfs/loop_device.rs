//! Loop devices, for kernels that cannot mount a file as it is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::error::RootfsError;
use crate::sys;

/// Somebody else may take the free device first.
const TRIES: usize = 64;

/// A loop device bound to a file. It unbinds itself when neither this nor a mount holds it any more.
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
    _device: File,
}

/// Binds a free loop device to the image.
pub(crate) fn attach(image: &Path) -> Result<LoopDevice, RootfsError> {
    let file = File::open(image).map_err(|e| RootfsError::io("open the layer", image, e))?;
    let control_path = Path::new("/dev/loop-control");
    let control = OpenOptions::new().read(true).write(true).open(control_path);
    let control = control.map_err(|e| RootfsError::io("open", control_path, e))?;
    let mut last = io::Error::from_raw_os_error(libc::EBUSY);
    for _ in 0..TRIES {
        let number = sys::free_loop(control.as_fd())
            .map_err(|e| RootfsError::io("find a free loop device by", control_path, e))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path).map_err(|e| RootfsError::io("open the loop device", &path, e))?;
        match sys::configure_loop(device.as_fd(), file.as_fd()) {
            Ok(()) => {
                return Ok(LoopDevice { path, _device: device });
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
            Err(error) => return Err(RootfsError::io("bind the loop device", &path, error)),
        }
    }
    Err(RootfsError::io("bind a loop device to the layer", image, last))
}
