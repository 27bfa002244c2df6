//! Tar archives: reading those of strangers, and files and directories that become one or come out of one.
//!
//! ```text
//! directory ──pack──▶ tar stream ──Reader──▶ entries ──unpack──▶ directory
//! ```
//!
//! [`pack`] and [`unpack`] work below an open directory and know nothing of where it is: one end of a copy is a
//! container's file system and the other one a directory beside it, and both do the same.

mod error;
mod pack;
mod reader;
mod sys;
mod unpack;

pub use error::{Error, describe};
pub use pack::pack;
pub use reader::{Entry, Kind, Limits, Reader, Segment, printable};
pub use unpack::{Options, Origin, Owners, Unpacked, unpack};
