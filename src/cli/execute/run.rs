//! `run`, `create`, `start`, `attach` and `exec`: the verbs that stand at a process's streams.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use sbx_engine::{Engine, Run, StreamKind};
use sbx_image::{Image, Platform, Reference};
use sbx_protocol::TerminalSize;
use sbx_sandbox::id::Id;
use sbx_sandbox::plan::ExecRequest;
use sbx_sandbox::store::Durability;

use super::images::{mismatch, pull_for_run};
use super::interactive::{Copies, End, check_terminal};
use super::signals::HeldSignals;
use super::{Fault, Outcome, fault_of_start, print, tell};
use crate::command::{Attach, Exec, Start};
use crate::detach::DetachKeys;
use crate::run::{PullPolicy, RunCommand, RunOptions, Streams};
use crate::terminal::{RawMode, is_terminal, window_size};

/// `create`.
pub(super) fn create(engine: &Engine, command: RunCommand) -> Outcome {
    let id = new_id()?;
    make(engine, &id, command, Durability::Durable)?;
    print(id.as_str())
}

/// `run`.
pub(super) fn run(engine: &Engine, mut command: RunCommand) -> Outcome {
    let options = command.options.clone();
    let tty = options.tty;
    if !options.detach {
        check_terminal(tty, options.attach.stdin)?;
    }
    if tty && let Some(size) = terminal_size() {
        command.request.host_config.console_size = [size.rows, size.columns];
    }
    let id = new_id()?;
    let standby = engine.stand_by(&id)?;
    make(engine, &id, command, Durability::Rebuildable)?;
    if options.detach {
        engine.start_created(standby, &[]).map_err(fault_of_start)?;
        return print(id.as_str());
    }
    let streams = kinds(options.attach, tty);
    let stay = Stay {
        tty,
        detach_keys: options.detach_keys.unwrap_or_default(),
        signals: Stay::signals(options.signal_proxy, tty)?,
        container: true,
    };
    let run = engine.start_created(standby, &streams).map_err(fault_of_start)?;
    stay.at(engine, run)
}

fn new_id() -> Result<Id, Fault> {
    Id::random().map_err(|error| Fault::engine(error.to_string()))
}

