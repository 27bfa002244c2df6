//! A structure of the disk as its bytes, filled field by field at the offsets that its definition gives.

/// Bytes that are zero where no field has been put.
pub(super) struct Record(Vec<u8>);

impl Record {
    pub(super) fn new(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn u8(&mut self, at: usize, value: u8) -> &mut Self {
        self.put(at, &[value])
    }

    pub(super) fn u16(&mut self, at: usize, value: u16) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    /// The journal's numbers, which are big-endian.
    pub(super) fn be32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_be_bytes())
    }

    /// The low 32 bits at one place, the high ones at another.
    pub(super) fn split64(&mut self, low: usize, high: usize, value: u64) -> &mut Self {
        self.u32(low, value as u32).u32(high, (value >> 32) as u32)
    }

    /// The low 16 bits at one place, the high ones at another.
    pub(super) fn split32(&mut self, low: usize, high: usize, value: u32) -> &mut Self {
        self.u16(low, value as u16).u16(high, (value >> 16) as u16)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}
