//! Which descriptor to give up: the second-chance order. A node that was used since the hand last went by is passed over
//! once, so what is in use stays without any work when it is used.

use std::collections::VecDeque;

/// What the hand does with the node that it points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays.
    Keep,
    /// It has no descriptor any more, and that made no room.
    Drop,
    /// It has given up its descriptor: the hand stops.
    Free,
}

/// The nodes that hold a descriptor, and some that did.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ring: VecDeque<u64>,
}

impl Clock {
    /// A node has a descriptor now.
    pub(super) fn add(&mut self, id: u64) {
        self.ring.push_back(id);
    }

    /// Nodes in the ring.
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Throws out what `stays` does not want: forgotten nodes, of which nobody tells the ring one by one.
    pub(super) fn sweep(&mut self, stays: impl Fn(u64) -> bool) {
        self.ring.retain(|id| stays(*id));
    }

    /// Turns the hand until a descriptor is free, twice around at most. False where there is none to free.
    pub(super) fn turn(&mut self, mut judge: impl FnMut(u64) -> Verdict) -> bool {
        for _ in 0..2 * self.ring.len() {
            let Some(id) = self.ring.pop_front() else { return false };
            match judge(id) {
                Verdict::Keep => self.ring.push_back(id),
                Verdict::Drop => {}
                Verdict::Free => return true,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Verdict};

    #[test]
    fn the_hand_stops_where_room_is_and_after_two_rounds_without() {
        let mut clock = Clock::default();
        (1..=4).for_each(|id| clock.add(id));
        let mut seen = Vec::new();
        let freed = clock.turn(|id| {
            seen.push(id);
            match id {
                1 => Verdict::Keep,
                2 => Verdict::Drop,
                _ => Verdict::Free,
            }
        });
        assert!(freed);
        assert_eq!((seen, clock.len()), (vec![1, 2, 3], 2));
        let mut asked = 0;
        assert!(!clock.turn(|_| {
            asked += 1;
            Verdict::Keep
        }));
        assert_eq!(asked, 4);
    }
}
