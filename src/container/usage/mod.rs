//! What a container does and uses at one moment: its processes as ps(1) shows them, its counters as `stats` does.
//!
//! The kernel of the container answers, so this is read where the container runs; the types are plain data that travels
//! to whoever asked.

mod interfaces;
mod processes;
mod sample;
mod users;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use interfaces::interfaces;
pub use processes::rows;
pub use sample::{Machine, sample};
pub use users::UserNames;

/// One process of a container, as ps(1) shows it. Ids are those of whoever answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Process id.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective user's number; [`UserNames::name`] makes it a name where the one who asked is.
    pub user: String,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// State letter of proc_pid_stat(5).
    pub state: char,
    /// Start, seconds since 1970.
    pub start_time: i64,
    /// Processor time in hundredths of a second.
    pub cpu_time: u64,
    /// Terminal, `pts/0` or `?`.
    pub tty: String,
    /// Nice value.
    pub nice: i64,
    /// Priority.
    pub priority: i64,
    /// Threads.
    pub threads: i64,
    /// Virtual size in bytes.
    pub virtual_size: u64,
    /// Resident size in bytes.
    pub resident: u64,
    /// Command name.
    pub command: String,
    /// Command line.
    pub args: String,
    /// Memory of the machine in bytes, for shares.
    pub machine_memory: u64,
    /// Seconds since the machine's start, for shares.
    pub uptime: f64,
}

/// What a container uses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsSample {
    /// Nanoseconds since 1970.
    pub read_at: i64,
    /// Processor time of the container in nanoseconds.
    pub cpu_total: u64,
    /// Of it in user mode, nanoseconds.
    pub cpu_user: u64,
    /// Of it in kernel mode, nanoseconds.
    pub cpu_system: u64,
    /// Processor time of the whole machine in nanoseconds.
    pub machine_cpu: u64,
    /// Processors online.
    pub online_cpus: u32,
    /// Periods, throttled periods, throttled nanoseconds.
    pub throttling: (u64, u64, u64),
    /// Memory in bytes without the page cache that can be dropped at once, as Docker shows it.
    pub memory_used: u64,
    /// Memory in bytes with the page cache.
    pub memory_usage: u64,
    /// Highest memory use in bytes, where the kernel knows it.
    pub memory_max: u64,
    /// Limit in bytes; the machine's memory where there is none.
    pub memory_limit: u64,
    /// `memory.stat` of the kernel.
    pub memory_details: BTreeMap<String, u64>,
    /// Tasks.
    pub pids: u64,
    /// Highest number of tasks; 0 is no limit.
    pub pids_limit: u64,
    /// Interfaces by name.
    pub networks: BTreeMap<String, NetworkUsage>,
    /// Block devices.
    pub block: Vec<BlockUsage>,
}

/// Counters of one interface, from the container's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in the Engine API")]
pub struct NetworkUsage {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Counters of one block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "bytes and operations of a device")]
pub struct BlockUsage {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}
