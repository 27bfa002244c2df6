//! From a layer's blob to its tar, within bounds.
//!
//! What a blob is compressed with is told by its first bytes, as Docker does: media types are often wrong, and the
//! digest of the result decides in any case.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::pull::Limits;

/// zstd's window as a power of two: 128 MiB, the largest that a decoder must support by default (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG: u32 = 27;

const INPUT_BUFFER: usize = 256 << 10;

/// The ratio is checked only beyond this: small layers of zeros are common and harmless.
const RATIO_FROM: u64 = 1 << 30;

/// What a stream is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Tells the compression by the first (up to 6) bytes; formats that are not supported are refused by name.
    pub(crate) fn detect(head: &[u8]) -> Result<Compression, String> {
        let refused = |name: &str| Err(format!("it is compressed with {name}; use gzip, zstd or none"));
        match head {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
            [b'B', b'Z', b'h', ..] => refused("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => refused("xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] => refused("lz4"),
            [0x5d, 0, 0, ..] => refused("lzma"),
            _ => Ok(Compression::None),
        }
    }
}

/// The plain bytes of a stream, compressed or not.
pub(crate) struct Plain<R: Read> {
    decoder: Decoder<Counted<Headed<R>>>,
    limits: Limits,
    produced: u64,
}

enum Decoder<R: Read> {
    None(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<R>>>),
}

/// Counts what the decoder takes.
struct Counted<R> {
    inner: R,
    consumed: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.consumed += n as u64;
        Ok(n)
    }
}

impl<R: Read> Plain<R> {
    /// Looks at the first bytes of `source`. Refused formats are an error of the kind `Unsupported`.
    pub(crate) fn new(source: R, limits: Limits) -> io::Result<Plain<R>> {
        let source = Headed::new(source)?;
        let compression =
            Compression::detect(&source.head).map_err(|text| io::Error::new(io::ErrorKind::Unsupported, text))?;
        let input = BufReader::with_capacity(INPUT_BUFFER, Counted { inner: source, consumed: 0 });
        let decoder = match compression {
            Compression::None => Decoder::None(input),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(input))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Plain { decoder, limits, produced: 0 })
    }

    /// Compressed bytes taken so far.
    pub(crate) fn consumed(&self) -> u64 {
        match &self.decoder {
            Decoder::None(input) => input.get_ref().consumed,
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref().consumed,
            Decoder::Zstd(decoder) => decoder.get_ref().get_ref().consumed,
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.produced > self.limits.layer {
            return Err(io::Error::other(format!("it unpacks to more than {} bytes", self.limits.layer)));
        }
        if self.produced > RATIO_FROM && self.produced / self.consumed().max(1) > self.limits.ratio {
            return Err(io::Error::other(format!(
                "it unpacks to more than {} times its size, as a decompression bomb does",
                self.limits.ratio
            )));
        }
        Ok(())
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.decoder {
            Decoder::None(input) => input.read(buffer)?,
            Decoder::Gzip(decoder) => decoder.read(buffer)?,
            Decoder::Zstd(decoder) => decoder.read(buffer)?,
        };
        self.produced += n as u64;
        self.check()?;
        Ok(n)
    }
}

/// A source whose first (up to 6) bytes can be looked at before they are read.
struct Headed<R> {
    head: Vec<u8>,
    inner: R,
}

impl<R: Read> Headed<R> {
    fn new(mut inner: R) -> io::Result<Headed<R>> {
        let mut head = vec![0; 6];
        let mut filled = 0;
        while filled < head.len() {
            match inner.read(&mut head[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        head.truncate(filled);
        Ok(Headed { head, inner })
    }
}

impl<R: Read> Read for Headed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            return self.inner.read(buffer);
        }
        let n = self.head.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.head[..n]);
        self.head.drain(..n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Delivers one byte at a time.
    struct Crumbs<'a>(&'a [u8]);

    impl Read for Crumbs<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(buffer.len()).min(1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn plain(source: &[u8], limits: Limits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Plain::new(Crumbs(source), limits)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn the_three_forms_and_their_concatenations_give_the_same_bytes() {
        let text = b"the quick brown fox".repeat(1000);
        let limits = Limits::default();
        let twice = [text.as_slice(), &text].concat();
        assert_eq!(plain(&text, limits).unwrap(), text);
        assert_eq!(plain(&gzip(&text), limits).unwrap(), text);
        assert_eq!(plain(&[gzip(&text), gzip(&text)].concat(), limits).unwrap(), twice);
        let frame = zstd::encode_all(text.as_slice(), 3).unwrap();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        assert_eq!(plain(&frame, limits).unwrap(), text);
        assert_eq!(plain(&[skippable.as_slice(), &frame, &frame].concat(), limits).unwrap(), twice);
        assert_eq!(plain(b"", limits).unwrap(), b"");
        assert_eq!(plain(b"ab", limits).unwrap(), b"ab");
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        for (head, name) in [(b"BZh91AY".as_slice(), "bzip2"), (b"\xfd7zXZ\0\0", "xz"), (b"\x04\x22\x4d\x18ab", "lz4")]
        {
            let error = plain(head, Limits::default()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn damaged_and_cut_streams_are_errors() {
        let text = b"0123456789".repeat(5000);
        let whole = gzip(&text);
        let frame = zstd::encode_all(text.as_slice(), 3).unwrap();
        for stream in [&whole, &frame] {
            for cut in [8, stream.len() / 2, stream.len() - 1] {
                plain(&stream[..cut], Limits::default()).expect_err("cut");
            }
        }
        plain(&[whole.as_slice(), b"rubbish"].concat(), Limits::default()).expect_err("trailing rubbish");
    }

    #[test]
    fn bombs_stop_at_the_limits() {
        let limits = Limits { layer: 1 << 20, ..Limits::default() };
        let error = plain(&gzip(&vec![0; 2 << 20]), limits).unwrap_err();
        assert!(error.to_string().contains("1048576 bytes"), "{error}");
        let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..1100 {
            bomb.write_all(&zeros).unwrap();
        }
        let bomb = bomb.finish().unwrap();
        let mut reader = Plain::new(bomb.as_slice(), Limits::default()).unwrap();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("bomb"), "{error}");
    }
}
