//! The words that a client, a sandbox's supervisor and, in a VM, the agent exchange.
//!
//! Every connection begins with a [`Hello`] from whoever connects, and its answer. After that it is one of two things:
//!
//! * a **control** connection: [`Request`]s one way, one [`Reply`] each the other way, in order;
//! * a **stream**: raw bytes of one standard stream of one process, nothing else. Its end is the end of the stream, in
//!   each direction of its own (half-close). There is no multiplexing and therefore no head-of-line blocking: a reader
//!   that stops reading stops that stream alone.
//!
//! Messages are postcard (not self-describing, so types are only ever appended to) behind a 32-bit little-endian length,
//! at most [`MAX_FRAME`] bytes. Nothing that arrives is believed: a length is checked before a byte is read, and a
//! message that does not parse ends the connection.
//!
//! Containers and processes carry ids from the first version on, so that a sandbox can hold more than one container.

mod frame;
pub mod guest;
mod message;

pub use frame::{Decoder, FrameError, MAX_FRAME, read_frame, write_frame};
pub use message::{
    AttachRequest, ContainerEvent, ExecRequest, ExitStatus, Failure, FailureKind, FilesRequest, Hello, Purpose, Reply,
    Request, SessionId, Signal, StreamKind, TerminalSize, VERSION,
};
pub use sbx_container::usage::{BlockUsage, NetworkUsage, ProcessRow, StatsSample, UserNames};
