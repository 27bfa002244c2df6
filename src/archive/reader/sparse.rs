//! Maps of sparse files: which bytes of a file the tar holds.

use super::header;

/// Stored bytes `offset..offset + length` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Appends the segments of an old GNU header or continuation block; false when an empty slot ended the map.
pub(super) fn push_slots(slots: &[u8], map: &mut Vec<Segment>) -> Result<bool, &'static str> {
    for slot in slots.chunks_exact(24) {
        if slot[0] == 0 || slot[12] == 0 {
            return Ok(false);
        }
        map.push(Segment { offset: header::unsigned(&slot[..12])?, length: header::unsigned(&slot[12..])? });
    }
    Ok(true)
}

/// Checks a map against the file's size and the stored bytes, and drops its empty segments.
pub(super) fn check(map: &mut Vec<Segment>, size: u64, stored: u64) -> Result<(), &'static str> {
    let mut end = 0;
    let mut total = 0u64;
    for segment in map.iter() {
        if segment.offset < end {
            return Err("sparse map whose segments overlap or go back");
        }
        end = segment.offset.checked_add(segment.length).ok_or("sparse map beyond 64 bits")?;
        total = total.checked_add(segment.length).ok_or("sparse map beyond 64 bits")?;
    }
    if end > size {
        return Err("sparse map that goes beyond the file's size");
    }
    if total != stored {
        return Err("sparse map that does not account for the stored bytes");
    }
    map.retain(|segment| segment.length > 0);
    Ok(())
}
