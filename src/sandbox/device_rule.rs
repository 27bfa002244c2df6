//! Docker's device rules: `c 42:* rwm`.

use sbx_container::plan::DeviceKind;

/// A rule that allows access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Kind of the devices.
    pub kind: KindOrAll,
    /// `None` is every major number.
    pub major: Option<u32>,
    /// `None` is every minor number.
    pub minor: Option<u32>,
    /// Some of `r`, `w`, `m`.
    pub access: String,
}

/// A kind of devices, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindOrAll {
    /// `a`
    All,
    /// `b`, `c`
    Kind(DeviceKind),
}

/// A text that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid device cgroup rule format: '{0}' (want for example 'c 42:* rwm')")]
pub struct InvalidRule(pub String);

/// Parses `TYPE MAJOR:MINOR ACCESS`.
pub fn parse(text: &str) -> Result<Rule, InvalidRule> {
    read(text).ok_or_else(|| InvalidRule(text.to_owned()))
}

fn read(text: &str) -> Option<Rule> {
    let mut words = text.split(' ');
    let kind = match words.next()? {
        "a" => KindOrAll::All,
        "b" => KindOrAll::Kind(DeviceKind::Block),
        "c" => KindOrAll::Kind(DeviceKind::Character),
        _ => return None,
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let access = words.next()?;
    if words.next().is_some() || !is_access(access) {
        return None;
    }
    Some(Rule { kind, major: number(major)?, minor: number(minor)?, access: access.to_owned() })
}

/// Whether a text is made of one to three of `r`, `w`, `m`.
pub fn is_access(access: &str) -> bool {
    (1..=3).contains(&access.len()) && access.bytes().all(|byte| b"rwm".contains(&byte))
}

fn number(text: &str) -> Option<Option<u32>> {
    if text == "*" {
        return Some(None);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_nonsense_is_refused() {
        let rule = parse("c 42:* rm").unwrap();
        assert_eq!((rule.kind, rule.major, rule.minor), (KindOrAll::Kind(DeviceKind::Character), Some(42), None));
        assert_eq!(rule.access, "rm");
        assert_eq!(parse("a *:* rwm").unwrap().kind, KindOrAll::All);
        for text in [
            "",
            "c",
            "c 1:2",
            "x 1:2 r",
            "c 1 r",
            "c 1:2 x",
            "c 1:2 rwmr",
            "c 1:2 r ",
            "c  1:2 r",
            "c +1:2 r",
            "c 99999999999:1 r",
        ] {
            assert_eq!(parse(text), Err(InvalidRule(text.into())), "{text}");
        }
    }
}
