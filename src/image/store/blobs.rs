//! Blobs and how they come to be: a private file in `ingest`, checked, then renamed to its digest.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Store, files};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result, at};
use crate::manifest::Descriptor;

/// A file in `ingest`, flocked: nobody else writes it, and garbage collection leaves it.
#[derive(Debug)]
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
}

impl Store {
    /// Whether the blob is here in its full length.
    pub fn has_blob(&self, blob: &Descriptor) -> bool {
        std::fs::metadata(self.blob_path(&blob.digest)).is_ok_and(|meta| meta.is_file() && meta.len() == blob.size)
    }

    /// Opens a blob after a check of its length. Its bytes are verified by whoever reads them to the end.
    ///
    /// # Errors
    /// [`Error::DamagedBlob`] when it is missing or of another length.
    pub fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        let file = self.open_any(&blob.digest)?;
        let len = file.metadata().map_err(at("stat", &self.blob_path(&blob.digest)))?.len();
        if len != blob.size {
            let problem = format!("it is {len} bytes long instead of {}", blob.size);
            return Err(Error::DamagedBlob { digest: blob.digest, problem });
        }
        Ok(file)
    }

    /// Reads a small blob and verifies it.
    ///
    /// # Errors
    /// [`Error::DamagedBlob`] when it is missing, longer than `max` bytes, or not what its name says.
    pub fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let damaged = |problem: String| Error::DamagedBlob { digest: *digest, problem };
        let mut bytes = Vec::new();
        let file = self.open_any(digest)?;
        file.take(max + 1).read_to_end(&mut bytes).map_err(at("read", &self.blob_path(digest)))?;
        if bytes.len() as u64 > max {
            return Err(damaged(format!("it is longer than {max} bytes")));
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(damaged(format!("its content has the digest {found}"))),
        }
    }

    fn open_any(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::DamagedBlob { digest: *digest, problem: "it is missing".to_owned() },
            _ => at("open", &path)(error),
        })
    }

    /// Stores small content. The caller holds a lease on its digest.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if self.read_blob(&digest, bytes.len() as u64).is_err() {
            files::replace_unsynced(&path, bytes).map_err(at("write", &path))?;
        }
        Ok(digest)
    }

    /// Takes over the download of a blob; `None` while another process or thread is at it.
    pub(crate) fn try_partial(&self, digest: &Digest) -> Result<Option<Partial>> {
        let path = self.root.join("ingest").join(digest.hex());
        loop {
            let file = files::open_private(&path).map_err(at("open", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
                Err(std::fs::TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
            }
            // Its last owner may have renamed or removed it between our open and our lock.
            if is_same_file(&file, &path).map_err(at("stat", &path))? {
                return Ok(Some(Partial { file, path }));
            }
        }
    }

    /// A new file for content whose digest is not known yet. It is removed by `discard`, or by garbage collection.
    pub(crate) fn new_partial(&self) -> Result<Partial> {
        loop {
            let path = files::temporary_name(&self.root.join("ingest"));
            let file = files::open_private(&path).map_err(at("make", &path))?;
            file.lock().map_err(at("lock", &path))?;
            // A collection may have taken it for a dead one before we had the lock.
            if is_same_file(&file, &path).map_err(at("stat", &path))? {
                file.set_len(0).map_err(at("truncate", &path))?;
                return Ok(Partial { file, path });
            }
        }
    }
}

pub(super) fn is_same_file(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Partial {
    /// Bytes that are there already.
    pub(crate) fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(at("stat", &self.path))?.len())
    }

    /// Cuts the file to `len` bytes; the next write goes there.
    pub(crate) fn truncate(&mut self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(at("truncate", &self.path))?;
        self.file.seek(SeekFrom::Start(len)).map_err(at("seek in", &self.path))?;
        Ok(())
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(at("write", &self.path))
    }

    /// A second handle for reading at chosen offsets.
    pub(crate) fn reader(&self) -> Result<File> {
        self.file.try_clone().map_err(at("open", &self.path))
    }

    /// Hashes what is there and leaves the file at its end.
    pub(crate) fn rehash(&mut self) -> Result<Hasher> {
        self.file.seek(SeekFrom::Start(0)).map_err(at("seek in", &self.path))?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.file.read(&mut buffer).map_err(at("read", &self.path))? {
                0 => return Ok(hasher),
                n => hasher.update(&buffer[..n]),
            }
        }
    }

    /// Makes the content a blob. The caller has verified that it is `digest` and holds a lease on it.
    pub(crate) fn commit(self, store: &Store, digest: &Digest) -> Result<()> {
        let path = store.blob_path(digest);
        std::fs::rename(&self.path, &path).map_err(at("move a download to", &path))
    }

    /// Removes what is there.
    pub(crate) fn discard(self) {
        // What cannot be removed is left to garbage collection.
        let _ = std::fs::remove_file(&self.path);
    }
}
