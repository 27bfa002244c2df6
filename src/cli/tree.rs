//! The tree of commands and the walk through it: global flags, a group, a verb, its flags, its operands.
//!
//! Each verb has one description and may have two places (`ps` and `container ls`); messages name the place that was used.

use std::path::PathBuf;

use crate::{
    command::{Command, Globals, Invocation},
    error::UsageError,
    flags::{
        Flag, help,
        parse::{Operands, Parsed, parse as parse_flags},
    },
    surroundings::Surroundings,
    verbs::{Verb, container, copy, image, list, system, volume},
};

/// The name that messages use.
pub(crate) const PROGRAM: &str = "sbx";

/// A verb at a place in the tree.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) verb: &'static Verb,
}

const fn entry(name: &'static str, verb: &'static Verb) -> Entry {
    Entry { name, aliases: &[], verb }
}

const fn named(name: &'static str, aliases: &'static [&'static str], verb: &'static Verb) -> Entry {
    Entry { name, aliases, verb }
}

/// A group of verbs.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) entries: &'static [Entry],
}

pub(crate) static TOP: &[Entry] = &[
    entry("attach", &container::ATTACH),
    entry("completion", &system::COMPLETION),
    entry("cp", &copy::COPY),
    entry("create", &container::CREATE),
    entry("doctor", &system::DOCTOR),
    entry("exec", &container::EXEC),
    entry("export", &copy::EXPORT),
    entry("history", &image::HISTORY),
    entry("images", &image::LIST),
    entry("import", &image::IMPORT),
    entry("info", &system::INFO),
    entry("inspect", &list::INSPECT),
    entry("kill", &container::KILL),
    entry("load", &image::LOAD),
    entry("login", &image::LOGIN),
    entry("logout", &image::LOGOUT),
    entry("logs", &container::LOGS),
    entry("pause", &container::PAUSE),
    entry("port", &container::PORT),
    entry("ps", &list::LIST),
    entry("pull", &image::PULL),
    entry("rename", &container::RENAME),
    entry("restart", &container::RESTART),
    entry("rm", &container::REMOVE),
    entry("rmi", &image::REMOVE),
    entry("run", &container::RUN),
    entry("save", &image::SAVE),
    entry("start", &container::START),
    entry("stats", &list::STATS),
    entry("stop", &container::STOP),
    entry("tag", &image::TAG),
    entry("top", &container::TOP),
    entry("unpause", &container::UNPAUSE),
    entry("version", &system::VERSION),
    entry("wait", &container::WAIT),
];

static CONTAINER: &[Entry] = &[
    entry("attach", &container::ATTACH),
    entry("cp", &copy::COPY),
    entry("create", &container::CREATE),
    entry("exec", &container::EXEC),
    entry("export", &copy::EXPORT),
    entry("inspect", &list::INSPECT_CONTAINER),
    entry("kill", &container::KILL),
    entry("logs", &container::LOGS),
    named("ls", &["list", "ps"], &list::LIST),
    entry("pause", &container::PAUSE),
    entry("port", &container::PORT),
    entry("prune", &list::PRUNE),
    entry("rename", &container::RENAME),
    entry("restart", &container::RESTART),
    named("rm", &["remove"], &container::REMOVE),
    entry("run", &container::RUN),
    entry("start", &container::START),
    entry("stats", &list::STATS),
    entry("stop", &container::STOP),
    entry("top", &container::TOP),
    entry("unpause", &container::UNPAUSE),
    entry("wait", &container::WAIT),
];

static IMAGE: &[Entry] = &[
    entry("history", &image::HISTORY),
    entry("import", &image::IMPORT),
    entry("inspect", &image::INSPECT),
    entry("load", &image::LOAD),
    named("ls", &["list"], &image::LIST),
    entry("prune", &image::PRUNE),
    entry("pull", &image::PULL),
    named("rm", &["remove"], &image::REMOVE),
    entry("save", &image::SAVE),
    entry("tag", &image::TAG),
];

static VOLUME: &[Entry] = &[
    entry("create", &volume::CREATE),
    entry("inspect", &volume::INSPECT),
    named("ls", &["list"], &volume::LIST),
    entry("prune", &volume::PRUNE),
    named("rm", &["remove"], &volume::REMOVE),
];

pub(crate) static GROUPS: &[Group] = &[
    Group { name: "container", about: "Manage containers", entries: CONTAINER },
    Group { name: "image", about: "Manage images", entries: IMAGE },
    Group { name: "system", about: "Manage the installation", entries: &[entry("info", &system::INFO)] },
    Group { name: "volume", about: "Manage volumes", entries: VOLUME },
];

