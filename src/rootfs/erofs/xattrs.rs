//! Extended attributes: each distinct one and each distinct set is kept once.
//!
//! On disk, one that several inodes have goes to the shared area, the others stand behind their inode.

use std::collections::HashMap;

pub(crate) use sbx_container::overlay::{IMPLIED_ROOT, OPAQUE};

use super::format::XATTR_HEADER;
use crate::error::LayerError;

/// `i_xattr_icount` has 16 bits and counts words of four bytes.
const MAX_INLINE: u64 = XATTR_HEADER + 4 * (u16::MAX as u64 - 1);
/// `h_shared_count` has 8 bits.
const MAX_SHARED: usize = 255;
/// Linux's `XATTR_NAME_MAX`, prefix included.
const NAME_MAX: usize = 255;

/// On directories with whiteouts. Overlayfs looks for whiteouts in a directory of a single layer only if this says that it was copied up ("from where
/// is unknown", as its empty value means); otherwise it lists names that are not there. Linux `fs/overlayfs/inode.c`, `ovl_get_inode`.
pub(crate) const MAY_HIDE: (&[u8], &[u8]) = (b"trusted.overlay.origin", b"");

/// A set of attributes; 0 is the empty one.
pub(super) type SetId = u32;

/// All attributes of the layer.
pub(super) struct Xattrs {
    limit: u64,
    used: u64,
    entries: Vec<Box<[u8]>>,
    entry_ids: HashMap<Box<[u8]>, u32>,
    sets: Vec<Box<[u32]>>,
    set_ids: HashMap<Box<[u32]>, SetId>,
}

/// Why an attribute was not taken.
pub(super) enum Refused {
    /// The name space is not the layer's (`trusted.overlay.`), not Linux's, or not for such a file.
    Dropped,
    /// Linux would refuse it too.
    Invalid(&'static str),
}

impl Xattrs {
    pub(super) fn new(limit: u64) -> Self {
        let empty: Box<[u32]> = Box::default();
        Self {
            limit,
            used: 0,
            entries: Vec::new(),
            entry_ids: HashMap::new(),
            sets: vec![empty.clone()],
            set_ids: HashMap::from([(empty, 0)]),
        }
    }

    pub(super) fn set_count(&self) -> usize {
        self.sets.len()
    }

    /// Takes the attributes of a tar entry that is a file of this type (`S_IFREG` …). Returns the set and how many were dropped.
    pub(super) fn intern(
        &mut self,
        file_type: u32,
        attributes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(SetId, u64), InternError> {
        let mut dropped = 0;
        let mut ids = Vec::with_capacity(attributes.len());
        for (name, value) in attributes {
            match check(file_type, name, value) {
                Ok(()) => ids.push(self.entry(name, value)?),
                Err(Refused::Dropped) => dropped += 1,
                Err(Refused::Invalid(what)) => {
                    return Err(InternError::Entry(format!("extended attribute {}: {what}", name.escape_ascii())));
                }
            }
        }
        Ok((self.set(ids)?, dropped))
    }

    /// The set with one attribute of our own added.
    pub(super) fn with(&mut self, set: SetId, (name, value): (&[u8], &[u8])) -> Result<SetId, InternError> {
        let mut ids = self.sets[set as usize].to_vec();
        let id = self.entry(name, value)?;
        if ids.contains(&id) {
            return Ok(set);
        }
        ids.push(id);
        self.set(ids)
    }

    /// The most bytes that the set can take behind an inode.
    pub(super) fn most_bytes(&self, set: SetId) -> u64 {
        let ids = &self.sets[set as usize];
        if ids.is_empty() {
            0
        } else {
            XATTR_HEADER + ids.iter().map(|&id| self.entries[id as usize].len() as u64).sum::<u64>()
        }
    }

    fn entry(&mut self, name: &[u8], value: &[u8]) -> Result<u32, InternError> {
        let encoded = encode(name, value);
        if let Some(&id) = self.entry_ids.get(&*encoded) {
            return Ok(id);
        }
        self.charge(2 * encoded.len() as u64 + 64)?;
        let id = self.entries.len() as u32;
        self.entries.push(encoded.clone());
        self.entry_ids.insert(encoded, id);
        Ok(id)
    }

    fn set(&mut self, mut ids: Vec<u32>) -> Result<SetId, InternError> {
        // By content, not by id, so that equal sets look equal on disk whatever came before them.
        ids.sort_by(|&a, &b| self.entries[a as usize].cmp(&self.entries[b as usize]));
        let bytes: u64 = XATTR_HEADER + ids.iter().map(|&id| self.entries[id as usize].len() as u64).sum::<u64>();
        if bytes > MAX_INLINE {
            return Err(InternError::Entry(format!("{bytes} bytes of extended attributes (EROFS holds {MAX_INLINE})")));
        }
        let ids: Box<[u32]> = ids.into();
        if let Some(&set) = self.set_ids.get(&ids) {
            return Ok(set);
        }
        self.charge(8 * ids.len() as u64 + 64)?;
        let set = self.sets.len() as SetId;
        self.sets.push(ids.clone());
        self.set_ids.insert(ids, set);
        Ok(set)
    }

    fn charge(&mut self, bytes: u64) -> Result<(), InternError> {
        self.used += bytes;
        if self.used > self.limit {
            return Err(InternError::Limit(LayerError::Limit {
                of: "bytes of extended attributes",
                limit: self.limit,
            }));
        }
        Ok(())
    }

    /// Decides what is shared, from how many inodes have each set.
    pub(super) fn place(self, uses: &[u64]) -> PlacedXattrs {
        let mut counts = vec![0u64; self.entries.len()];
        for (ids, &uses) in self.sets.iter().zip(uses) {
            for &id in ids {
                counts[id as usize] += uses;
            }
        }
        let mut shared = Vec::new();
        let mut offsets = vec![None; self.entries.len()];
        for (entry, (&count, offset)) in self.entries.iter().zip(counts.iter().zip(&mut offsets)) {
            if count > 1 {
                *offset = Some((shared.len() / 4) as u32);
                shared.extend_from_slice(entry);
            }
        }
        PlacedXattrs { entries: self.entries, sets: self.sets, offsets, shared }
    }
}

/// Why a set was not taken.
pub(super) enum InternError {
    /// The entry is to blame; to be completed by its name.
    Entry(String),
    Limit(LayerError),
}

/// The attributes once their places are known.
pub(super) struct PlacedXattrs {
    entries: Vec<Box<[u8]>>,
    sets: Vec<Box<[u32]>>,
    /// In words of four bytes from the start of the shared area.
    offsets: Vec<Option<u32>>,
    /// The shared area.
    pub(super) shared: Vec<u8>,
}

impl PlacedXattrs {
    /// Bytes that the set takes behind an inode.
    pub(super) fn bytes(&self, set: SetId) -> u64 {
        let (shared, inline) = self.split(set);
        if shared.is_empty() && inline.is_empty() {
            return 0;
        }
        XATTR_HEADER
            + 4 * shared.len() as u64
            + inline.iter().map(|&id| self.entries[id as usize].len() as u64).sum::<u64>()
    }

