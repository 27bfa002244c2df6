//! Deleting a container's link without waiting until the kernel has freed it.
//!
//! Within a millisecond the link is off the bridge and out of every list. What keeps whoever asked for it another 10 to 40
//! milliseconds is that no processor may look at its memory any more (`rcu_barrier` in `netdev_run_todo`,
//! net/core/dev.c), and that concerns nobody. So a thread asks, and we go on as soon as the link is not found.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::link::{self, Counters};
use crate::netlink::Conversation;
use crate::{Error, Result};

/// Queries wait for whoever changes links, so this is slept seldom more than once.
const BETWEEN_QUERIES: Duration = Duration::from_micros(100);

/// A link that nobody finds any more and that the kernel may still be freeing. Dropping it lets the kernel be.
#[derive(Debug)]
pub(crate) struct Departure(Option<JoinHandle<Result<()>>>);

impl Departure {
    /// Deletes the link, both ends of a pair. One that is gone already is fine.
    pub(crate) fn begin(name: String) -> Result<Departure> {
        let mut netlink = Conversation::route()?;
        let asker = thread::Builder::new().name("link".into()).spawn({
            let name = name.clone();
            move || link::delete_link(&mut Conversation::route()?, &name)
        });
        let departure = Departure(Some(asker.map_err(Error::io("start a thread that deletes a link"))?));
        while !departure.is_over() {
            if link::find_link(&mut netlink, &name, Counters::Skip)?.is_none() {
                return Ok(departure);
            }
            thread::sleep(BETWEEN_QUERIES);
        }
        departure.wait()?;
        Ok(Departure(None))
    }

    fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the kernel has freed the link, and the thread is gone: a process that has one must not fork.
    pub(crate) fn wait(self) -> Result<()> {
        match self.0.map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}
