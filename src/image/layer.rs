//! One layer from blob to converted: decompress, digest, convert, all at once.
//!
//! Two threads per layer: one inflates, the other hashes and runs the converter, 256 KiB buffers go round between them.
//! Inflating costs as much as all the rest, so the rest is hidden behind it. The source may be a download still under way
//! (its end then comes only after the blob has been verified), hence: when `convert` returns, the source has ended.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use crate::decompress::Plain;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::pull::Limits;
use crate::sink::{LayerSink, PendingLayer};

const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;

/// Which layer it has to be.
pub(crate) struct Expected {
    /// For errors.
    pub(crate) blob: Digest,
    /// The digest of the tar.
    pub(crate) diff_id: Digest,
    pub(crate) limits: Limits,
}

/// Converts a layer and makes it visible if its digest is the expected one. Returns the length of the tar.
///
/// `consumed` is told now and then how many bytes of the blob have been read.
pub(crate) fn convert(
    expected: &Expected,
    source: impl Read + Send,
    sink: &dyn LayerSink,
    consumed: &(dyn Fn(u64) + Sync),
) -> Result<u64> {
    let broken = |problem: String| Error::Layer { digest: expected.blob, problem };
    let (full, chunks) = sync_channel(CHUNKS);
    let (recycle, empty) = channel();
    thread::scope(|scope| {
        let pipe = Pipe { full, empty };
        let limits = expected.limits;
        let decoder = thread::Builder::new()
            .name("layer-decode".to_owned())
            .spawn_scoped(scope, move || decode(source, limits, &pipe, consumed))
            .map_err(|error| broken(format!("cannot start a thread: {error}")))?;
        let mut tar = Chunks {
            chunks,
            recycle,
            current: Vec::new(),
            position: 0,
            state: State::Reading,
            hasher: Hasher::default(),
        };
        let converted = match sink.has(&expected.diff_id) {
            true => Ok(None),
            false => sink.convert(&expected.diff_id, &mut tar).map(Some),
        };
        // What the converter has left unread belongs to the digest all the same.
        if converted.is_ok() {
            tar.drain();
        }
        let hasher = tar.close();
        let decoded = decoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (decoded, converted) {
            (Err(Stopped::Broken(problem)), _) => Err(broken(problem)),
            (_, Err(source)) => Err(Error::Convert { diff_id: expected.diff_id, source }),
            (Err(Stopped::Unread), Ok(_)) => Err(broken("its reader went away".to_owned())),
            (Ok(()), Ok(pending)) => {
                let len = hasher.len();
                let found = hasher.finish();
                if found != expected.diff_id {
                    let problem = format!("its content has the diff id {found}, the image says {}", expected.diff_id);
                    return Err(broken(problem));
                }
                pending
                    .map_or(Ok(()), |pending: Box<dyn PendingLayer + '_>| pending.commit())
                    .map_err(|source| Error::Convert { diff_id: expected.diff_id, source })?;
                Ok(len)
            }
        }
    })
}

/// Digest and length of the tar in a blob.
pub(crate) fn measure(source: impl Read, limits: Limits) -> io::Result<(Digest, u64)> {
    let mut plain = Plain::new(source, limits)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let len = hasher.len();
    Ok((hasher.finish(), len))
}

/// Why the decoder did not come to the end.
enum Stopped {
    /// The stream is bad.
    Broken(String),
    /// The converter gave up.
    Unread,
}

/// The decoder's ends of the two channels.
struct Pipe {
    full: SyncSender<Option<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
}

fn decode(source: impl Read, limits: Limits, pipe: &Pipe, consumed: &dyn Fn(u64)) -> std::result::Result<(), Stopped> {
    let broken = |error: io::Error| {
        // `None` tells the converter that what it has read is not the whole.
        let _ = pipe.full.send(None);
        Stopped::Broken(error.to_string())
    };
    let mut plain = Plain::new(source, limits).map_err(broken)?;
    let mut told = 0;
    loop {
        let mut chunk = pipe.empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let n = fill(&mut plain, &mut chunk).map_err(broken)?;
        if plain.consumed() >= told + (1 << 20) || (n == 0 && plain.consumed() > told) {
            told = plain.consumed();
            consumed(told);
        }
        if n == 0 {
            return Ok(());
        }
        chunk.truncate(n);
        pipe.full.send(Some(chunk)).map_err(|_| Stopped::Unread)?;
    }
}

/// Reads until the buffer is full or the source ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The converter's end: a reader over the chunks.
struct Chunks {
    chunks: Receiver<Option<Vec<u8>>>,
    recycle: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    state: State,
    /// Of all chunks that have come, whether the converter has read them or not.
    hasher: Hasher,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Broken,
}

impl Chunks {
    /// Gets the next chunk if the current one is used up.
    fn advance(&mut self) {
        while self.state == State::Reading && self.position == self.current.len() {
            match self.chunks.recv() {
                Ok(Some(chunk)) => {
                    self.hasher.update(&chunk);
                    let used = std::mem::replace(&mut self.current, chunk);
                    self.position = 0;
                    if used.capacity() >= CHUNK {
                        // The decoder may be gone already; then the buffer is simply freed.
                        let _ = self.recycle.send(used);
                    }
                }
                Ok(None) => self.state = State::Broken,
                Err(_) => self.state = State::Ended,
            }
        }
    }

    /// Lets the decoder go.
    fn close(self) -> Hasher {
        self.hasher
    }

    fn drain(&mut self) {
        while self.state == State::Reading {
            self.position = self.current.len();
            self.advance();
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance();
        if self.state == State::Broken {
            return Err(io::Error::other("the layer could not be read to its end"));
        }
        let rest = &self.current[self.position..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.position += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::error::SinkError;

    #[derive(Default)]
    struct Memory {
        layers: Mutex<BTreeMap<Digest, Vec<u8>>>,
        read_at_most: Option<u64>,
        refuse: bool,
    }

    struct Pending<'a>(&'a Memory, Digest, Vec<u8>);

    impl PendingLayer for Pending<'_> {
        fn commit(self: Box<Self>) -> Result<(), SinkError> {
            self.0.layers.lock().unwrap().insert(self.1, self.2);
            Ok(())
        }
    }

    impl LayerSink for Memory {
        fn has(&self, diff_id: &Digest) -> bool {
            self.layers.lock().unwrap().contains_key(diff_id)
        }

        fn convert<'a>(&'a self, id: &Digest, tar: &mut dyn Read) -> Result<Box<dyn PendingLayer + 'a>, SinkError> {
            if self.refuse {
                return Err("refused".into());
            }
            let mut bytes = Vec::new();
            tar.take(self.read_at_most.unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
            Ok(Box::new(Pending(self, *id, bytes)))
        }
    }

    fn expected(tar: &[u8]) -> Expected {
        Expected { blob: Digest::of(b"blob"), diff_id: Digest::of(tar), limits: Limits::default() }
    }

    #[test]
    fn a_good_layer_is_committed_whole_even_if_the_converter_stops_early() {
        let tar: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let blob = zstd::encode_all(tar.as_slice(), 1).unwrap();
        for read_at_most in [None, Some(0), Some(1000), Some(CHUNK as u64)] {
            let sink = Memory { read_at_most, ..Memory::default() };
            assert_eq!(convert(&expected(&tar), blob.as_slice(), &sink, &|_| ()).unwrap(), tar.len() as u64);
            let want = read_at_most.unwrap_or(u64::MAX).min(tar.len() as u64) as usize;
            assert_eq!(sink.layers.lock().unwrap()[&Digest::of(&tar)], tar[..want]);
        }
        assert_eq!(measure(blob.as_slice(), Limits::default()).unwrap(), (Digest::of(&tar), tar.len() as u64));
    }

    #[test]
    fn a_bad_layer_is_never_committed() {
        let tar = vec![7u8; 3_000_000];
        let blob = zstd::encode_all(tar.as_slice(), 1).unwrap();
        let sink = Memory::default();
        let wrong = Expected { diff_id: Digest::of(b"other"), ..expected(&tar) };
        let error = convert(&wrong, blob.as_slice(), &sink, &|_| ()).unwrap_err();
        assert!(error.to_string().contains("diff id"), "{error}");
        let error = convert(&expected(&tar), &blob[..blob.len() - 2], &sink, &|_| ()).unwrap_err();
        assert!(matches!(error, Error::Layer { .. }), "{error}");
        let error = convert(&expected(&tar), b"BZh9.....".as_slice(), &sink, &|_| ()).unwrap_err();
        assert!(error.to_string().contains("bzip2"), "{error}");
        let small = Limits { layer: 1000, ..Limits::default() };
        let error =
            convert(&Expected { limits: small, ..expected(&tar) }, blob.as_slice(), &sink, &|_| ()).unwrap_err();
        assert!(error.to_string().contains("more than 1000 bytes"), "{error}");
        assert!(sink.layers.lock().unwrap().is_empty());
        let refusing = Memory { refuse: true, ..Memory::default() };
        let error = convert(&expected(&tar), blob.as_slice(), &refusing, &|_| ()).unwrap_err();
        assert!(matches!(error, Error::Convert { .. }), "{error}");
    }
}
