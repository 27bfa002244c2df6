//! Who may send how much (virtio specification 1.3, section 5.10.6.3). Each side sets bytes aside for a stream and says so
//! in every packet (`buf_alloc`), together with how many it has taken out of them so far (`fwd_cnt`). All counters run
//! modulo 2^32. The guest's word is used for one thing only: how much of *its* buffers may be filled.

/// Bytes set aside for a new stream.
pub(super) const FIRST_WINDOW: u32 = 32 << 10;
/// Most bytes set aside for one stream, once it has shown that it uses them.
pub(super) const LARGEST_WINDOW: u32 = 1 << 20;
/// Bytes beyond [`FIRST_WINDOW`] that all streams of a device share.
pub(super) const SHARED_WINDOW: u32 = 32 << 20;

/// What may be sent to the guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ToGuest {
    sent: u32,
    peer_alloc: u32,
    peer_forwarded: u32,
    asked: bool,
}

impl ToGuest {
    /// Takes what a packet of the guest says. A guest that lies gets less than it could, or its own buffers overrun.
    pub(super) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_alloc = buf_alloc;
        self.peer_forwarded = fwd_cnt;
        if self.free() > 0 {
            self.asked = false;
        }
    }

    /// Bytes that the guest has set aside.
    pub(super) fn alloc(&self) -> u32 {
        self.peer_alloc
    }

    /// Bytes that the guest has room for.
    pub(super) fn free(&self) -> u32 {
        self.peer_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// So many bytes were sent.
    pub(super) fn count(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Whether to ask the guest how much it has taken: once each time that its room has run out, for a guest that does not
    /// tell unasked.
    pub(super) fn must_ask(&self) -> bool {
        self.free() == 0 && !self.asked
    }

    /// The guest is asked.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }
}

/// What the guest may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct FromGuest {
    alloc: u32,
    received: u32,
    forwarded: u32,
    told_alloc: u32,
    told_forwarded: u32,
}

impl Default for FromGuest {
    fn default() -> Self {
        Self { alloc: FIRST_WINDOW, received: 0, forwarded: 0, told_alloc: 0, told_forwarded: 0 }
    }
}

impl FromGuest {
    /// Takes so many bytes in. False where the guest had no room for them.
    pub(super) fn receive(&mut self, bytes: u32) -> bool {
        let held = self.received.wrapping_sub(self.forwarded);
        if bytes > self.alloc - held {
            return false;
        }
        self.received = self.received.wrapping_add(bytes);
        true
    }

    /// So many bytes have left for the host's side (or for nowhere, where it does not read any more).
    pub(super) fn forward(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// What the next packet says, `(buf_alloc, fwd_cnt)`.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        (self.told_alloc, self.told_forwarded) = (self.alloc, self.forwarded);
        (self.alloc, self.forwarded)
    }

    /// Whether the guest should hear of new room: it sees less than half of its window free, and there is more. `own_alloc`
    /// is what the guest has set aside itself: Linux sends no more than that ahead, however large the window
    /// (`virtio_transport_tx_buf_size`, net/vmw_vsock/virtio_transport_common.c).
    pub(super) fn is_update_due(&self, own_alloc: u32) -> bool {
        let window = self.told_alloc.min(own_alloc);
        let seen = window.saturating_sub(self.received.wrapping_sub(self.told_forwarded));
        seen < window / 2 && self.forwarded != self.told_forwarded
    }

    /// Makes the window larger, as far as `shared` has bytes left and the guest uses it: for a stream that has come to need
    /// an update flows.
    pub(super) fn grow(&mut self, own_alloc: u32, shared: &mut u32) {
        let most = LARGEST_WINDOW.min(own_alloc);
        let more = self.alloc.min(most.saturating_sub(self.alloc)).min(*shared);
        self.alloc += more;
        *shared -= more;
    }

    /// Bytes of the shared ones that this stream has, to be given back at its end.
    pub(super) fn shared(&self) -> u32 {
        self.alloc - FIRST_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST_WINDOW, FromGuest, LARGEST_WINDOW, SHARED_WINDOW, ToGuest};

