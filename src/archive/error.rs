//! What can go wrong: with the stream, with the archive, or with a file.

use std::io;

/// An archive cannot be read, or files cannot become one or come out of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream below the archive failed.
    #[error("reading the archive: {0}")]
    Read(#[source] io::Error),
    /// Whoever was to have the archive does not take it.
    #[error("writing the archive: {0}")]
    Write(#[source] io::Error),
    /// The stream ended in the middle of something.
    #[error("the archive is truncated at byte {offset}, inside {inside}")]
    Truncated {
        /// Bytes of the archive read so far.
        offset: u64,
        /// What was being read.
        inside: String,
    },
    /// The archive's structure is broken.
    #[error("not a valid tar archive: {what} (header at byte {offset})")]
    Malformed {
        /// Where the header starts.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// One entry asks for something that no archive may ask for.
    #[error("archive entry {name:?}: {what}")]
    Entry {
        /// The entry's name; bytes that are not UTF-8 are replaced.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The archive is larger than the caller allows.
    #[error("the archive exceeds the limit of {limit} {of}")]
    Limit {
        /// What is counted.
        of: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// An operation on a file failed.
    #[error("{step} {path:?}: {}", describe(source))]
    File {
        /// What was tried.
        step: &'static str,
        /// On what, as the archive names it.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is there already may not be replaced by what the archive holds.
    #[error("{0}")]
    InTheWay(String),
}

/// The C library's words for an error number, in lower case and without the number, as Docker's users know them.
#[must_use]
pub fn describe(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let text = nix::errno::Errno::from_raw(number).desc();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
