//! Directories on disk: blocks of entries sorted by name, each block its entries first and their names behind.

use super::format::{BLOCK, DIRENT};

/// One name, in the order of `memcmp`.
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    pub(super) file_type: u8,
}

/// Bytes of a directory with names of these lengths, in their order: whole blocks, and the last as long as it is.
pub(super) fn size(lengths: impl Iterator<Item = usize>) -> u64 {
    let (mut blocks, mut used) = (0, 0);
    for length in lengths {
        let bytes = (DIRENT + length) as u64;
        if used + bytes > BLOCK {
            blocks += 1;
            used = 0;
        }
        used += bytes;
    }
    blocks * BLOCK + used
}

/// The directory's content, `size` bytes of it.
pub(super) fn encode(entries: &[Dirent<'_>], out: &mut Vec<u8>) {
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = rest.iter().take_while(|entry| {
            used += DIRENT + entry.name.len();
            used <= BLOCK as usize
        });
        let (block, after) = rest.split_at(fits.count());
        let start = out.len();
        let mut name_offset = block.len() * DIRENT;
        for entry in block {
            out.extend(entry.inode.to_le_bytes());
            out.extend((name_offset as u16).to_le_bytes());
            out.extend([entry.file_type, 0]);
            name_offset += entry.name.len();
        }
        for entry in block {
            out.extend_from_slice(entry.name);
        }
        if !after.is_empty() {
            out.resize(start + BLOCK as usize, 0);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Dirent, encode, size};

    #[test]
    fn the_size_is_known_before_the_content() {
        for count in [1, 2, 40, 141, 142, 1000] {
            let names: Vec<String> = (0..count).map(|i| format!("{i:017}")).collect();
            let entries: Vec<_> =
                names.iter().map(|name| Dirent { name: name.as_bytes(), inode: 7, file_type: 1 }).collect();
            let mut out = Vec::new();
            encode(&entries, &mut out);
            assert_eq!(out.len() as u64, size(names.iter().map(String::len)));
            assert_eq!(out.len() as u64 > BLOCK, count > 141);
        }
    }
}