    /// What stands behind an inode.
    pub(super) fn encode(&self, set: SetId) -> Vec<u8> {
        let (shared, inline) = self.split(set);
        if shared.is_empty() && inline.is_empty() {
            return Vec::new();
        }
        let mut out = vec![0; XATTR_HEADER as usize];
        out[4] = shared.len() as u8;
        for offset in shared {
            out.extend(offset.to_le_bytes());
        }
        for id in inline {
            out.extend_from_slice(&self.entries[id as usize]);
        }
        out
    }

    fn split(&self, set: SetId) -> (Vec<u32>, Vec<u32>) {
        let (mut shared, mut inline) = (Vec::new(), Vec::new());
        for &id in &self.sets[set as usize] {
            match self.offsets[id as usize] {
                Some(offset) if shared.len() < MAX_SHARED => shared.push(offset),
                _ => inline.push(id),
            }
        }
        (shared, inline)
    }
}

/// EROFS's number for the name space, and the rest of the name.
fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        _ => {}
    }
    let prefixes: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];
    prefixes.iter().find_map(|&(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
}

/// Would Linux take it, and may a layer set it?
///
/// `trusted.overlay.*` is overlayfs's own book-keeping: with it a layer could redirect directories. containerd drops it likewise, and both
/// it and Docker go on where a name space is not supported.
fn check(file_type: u32, name: &[u8], value: &[u8]) -> Result<(), Refused> {
    let (index, rest) = split_name(name).ok_or(Refused::Dropped)?;
    let possible = match index {
        1 => matches!(file_type, libc::S_IFREG | libc::S_IFDIR),
        2 => file_type != libc::S_IFLNK,
        3 => file_type == libc::S_IFDIR,
        _ => !name.starts_with(b"trusted.overlay."),
    };
    // What the kernel lists but does not give would break overlayfs's copying up.
    if !possible {
        return Err(Refused::Dropped);
    }
    if matches!(index, 2 | 3) {
        // linux/posix_acl_xattr.h: a version (2), then entries of 8 bytes. A malformed one would make the file unusable.
        let valid = value.len() >= 4 && value[..4] == 2u32.to_le_bytes() && value.len() % 8 == 4;
        return if valid { Ok(()) } else { Err(Refused::Invalid("not a POSIX ACL")) };
    }
    if rest.is_empty() || name.len() > NAME_MAX {
        return Err(Refused::Invalid("name empty or longer than 255 bytes"));
    }
    if value.len() > usize::from(u16::MAX) {
        return Err(Refused::Invalid("value longer than 65535 bytes"));
    }
    Ok(())
}

/// An `erofs_xattr_entry` with its padding. The name has been checked.
fn encode(name: &[u8], value: &[u8]) -> Box<[u8]> {
    let (index, rest) = split_name(name).unwrap_or((0, name));
    let mut out = Vec::with_capacity((4 + rest.len() + value.len()).next_multiple_of(4));
    out.push(rest.len() as u8);
    out.push(index);
    out.extend((value.len() as u16).to_le_bytes());
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out.into()
}
