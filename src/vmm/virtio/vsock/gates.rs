//! All gates of a device: the first, its owner's, stands for as long as the device; others are let in by that one, each with
//! ports of its own, and go when they are closed.

use std::ops::Range;

use super::gate::InnerGate;

/// Most parties at a time besides the owner.
pub(super) const MOST_ADMITTED: usize = 16;

/// Which ports of the host are behind a gate.
#[derive(Debug)]
enum Behind {
    These(Vec<u32>),
    All(Range<u32>),
}

impl Behind {
    fn has(&self, port: u32) -> bool {
        match self {
            Self::These(ports) => ports.contains(&port),
            Self::All(ports) => ports.contains(&port),
        }
    }

    fn overlaps(&self, others: &Range<u32>) -> bool {
        match self {
            Self::These(ports) => ports.iter().any(|port| others.contains(port)),
            Self::All(ports) => ports.start < others.end && others.start < ports.end,
        }
    }
}

#[derive(Debug)]
struct Place {
    gate: InnerGate,
    behind: Behind,
    is_open: bool,
}

/// The gates, each with a number from 0, the owner's, to [`MOST_ADMITTED`].
#[derive(Debug)]
pub(super) struct Gates {
    places: Vec<Option<Place>>,
}

/// Number of the owner's gate.
pub(super) const FIRST: usize = 0;

impl Gates {
    /// The owner's alone.
    pub(super) fn new(gate: InnerGate, ports: Vec<u32>) -> Self {
        Self { places: vec![Some(Place { gate, behind: Behind::These(ports), is_open: true })] }
    }

    /// Takes one in. `None` where there are too many.
    pub(super) fn insert(&mut self, gate: InnerGate, ports: Range<u32>) -> Option<usize> {
        let place = Some(Place { gate, behind: Behind::All(ports), is_open: true });
        match self.places.iter().position(Option::is_none) {
            Some(free) => {
                self.places[free] = place;
                Some(free)
            }
            None if self.places.len() > MOST_ADMITTED => None,
            None => {
                self.places.push(place);
                Some(self.places.len() - 1)
            }
        }
    }

    /// The one whose ports these are too.
    pub(super) fn overlapping(&self, ports: &Range<u32>) -> Option<usize> {
        self.find(|place| place.behind.overlaps(ports))
    }

    /// The one behind which that port of the host is.
    pub(super) fn of_port(&self, port: u32) -> Option<&InnerGate> {
        self.get(self.find(|place| place.behind.has(port))?)
    }

    fn find(&self, is_it: impl Fn(&Place) -> bool) -> Option<usize> {
        self.places.iter().position(|place| place.as_ref().is_some_and(&is_it))
    }

    pub(super) fn get(&self, number: usize) -> Option<&InnerGate> {
        Some(&self.places.get(number)?.as_ref()?.gate)
    }

    /// Those whose other end was not seen closed.
    pub(super) fn open(&self) -> impl Iterator<Item = (usize, &InnerGate)> {
        let places = self.places.iter().enumerate();
        places
            .filter_map(|(number, place)| place.as_ref().map(|place| (number, place)))
            .filter_map(|(number, place)| place.is_open.then_some((number, &place.gate)))
    }

    /// The other end of one is closed. The owner's ports stay its own, another's are forgotten with its gate.
    pub(super) fn close(&mut self, number: usize) {
        match self.places.get_mut(number) {
            Some(Some(place)) if number == FIRST => place.is_open = false,
            Some(place) => *place = None,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, Gates, MOST_ADMITTED};
    use crate::virtio::vsock::Gate;

    #[test]
    fn a_port_is_behind_one_gate_and_a_closed_one_gives_its_place_and_ports_back() {
        let inner = || Gate::pair().unwrap().1;
        let mut gates = Gates::new(inner(), vec![10, 20]);
        assert_eq!(gates.overlapping(&(15..25)), Some(FIRST));
        assert_eq!(gates.overlapping(&(11..20)), None);
        let one = gates.insert(inner(), 11..20).unwrap();
        let two = gates.insert(inner(), 30..40).unwrap();
        assert!(gates.of_port(10).is_some() && gates.of_port(19).is_some() && gates.of_port(30).is_some());
        assert!(gates.of_port(21).is_none() && gates.of_port(40).is_none());
        assert_eq!(gates.overlapping(&(19..20)), Some(one));
        assert_eq!(gates.overlapping(&(0..10)), None);
        assert_eq!(gates.overlapping(&(39..u32::MAX)), Some(two));
        assert_eq!(gates.open().map(|(number, _)| number).collect::<Vec<_>>(), [FIRST, one, two]);
        gates.close(one);
        assert!(gates.of_port(19).is_none() && gates.get(one).is_none());
        assert_eq!(gates.insert(inner(), 11..12), Some(one));
        gates.close(FIRST);
        assert_eq!(gates.overlapping(&(0..11)), Some(FIRST), "the owner's ports are nobody else's");
        assert_eq!(gates.open().map(|(number, _)| number).collect::<Vec<_>>(), [one, two]);
        for number in 3..=MOST_ADMITTED {
            assert_eq!(gates.insert(inner(), 100..101), Some(number));
        }
        assert_eq!(gates.insert(inner(), 200..201), None, "there are too many");
    }
}
