//! Many files as one disk: a partition table for files that stand one behind the other, so that one device carries all of an image's layers.
//!
//! ```text
//! 0        512      1024                  first extent                                        tail
//! │ MBR    │ header │ 128 entries │ (zero) │ file 0 │ (zero) │ file 1 │ … │ file n │ (zero) │ 128 entries │ header │
//! └───────────── head ────────────┘                                                         └──────── tail ────────┘
//! ```
//!
//! UEFI specification 2.10, section 5 (GUID Partition Table). The same lengths give the same bytes: a disk of a saved virtual machine is
//! the same disk when it is restored. Everything that is neither head, file nor tail reads as zeroes.

use crate::checksum::crc32;

/// Bytes of a logical block: the device must say so too, for the table counts in them.
pub const SECTOR: u64 = 512;
/// As many partitions fit into the usual table of 32 sectors.
pub const MOST_PARTITIONS: usize = 128;

const ENTRY: usize = 128;
const ENTRIES: usize = MOST_PARTITIONS * ENTRY;
const ENTRY_SECTORS: u64 = ENTRIES as u64 / SECTOR;
/// MBR, header, entries.
const HEAD: u64 = (2 + ENTRY_SECTORS) * SECTOR;
/// Entries, header.
const TAIL: u64 = (1 + ENTRY_SECTORS) * SECTOR;
const HEADER: usize = 92;
/// Extents begin and the disk ends at multiples of it: a page, and a block of every file system.
const PAGE: u64 = 4096;

/// "Linux filesystem data", 0FC63DAF-8483-4772-8E79-3D69D8477DE4, in the mixed byte order of a GPT.
const LINUX_DATA: [u8; 16] =
    [0xAF, 0x3D, 0xC6, 0x0F, 0x83, 0x84, 0x72, 0x47, 0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4];

/// Where one file stands on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the disk's beginning.
    pub offset: u64,
    /// Bytes of the file.
    pub length: u64,
}

/// A disk of which only the table is bytes: the rest are files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// The first bytes of the disk.
    pub head: Vec<u8>,
    /// Where the files stand, in the order of the partitions.
    pub extents: Vec<Extent>,
    /// Where the tail begins.
    pub tail_offset: u64,
    /// The last bytes of the disk.
    pub tail: Vec<u8>,
}

impl PartitionTable {
    /// Bytes of the disk, a multiple of 4096.
    pub fn disk_bytes(&self) -> u64 {
        self.tail_offset + self.tail.len() as u64
    }
}

/// More files than the table has entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a disk takes up to {MOST_PARTITIONS} layers as partitions, not {count}; spread them over several disks")]
pub struct TooManyPartitions {
    /// How many there are.
    pub count: usize,
}

/// Lays files of these lengths (in bytes) out as partitions 1 to n, in their order, each beginning at a multiple of `alignment` bytes: 4096
/// for a block device; 2 MiB for virtio-pmem, so that the guest maps them with large pages.
///
/// A length that is no multiple of 512 is rounded up for the partition; the extent is the file's own.
///
/// # Errors
/// For more than [`MOST_PARTITIONS`] files.
///
/// # Panics
/// Where `alignment` is no multiple of 4096, or the files together are longer than 2^63 bytes: no file system has such.
pub fn partitions(lengths: &[u64], alignment: u64) -> Result<PartitionTable, TooManyPartitions> {
    assert!(alignment > 0 && alignment.is_multiple_of(PAGE), "{alignment} is no multiple of {PAGE}");
    if lengths.len() > MOST_PARTITIONS {
        return Err(TooManyPartitions { count: lengths.len() });
    }
    let mut end = HEAD;
    let mut extents = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let offset = end.next_multiple_of(alignment);
        extents.push(Extent { offset, length });
        end = offset + length;
    }
    // The tail's own length is no multiple of a page.
    let disk = (end.next_multiple_of(SECTOR) + TAIL).next_multiple_of(PAGE);
    let tail_offset = disk - TAIL;
    let entries = encode_entries(&extents);
    let sum = crc32(&entries);
    let header = |this: u64, other: u64, entries_at: u64| {
        encode_header(&Place { this, other, entries_at, last_usable: tail_offset / SECTOR - 1 }, sum)
    };
    let (first, last) = (1, disk / SECTOR - 1);
    let mut head = encode_mbr(last);
    head.extend(header(first, last, 2));
    head.extend_from_slice(&entries);
    let mut tail = entries;
    tail.extend(header(last, first, tail_offset / SECTOR));
    Ok(PartitionTable { head, extents, tail_offset, tail })
}

/// The protective MBR: one partition over the whole disk, for programs that know no GPT.
fn encode_mbr(last: u64) -> Vec<u8> {
    let mut out = vec![0; SECTOR as usize];
    let entry = &mut out[446..462];
    // No cylinder, head or sector can say where the second sector is or the last one: the specification gives these numbers.
    entry[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
    entry[4] = 0xEE;
    entry[5..8].copy_from_slice(&[0xFF, 0xFF, 0xFF]);
    entry[8..12].copy_from_slice(&1u32.to_le_bytes());
    entry[12..16].copy_from_slice(&u32::try_from(last).unwrap_or(u32::MAX).to_le_bytes());
    out[510..].copy_from_slice(&[0x55, 0xAA]);
    out
}

/// Sectors that a header names.
struct Place {
    this: u64,
    other: u64,
    entries_at: u64,
    last_usable: u64,
}

fn encode_header(place: &Place, entries_sum: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(SECTOR as usize);
    out.extend(b"EFI PART");
    out.extend(0x0001_0000u32.to_le_bytes());
    out.extend((HEADER as u32).to_le_bytes());
    out.extend([0; 8]);
    for sector in [place.this, place.other, HEAD / SECTOR, place.last_usable] {
        out.extend(sector.to_le_bytes());
    }
    out.extend(unique(0));
    out.extend(place.entries_at.to_le_bytes());
    out.extend((MOST_PARTITIONS as u32).to_le_bytes());
    out.extend((ENTRY as u32).to_le_bytes());
    out.extend(entries_sum.to_le_bytes());
    let sum = crc32(&out);
    out[16..20].copy_from_slice(&sum.to_le_bytes());
    out.resize(SECTOR as usize, 0);
    out
}

fn encode_entries(extents: &[Extent]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENTRIES);
    for (index, extent) in extents.iter().enumerate() {
        let first = extent.offset / SECTOR;
        // An empty file would have no last sector; nobody has one, and its partition is one sector of zeroes.
        let last = first + extent.length.div_ceil(SECTOR).max(1) - 1;
        out.extend(LINUX_DATA);
        out.extend(unique(index + 1));
        out.extend(first.to_le_bytes());
        out.extend(last.to_le_bytes());
        out.extend([0; 8]);
        out.extend(format!("layer {index}").encode_utf16().flat_map(u16::to_le_bytes));
        out.resize((index + 1) * ENTRY, 0);
    }
    out.resize(ENTRIES, 0);
    out
}

/// The GUID of the disk (0) and of its partitions. They only have to differ on one disk; version 8 of RFC 9562 is for one's own schemes.
fn unique(number: usize) -> [u8; 16] {
    let mut guid = *b"sbx lay\x80\x80 disk\0\0";
    guid[14..].copy_from_slice(&(number as u16).to_be_bytes());
    guid
}