    #[test]
    fn the_guests_room_is_what_it_set_aside_less_what_is_under_way() {
        let mut credit = ToGuest::default();
        assert_eq!(credit.free(), 0);
        credit.update(1000, 0);
        credit.count(600);
        assert_eq!(credit.free(), 400);
        credit.update(1000, 500);
        assert_eq!(credit.free(), 900);
    }

    #[test]
    fn counters_run_over_the_end_of_32_bits() {
        let mut credit = ToGuest { sent: u32::MAX - 10, peer_forwarded: u32::MAX - 20, ..ToGuest::default() };
        credit.update(1000, u32::MAX - 20);
        credit.count(100);
        assert_eq!(credit.free(), 1000 - 110);
        let mut room = FromGuest { received: u32::MAX - 5, forwarded: u32::MAX - 5, ..FromGuest::default() };
        assert!(room.receive(FIRST_WINDOW));
        assert!(!room.receive(1));
        room.forward(FIRST_WINDOW);
        assert!(room.receive(FIRST_WINDOW));
    }

    #[test]
    fn a_guest_that_claims_to_have_taken_more_than_was_sent_has_no_room() {
        let mut credit = ToGuest::default();
        credit.update(1000, 5000);
        assert_eq!(credit.free(), 0);
        credit.update(u32::MAX, 1);
        assert_eq!(credit.free(), 0);
    }

    #[test]
    fn a_guest_is_asked_once_each_time_that_its_room_runs_out() {
        let mut credit = ToGuest::default();
        credit.update(10, 0);
        assert!(!credit.must_ask());
        credit.count(10);
        assert!(credit.must_ask());
        credit.ask();
        credit.update(10, 0);
        assert!(!credit.must_ask());
        credit.update(10, 10);
        credit.count(10);
        assert!(credit.must_ask());
    }

    #[test]
    fn a_stream_that_flows_gets_a_larger_window_until_nothing_is_left() {
        let (mut room, mut shared) = (FromGuest::default(), SHARED_WINDOW);
        room.tell();
        for _ in 0..100 {
            let (alloc, _) = room.tell();
            assert!(room.receive(alloc));
            room.forward(alloc);
            assert!(room.is_update_due(u32::MAX));
            room.grow(u32::MAX, &mut shared);
        }
        assert_eq!(room.tell().0, LARGEST_WINDOW);
        assert_eq!(shared, SHARED_WINDOW - room.shared());
        let (mut poor, mut nothing) = (FromGuest::default(), 0);
        poor.tell();
        assert!(poor.receive(FIRST_WINDOW));
        poor.forward(FIRST_WINDOW);
        poor.grow(u32::MAX, &mut nothing);
        assert_eq!(poor.tell().0, FIRST_WINDOW);
    }

    #[test]
    fn no_update_goes_out_while_the_guest_sees_room_or_nothing_has_left() {
        let mut room = FromGuest::default();
        room.tell();
        assert!(room.receive(100));
        room.forward(100);
        assert!(!room.is_update_due(u32::MAX));
        assert!(room.receive(FIRST_WINDOW - 100));
        assert!(room.is_update_due(u32::MAX));
        room.tell();
        assert!(!room.is_update_due(u32::MAX));
    }

    #[test]
    fn a_window_beyond_what_the_guest_sends_ahead_is_no_reason_to_wait() {
        let (mut room, mut shared, own) = (FromGuest::default(), SHARED_WINDOW, 3 * FIRST_WINDOW);
        room.tell();
        assert!(room.receive(FIRST_WINDOW));
        room.forward(FIRST_WINDOW);
        room.grow(own, &mut shared);
        room.grow(own, &mut shared);
        assert_eq!(room.tell().0, own);
        room.alloc = LARGEST_WINDOW;
        room.tell();
        assert!(room.receive(own));
        room.forward(own);
        assert!(room.is_update_due(own));
    }
}
