//! Reading a download while it is being written.
//!
//! The file itself is the buffer: the converter may lag behind by any amount without memory being taken or the network
//! being held up, and what an earlier pull has left is read the same way. The reader sees the end only after `finish`,
//! which the writer calls when the blob's digest has been verified: whoever has read to the end has read verified bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

struct State {
    available: u64,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Verified,
    /// The download failed or began anew: what was read is worth nothing.
    Broken,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// The writer's side. Dropping it without `finish` breaks the reader off.
pub(super) struct TailWriter(Arc<Shared>);

/// The reader's side.
pub(super) struct TailReader {
    shared: Arc<Shared>,
    file: File,
    position: u64,
}

/// Both sides of a file that has nothing to be read yet.
pub(super) fn tail(file: File) -> (TailWriter, TailReader) {
    let state = Mutex::new(State { available: 0, end: End::Open });
    let shared = Arc::new(Shared { state, changed: Condvar::new() });
    (TailWriter(Arc::clone(&shared)), TailReader { shared, file, position: 0 })
}

impl TailWriter {
    /// The first `available` bytes of the file may be read.
    pub(super) fn advance(&self, available: u64) {
        self.0.update(|state| state.available = available);
    }

    /// The download begins anew; the reader is broken off for good.
    pub(super) fn restart(&self) {
        self.0.update(|state| state.end = End::Broken);
    }

    /// Everything that was written is verified. False: the reader was broken off earlier.
    pub(super) fn finish(self) -> bool {
        let mut whole = false;
        self.0.update(|state| {
            if state.end == End::Open {
                state.end = End::Verified;
            }
            whole = state.end == End::Verified;
        });
        whole
    }
}

impl Drop for TailWriter {
    fn drop(&mut self) {
        self.0.update(|state| {
            if state.end == End::Open {
                state.end = End::Broken;
            }
        });
    }
}

impl Read for TailReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = {
            let mut state = self.shared.lock();
            loop {
                match state.end {
                    End::Broken => return Err(io::Error::other("the download was broken off")),
                    _ if state.available > self.position => break state.available,
                    End::Verified => return Ok(0),
                    End::Open => {
                        state = self.shared.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                    }
                }
            }
        };
        let left = usize::try_from(available - self.position).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let n = self.file.read_at(&mut buffer[..wanted], self.position)?;
        if n == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_end_is_seen_only_after_finish() {
        let mut file = tempfile::tempfile().unwrap();
        let (writer, mut reader) = tail(file.try_clone().unwrap());
        let thread = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        for part in 1..=10u64 {
            file.write_all(&[part as u8; 1000]).unwrap();
            writer.advance(part * 1000);
        }
        assert!(!thread.is_finished());
        assert!(writer.finish());
        assert_eq!(thread.join().unwrap().unwrap().len(), 10_000);
    }

    #[test]
    fn a_broken_or_restarted_download_is_an_error() {
        for restart in [false, true] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"abc").unwrap();
            let (writer, mut reader) = tail(file);
            writer.advance(3);
            let mut buffer = [0; 8];
            assert_eq!(reader.read(&mut buffer).unwrap(), 3);
            if restart {
                writer.restart();
                writer.advance(6);
                assert!(!writer.finish());
            } else {
                drop(writer);
            }
            reader.read(&mut buffer).unwrap_err();
        }
    }
}
