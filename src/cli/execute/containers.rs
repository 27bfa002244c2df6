//! Verbs that do something to containers and print their names.

use sbx_engine::{AnonymousVolumes, Engine, ErrorKind, Force};
use sbx_sandbox::signal;

use super::{Fault, Outcome, each, print, tell};
use crate::command::{Kill, Remove, Rename, Stop};

fn signal_number(text: &str) -> Result<i32, Fault> {
    signal::parse(text).map_err(|error| Fault::plain(error.to_string()))
}

/// `stop`.
pub(super) fn stop(engine: &Engine, command: &Stop) -> Outcome {
    let signal = command.signal.as_deref().map(signal_number).transpose()?;
    each(&command.containers, |name| {
        engine.stop(&engine.find(name)?, signal, command.timeout)?;
        print(name).map(drop)
    })
}

/// `restart`.
pub(super) fn restart(engine: &Engine, command: &Stop) -> Outcome {
    let signal = command.signal.as_deref().map(signal_number).transpose()?;
    each(&command.containers, |name| {
        engine.restart(&engine.find(name)?, signal, command.timeout)?;
        print(name).map(drop)
    })
}

/// `kill`.
pub(super) fn kill(engine: &Engine, command: &Kill) -> Outcome {
    let signal = signal_number(&command.signal)?;
    each(&command.containers, |name| {
        let id = engine.find(name)?;
        engine.kill(&id, signal).map_err(|error| Fault::plain(format!("cannot kill container: {name}: {error}")))?;
        print(name).map(drop)
    })
}

/// `rm`.
pub(super) fn remove(engine: &Engine, command: &Remove) -> Outcome {
    let volumes = if command.volumes { AnonymousVolumes::Remove } else { AnonymousVolumes::Keep };
    let force = if command.force { Force::Yes } else { Force::No };
    each(&command.containers, |name| {
        let id = match engine.find(name.trim_start_matches('/')) {
            // Nothing is wrong with what is gone already.
            Err(error) if command.force && error.kind == ErrorKind::NotFound => {
                tell(&error.to_string());
                return Ok(());
            }
            found => found?,
        };
        engine.remove(&id, force, volumes)?;
        print(name).map(drop)
    })
}

/// `wait`.
pub(super) fn wait(engine: &Engine, names: &[String]) -> Outcome {
    each(names, |name| print(&engine.wait(&engine.find(name)?)?.to_string()).map(drop))
}

/// `pause`.
pub(super) fn pause(engine: &Engine, names: &[String]) -> Outcome {
    each(names, |name| {
        engine.pause(&engine.find(name)?)?;
        print(name).map(drop)
    })
}

/// `unpause`.
pub(super) fn unpause(engine: &Engine, names: &[String]) -> Outcome {
    each(names, |name| {
        engine.unpause(&engine.find(name)?)?;
        print(name).map(drop)
    })
}

/// `rename`.
pub(super) fn rename(engine: &Engine, command: &Rename) -> Outcome {
    engine.rename(&engine.find(&command.container)?, &command.name)?;
    Ok(0)
}
