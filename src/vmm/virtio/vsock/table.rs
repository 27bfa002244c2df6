//! All connections of a device: found by their ports when a packet comes, by their [`Id`] when their stream is ready. The
//! number of places is fixed.

use std::collections::HashMap;

use super::connection::{Connection, Origin};
use super::packet::Ports;

/// Most connections that the owner has opened.
pub(super) const MOST_OF_OWNER: usize = 1024;
/// Most connections that the guest has opened.
pub(super) const MOST_OF_GUEST: usize = 512;

/// Most connections.
pub(super) const MOST: usize = MOST_OF_OWNER + MOST_OF_GUEST;

/// Names a connection for as long as the device lives: a place in the table and how often it was taken before, so that a
/// late event finds no one else there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    place: u32,
    turn: u32,
}

impl Id {
    /// As a number of 63 bits.
    pub(super) fn number(self) -> u64 {
        u64::from(self.turn) << 32 | u64::from(self.place)
    }

    pub(super) fn of(number: u64) -> Self {
        Self { place: number as u32, turn: (number >> 32) as u32 }
    }
}

#[derive(Debug, Default)]
struct Place {
    turn: u32,
    connection: Option<Connection>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    by_ports: HashMap<Ports, Id>,
    of_owner: usize,
    of_guest: usize,
}

impl Table {
    /// Whether there is a place for one more.
    pub(super) fn has_place(&self, origin: Origin) -> bool {
        match origin {
            Origin::Owner => self.of_owner < MOST_OF_OWNER,
            Origin::Guest => self.of_guest < MOST_OF_GUEST,
        }
    }

    /// Takes one in; there must be a place, and no other with its ports.
    pub(super) fn insert(&mut self, connection: Connection) -> Id {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        let id = Id { place, turn: self.places[place as usize].turn };
        *self.count(connection.origin()) += 1;
        self.by_ports.insert(connection.ports(), id);
        self.places[place as usize].connection = Some(connection);
        id
    }

    pub(super) fn find(&self, ports: Ports) -> Option<Id> {
        self.by_ports.get(&ports).copied()
    }

    pub(super) fn get(&self, id: Id) -> Option<&Connection> {
        let place = self.places.get(id.place as usize).filter(|place| place.turn == id.turn)?;
        place.connection.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Connection> {
        let place = self.places.get_mut(id.place as usize).filter(|place| place.turn == id.turn)?;
        place.connection.as_mut()
    }

    /// Lets its ports be used again; it keeps its place.
    pub(super) fn forget_ports(&mut self, id: Id) {
        let Some(ports) = self.get(id).map(Connection::ports) else { return };
        if self.find(ports) == Some(id) {
            self.by_ports.remove(&ports);
        }
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, id: Id) -> Option<Connection> {
        self.forget_ports(id);
        let place = self.places.get_mut(id.place as usize).filter(|place| place.turn == id.turn)?;
        let connection = place.connection.take()?;
        // 31 bits: the number of an id is part of an epoll token.
        place.turn = (place.turn + 1) & (u32::MAX >> 1);
        self.free.push(id.place);
        *self.count(connection.origin()) -= 1;
        Some(connection)
    }

    /// Every connection.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &Connection)> {
        (0..)
            .zip(&self.places)
            .filter_map(|(number, place)| Some((Id { place: number, turn: place.turn }, place.connection.as_ref()?)))
    }

    fn count(&mut self, origin: Origin) -> &mut usize {
        match origin {
            Origin::Owner => &mut self.of_owner,
            Origin::Guest => &mut self.of_guest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, Id, MOST_OF_OWNER, Origin, Ports, Table};

    fn connection(port: u32) -> Connection {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        Connection::requested(Ports { host: 1, guest: port }, stream.into())
    }

    #[test]
    fn a_connection_is_found_by_its_ports_and_by_its_id() {
        let mut table = Table::default();
        let id = table.insert(connection(7));
        assert_eq!(table.find(Ports { host: 1, guest: 7 }), Some(id));
        assert_eq!(table.find(Ports { host: 7, guest: 1 }), None);
        assert!(table.get(id).is_some());
        assert_eq!(Id::of(id.number()), id);
        assert_eq!(table.iter().count(), 1);
    }

    #[test]
    fn an_id_names_no_one_after_its_connection_has_gone() {
        let mut table = Table::default();
        let old = table.insert(connection(7));
        assert!(table.remove(old).is_some());
        let new = table.insert(connection(7));
        assert_ne!(old, new);
        assert!(table.get(old).is_none());
        assert!(table.remove(old).is_none());
        assert_eq!(table.find(Ports { host: 1, guest: 7 }), Some(new));
    }

    #[test]
    fn ports_that_were_forgotten_can_be_taken_while_the_old_connection_stays() {
        let mut table = Table::default();
        let old = table.insert(connection(7));
        table.forget_ports(old);
        let new = table.insert(connection(7));
        assert!(table.remove(old).is_some());
        assert_eq!(table.find(Ports { host: 1, guest: 7 }), Some(new));
    }

    #[test]
    fn there_is_an_end_of_places_for_each_side() {
        let mut table = Table::default();
        let ids: Vec<_> = (0..MOST_OF_OWNER as u32).map(|port| table.insert(connection(port))).collect();
        assert!(!table.has_place(Origin::Owner));
        assert!(table.has_place(Origin::Guest));
        table.remove(ids[3]);
        assert!(table.has_place(Origin::Owner));
    }
}
