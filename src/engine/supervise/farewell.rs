//! The end of a supervisor, when everything has been taken away: everybody who still wants to know is told.
//!
//! A client that started the container or stood at its streams will ask how it ended; its question may still be on the
//! way. It is waited for, for a moment; whoever has closed the connection, or never did either, is not.

use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sbx_protocol::{ContainerEvent, Reply, Request};

use super::connection::{Connection, Heard};
use super::supervisor::{Supervisor, Waiting};

/// Longest wait for questions.
const PATIENCE: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Tells everybody, and ends.
    pub(super) fn say_goodbye(mut self) {
        let gone = Reply::Event(ContainerEvent::Gone { last: self.last_exit });
        self.tell_waiting(|waiting| *waiting == Waiting::Container, &gone);
        self.tell_waiting(|_| true, &Reply::Done);
        let mut interested: Vec<Connection> = Vec::new();
        for (_, connection) in std::mem::take(&mut self.connections) {
            if connection.is_interested && !connection.was_told {
                interested.push(connection);
            } else {
                connection.send_last();
            }
        }
        self.send_last_words();
        let deadline = Instant::now() + PATIENCE;
        while !interested.is_empty() && wait_for_questions(&interested, deadline) {
            interested.retain_mut(|connection| self.keep_listening(connection, &gone));
        }
        for connection in interested {
            connection.send_last();
        }
    }

    /// Sends what is left of the streams, as slowly as they are read. Nothing else waits for this, and a client that goes away
    /// ends it.
    fn send_last_words(&mut self) {
        while !self.farewells.is_empty() {
            let streams = self.farewells.values();
            let mut fds: Vec<PollFd<'_>> =
                streams.map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLOUT)).collect();
            if !matches!(poll(&mut fds, PollTimeout::NONE), Ok(_) | Err(nix::Error::EINTR)) {
                return;
            }
            self.farewells.retain(|_, stream| stream.flush());
        }
    }

    /// Answers what has arrived; `false` when the client knows all or has gone.
    fn keep_listening(&mut self, connection: &mut Connection, gone: &Reply) -> bool {
        let open = connection.fill();
        loop {
            let reply = match connection.hear() {
                Heard::Nothing => return open,
                Heard::Hello(_) | Heard::End => return false,
                Heard::Request(request) => match *request {
                    Request::WaitContainer { .. } => {
                        connection.answer(gone);
                        return false;
                    }
                    Request::WaitProcess { session } => match self.exits.remove(&session).or(self.last_exit) {
                        Some(status) => Reply::Exited(status),
                        None => Reply::Done,
                    },
                    _ => Reply::Failed(crate::failure::conflict("the container has ended")),
                },
            };
            if !connection.answer(&reply) {
                return false;
            }
        }
    }
}

/// Waits until somebody says something; `false` when patience is at its end.
fn wait_for_questions(connections: &[Connection], deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return false;
    }
    let mut fds: Vec<PollFd<'_>> =
        connections.iter().map(|connection| PollFd::new(connection.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}
