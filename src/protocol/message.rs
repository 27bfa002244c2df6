//! The messages.

use sbx_container::ErrorKind;
use sbx_container::files::Task;
use sbx_container::plan::ProcessPlan;
use sbx_container::usage::{ProcessRow, StatsSample};
use serde::{Deserialize, Serialize};

use crate::guest::{CreateRequest, WakeRequest};

/// Version of the words below; both sides must have the same one, since both come from one build.
pub const VERSION: u32 = 5;

/// The first message of every connection, from whoever connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Requests and replies.
    Control,
    /// Raw bytes of one standard stream of a session that a control connection has opened.
    Stream {
        /// The session.
        session: SessionId,
        /// Which stream.
        kind: StreamKind,
    },
}

/// Somebody's stay at a process's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A standard stream. A terminal has only `Stdin` and `Stdout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in stdio(3)")]
pub enum StreamKind {
    Stdin,
    Stdout,
    Stderr,
}

/// Size of a terminal in characters.
pub type TerminalSize = sbx_container::plan::TerminalSize;

/// A request on a control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Take what a machine cannot know by itself. The first request of all to an agent. Answered by `Done`.
    Wake(WakeRequest),
    /// Furnish the machine and make the container up to its start. Answered by `Done`.
    Create(Box<CreateRequest>),
    /// End every container, write everything to the disks and power the machine off. The connection ends.
    PowerOff,
    /// Start the container that this sandbox was prepared for. Answered by `Started`.
    Start {
        /// Container id.
        container: String,
    },
    /// Open a session at the standard streams of the container's first process. Answered by `Session`; the streams
    /// are then connected, and `Ready` lets output flow.
    Attach(AttachRequest),
    /// Prepare a further process with a session at its streams. Answered by `Session`; `Ready` starts it.
    Exec(Box<ExecRequest>),
    /// Every stream of the session is connected. Answered by `Done`, or by `Failed` where the process of an `Exec`
    /// or `Files` cannot be started.
    Ready {
        /// The session.
        session: SessionId,
    },
    /// Wait for the end of a session's process. Answered by `Exited`.
    WaitProcess {
        /// The session.
        session: SessionId,
    },
    /// Wait for the next event of the container. Answered by `Event`.
    WaitContainer {
        /// Container id.
        container: String,
    },
    /// Set the size of the terminal of a session's process. Answered by `Done`.
    Resize {
        /// The session.
        session: SessionId,
        /// The new size.
        size: TerminalSize,
    },
    /// Send a signal to a session's process. Answered by `Done`.
    SignalProcess {
        /// The session.
        session: SessionId,
        /// The signal.
        signal: Signal,
    },
    /// Send a signal to the container's first process. Answered by `Done`.
    Kill {
        /// Container id.
        container: String,
        /// The signal.
        signal: Signal,
    },
    /// Send the signal, wait, then kill; no restart follows. Answered by `Done` when the container has ended.
    Stop {
        /// Container id.
        container: String,
        /// The first signal.
        signal: Signal,
        /// Seconds until SIGKILL; negative waits for ever.
        timeout: i64,
        /// Start it again afterwards.
        restart: bool,
    },
    /// Freeze every process. Answered by `Done`.
    Pause {
        /// Container id.
        container: String,
    },
    /// Thaw every process. Answered by `Done`.
    Unpause {
        /// Container id.
        container: String,
    },
    /// Processes of the container. Answered by `Processes`.
    Top {
        /// Container id.
        container: String,
    },
    /// What the container uses now. Answered by `Stats`.
    Stats {
        /// Container id.
        container: String,
    },
    /// Prepare something to be done with the container's files, with a session at its streams. Answered by `Session`; `Ready`
    /// starts it. It needs the container to be up and nothing of the container to run: a paused one will do.
    Files(Box<FilesRequest>),
    /// The first process of a container of this machine that runs, whose namespaces another is to join. Answered by `Started`.
    Locate {
        /// Container id.
        container: String,
    },
    /// Take away everything that a tenant was furnished with; the container has ended. Answered by `Done`.
    Remove {
        /// Container id.
        container: String,
    },
    /// Let another container move into the machine of this one. Two descriptors come with it: the machine's end of a control socket,
    /// and the inner end of a gate to the guest's ports. Answered by `Admitted`.
    Admit {
        /// Id of the container that runs.
        container: String,
    },
}

/// A signal number as Linux numbers them (signal(7)).
pub type Signal = i32;

/// Opens a session at the first process's streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Container id.
    pub container: String,
    /// Which streams will be connected.
    pub streams: Vec<StreamKind>,
    /// Close the process's standard input when this session's ends.
    pub stdin_once: bool,
}

/// A further process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Container id.
    pub container: String,
    /// The process.
    pub process: ProcessPlan,
    /// Which streams will be connected; output that nobody takes is read and dropped.
    pub streams: Vec<StreamKind>,
}

/// Something to be done with the container's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesRequest {
    /// Container id.
    pub container: String,
    /// What.
    pub task: Task,
    /// Which streams will be connected: the archive's, and `Stderr` for what goes wrong on the way.
    pub streams: Vec<StreamKind>,
}

/// An answer on a control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// It could not be done.
    Failed(Failure),
    /// The container runs.
    Started {
        /// Process id of its first process, in the PID namespace of whoever answers.
        pid: i32,
    },
    /// The session is open.
    Session(SessionId),
    /// The process of the session has ended.
    Exited(ExitStatus),
    /// Something happened to the container.
    Event(ContainerEvent),
    /// Processes of the container.
    Processes(Vec<ProcessRow>),
    /// What it uses.
    Stats(Box<StatsSample>),
    /// The tenant can move in.
    Admitted {
        /// The machine's process, in the PID namespace of whoever answers.
        pid: i32,
        /// First of the ports of the host that the guest reaches the tenant's side by.
        first_port: u32,
    },
}

/// Something that happens to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerEvent {
    /// Its first process has ended; another start may follow if the restart policy says so.
    Exited {
        /// How.
        status: ExitStatus,
        /// The restart policy will start it again.
        restarting: bool,
    },
    /// The sandbox is gone and everything of it has been cleaned up; what was to be removed has been removed.
    Gone {
        /// How its first process ended the last time; `None` where it never ran.
        last: Option<ExitStatus>,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, or 128 and the number of the signal.
    pub code: i32,
    /// The kernel killed something of the container because it was out of memory.
    pub oom_killed: bool,
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// One line for the user.
    pub message: String,
}

impl From<&sbx_container::Error> for Failure {
    fn from(error: &sbx_container::Error) -> Self {
        let kind = match error.kind {
            ErrorKind::NotFound => FailureKind::NotFound,
            ErrorKind::NotExecutable => FailureKind::NotExecutable,
            ErrorKind::Other => FailureKind::Other,
        };
        Self { kind, message: error.message.clone() }
    }
}

/// What a failure means to the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program does not exist.
    NotFound,
    /// The program exists and cannot be executed.
    NotExecutable,
    /// The request does not fit the state (not running, paused, …).
    Conflict,
    /// No such container, process or session here.
    NoSuch,
    /// Anything else.
    Other,
}
