//! `container prune`, `image prune` and `volume prune`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use sbx_engine::{AnonymousVolumes, Engine, ErrorKind, Force};
use sbx_sandbox::volumes::Prune as Which;

use super::catalog::{seconds, until};
use super::{Fault, Outcome, print};
use crate::command::Prune;
use crate::units::human_size;

/// Asks; whether the answer is yes.
fn confirmed(command: &Prune, warning: &str) -> Result<bool, Fault> {
    if command.force {
        return Ok(true);
    }
    print(&format!("WARNING! This will remove {warning}."))?;
    let mut out = io::stdout().lock();
    out.write_all(b"Are you sure you want to continue? [y/N] ")?;
    out.flush()?;
    Ok(is_yes(io::stdin().lock())?)
}

fn is_yes(mut input: impl BufRead) -> io::Result<bool> {
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// What was removed, and how much room it took.
fn report(title: &str, lines: &[String], freed: u64) -> Outcome {
    let mut text = String::new();
    if !lines.is_empty() {
        text = format!("{title}:\n{}\n\n", lines.join("\n"));
    }
    print(&format!("{text}Total reclaimed space: {}", human_size(freed)))
}

/// `container prune`.
pub(super) fn containers(engine: &Engine, command: &Prune) -> Outcome {
    command.filters.only(&["label", "label!", "until"])?;
    let until = until(&command.filters)?;
    if !confirmed(command, "all stopped containers")? {
        return Ok(0);
    }
    let mut removed = Vec::new();
    let mut freed = 0;
    for listed in engine.list()? {
        let young = until.is_some_and(|until| listed.spec.created.unix_seconds() >= until.seconds);
        if listed.state.status.is_active() || young || !command.filters.allow_labels(&listed.spec.config.labels) {
            continue;
        }
        let id = listed.spec.id;
        let size = engine.size(&id)?;
        match engine.remove(&id, Force::No, AnonymousVolumes::Keep) {
            Ok(()) => {
                freed += size;
                removed.push(id.to_string());
            }
            // It was started, or removed, since the list was made.
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    report("Deleted Containers", &removed, freed)
}

/// `image prune`.
pub(super) fn images(engine: &Engine, command: &Prune) -> Outcome {
    let filters = &command.filters;
    filters.only(&["dangling", "label", "label!", "until"])?;
    let all = command.all || filters.switch("dangling")? == Some(false);
    let until = until(filters)?;
    let warning =
        if all { "all images without at least one container associated to them" } else { "all dangling images" };
    if !confirmed(command, warning)? {
        return Ok(0);
    }
    let removal = engine.prune_images(&|image| {
        let young = until.is_some_and(|until| seconds(image.created).unwrap_or(0) >= until.seconds);
        (all || image.is_dangling()) && !young && filters.allow_labels(&image.labels)
    })?;
    let untagged = removal.untagged.iter().map(|name| format!("untagged: {name}"));
    let lines: Vec<String> =
        untagged.chain(removal.deleted.iter().map(|digest| format!("deleted: {digest}"))).collect();
    report("Deleted Images", &lines, removal.freed)
}

/// `volume prune`.
pub(super) fn volumes(engine: &Engine, command: &Prune) -> Outcome {
    let filters = &command.filters;
    filters.only(&["all", "label", "label!"])?;
    let filter_all = filters.switch("all")?;
    if command.all && filter_all.is_some() {
        return Err(Fault::plain("conflicting options: cannot specify both --all and --filter all=1"));
    }
    let all = command.all || filter_all == Some(true);
    let warning = if all {
        "all local volumes not used by at least one container"
    } else {
        "anonymous local volumes not used by at least one container"
    };
    if !confirmed(command, warning)? {
        return Ok(0);
    }
    let sizes = RefCell::new(BTreeMap::new());
    let which = if all { Which::All } else { Which::Anonymous };
    let removed = engine.prune_volumes(which, |volume| {
        let wanted = filters.allow_labels(&volume.labels);
        if wanted {
            // Room that cannot be measured is not counted; the volume is removed all the same.
            sizes.borrow_mut().insert(volume.name.clone(), engine.volume_size(volume).unwrap_or(0));
        }
        wanted
    })?;
    let sizes = sizes.borrow();
    let names: Vec<String> = removed.into_iter().map(|volume| volume.name).collect();
    report("Deleted Volumes", &names, names.iter().filter_map(|name| sizes.get(name)).sum())
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn only_y_is_yes() {
        for (answer, yes) in
            [("y\n", true), ("Y\n", true), ("\n", false), ("", false), ("no\n", false), ("yep\n", false)]
        {
            assert_eq!(is_yes(answer.as_bytes()).ok(), Some(yes), "{answer:?}");
        }
    }
}
