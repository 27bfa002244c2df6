//! Help texts, laid out as Docker's: usage, sentence, other spellings, flags in two columns.

use super::{Arity, Flag};
use crate::{
    tree::{GLOBAL_FLAGS, GROUPS, Group, PROGRAM, TOP},
    verbs::Verb,
};

/// Lines are at most this wide, as off a terminal in Docker.
const WIDTH: usize = 80;

/// `sbx --help`.
pub(crate) fn of_program() -> String {
    let common = ["run", "exec", "ps", "pull", "images", "login", "logout", "version", "info"];
    let mut text =
        format!("Usage:  {PROGRAM} [OPTIONS] COMMAND\n\nRun OCI images as processes or in a microVM of their own\n");
    let about = |name: &str| TOP.iter().find(|entry| entry.name == name).map_or("", |entry| entry.verb.about);
    section(&mut text, "Common Commands", common.iter().map(|name| (*name, about(name))));
    section(&mut text, "Management Commands", GROUPS.iter().map(|group| (group.name, group.about)));
    let others = TOP.iter().filter(|entry| !common.contains(&entry.name));
    section(&mut text, "Commands", others.map(|entry| (entry.name, entry.verb.about)));
    text.push_str("\nGlobal Options:\n");
    text.push_str(&flag_lines(&[GLOBAL_FLAGS]));
    text.push_str("\nRun 'sbx COMMAND --help' for more information on a command.\n");
    text
}

/// `sbx container --help`.
pub(crate) fn of_group(group: &Group) -> String {
    let mut text = format!("Usage:  {PROGRAM} {} COMMAND\n\n{}\n", group.name, group.about);
    section(&mut text, "Commands", group.entries.iter().map(|entry| (entry.name, entry.verb.about)));
    text.push_str(&format!("\nRun '{PROGRAM} {} COMMAND --help' for more information on a command.\n", group.name));
    text
}

/// `sbx run --help`.
pub(crate) fn of_verb(verb: &Verb, path: &str) -> String {
    let mut text = format!("Usage:  {path} {}\n\n{}\n", verb.usage, verb.about);
    let places = places(verb);
    if places.len() > 1 {
        text.push_str(&format!("\nAliases:\n  {}\n", places.join(", ")));
    }
    let lines = flag_lines(verb.flags);
    if !lines.is_empty() {
        text.push_str("\nOptions:\n");
        text.push_str(&lines);
    }
    text
}

/// Every way to write the verb.
fn places(verb: &Verb) -> Vec<String> {
    let same = |other: &'static Verb| std::ptr::eq(verb, other);
    let mut places = Vec::new();
    for group in GROUPS {
        for entry in group.entries.iter().filter(|entry| same(entry.verb)) {
            let names = std::iter::once(&entry.name).chain(entry.aliases);
            places.extend(names.map(|name| format!("{PROGRAM} {} {name}", group.name)));
        }
    }
    places.extend(TOP.iter().filter(|entry| same(entry.verb)).map(|entry| format!("{PROGRAM} {}", entry.name)));
    places
}

fn section<'a>(text: &mut String, title: &str, entries: impl Iterator<Item = (&'a str, &'a str)>) {
    text.push_str(&format!("\n{title}:\n"));
    for (name, about) in entries {
        text.push_str(&format!("  {name:<11} {about}\n"));
    }
}

fn flag_lines(flags: &[&'static [Flag]]) -> String {
    let mut shown: Vec<&Flag> = flags.iter().copied().flatten().filter(|flag| !flag.hidden).collect();
    shown.sort_by_key(|flag| flag.long);
    let heads: Vec<String> = shown.iter().map(|flag| head(flag)).collect();
    let column = heads.iter().map(String::len).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for (flag, head) in shown.iter().zip(&heads) {
        text.push_str(&format!("{head:<column$}{}\n", wrap(&sentence(flag), column)));
    }
    text
}

fn head(flag: &Flag) -> String {
    let letter = flag.short.map_or_else(|| "      ".to_owned(), |letter| format!("  -{letter}, "));
    match flag.arity {
        Arity::Switch => format!("{letter}--{}", flag.long),
        Arity::Single | Arity::Repeated => format!("{letter}--{} {}", flag.long, flag.value_name),
    }
}

fn sentence(flag: &Flag) -> String {
    if flag.default.is_empty() { flag.help.to_owned() } else { format!("{} (default {})", flag.help, flag.default) }
}

fn wrap(text: &str, column: usize) -> String {
    let room = WIDTH.saturating_sub(column).max(24);
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map(|line| (line.len(), line));
        match line {
            Some((0, line)) => line.push_str(word),
            Some((used, line)) if used + 1 + word.len() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{}", " ".repeat(column)))
}
