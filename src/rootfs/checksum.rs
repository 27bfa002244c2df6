//! The cyclic redundancy checks of on-disk structures, by tables that are made at compile time.
//!
//! Both are reflected 32-bit sums. They differ in their polynomial, and in who inverts the result: ext4 and EROFS go on from a sum that is
//! not inverted (and chain such sums), a GPT holds the usual inverted one.

/// CRC-32C (Castagnoli), RFC 3720 appendix B.4, reflected.
const CASTAGNOLI: u32 = 0x82F6_3B78;
/// CRC-32 of ISO 3309, reflected: that of Ethernet, zip and the GPT.
const ISO: u32 = 0xEDB8_8320;

static CASTAGNOLI_TABLE: [u32; 256] = table(CASTAGNOLI);
static ISO_TABLE: [u32; 256] = table(ISO);

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { polynomial } else { 0 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

fn go_on(table: &[u32; 256], sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, &byte| (sum >> 8) ^ table[usize::from(sum as u8 ^ byte)])
}

/// CRC-32C that goes on from `sum` and is not inverted at the end; a new one begins at `u32::MAX`.
pub(crate) fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    go_on(&CASTAGNOLI_TABLE, sum, bytes)
}

/// The CRC-32 of `bytes`.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !go_on(&ISO_TABLE, u32::MAX, bytes)
}

#[cfg(test)]
mod tests {
    use super::{crc32, crc32c};

    #[test]
    fn the_standard_check_values_come_out() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xE306_9283);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32c(crc32c(u32::MAX, b"1234"), b"56789"), crc32c(u32::MAX, b"123456789"));
    }
}
