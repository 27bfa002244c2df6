//! What the machine has to say to its owner while it runs: mostly, what a guest's driver did wrong. A hostile guest
//! decides how often that is, so the number of messages is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many messages a machine may give.
pub const MESSAGES: u32 = 200;

/// Where messages go. Clones share the bound.
#[derive(Clone)]
pub struct Log {
    sink: Arc<dyn Fn(&str) + Send + Sync>,
    left: Arc<AtomicU32>,
}

impl Log {
    /// Calls `sink` for each message, on the thread that has it. In a confined machine it may do no more than write to a
    /// file that is open.
    #[must_use]
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { sink: Arc::new(sink), left: Arc::new(AtomicU32::new(MESSAGES)) }
    }

    /// Says it, unless too much was said.
    pub fn say(&self, message: &str) {
        let take = |left: u32| left.checked_sub(1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(1) => (self.sink)(&format!("{message} (further messages of this machine are dropped)")),
            Ok(_) => (self.sink)(message),
            Err(_) => {}
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({} left)", self.left.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{Log, MESSAGES};

    #[test]
    fn a_guest_cannot_make_the_log_endless() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = said.clone();
        let log = Log::new(move |message: &str| sink.lock().unwrap().push(message.to_owned()));
        (0..MESSAGES + 10).for_each(|_| log.say("bad"));
        let said = said.lock().unwrap();
        assert_eq!(said.len(), MESSAGES as usize);
        assert!(said.last().unwrap().contains("dropped"));
    }
}
