//! Reading a device's configuration space (virtio specification 1.3, section 2.5): a driver may ask for any bytes of it.

/// Copies the bytes from `offset` on; what lies beyond the end of the space reads as zero.
pub fn read(space: &[u8], offset: u64, data: &mut [u8]) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(space.len());
    let count = data.len().min(space.len() - from);
    data[..count].copy_from_slice(&space[from..from + count]);
    data[count..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn what_lies_beyond_the_end_reads_as_zero() {
        for (offset, expected) in
            [(0, [1, 2, 3]), (1, [2, 3, 0]), (2, [3, 0, 0]), (3, [0; 3]), (4, [0; 3]), (u64::MAX, [0; 3])]
        {
            let mut data = [0xff; 3];
            read(&[1, 2, 3], offset, &mut data);
            assert_eq!(data, expected, "from {offset}");
        }
    }
}
