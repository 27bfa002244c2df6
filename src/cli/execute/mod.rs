//! A command line that has been read is carried out by the engine; what comes back is printed.
//!
//! Errors are printed here and nowhere below, once, on one line, with the exit status that Docker would give.

mod archive;
mod catalog;
mod conditions;
mod containers;
mod copy;
mod doctor;
mod glob;
mod images;
mod inspect;
mod interactive;
mod listing;
mod login;
mod logs;
mod prune;
mod run;
mod signals;
mod stats;
mod status;
mod system;
mod top;
mod volumes;

use std::ffi::OsString;
use std::io::Write;

use sbx_engine::{Engine, ErrorKind, Paths};

use crate::command::{Command, Globals, Invocation};
use crate::terminal::TerminalError;

/// Status of a failure of the engine itself, in `run` and its kin.
const ENGINE_FAILED: u8 = 125;
/// Status of a program that SIGPIPE has ended.
const PIPE_CLOSED: u8 = 141;

/// A failure as it is printed, and its exit status.
#[derive(Debug)]
pub(crate) struct Fault {
    message: String,
    status: u8,
    /// Printed as it is, without the program's name in front.
    bare: bool,
}

impl Fault {
    /// An ordinary failure: status 1.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 1, bare: true }
    }

    /// A failure with another status.
    pub(crate) fn with_status(message: impl Into<String>, status: u8) -> Self {
        Self { message: message.into(), status, bare: true }
    }

    /// A failure of `run` before the program ran.
    pub(crate) fn engine(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: ENGINE_FAILED, bare: false }
    }

    /// The same of a verb that says who failed.
    fn of_run(mut self) -> Self {
        if self.status == 1 {
            self.status = ENGINE_FAILED;
        }
        self.bare = false;
        self
    }
}

impl From<sbx_engine::Error> for Fault {
    fn from(error: sbx_engine::Error) -> Self {
        if error.is_broken_pipe() {
            return Self::with_status("", PIPE_CLOSED);
        }
        Self::plain(error.to_string())
    }
}

impl From<std::io::Error> for Fault {
    /// An output that nobody reads any more ends a verb quietly, with the status of a program that SIGPIPE has ended.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::with_status("", PIPE_CLOSED);
        }
        Self::plain(error.to_string())
    }
}

impl From<TerminalError> for Fault {
    fn from(error: TerminalError) -> Self {
        Self::plain(error.to_string())
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::plain(message)
    }
}

/// A program that could not be started, with the status that says why.
pub(crate) fn fault_of_start(error: sbx_engine::Error) -> Fault {
    let status = match error.kind {
        ErrorKind::ProgramNotFound => 127,
        ErrorKind::ProgramNotExecutable => 126,
        _ => return error.into(),
    };
    Fault { message: format!("failed to create task for container: {error}"), status, bare: false }
}

/// The exit status of a verb, or why it failed.
pub(crate) type Outcome = Result<i32, Fault>;

/// Carries the arguments of this process out; the exit status.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> i32 {
    let invocation = match crate::parse(arguments) {
        Ok(invocation) => invocation,
        Err(error) => {
            tell(error.message.trim_end_matches('\n'));
            return i32::from(error.status);
        }
    };
    for notice in &invocation.notices {
        tell(notice);
    }
    match execute(invocation) {
        Ok(status) => status,
        Err(fault) => {
            // A closed output cannot be told about.
            let _ = std::io::stdout().flush();
            if !fault.message.is_empty() {
                let who = if fault.bare { "" } else { "sbx: " };
                tell(&format!("{who}{}", fault.message));
            }
            i32::from(fault.status)
        }
    }
}

fn paths(globals: &Globals) -> Paths {
    Paths { root: globals.root.clone(), run: globals.run.clone(), config: globals.config.clone() }
}

fn execute(invocation: Invocation) -> Outcome {
    let engine = || Engine::open(paths(&invocation.globals)).map_err(Fault::from);
    match invocation.command {
        Command::Help(text) => print(&text),
        Command::ProgramVersion => print(&format!("sbx version {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Completion(shell) => print(&shell.script()),
        Command::Run(command) => engine().and_then(|engine| run::run(&engine, *command)).map_err(Fault::of_run),
        Command::Create(command) => engine().and_then(|engine| run::create(&engine, *command)),
        Command::Start(command) => run::start(&engine()?, &command),
        Command::Attach(command) => run::attach(&engine()?, &command),
        Command::Exec(command) => run::exec(&engine()?, &command),
        Command::Copy(command) => copy::copy(&engine()?, &command),
        Command::Export(command) => archive::export(&engine()?, &command),
        Command::Stop(command) => containers::stop(&engine()?, &command),
        Command::Restart(command) => containers::restart(&engine()?, &command),
        Command::Kill(command) => containers::kill(&engine()?, &command),
        Command::Remove(command) => containers::remove(&engine()?, &command),
        Command::Wait(names) => containers::wait(&engine()?, &names),
        Command::Pause(names) => containers::pause(&engine()?, &names),
        Command::Unpause(names) => containers::unpause(&engine()?, &names),
        Command::Rename(command) => containers::rename(&engine()?, &command),
        Command::Pull(command) => images::pull(&engine()?, &command),
        Command::Load(command) => images::load(&engine()?, &command),
        Command::Logs(command) => logs::logs(&engine()?, &command),
        Command::List(command) => listing::list(&engine()?, &command),
        Command::Inspect(command) => inspect::inspect(&engine()?, &command),
        Command::Port(command) => listing::port(&engine()?, &command),
        Command::Top(command) => top::top(&engine()?, &command),
        Command::Stats(command) => stats::stats(&engine()?, &command),
        Command::PruneContainers(command) => prune::containers(&engine()?, &command),
        Command::Info(format) => system::info(&engine()?, &format),
        Command::Doctor(command) => doctor::doctor(&paths(&invocation.globals), &command),
        Command::Version(format) => system::version(&format),
        Command::Images(command) => catalog::list(&engine()?, &command),
        Command::RemoveImages(command) => catalog::remove(&engine()?, &command),
        Command::Tag(command) => catalog::tag(&engine()?, &command),
        Command::History(command) => catalog::history(&engine()?, &command),
        Command::Save(command) => archive::save(&engine()?, &command),
        Command::Import(command) => archive::import(&engine()?, &command),
        Command::PruneImages(command) => prune::images(&engine()?, &command),
        Command::Login(command) => login::login(&engine()?, &command),
        Command::Logout(server) => login::logout(&engine()?, server.as_deref()),
        Command::CreateVolume(command) => volumes::create(&engine()?, &command),
        Command::Volumes(command) => volumes::list(&engine()?, &command),
        Command::RemoveVolumes(command) => volumes::remove(&engine()?, &command),
        Command::PruneVolumes(command) => prune::volumes(&engine()?, &command),
    }
}

/// Prints a text and ends its last line; an empty text is no line.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(0)
}

/// Tells the user a line on the standard error. Where nobody reads that, there is nobody to tell.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Does something to each of `names`; what fails is told, the others are done all the same.
pub(crate) fn each(names: &[String], mut act: impl FnMut(&str) -> Result<(), Fault>) -> Outcome {
    let mut status = 0;
    for name in names {
        if let Err(fault) = act(name) {
            let _ = std::io::stdout().flush();
            // An output that nobody reads has no message, and is no reason to leave the others undone.
            if !fault.message.is_empty() {
                tell(&fault.message);
            }
            status = i32::from(fault.status);
        }
    }
    Ok(status)
}
