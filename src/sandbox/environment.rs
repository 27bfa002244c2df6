//! The environment of a container's processes, merged as Docker merges it.

use crate::config::Config;

/// The search path where nobody sets one (the same as Docker's on Linux).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a process has a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// Pipes or files.
    Streams,
    /// A pseudo-terminal: `TERM=xterm` is added.
    Terminal,
}

/// The environment of the first process: Docker's own variables under those of `config`.
pub fn of_container(config: &Config, stdio: Stdio) -> Vec<String> {
    let mut environment = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={}", config.hostname)];
    if stdio == Stdio::Terminal {
        environment.push("TERM=xterm".to_owned());
    }
    merge(environment, &config.env)
}

/// Puts `overrides` over `base`: `NAME=value` replaces or is added, a bare `NAME` removes.
pub fn merge(base: Vec<String>, overrides: &[String]) -> Vec<String> {
    let mut merged: Vec<Option<String>> = base.into_iter().map(Some).collect();
    for entry in overrides {
        let name = name_of(entry);
        let place = merged.iter().position(|kept| kept.as_deref().is_some_and(|kept| name_of(kept) == name));
        let value = entry.contains('=').then(|| entry.clone());
        match (place, value) {
            (Some(index), value) => merged[index] = value,
            (None, Some(value)) => merged.push(Some(value)),
            (None, None) => {}
        }
    }
    merged.into_iter().flatten().collect()
}

/// The part before the first `=`.
pub fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn overrides_replace_in_place_add_at_the_end_and_remove() {
        let cases: [(&[&str], &[&str], &[&str]); 6] = [
            (&["A=1", "B=2"], &["A=3"], &["A=3", "B=2"]),
            (&["A=1"], &["C=4", "C=5"], &["A=1", "C=5"]),
            (&["A=1", "B=2"], &["A"], &["B=2"]),
            (&["A=1"], &["B"], &["A=1"]),
            (&["A=1"], &["A="], &["A="]),
            (&["A=1"], &["A", "A=2"], &["A=2"]),
        ];
        for (base, overrides, expected) in cases {
            assert_eq!(merge(strings(base), &strings(overrides)), strings(expected), "{base:?} {overrides:?}");
        }
    }

    #[test]
    fn a_container_has_a_path_a_host_name_and_with_a_terminal_its_type() {
        let config = Config { hostname: "box".into(), env: strings(&["PATH=/bin", "X=y"]), ..Config::default() };
        assert_eq!(of_container(&config, Stdio::Streams), strings(&["PATH=/bin", "HOSTNAME=box", "X=y"]));
        assert_eq!(of_container(&config, Stdio::Terminal)[2], "TERM=xterm");
        let bare = Config { env: strings(&["TERM", "PATH"]), ..config };
        assert_eq!(of_container(&bare, Stdio::Terminal), strings(&["HOSTNAME=box"]));
    }
}
