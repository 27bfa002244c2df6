//! Options of tmpfs mounts, checked and merged as Docker merges them.

use std::collections::BTreeSet;

use crate::host_config::TmpfsOptions;

/// Options with a value that the kernel's tmpfs takes (tmpfs(5)) and Docker lets through.
const VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
/// Flags, each with the group of those that exclude each other.
const FLAGS: [(&str, &str); 26] = [
    ("ro", "access"),
    ("rw", "access"),
    ("suid", "suid"),
    ("nosuid", "suid"),
    ("dev", "dev"),
    ("nodev", "dev"),
    ("exec", "exec"),
    ("noexec", "exec"),
    ("atime", "atime"),
    ("noatime", "atime"),
    ("diratime", "diratime"),
    ("nodiratime", "diratime"),
    ("relatime", "relatime"),
    ("norelatime", "relatime"),
    ("strictatime", "strictatime"),
    ("nostrictatime", "strictatime"),
    ("private", "propagation"),
    ("rprivate", "propagation"),
    ("shared", "propagation"),
    ("rshared", "propagation"),
    ("slave", "propagation"),
    ("rslave", "propagation"),
    ("sync", "sync"),
    ("async", "sync"),
    ("dirsync", "dirsync"),
    ("nosymfollow", "symfollow"),
];
/// What every tmpfs of a user starts from.
const DEFAULTS: [&str; 4] = ["noexec", "nosuid", "nodev", "rprivate"];

/// Docker's defaults under a comma-separated list; of options that exclude each other the last one holds.
pub(super) fn merge(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<&str> = DEFAULTS.into_iter().chain(text.split(',').filter(|word| !word.is_empty())).collect();
    let mut seen = BTreeSet::new();
    let mut merged = Vec::new();
    for word in words.into_iter().rev() {
        if word == "defaults" {
            continue;
        }
        if seen.insert(group(word)?) {
            merged.push(word.to_owned());
        }
    }
    merged.reverse();
    Ok(merged)
}

fn group(word: &str) -> Result<&str, String> {
    if let Some((_, group)) = FLAGS.iter().find(|(flag, _)| *flag == word) {
        return Ok(group);
    }
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    if value.is_empty() || !VALUES.contains(&name) {
        return Err(format!("invalid tmpfs option {name:?}"));
    }
    check_value(name, value).map_err(|reason| format!("invalid tmpfs option {word:?}: {reason}"))?;
    Ok(name)
}

fn check_value(name: &str, value: &str) -> Result<(), &'static str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match name {
        "mode" => match u32::from_str_radix(value, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(()),
            _ => Err("want permission bits in octal"),
        },
        "uid" | "gid" => value.parse::<u32>().map(drop).map_err(|_| "want a number"),
        "size" if value.ends_with('%') => match value.trim_end_matches('%').parse::<u8>() {
            Ok(1..=100) => Ok(()),
            _ => Err("want a share of the memory up to 100%"),
        },
        "size" | "nr_inodes" | "nr_blocks" => {
            let number = value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
            if digits(number) && value.len() - number.len() <= 1 {
                Ok(())
            } else {
                Err("want a number, or one with k, m or g")
            }
        }
        _ => Ok(()),
    }
}

/// The list that `--mount type=tmpfs` stands for.
pub(super) fn of_mount(options: Option<&TmpfsOptions>, read_only: bool) -> Result<String, String> {
    let mut words = Vec::new();
    if read_only {
        words.push("ro".to_owned());
    }
    if let Some(options) = options {
        if options.mode > 0o7777 {
            return Err(format!("invalid tmpfs mode {:o}", options.mode));
        }
        if options.mode != 0 {
            words.push(format!("mode={:o}", options.mode));
        }
        if options.size_bytes < 0 {
            return Err(format!("invalid tmpfs size {}", options.size_bytes));
        }
        if options.size_bytes != 0 {
            words.push(format!("size={}", size(options.size_bytes)));
        }
        for option in &options.options {
            match option.as_slice() {
                [flag] if matches!(flag.as_str(), "exec" | "noexec") => words.push(flag.clone()),
                [name] | [name, _] => return Err(format!("invalid option: {name}")),
                _ => return Err("invalid option array length".to_owned()),
            }
        }
    }
    Ok(words.join(","))
}

/// With the largest suffix that divides it, as Docker writes it.
fn size(bytes: i64) -> String {
    for (suffix, unit) in [("g", 1_i64 << 30), ("m", 1 << 20), ("k", 1 << 10)] {
        if bytes % unit == 0 {
            return format!("{}{suffix}", bytes / unit);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_excluding_options_holds() {
        for (text, expected) in [
            ("", "noexec,nosuid,nodev,rprivate"),
            ("defaults", "noexec,nosuid,nodev,rprivate"),
            ("exec", "nosuid,nodev,rprivate,exec"),
            ("size=64m,mode=1777", "noexec,nosuid,nodev,rprivate,size=64m,mode=1777"),
            ("size=1m,size=2m", "noexec,nosuid,nodev,rprivate,size=2m"),
            ("ro,rw", "noexec,nosuid,nodev,rprivate,rw"),
            ("rshared", "noexec,nosuid,nodev,rshared"),
            ("size=50%,uid=5,gid=0", "noexec,nosuid,nodev,rprivate,size=50%,uid=5,gid=0"),
        ] {
            assert_eq!(merge(text).unwrap().join(","), expected, "{text}");
        }
    }

    #[test]
    fn unknown_options_and_values_are_refused() {
        for text in [
            "huge=always",
            "foo",
            "size",
            "size=",
            "size=x",
            "size=0%",
            "size=101%",
            "mode=9",
            "mode=77777",
            "uid=-1",
            "gid=x",
            "bind",
            "unbindable",
            "remount",
            "nr_inodes=1mm",
        ] {
            assert!(merge(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_with_their_largest_suffix() {
        let options = |size_bytes| TmpfsOptions { size_bytes, mode: 0o1770, options: vec![vec!["exec".into()]] };
        assert_eq!(of_mount(Some(&options(1 << 31)), true).unwrap(), "ro,mode=1770,size=2g,exec");
        assert_eq!(of_mount(Some(&options(1000)), false).unwrap(), "mode=1770,size=1000,exec");
        assert!(of_mount(Some(&options(-1)), false).is_err());
        for bad in [
            vec!["suid".to_owned()],
            vec![],
            vec!["exec".into(), "yes".into()],
            vec!["a".into(), "b".into(), "c".into()],
        ] {
            let options = TmpfsOptions { options: vec![bad.clone()], ..TmpfsOptions::default() };
            assert!(of_mount(Some(&options), false).is_err(), "{bad:?}");
        }
    }
}
