//! `cp`: files from and to containers.

use std::io::IsTerminal;

use sbx_engine::Engine;
use sbx_engine::copy::{self, ContainerFiles, Copied, Links};

use super::{Fault, Outcome, tell};
use crate::command::{Copy, CopyEnd};
use crate::units;

pub(super) fn copy(engine: &Engine, command: &Copy) -> Outcome {
    let links = if command.follow_link { Links::Follow } else { Links::Keep };
    let (copied, target) = match (&command.source, &command.target) {
        (CopyEnd::Container { container, path }, target) => {
            let mut files = engine.files(container)?;
            from_container(&mut files, path, target, links)?
        }
        (source, CopyEnd::Container { container, path }) => {
            let owner = if command.archive { engine.user_of(container)? } else { None };
            let mut files = engine.files(container)?;
            let copied = match source {
                CopyEnd::Stream => copy::copy_from_archive(&mut files, &mut std::io::stdin().lock(), path, owner)?,
                CopyEnd::Local(source) => copy::copy_in(&mut files, source, path, links, owner)?,
                CopyEnd::Container { .. } => return Err(between_containers()),
            };
            (copied, Some(format!("{container}:{path}")))
        }
        _ => return Err(between_containers()),
    };
    for warning in &copied.warnings {
        tell(warning);
    }
    let quiet = command.quiet.unwrap_or_else(|| !std::io::stdout().is_terminal());
    if let Some(target) = target.filter(|_| !quiet) {
        tell(&format!("Successfully copied {} to {target}", units::table_size(copied.bytes)));
    }
    Ok(0)
}

fn from_container(
    files: &mut ContainerFiles,
    path: &str,
    target: &CopyEnd,
    links: Links,
) -> Result<(Copied, Option<String>), Fault> {
    match target {
        CopyEnd::Stream => Ok((copy::copy_to_archive(files, path, &mut std::io::stdout().lock(), links)?, None)),
        CopyEnd::Local(target) => {
            let place = std::path::absolute(target)?;
            Ok((copy::copy_out(files, path, target, links)?, Some(place.display().to_string())))
        }
        CopyEnd::Container { .. } => Err(between_containers()),
    }
}

/// The parser has refused it already.
fn between_containers() -> Fault {
    Fault::plain("copying between containers is not supported")
}
