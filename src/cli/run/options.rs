//! What `run` and `create` do themselves, around the container: pull, attach, detach, wait.

use std::path::PathBuf;

use crate::{detach::DetachKeys, error::Fault, flags::parse::Parsed, run::Caller};

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Even if it is here.
    Always,
    /// If it is not here.
    #[default]
    Missing,
    /// Not at all.
    Never,
}

/// Which of the three streams the caller has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// What the caller does around the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// `--detach`: print the id and leave.
    pub detach: bool,
    /// `--rm`: also in the request.
    pub remove: bool,
    /// `--cidfile`: written after the container is made; must not exist before.
    pub id_file: Option<PathBuf>,
    /// `--pull`.
    pub pull: PullPolicy,
    /// `--quiet`: no progress of the pull.
    pub quiet: bool,
    /// `--sig-proxy`: pass signals on.
    pub signal_proxy: bool,
    /// `--detach-keys`; `None` is the configured sequence.
    pub detach_keys: Option<DetachKeys>,
    /// The streams to attach; none with `--detach`.
    pub attach: Streams,
    /// `--tty`.
    pub tty: bool,
    /// `--interactive`.
    pub interactive: bool,
    /// `--platform`, lower case; empty is the host's.
    pub platform: String,
    /// `--name`; empty makes one up.
    pub name: String,
    /// `--isolation`; empty is the configured default.
    pub isolation: String,
}

impl RunOptions {
    pub(crate) fn read(parsed: &Parsed, caller: Caller) -> Result<Self, Fault> {
        let run = caller == Caller::Run;
        let detach = run && parsed.on("detach");
        let given = parsed.list("attach");
        if detach && !given.is_empty() {
            return Err(Fault::Plain("conflicting options: cannot specify both --attach and --detach".to_owned()));
        }
        let detach_keys = if run { parsed.filled("detach-keys") } else { None };
        Ok(Self {
            detach,
            remove: parsed.on("rm"),
            id_file: parsed.filled("cidfile").map(PathBuf::from),
            pull: parse_pull(parsed.text("pull"))?,
            quiet: parsed.on("quiet"),
            signal_proxy: run && parsed.switch("sig-proxy").unwrap_or(true),
            detach_keys: detach_keys.map(|text| DetachKeys::parse(&text)).transpose()?,
            attach: streams(given, detach, parsed.on("interactive")),
            tty: parsed.on("tty"),
            interactive: parsed.on("interactive"),
            platform: parse_platform(parsed.text("platform")).map_err(|why| match caller {
                Caller::Run => Fault::Flags(why),
                Caller::Create => Fault::Plain(why),
            })?,
            name: parsed.text("name").to_owned(),
            isolation: parsed.text("isolation").to_owned(),
        })
    }
}

fn streams(given: &[String], detach: bool, interactive: bool) -> Streams {
    let has = |name: &str| given.iter().any(|stream| stream.eq_ignore_ascii_case(name));
    match (detach, given.is_empty()) {
        (true, _) => Streams::default(),
        (false, true) => Streams { stdin: interactive, stdout: true, stderr: true },
        (false, false) => Streams { stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") },
    }
}

fn parse_pull(text: &str) -> Result<PullPolicy, String> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "" | "missing" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        _ => Err(format!("invalid pull option: '{text}': must be one of \"always\", \"missing\" or \"never\"")),
    }
}

/// `os[/arch[/variant]]`, in lower case.
///
/// # Errors
/// An empty part, a part with other letters than `A-Za-z0-9_.-`, or more than three parts.
pub(crate) fn parse_platform(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let wrong = |why: String| Err(format!("error parsing specified platform: {why}: invalid argument"));
    let lower = text.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    for part in &parts {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            let part = crate::quote::quote(part);
            let text = crate::quote::quote(text);
            return wrong(format!(
                "{part} is an invalid component of {text}: platform specifier component must match \
                 \"^[A-Za-z0-9_.-]+$\""
            ));
        }
    }
    if parts.len() > 3 {
        return wrong(format!("{}: cannot parse platform specifier", crate::quote::quote(text)));
    }
    Ok(lower)
}
