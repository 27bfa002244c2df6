//! Which pages of a saved machine's memory its start needs.
//!
//! A guest that begins as a saved machine meets its memory page by page: each first touch is a way to the host, and for the
//! host a fault of its own. Machines of one file touch nearly the same pages. So the first of them is looked at when it has
//! started, and the memory of the later ones is there before they run. (The idea is that of "REAP", Ustiugov et al., ASPLOS
//! 2021.) It is only a hint: what is missing comes as it would have come.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use crate::error::{Error, Result};
use crate::layout::{self, PAGE};
use crate::memory::touched::{OF_A_FILE, PRESENT, entries};

/// The most memory that is taken to be needed, in bytes. A guest that has touched more before it was looked at did more than
/// start.
const LIMIT: u64 = 64 << 20;
/// Page table entries that are read at once.
const ENTRIES: u64 = 1 << 16;

/// Pages of RAM, by their place in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    runs: Vec<Run>,
}

/// Pages that lie beside each other and were used alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    first: u32,
    pages: u32,
    written: bool,
}

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: GuestAddress,
    pub(crate) bytes: u64,
    /// The guest will write it.
    pub(crate) written: bool,
}

impl WorkingSet {
    /// What process `pid` has touched of the `bytes` of RAM that it has mapped from `offset` of `file` on. `None` where it
    /// does not have it mapped, or has touched more than a start does.
    pub(crate) fn observe(pid: i32, file: &File, offset: u64, bytes: u64) -> Result<Option<Self>> {
        let inode = file.metadata().map_err(Error::host("look at the saved memory"))?.ino();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(Error::host("read a process's mappings"))?;
        let tables = File::open(format!("/proc/{pid}/pagemap")).map_err(Error::host("open a process's page tables"))?;
        let mut set = Self::default();
        for mapping in maps.lines().filter_map(Mapping::parse).filter(|mapping| mapping.inode == inode) {
            let Some(start) = mapping.offset.checked_sub(offset).filter(|start| *start < bytes) else { continue };
            let (first, count) = (start / PAGE, mapping.bytes.min(bytes - start) / PAGE);
            for at in (0..count).step_by(ENTRIES as usize) {
                let entries = entries(&tables, mapping.start / PAGE + at, ENTRIES.min(count - at))
                    .map_err(Error::host("read a process's page tables"))?;
                (first + at..).zip(entries).for_each(|(page, entry)| set.add(page, entry));
            }
        }
        let touched: u64 = set.runs.iter().map(|run| u64::from(run.pages) * PAGE).sum();
        Ok((1..=LIMIT).contains(&touched).then_some(set))
    }

    fn add(&mut self, page: u64, entry: u64) {
        if entry & PRESENT == 0 {
            return;
        }
        let written = entry & OF_A_FILE == 0;
        let Ok(page) = u32::try_from(page) else { return };
        match self.runs.last_mut() {
            Some(run) if run.first + run.pages == page && run.written == written => run.pages += 1,
            _ => self.runs.push(Run { first: page, pages: 1, written }),
        }
    }

    /// From bytes of [`WorkingSet::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// For a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Numbers into memory: nothing can go wrong.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Where the pages lie in a guest with so many bytes of RAM; what lies behind its end is left out.
    pub(crate) fn pieces(&self, bytes: u64) -> impl Iterator<Item = Piece> {
        let mut before = 0;
        let mut banks = Vec::new();
        for (start, length) in layout::ram(bytes) {
            banks.push((before, start, length));
            before += length;
        }
        self.runs.iter().flat_map(move |run| {
            let (from, to) = (u64::from(run.first) * PAGE, (u64::from(run.first) + u64::from(run.pages)) * PAGE);
            let written = run.written;
            banks.clone().into_iter().filter_map(move |(before, start, length)| {
                let (from, to) = (from.max(before), to.min(before + length));
                let start = GuestAddress(start + from.saturating_sub(before));
                (from < to).then(|| Piece { start, bytes: to - from, written })
            })
        })
    }
}

/// A line of `/proc/PID/maps`.
struct Mapping {
    start: u64,
    bytes: u64,
    offset: u64,
    inode: u64,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let hexadecimal = |word: &str| u64::from_str_radix(word, 16).ok();
        let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
        let offset = hexadecimal(words.nth(1)?)?;
        let inode = words.nth(1)?.parse().ok()?;
        Some(Self { start, bytes: end.checked_sub(start)?, offset, inode })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, GuestAddress};

    use super::{PAGE, Piece, Run, WorkingSet};
    use crate::layout::{HOLE, HOLE_END};
    use crate::memory::Memory;

    #[test]
    fn what_a_process_has_read_and_written_is_found_and_can_be_had_at_once() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096 + (16 << 20)).unwrap();
        for page in 0..4096 {
            file.write_all_at(&[1], 4096 + page * PAGE).unwrap();
        }
        let memory = Memory::restored(16 << 20, file.try_clone().unwrap(), 4096).unwrap();
        memory.ram().write_obj(2_u8, GuestAddress(8 << 20)).unwrap();
        memory.ram().write_obj(2_u8, GuestAddress((8 << 20) + PAGE)).unwrap();
        assert_eq!(memory.ram().read_obj::<u8>(GuestAddress(1 << 20)).unwrap(), 1);
        let pid = i32::try_from(std::process::id()).unwrap();
        let set = WorkingSet::observe(pid, &file, 4096, 16 << 20).unwrap().unwrap();
        assert!(set.runs.contains(&Run { first: 2048, pages: 2, written: true }), "{set:?}");
        assert!(
            set.runs.iter().any(|run| !run.written && (run.first..run.first + run.pages).contains(&256)),
            "{set:?}"
        );
        let set = WorkingSet::from_bytes(&set.to_bytes()).unwrap();

        drop(memory);
        let memory = Memory::restored(16 << 20, file.try_clone().unwrap(), 4096).unwrap();
        memory.populate(&set).unwrap();
        let again = WorkingSet::observe(pid, &file, 4096, 16 << 20).unwrap().unwrap();
        assert_eq!(again, set);
        assert_eq!(memory.ram().read_obj::<u8>(GuestAddress(8 << 20)).unwrap(), 1, "the file's content");
        assert!(WorkingSet::observe(pid, &tempfile::tempfile().unwrap(), 0, 16 << 20).unwrap().is_none());
    }

    #[test]
    fn pages_lie_around_the_hole_and_none_behind_the_end() {
        let last = u32::try_from(HOLE / PAGE - 1).unwrap();
        let set = WorkingSet {
            runs: vec![
                Run { first: last, pages: 2, written: true },
                Run { first: u32::MAX, pages: u32::MAX, written: false },
            ],
        };
        let pieces: Vec<Piece> = set.pieces(HOLE + (1 << 20)).collect();
        let piece = |start| Piece { start: GuestAddress(start), bytes: PAGE, written: true };
        assert_eq!(pieces, [piece(HOLE - PAGE), piece(HOLE_END)]);
        assert!(WorkingSet::from_bytes(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_none());
    }
}
