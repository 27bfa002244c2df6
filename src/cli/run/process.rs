//! What the process is: environment, labels, streams, health, security options. Files that the user names are read here.

use std::{collections::BTreeMap, io, path::Path};

use sbx_sandbox::config::Healthcheck;

use crate::{flags::parse::Parsed, quote::quote, surroundings::Surroundings, units::parse_duration};

pub(crate) fn check_any(_: &str) -> Result<(), String> {
    Ok(())
}

pub(crate) fn check_stream(text: &str) -> Result<(), String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

pub(crate) fn check_variable(text: &str) -> Result<(), String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid environment variable: {text}"));
    }
    Ok(())
}

pub(crate) fn check_label(text: &str) -> Result<(), String> {
    let (name, _) = text.split_once('=').unwrap_or((text, ""));
    let name = name.trim_start();
    if name.is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    if name.contains(char::is_whitespace) {
        return Err(format!("label '{name}' contains whitespaces"));
    }
    Ok(())
}

/// What an error of the system is called in messages: `no such file or directory`.
pub(crate) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The variables of `--env-file` and `--env`, in order; a name that comes again replaces the value of the first.
///
/// # Errors
/// A file that cannot be read or has a bad line; a variable of the caller that is not UTF-8.
pub(crate) fn environment(parsed: &Parsed, around: &Surroundings) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for file in parsed.list("env-file") {
        for (name, value) in read_pairs(file, around)? {
            match value {
                Some(value) => all.push(format!("{name}={value}")),
                // In a file, a variable that the caller does not have is left out; on the command line it is passed on
                // as a bare name, which removes it from the image's.
                None => all.extend(around.variable(&name)?.map(|value| format!("{name}={value}"))),
            }
        }
    }
    for given in parsed.list("env") {
        match given.contains('=') {
            true => all.push(given.clone()),
            false => all.push(match around.variable(given)? {
                Some(value) => format!("{given}={value}"),
                None => given.clone(),
            }),
        }
    }
    let mut merged: Vec<String> = Vec::with_capacity(all.len());
    for variable in all {
        let name = variable.split('=').next().unwrap_or(&variable);
        match merged.iter_mut().find(|known| known.split('=').next() == Some(name)) {
            Some(known) => *known = variable,
            None => merged.push(variable),
        }
    }
    Ok(merged)
}

/// The labels of `--label-file` and `--label`.
///
/// # Errors
/// A file that cannot be read or has a bad line.
pub(crate) fn labels(parsed: &Parsed, around: &Surroundings) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for file in parsed.list("label-file") {
        all.extend(read_pairs(file, around)?.into_iter().map(|(name, value)| (name, value.unwrap_or_default())));
    }
    all.extend(pairs(parsed.list("label")));
    Ok(all)
}

/// `a=b`, `c` → `{a: b, c: ""}`.
pub(crate) fn pairs(given: &[String]) -> BTreeMap<String, String> {
    given
        .iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")))
        .map(|(name, value)| (name.trim_start().to_owned(), value.to_owned()))
        .collect()
}

type Pair = (String, Option<String>);

fn read_pairs(file: &str, around: &Surroundings) -> Result<Vec<Pair>, String> {
    let path = around.directory().join(file);
    let bad = |why: String| format!("invalid env file ({file}): {why}");
    if path.is_dir() {
        return Err(bad(format!("read {file}: is a directory")));
    }
    let bytes = std::fs::read(&path).map_err(|error| format!("open {file}: {}", cause(&error)))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut found = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| {
            let codes: Vec<String> = line.iter().map(u8::to_string).collect();
            bad(format!("invalid utf8 bytes at line {}: [{}]", index + 1, codes.join(" ")))
        })?;
        found.extend(read_pair(text).map_err(bad)?);
    }
    Ok(found)
}

fn read_pair(line: &str) -> Result<Option<Pair>, String> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (line.trim_end(), None),
    };
    if name.contains(char::is_whitespace) {
        return Err(format!("variable '{name}' contains whitespaces"));
    }
    if name.is_empty() {
        return Err(format!("no variable name on line '{line}'"));
    }
    Ok(Some((name.to_owned(), value)))
}

/// `--health-*` and `--no-healthcheck`.
///
/// # Errors
/// Negative numbers, or both at once.
pub(crate) fn health(parsed: &Parsed) -> Result<Option<Healthcheck>, String> {
    let duration = |flag: &str| parsed.last(flag).map_or(Ok(0), parse_duration);
    let check = Healthcheck {
        test: parsed.filled("health-cmd").map(|command| vec!["CMD-SHELL".to_owned(), command]).unwrap_or_default(),
        interval: duration("health-interval")?,
        timeout: duration("health-timeout")?,
        start_period: duration("health-start-period")?,
        start_interval: duration("health-start-interval")?,
        retries: parsed.int("health-retries").unwrap_or(0),
    };
    let given = check != Healthcheck::default();
    if parsed.on("no-healthcheck") {
        if given {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }));
    }
    for (name, value) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("retries", check.retries),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ] {
        if value < 0 {
            return Err(format!("--health-{name} cannot be negative"));
        }
    }
    Ok(given.then_some(check))
}

/// `--security-opt`: the options as the engine takes them, and whether the system paths are left open.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SecurityOptions {
    pub(crate) options: Vec<String>,
    pub(crate) open_system_paths: bool,
}

/// Reads the options; a seccomp profile becomes the text of the file, without blanks.
///
/// # Errors
/// An option without a value, a profile that cannot be read or is not JSON.
pub(crate) fn security(given: &[String], around: &Surroundings) -> Result<SecurityOptions, String> {
    let mut found = SecurityOptions::default();
    for option in given {
        let split = option.split_once('=').or_else(|| option.split_once(':'));
        let (name, value) = match split {
            None if option == "no-new-privileges" => (option.as_str(), "true"),
            Some((name, value)) if !value.is_empty() => (name, value),
            _ => return Err(format!("Invalid --security-opt: {}", quote(option))),
        };
        match (name, value) {
            ("systempaths", "unconfined") => found.open_system_paths = true,
            ("seccomp", profile) if !["unconfined", "builtin"].contains(&profile) => {
                found.options.push(format!("seccomp={}", seccomp_profile(profile, around)?));
            }
            _ => found.options.push(option.clone()),
        }
    }
    Ok(found)
}

fn seccomp_profile(file: &str, around: &Surroundings) -> Result<String, String> {
    let text = std::fs::read_to_string(around.directory().join(Path::new(file)))
        .map_err(|error| format!("opening seccomp profile ({file}) failed: open {file}: {}", cause(&error)))?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text)
        .map_err(|error| format!("compacting json for seccomp profile ({file}) failed: {error}"))?;
    Ok(without_blanks(&text))
}

/// JSON without the blanks between its tokens; keys keep their order and numbers their spelling.
fn without_blanks(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for letter in json.chars() {
        if in_string || !letter.is_ascii_whitespace() {
            out.push(letter);
        }
        let quote = letter == '"' && !escaped;
        in_string ^= quote;
        escaped = in_string && letter == '\\' && !escaped;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_inside_strings_stay() {
        assert_eq!(without_blanks("{ \"a b\\\" c\" : [ 1.50, \"\\\\\" ] }\n"), "{\"a b\\\" c\":[1.50,\"\\\\\"]}");
    }

    #[test]
    fn causes_have_no_number() {
        assert_eq!(cause(&io::Error::from_raw_os_error(2)), "no such file or directory");
    }
}