/// Creates the container, its image pulled first where the policy says so.
fn make(engine: &Engine, id: &Id, command: RunCommand, durability: Durability) -> Result<(), Fault> {
    let RunCommand { request, options } = command;
    if let Some(path) = &options.id_file {
        check_id_file(path)?;
    }
    engine.check_isolation(&request.host_config.isolation)?;
    let image = image(engine, &request.config.image, &options)?;
    for warning in engine.create(id, request, &image, durability)? {
        tell(&format!("WARNING: {warning}"));
    }
    if let Some(path) = &options.id_file {
        std::fs::write(path, id.as_str()).map_err(|error| {
            Fault::engine(format!("failed to write the container ID to {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

fn check_id_file(path: &Path) -> Result<(), Fault> {
    if path.exists() {
        let message = format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        );
        return Err(Fault::engine(message));
    }
    Ok(())
}

/// The image by the pull policy.
fn image(engine: &Engine, name: &str, options: &RunOptions) -> Result<Image, Fault> {
    let platform: Option<Platform> = match options.platform.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|error| Fault::engine(format!("{error}")))?),
    };
    if let Some(wanted) = platform.as_ref().filter(|wanted| wanted.os != "linux") {
        return Err(Fault::engine(format!("--platform {wanted}: only images for linux can be run")));
    }
    let checked = |image: Image| match platform.as_ref().and_then(|wanted| mismatch(&image, wanted, name)) {
        None => Ok(image),
        Some(message) => Err(Fault::engine(message)),
    };
    if options.pull != PullPolicy::Always {
        match engine.image(name).map(checked) {
            Ok(Ok(image)) => return Ok(image),
            Ok(Err(mismatch)) if options.pull == PullPolicy::Never => return Err(mismatch),
            Ok(Err(_)) => {}
            Err(error) if error.kind == sbx_engine::ErrorKind::NotFound => {
                if options.pull == PullPolicy::Never {
                    return Err(error.into());
                }
                let reference = Reference::parse(name).map_err(|error| Fault::engine(error.to_string()))?;
                if !options.quiet {
                    tell(&format!("Unable to find image '{}' locally", reference.familiar()));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let reference = Reference::parse(name).map_err(|error| Fault::engine(error.to_string()))?;
    pull_for_run(engine, reference, platform.clone(), options.quiet).and_then(checked)
}

/// Streams to be connected. A terminal has no standard error of its own.
fn kinds(attach: Streams, tty: bool) -> Vec<StreamKind> {
    let mut kinds = Vec::new();
    if attach.stdin {
        kinds.push(StreamKind::Stdin);
    }
    if attach.stdout || (tty && attach.stderr) {
        kinds.push(StreamKind::Stdout);
    }
    if attach.stderr && !tty {
        kinds.push(StreamKind::Stderr);
    }
    kinds
}

/// `start`.
pub(super) fn start(engine: &Engine, command: &Start) -> Outcome {
    if command.attach || command.interactive {
        return start_attached(engine, command);
    }
    super::each(&command.containers, |name| {
        let id = engine.find(name)?;
        engine.start(&id, &[])?;
        print(name).map(drop)
    })
}

fn start_attached(engine: &Engine, command: &Start) -> Outcome {
    let [name] = &command.containers[..] else {
        return Err(Fault::plain("you cannot start and attach multiple containers at once"));
    };
    let id = engine.find(name)?;
    let config = engine.spec(&id)?.config;
    check_terminal(config.tty, command.interactive && config.open_stdin)?;
    let wanted = Streams { stdin: command.interactive && config.open_stdin, stdout: true, stderr: true };
    let stay = Stay {
        tty: config.tty,
        detach_keys: command.detach_keys.clone().unwrap_or_default(),
        signals: Stay::signals(true, config.tty)?,
        container: true,
    };
    let started = engine.start(&id, &kinds(wanted, config.tty)).map_err(fault_of_start)?;
    let Some(run) = started else { return Ok(0) };
    stay.at(engine, run)
}

/// `attach`.
pub(super) fn attach(engine: &Engine, command: &Attach) -> Outcome {
    let id = engine.find(&command.container)?;
    if !engine.state(&id)?.status.is_active() {
        return Err(Fault::plain("You cannot attach to a stopped container, start it first"));
    }
    let config = engine.spec(&id)?.config;
    let stdin = command.stdin && config.open_stdin;
    check_terminal(config.tty, stdin)?;
    let streams = kinds(Streams { stdin, stdout: true, stderr: true }, config.tty);
    let stay = Stay {
        tty: config.tty,
        detach_keys: command.detach_keys.clone().unwrap_or_default(),
        signals: Stay::signals(command.signal_proxy, config.tty)?,
        container: true,
    };
    stay.at(engine, engine.attach(&id, &streams)?)
}

/// `exec`.
pub(super) fn exec(engine: &Engine, command: &Exec) -> Outcome {
    let id = engine.find(&command.container)?;
    if !command.detach {
        check_terminal(command.tty, command.interactive)?;
    }
    let request = ExecRequest {
        args: command.command.clone(),
        env: command.env.clone(),
        user: command.user.clone().unwrap_or_default(),
        working_dir: command.working_dir.clone().unwrap_or_default(),
        terminal: command.tty.then(|| terminal_size().unwrap_or_default()),
        privileged: command.privileged,
        stdin: command.interactive && !command.detach,
    };
    let wanted = Streams { stdin: command.interactive, stdout: true, stderr: true };
    let streams = if command.detach { Vec::new() } else { kinds(wanted, command.tty) };
    let run = engine.exec(&id, &request, &streams).map_err(fault_of_start)?;
    if command.detach {
        return Ok(0);
    }
    let stay = Stay {
        tty: command.tty,
        detach_keys: command.detach_keys.clone().unwrap_or_default(),
        signals: Stay::signals(false, command.tty)?,
        container: false,
    };
    stay.at(engine, run)
}

/// How one stands at a process's streams.
struct Stay {
    tty: bool,
    detach_keys: DetachKeys,
    /// Held since before the start, and passed on while it lasts.
    signals: HeldSignals,
    /// The process is the container's first one.
    container: bool,
}

impl Stay {
    /// A terminal sends signals through the process's own; here it is the size of the window that is passed on.
    fn signals(proxy: bool, tty: bool) -> std::io::Result<HeldSignals> {
        HeldSignals::hold(proxy && !tty, tty)
    }

    /// Stays until the process ends or the user leaves.
    fn at(self, engine: &Engine, run: Run) -> Outcome {
        let Run { id, mut client, session } = run;
        let session = session.ok_or_else(|| Fault::plain("the process has no streams"))?;
        let session_id = session.id;
        let takes_input = session.stdin.is_some();
        let stdin = std::io::stdin();
        let raw =
            if self.tty && takes_input && is_terminal(&stdin) { Some(RawMode::enter(stdin.as_fd())?) } else { None };
        if self.tty
            && let Some(size) = terminal_size()
        {
            // The process may have ended already.
            let _ = client.resize(session_id, size);
        }
        self.signals.forward(&client, &id, session_id)?;
        let keys = (self.tty && takes_input).then_some(self.detach_keys);
        let copies = Copies::begin(session, keys)?;
        let waiter = engine.clone();
        let container = self.container;
        let end = copies.wait(move || {
            if container { waiter.wait_with(&mut client, &id) } else { Ok(client.wait_process(session_id)?.code) }
        })?;
        drop(raw);
        drop(self.signals);
        match end {
            End::Waited(code) => Ok(code?),
            End::Detached => {
                let _ = std::io::stdout().flush();
                if !self.container {
                    tell("exec session was detached: read escape sequence");
                }
                Ok(0)
            }
        }
    }
}

/// The size of the terminal that this process writes to, or reads from.
pub(super) fn terminal_size() -> Option<TerminalSize> {
    let size = window_size(std::io::stdout().as_fd()).or_else(|| window_size(std::io::stdin().as_fd()))?;
    Some(TerminalSize { rows: size.rows, columns: size.columns })
}
