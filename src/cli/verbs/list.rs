//! The verbs that show containers and other objects.

use super::{Count, Verb, filter_flag, filters, format_flag, list_format_flag, prune_filter_flag};
use crate::{
    command::{Command, Inspect, ListContainers, ObjectKind, Prune, Stats},
    error::Fault,
    flags::{
        Flag,
        parse::{Operands, Parsed},
    },
};

pub(crate) static LIST: Verb = Verb {
    usage: "[OPTIONS]",
    about: "List containers",
    flags: &[&[
        Flag::switch("all", "Show those that do not run too").short('a'),
        filter_flag(),
        list_format_flag(),
        Flag::int("last", "Show the last created ones only, in any state").short('n').default("-1"),
        Flag::switch("latest", "Show the last created one, in any state").short('l'),
        Flag::switch("no-trunc", "Do not shorten"),
        Flag::switch("quiet", "Only show container IDs").short('q'),
        Flag::switch("size", "Show the sizes of the file systems").short('s'),
    ]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| {
        let last = parsed.int("last").unwrap_or(-1);
        let last = match (parsed.on("latest"), usize::try_from(last)) {
            (true, _) => Some(1),
            (false, Ok(count)) if count > 0 => Some(count),
            (false, _) => None,
        };
        Ok(Command::List(ListContainers {
            all: parsed.on("all") || last.is_some(),
            filters: filters(parsed)?,
            format: parsed.filled("format"),
            last,
            no_trunc: parsed.on("no-trunc"),
            quiet: parsed.on("quiet"),
            size: parsed.on("size"),
        }))
    },
};

pub(crate) static INSPECT: Verb = Verb {
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Show all that is known of objects",
    flags: &[&[
        format_flag(),
        Flag::switch("size", "Show the sizes of a container's file system").short('s'),
        Flag::text("type", "Only objects of this type: container, image or volume"),
    ]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        let kind = match parsed.text("type") {
            "" if parsed.is_set("type") => {
                return Err(Fault::Plain(
                    "type is empty: must be one of \"container\", \"image\", \"volume\"".to_owned(),
                ));
            }
            "" => None,
            "container" => Some(ObjectKind::Container),
            "image" => Some(ObjectKind::Image),
            "volume" => Some(ObjectKind::Volume),
            other => {
                return Err(Fault::Plain(format!(
                    "unknown type: \"{other}\": must be one of \"container\", \"image\", \"volume\""
                )));
            }
        };
        Ok(Command::Inspect(Inspect { kind, size: parsed.on("size"), ..of_names(parsed) }))
    },
};

/// An inspection of anything, without sizes.
pub(super) fn of_names(parsed: &Parsed) -> Inspect {
    Inspect {
        names: parsed.operands.clone(),
        kind: None,
        format: parsed.filled("format"),
        size: false,
        platform: String::new(),
    }
}

pub(crate) static INSPECT_CONTAINER: Verb = Verb {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Show all that is known of containers",
    flags: &[&[format_flag(), Flag::switch("size", "Show the sizes of the file system").short('s')]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        let kind = Some(ObjectKind::Container);
        Ok(Command::Inspect(Inspect { kind, size: parsed.on("size"), ..of_names(parsed) }))
    },
};

pub(crate) static STATS: Verb = Verb {
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Show what containers use, as it changes",
    flags: &[&[
        Flag::switch("all", "Show those that do not run too").short('a'),
        list_format_flag(),
        Flag::switch("no-stream", "Show the first result only"),
        Flag::switch("no-trunc", "Do not shorten"),
    ]],
    operands: Operands::Mixed,
    count: Count::AtLeast(0),
    read: |parsed, _| {
        let containers = parsed.operands.clone();
        if parsed.on("all") && !containers.is_empty() {
            return Err(Fault::Plain("conflicting options: --all shows every container; name none".to_owned()));
        }
        Ok(Command::Stats(Stats {
            containers,
            all: parsed.on("all"),
            format: parsed.filled("format"),
            no_stream: parsed.on("no-stream"),
            no_trunc: parsed.on("no-trunc"),
        }))
    },
};

pub(crate) static PRUNE: Verb = Verb {
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    flags: &[&[prune_filter_flag(), Flag::switch("force", "Do not ask").short('f')]],
    operands: Operands::Mixed,
    count: Count::None,
    read: |parsed, _| {
        Ok(Command::PruneContainers(Prune { all: true, force: parsed.on("force"), filters: filters(parsed)? }))
    },
};
