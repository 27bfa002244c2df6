//! How many descriptors a share may hold: nodes, open files and locks together. What a guest keeps open is bounded by this
//! number, whatever it asks for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count of one share, which all its descriptors know.
#[derive(Clone, Debug)]
pub(in super::super) struct Budget {
    held: Arc<AtomicUsize>,
    most: usize,
}

impl Budget {
    pub(in super::super) fn new(most: usize) -> Self {
        Self { held: Arc::default(), most }
    }

    /// Descriptors held now.
    pub(in super::super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether there is no room for another one.
    pub(in super::super) fn is_full(&self) -> bool {
        self.held() >= self.most
    }

    /// Counts a descriptor for as long as it is open.
    pub(in super::super) fn count(&self, fd: OwnedFd) -> Descriptor {
        self.held.fetch_add(1, Ordering::Relaxed);
        Descriptor { fd, held: self.held.clone() }
    }
}

/// A descriptor that is counted.
#[derive(Debug)]
pub(in super::super) struct Descriptor {
    fd: OwnedFd,
    held: Arc<AtomicUsize>,
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}