pub(crate) static GLOBAL_FLAGS: &[Flag] = &[
    Flag::text("config", "Configuration file").default("\"/etc/sbx/config.toml\""),
    Flag::switch("debug", "Say more about what is done").short('D'),
    Flag::text("root", "Directory of images, containers and volumes").default("\"/var/lib/sbx\""),
    Flag::text("run", "Directory of what lasts until the next boot").default("\"/run/sbx\""),
    Flag::switch("version", "Print the version and quit").short('v'),
];

const ROOT_USAGE: &str = "[OPTIONS] COMMAND [ARG...]";

/// Reads a command line (without the program's name).
pub(crate) fn walk(arguments: &[String], around: &Surroundings) -> Result<Invocation, UsageError> {
    let parsed = parse_flags(&[GLOBAL_FLAGS], Operands::EndFlags, arguments)
        .map_err(|why| UsageError::of_flags(&why, PROGRAM, ROOT_USAGE))?;
    let path = |flag: &str, default: &str| parsed.filled(flag).map_or_else(|| PathBuf::from(default), PathBuf::from);
    let globals = Globals {
        root: path("root", "/var/lib/sbx"),
        run: path("run", "/run/sbx"),
        config: path("config", "/etc/sbx/config.toml"),
        debug: parsed.on("debug"),
    };
    let mut notices = parsed.notices.clone();
    let command = if parsed.on("version") {
        Command::ProgramVersion
    } else if parsed.help {
        Command::Help(help::of_program())
    } else {
        read_command(&parsed.operands, around, &mut notices)?
    };
    Ok(Invocation { globals, notices, command })
}

fn read_command(words: &[String], around: &Surroundings, notices: &mut Vec<String>) -> Result<Command, UsageError> {
    let Some((first, rest)) = words.split_first() else {
        return Ok(Command::Help(help::of_program()));
    };
    if first == "help" {
        return read_help(rest);
    }
    if let Some(group) = GROUPS.iter().find(|group| group.name == first) {
        return read_group(group, rest, around, notices);
    }
    match find(TOP, first) {
        Some(entry) => read_verb(entry, &format!("{PROGRAM} {}", entry.name), rest, around, notices),
        None => Err(UsageError {
            message: format!("sbx: unknown command: sbx {first}\n\nRun 'sbx --help' for more information"),
            status: 1,
        }),
    }
}

fn find<'a>(entries: &'a [Entry], word: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.name == word || entry.aliases.contains(&word))
}

fn read_group(
    group: &Group,
    words: &[String],
    around: &Surroundings,
    notices: &mut Vec<String>,
) -> Result<Command, UsageError> {
    let path = format!("{PROGRAM} {}", group.name);
    if let Some((word, rest)) = words.split_first()
        && let Some(entry) = find(group.entries, word)
    {
        return read_verb(entry, &format!("{path} {}", entry.name), rest, around, notices);
    }
    let parsed =
        parse_flags(&[], Operands::Mixed, words).map_err(|why| UsageError::of_flags(&why, &path, "COMMAND"))?;
    notices.extend(parsed.notices);
    match parsed.operands.first() {
        Some(word) if !parsed.help => {
            Err(UsageError::of_operands(&format!("unknown command: {path} {word}"), &path, ""))
        }
        _ => Ok(Command::Help(help::of_group(group))),
    }
}

fn read_verb(
    entry: &Entry,
    path: &str,
    words: &[String],
    around: &Surroundings,
    notices: &mut Vec<String>,
) -> Result<Command, UsageError> {
    let verb = entry.verb;
    let parsed: Parsed =
        parse_flags(verb.flags, verb.operands, words).map_err(|why| UsageError::of_flags(&why, path, verb.usage))?;
    notices.extend(parsed.notices.iter().cloned());
    if parsed.help {
        return Ok(Command::Help(help::of_verb(verb, path)));
    }
    if let Some(why) = verb.count.fault(path, parsed.operands.len()) {
        return Err(UsageError::of_operands(&why, path, verb.usage));
    }
    (verb.read)(&parsed, around).map_err(|fault| UsageError::of_fault(fault, path))
}

fn read_help(words: &[String]) -> Result<Command, UsageError> {
    let unknown = || UsageError { message: format!("unknown help topic: {}", words.join(" ")), status: 1 };
    let text = match words {
        [] => help::of_program(),
        [word] => match GROUPS.iter().find(|group| group.name == word) {
            Some(group) => help::of_group(group),
            None => {
                let entry = find(TOP, word).ok_or_else(unknown)?;
                help::of_verb(entry.verb, &format!("{PROGRAM} {}", entry.name))
            }
        },
        [group, word, ..] => {
            let group = GROUPS.iter().find(|known| known.name == group).ok_or_else(unknown)?;
            let entry = find(group.entries, word).ok_or_else(unknown)?;
            help::of_verb(entry.verb, &format!("{PROGRAM} {} {}", group.name, entry.name))
        }
    };
    Ok(Command::Help(text))
}
