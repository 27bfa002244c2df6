//! PID 1 of a microVM: furnishes the machine, makes containers of the plans that its host sends, and reports.
//!
//! ```text
//!          vsock            main ── machine::prepare     mounts, root, sysctls, limits
//! host ═══════════════╗       │
//!   control: Request ─╫─▶ server (one thread, one poll) ── furnish, uplink ─▶ container::create, join
//!            Reply   ◀╫─    ▲ │                                                   │ pipes, terminal
//!   streams: raw     ◀╬═════╪═╪══════════════ streams ◀═══════════════════════════╝
//!   sockets: raw     ◀╬═════╪═╧══════════════ relays ◀═══ unix sockets in binds
//!                     ╨     └─ SIGCHLD: statuses of known processes, orphans
//! ```
//!
//! The agent decides nothing: log, restart policy, health and stop timeouts are the host's. What it is told is data that
//! another may have garbled, so a message that does not parse changes nothing ([`server`]); a mistake of its own ends the
//! machine with one line on the console ([`machine`]). It has no thread but the first, because making a container copies
//! its memory into the child.

mod containers;
mod furnish;
mod machine;
mod server;
mod sys;
mod uplink;
mod wire;

pub use server::Server;
pub use wire::{Socket, Wire};

/// Runs the agent as PID 1. Never returns: the machine ends with it.
pub fn main() -> ! {
    machine::end_machine_on_panic();
    let ended = machine::prepare().and_then(|()| {
        let wire = wire::Vsock::listen()?;
        Server::new(Box::new(wire))?.run()
    });
    match ended {
        Ok(targets) => machine::power_off(&targets),
        Err(error) => machine::give_up(&error.to_string()),
    }
}
