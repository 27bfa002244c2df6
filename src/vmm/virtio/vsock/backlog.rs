//! Bytes of the guest that the host's side has not taken yet. They are within the window that the stream was given
//! (`credit.rs`), so what lies here is bounded; as a rule nothing does.

use crate::virtio::chain::Reader;

/// An empty backlog keeps no more memory than this, in bytes.
const KEPT: usize = 16 << 10;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    start: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// What waits, front to back.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Takes over all that is left of a packet.
    pub(super) fn append(&mut self, packet: &mut Reader<'_>) {
        // What was taken makes room again when it is more than what waits: each byte is then moved once at most.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let end = self.bytes.len();
        self.bytes.resize(end + packet.left(), 0);
        let count = packet.read_some(&mut self.bytes[end..]);
        self.bytes.truncate(end + count);
    }

    /// The first `count` bytes have left.
    pub(super) fn take(&mut self, count: usize) {
        self.start = self.bytes.len().min(self.start + count);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets all of it, and says how many bytes it was.
    pub(super) fn clear(&mut self) -> usize {
        let count = self.waiting().len();
        self.start = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        count
    }
}
