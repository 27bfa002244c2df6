//! Dockerfile instructions that change a configuration: `--change` of `import` and `commit`.

mod words;

use std::collections::BTreeMap;

use sbx_sandbox::config::{Config, Empty, Healthcheck};

use crate::error::{Error, Result};

/// The shell of the shell form where the image has none of its own.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies Dockerfile instructions (`CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME
/// WORKDIR`) to a configuration; for `import` and `commit`.
///
/// # Errors
/// Names the instruction and what is wrong with it; the configuration may be half changed then.
pub fn apply_changes(config: &mut Config, changes: &[String]) -> Result<()> {
    let mut cmd_was_set = false;
    for text in changes {
        let fail = |problem: String| Error::Change { text: text.chars().take(200).collect(), problem };
        let trimmed = text.trim();
        let (name, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        let rest = rest.trim();
        let name = name.to_ascii_uppercase();
        let outcome = if rest.is_empty() {
            Err(match is_known(&name) {
                true => format!("{name} requires at least one argument"),
                false => format!("{name} is not a valid change command"),
            })
        } else if name == "ENTRYPOINT" {
            config.entrypoint = Some(command(rest, config)).filter(|words| !words.is_empty());
            if !cmd_was_set {
                // What was the default argument of another entry point means nothing to this one.
                config.cmd = None;
            }
            Ok(())
        } else {
            cmd_was_set |= name == "CMD";
            apply(config, &name, rest)
        };
        outcome.map_err(fail)?;
    }
    Ok(())
}

fn is_known(name: &str) -> bool {
    matches!(
        name,
        "CMD"
            | "ENTRYPOINT"
            | "ENV"
            | "EXPOSE"
            | "HEALTHCHECK"
            | "LABEL"
            | "ONBUILD"
            | "STOPSIGNAL"
            | "USER"
            | "VOLUME"
            | "WORKDIR"
    )
}

fn apply(config: &mut Config, name: &str, rest: &str) -> std::result::Result<(), String> {
    match name {
        "CMD" => config.cmd = Some(command(rest, config)),
        "ENV" => {
            for (key, value) in pairs(rest, &config.env)? {
                set_env(&mut config.env, &key, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest, &config.env)?),
        "EXPOSE" => {
            for word in words::split(rest)? {
                expose(&mut config.exposed_ports, &words::expand(word, &config.env)?)?;
            }
        }
        "VOLUME" => {
            for volume in list(rest, &config.env)? {
                if volume.trim().is_empty() {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                config.volumes.insert(volume, Empty {});
            }
        }
        "USER" => config.user = one(rest, &config.env)?,
        "WORKDIR" => {
            let dir = words::expand(rest, &config.env)?;
            config.working_dir = join(&config.working_dir, &dir);
        }
        "STOPSIGNAL" => {
            let signal = one(rest, &config.env)?;
            if !is_signal(&signal) {
                return Err(format!("invalid signal: {signal}"));
            }
            config.stop_signal = signal;
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match trigger.as_str() {
                "ONBUILD" => {
                    return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned());
                }
                "FROM" | "MAINTAINER" => {
                    return Err(format!("{trigger} isn't allowed as an ONBUILD trigger"));
                }
                _ => config.on_build.push(rest.to_owned()),
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest, config)?),
        other => return Err(format!("{other} is not a valid change command")),
    }
    Ok(())
}

/// The exec form (a JSON array of strings) as it is; anything else is the shell's.
fn command(rest: &str, config: &Config) -> Vec<String> {
    serde_json::from_str(rest).unwrap_or_else(|_| {
        let mut words: Vec<String> = match config.shell.is_empty() {
            true => SHELL.map(str::to_owned).to_vec(),
            false => config.shell.clone(),
        };
        words.push(rest.to_owned());
        words
    })
}

/// A JSON array of strings, or words.
fn list(rest: &str, env: &[String]) -> std::result::Result<Vec<String>, String> {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(items) => items.iter().map(|item| words::expand(item, env)).collect(),
        Err(_) => words::split(rest)?.into_iter().map(|word| words::expand(word, env)).collect(),
    }
}

fn one(rest: &str, env: &[String]) -> std::result::Result<String, String> {
    match words::split(rest)?[..] {
        [word] => words::expand(word, env),
        _ => Err("it requires exactly one argument".to_owned()),
    }
}

/// `key=value key="value"`, or the old form `key the rest`.
fn pairs(rest: &str, env: &[String]) -> std::result::Result<Vec<(String, String)>, String> {
    let words = words::split(rest)?;
    let first = words.first().copied().unwrap_or_default();
    let raw: Vec<(&str, &str)> = if first.contains('=') {
        let halves = words
            .iter()
            .copied()
            .map(|word| word.split_once('=').ok_or_else(|| format!("Syntax error - can't find = in \"{word}\"")));
        halves.collect::<std::result::Result<_, _>>()?
    } else {
        let value = rest.strip_prefix(first).unwrap_or_default().trim_start();
        if value.is_empty() {
            return Err("it must have two arguments".to_owned());
        }
        vec![(first, value)]
    };
    let expanded = raw.into_iter().map(|(key, value)| {
        let key = words::expand(key, env)?;
        if key.is_empty() {
            return Err("names can not be blank".to_owned());
        }
        Ok((key, words::expand(value, env)?))
    });
    expanded.collect()
}

/// Replaces a variable where it stands, or adds it at the end.
fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    match env.iter_mut().find(|have| have.split('=').next() == Some(key)) {
        Some(have) => *have = entry,
        None => env.push(entry),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn expose(ports: &mut BTreeMap<String, Empty>, spec: &str) -> std::result::Result<(), String> {
    let invalid = || format!("Invalid containerPort: {spec}");
    let (range, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("Invalid proto: {protocol}"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(invalid);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(invalid());
    }
    ports.extend((first..=last).map(|port| (format!("{port}/{protocol}"), Empty {})));
    Ok(())
}

/// A relative directory lies in the one before; `.` and `..` are resolved by name, as Docker stores it.
fn join(base: &str, dir: &str) -> String {
    let whole = if dir.starts_with('/') { dir.to_owned() } else { format!("{base}/{dir}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A number from 1 to 64, or a name with or without `SIG` (signal(7)).
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((base, offset)) = name.split_once(['+', '-']) {
        return matches!(base, "RTMIN" | "RTMAX") && offset.parse::<u8>().is_ok_and(|n| n <= 30);
    }
    const NAMES: [&str; 37] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
        "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN",
        "TTOU", "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    NAMES.contains(&name)
}

/// `NONE`, or `[--interval=…] [--timeout=…] [--start-period=…] [--start-interval=…] [--retries=…] CMD …`.
fn healthcheck(rest: &str, config: &Config) -> std::result::Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, tail) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = tail.trim_start();
        let (key, value) = flag.split_once('=').ok_or_else(|| format!("Missing a value on flag: --{flag}"))?;
        let target = match key {
            "interval" => &mut check.interval,
            "timeout" => &mut check.timeout,
            "start-period" => &mut check.start_period,
            "start-interval" => &mut check.start_interval,
            "retries" => {
                let retries = value.parse().ok().filter(|n: &i64| (0..=i64::from(i32::MAX)).contains(n));
                check.retries = retries.ok_or_else(|| format!("--retries must be at least 1 (not \"{value}\")"))?;
                continue;
            }
            other => return Err(format!("Unknown flag: --{other}")),
        };
        *target = duration(value).ok_or_else(|| format!("invalid duration \"{value}\" of --{key}"))?;
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    check.test = match (kind.to_ascii_uppercase().as_str(), command.is_empty()) {
        ("NONE", true) => vec!["NONE".to_owned()],
        ("NONE", false) => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        ("CMD", true) => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        ("CMD", false) => match serde_json::from_str::<Vec<String>>(command) {
            Ok(words) if words.is_empty() => {
                return Err("Missing command after HEALTHCHECK CMD".to_owned());
            }
            Ok(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
            Err(_) if config.shell.is_empty() => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            Err(_) => {
                let shell = ["CMD".to_owned()].into_iter().chain(config.shell.iter().cloned());
                shell.chain([command.to_owned()]).collect()
            }
        },
        (other, _) => return Err(format!("Unknown type \"{other}\" in HEALTHCHECK (try CMD)")),
    };
    Ok(check)
}

/// Go's durations, `1m30.5s`, in nanoseconds; 0 or at least 1 ms.
fn duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let unit = match &tail[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &tail[unit_end..];
    }
    (!text.is_empty() && (total == 0.0 || (1e6..9e18).contains(&total))).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<Config> {
        let mut config = Config::default();
        let changes: Vec<String> = changes.iter().map(|text| (*text).to_owned()).collect();
        apply_changes(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn every_instruction_has_its_effect() {
        let config = changed(&[
            "ENV A=1 B=\"two words\"",
            "ENV C three words",
            "env A=$B",
            "CMD [\"echo\", \"hi\"]",
            "WORKDIR /srv",
            "WORKDIR app/../$C",
            "EXPOSE 80 53/udp 8000-8002",
            "LABEL a=b 'c d'=\"e f\"",
            "VOLUME /data /more",
            "VOLUME [\"/a b\"]",
            "USER 1000:${GROUP:-100}",
            "STOPSIGNAL SIGQUIT",
            "ONBUILD RUN make",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://localhost/",
        ])
        .unwrap();
        assert_eq!(config.env, ["A=two words", "B=two words", "C=three words"]);
        assert_eq!(config.cmd.unwrap(), ["echo", "hi"]);
        assert_eq!(config.working_dir, "/srv/three words");
        let ports: Vec<&str> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!((config.labels["a"].as_str(), config.labels["c d"].as_str()), ("b", "e f"));
        assert!(config.volumes.contains_key("/a b") && config.volumes.contains_key("/more"));
        assert_eq!((config.user.as_str(), config.stop_signal.as_str()), ("1000:100", "SIGQUIT"));
        assert_eq!(config.on_build, ["RUN make"]);
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f http://localhost/"]);
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
    }

    #[test]
    fn forms_of_commands() {
        assert_eq!(changed(&["CMD echo $HOME"]).unwrap().cmd.unwrap(), ["/bin/sh", "-c", "echo $HOME"]);
        let config = changed(&["CMD [\"x\"]", "ENTRYPOINT [\"/init\"]"]).unwrap();
        assert_eq!((config.cmd.unwrap(), config.entrypoint.unwrap()), (vec!["x".to_owned()], vec!["/init".to_owned()]));
        let mut inherited = Config { cmd: Some(vec!["old".into()]), ..Config::default() };
        apply_changes(&mut inherited, &["ENTRYPOINT []".to_owned()]).unwrap();
        assert_eq!((inherited.cmd, inherited.entrypoint), (None, None));
        assert_eq!(changed(&["HEALTHCHECK NONE"]).unwrap().healthcheck.unwrap().test, ["NONE"]);
    }

    #[test]
    fn bad_instructions_are_named() {
        for (bad, words) in [
            ("RUN make", "RUN is not a valid change command"),
            ("", "not a valid change command"),
            ("CMD", "requires at least one argument"),
            ("ENV A", "two arguments"),
            ("ENV A=1 B", "can't find ="),
            ("ENV =1", "can not be blank"),
            ("LABEL a=\"b", "not closed"),
            ("EXPOSE 0", "Invalid containerPort"),
            ("EXPOSE 70000", "Invalid containerPort"),
            ("EXPOSE 9-8", "Invalid containerPort"),
            ("EXPOSE 80/icmp", "Invalid proto"),
            ("STOPSIGNAL SIGFOO", "invalid signal"),
            ("STOPSIGNAL 65", "invalid signal"),
            ("USER a b", "exactly one"),
            ("VOLUME [\"\"]", "empty string"),
            ("ONBUILD FROM x", "isn't allowed"),
            ("HEALTHCHECK CMD", "Missing command"),
            ("HEALTHCHECK --interval=5 CMD true", "invalid duration"),
            ("HEALTHCHECK --interval=1us CMD true", "invalid duration"),
            ("HEALTHCHECK --foo=1s CMD true", "Unknown flag"),
            ("HEALTHCHECK true", "Unknown type"),
        ] {
            let error = changed(&[bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("--change \"{bad}\"")) && error.contains(words), "{error}");
        }
    }
}
