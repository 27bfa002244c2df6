//! Device access: an ordered list of rules, of which the last that matches decides.
//!
//! v2 runs the list as a program (`device_program`). v1 knows a default and a set of exceptions to it, so the list is
//! first reduced to that (`Reduced`); the few lists that have no such form (a hole in the middle of a wildcard) are
//! refused, because the kernel would take them and then enforce something else.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use super::error::{Error, Result};
use super::limits::Phase;
use super::{Cgroup, device_program, files};
use crate::plan::{DeviceKind, DeviceRule};

/// The options that rules come from.
pub(super) const SETTING: &str = "--device, --device-cgroup-rule";

/// Access bits, as in `linux/bpf.h` (`BPF_DEVCG_ACC_*`).
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ALL_ACCESS: u8 = MKNOD | READ | WRITE;

/// A rule whose words have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    /// `None` means both kinds.
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

/// The kinds that devices have in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Character,
}

/// Enforces the rules. On a system with both, v1's controller is used where it is mounted.
pub(super) fn apply(cgroup: &Cgroup, rules: &[DeviceRule], phase: Phase) -> Result<()> {
    let rules = rules.iter().map(check).collect::<Result<Vec<Rule>>>()?;
    if let Some(place) = cgroup.places.iter().find(|place| place.has("devices")) {
        return apply_v1(&place.directory, &rules, phase);
    }
    match &cgroup.v2 {
        Some(directory) => device_program::attach(directory.as_fd(), &rules, phase),
        None => Err(Error::unsupported(SETTING, "no cgroup hierarchy has the devices controller")),
    }
}

/// Checks the words of a rule.
pub(super) fn check(rule: &DeviceRule) -> Result<Rule> {
    let bad = |reason: &str| Error::BadValue {
        setting: SETTING.to_owned(),
        value: describe(rule),
        reason: reason.to_owned(),
    };
    let kind = match rule.kind {
        None => None,
        Some(DeviceKind::Block) => Some(Kind::Block),
        Some(DeviceKind::Character) => Some(Kind::Character),
        Some(DeviceKind::Fifo) => return Err(bad("a FIFO is not subject to device rules")),
    };
    let mut access = 0;
    for letter in rule.access.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(bad("access is made of the letters r, w and m")),
        };
    }
    if access == 0 {
        return Err(bad("it names no access (some of r, w, m)"));
    }
    Ok(Rule { allow: rule.allow, kind, major: rule.major, minor: rule.minor, access })
}

fn describe(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        None => 'a',
        Some(DeviceKind::Block) => 'b',
        Some(DeviceKind::Character) => 'c',
        Some(DeviceKind::Fifo) => 'p',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let verb = if rule.allow { "allow" } else { "deny" };
    format!("{verb} {kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access)
}

/// What an exception is about. `None` is every number.
type Devices = (Kind, Option<u32>, Option<u32>);

/// A list of rules in v1's form (`security/device_cgroup.c`): what happens by default, and the exceptions with their
/// access bits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reduced {
    allow: bool,
    exceptions: BTreeMap<Devices, u8>,
}

impl Reduced {
    fn from_rules(rules: &[Rule]) -> Result<Reduced> {
        let mut reduced = Reduced { allow: true, exceptions: BTreeMap::new() };
        for rule in rules {
            if (rule.kind, rule.major, rule.minor, rule.access) == (None, None, None, ALL_ACCESS) {
                reduced = Reduced { allow: rule.allow, exceptions: BTreeMap::new() };
                continue;
            }
            for kind in rule.kind.map_or(vec![Kind::Block, Kind::Character], |kind| vec![kind]) {
                reduced.add(rule, (kind, rule.major, rule.minor))?;
            }
        }
        Ok(reduced)
    }

    fn add(&mut self, rule: &Rule, devices: Devices) -> Result<()> {
        if rule.allow != self.allow {
            *self.exceptions.entry(devices).or_insert(0) |= rule.access;
            return Ok(());
        }
        for (exception, access) in &mut self.exceptions {
            if *access & rule.access == 0 || !overlap(*exception, devices) {
                continue;
            }
            if !contains(devices, *exception) {
                return Err(hole(rule, *exception));
            }
            *access &= !rule.access;
        }
        self.exceptions.retain(|_, access| *access != 0);
        Ok(())
    }

    /// Reads `devices.list`; `None` when the default is to allow, because then it does not tell the exceptions.
    fn parse(list: &str) -> Option<Reduced> {
        let mut exceptions = BTreeMap::new();
        for line in list.lines() {
            let mut fields = line.split([' ', ':']);
            let kind = match fields.next()? {
                "b" => Kind::Block,
                "c" => Kind::Character,
                _ => return None,
            };
            let mut number = || match fields.next()? {
                "*" => Some(None),
                digits => digits.parse().ok().map(Some),
            };
            let (major, minor) = (number()?, number()?);
            let access = fields.next()?.chars().fold(0, |access, letter| {
                access
                    | match letter {
                        'r' => READ,
                        'w' => WRITE,
                        _ => MKNOD,
                    }
            });
            exceptions.insert((kind, major, minor), access);
        }
        Some(Reduced { allow: false, exceptions })
    }
}

fn overlap(a: Devices, b: Devices) -> bool {
    let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    a.0 == b.0 && meet(a.1, b.1) && meet(a.2, b.2)
}

fn contains(outer: Devices, inner: Devices) -> bool {
    let holds = |outer: Option<u32>, inner: Option<u32>| outer.is_none() || outer == inner;
    outer.0 == inner.0 && holds(outer.1, inner.1) && holds(outer.2, inner.2)
}

fn hole(rule: &Rule, exception: Devices) -> Error {
    let verb = if rule.allow { "allow" } else { "deny" };
    let kind = rule.kind.unwrap_or(exception.0);
    let value = format!("{verb} {}", line((kind, rule.major, rule.minor), rule.access));
    let reason = format!("cgroup v1 cannot make an exception from the wider rule for {}", line(exception, ALL_ACCESS));
    Error::BadValue { setting: SETTING.to_owned(), value, reason }
}

/// An exception as `devices.allow` and `devices.deny` take it.
fn line((kind, major, minor): Devices, access: u8) -> String {
    let kind = match kind {
        Kind::Block => 'b',
        Kind::Character => 'c',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    let letters: String = letters.into_iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect();
    format!("{kind} {}:{} {letters}", number(major), number(minor))
}

/// What is to be written to `devices.deny` and `devices.allow`, in order.
type Step = (&'static str, String);

fn apply_v1(directory: &Path, rules: &[Rule], phase: Phase) -> Result<()> {
    let wanted = Reduced::from_rules(rules)?;
    let current = match phase {
        Phase::Fresh => None,
        Phase::Live => Reduced::parse(&files::read(&directory.join("devices.list"))?),
    };
    run(directory, &steps(&wanted, current.as_ref()))
}

/// From what is in force to what is wanted. A default of "deny" that stays is changed by differences, so that no
/// running process is for a moment denied what it may do before and after.
fn steps(wanted: &Reduced, current: Option<&Reduced>) -> Vec<Step> {
    let (default, exception) = match wanted.allow {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    let nothing = BTreeMap::new();
    let same = current.filter(|current| current.allow == wanted.allow).map(|current| &current.exceptions);
    let mut steps = Vec::new();
    if same.is_none() {
        steps.push((default, "a".to_owned()));
    }
    let current = same.unwrap_or(&nothing);
    for (devices, access) in &wanted.exceptions {
        let added = access & !current.get(devices).copied().unwrap_or(0);
        if added != 0 {
            steps.push((exception, line(*devices, added)));
        }
    }
    for (devices, access) in current {
        let removed = access & !wanted.exceptions.get(devices).copied().unwrap_or(0);
        if removed != 0 {
            steps.push((default, line(*devices, removed)));
        }
    }
    steps
}

/// Each file is opened once; the kernel takes one rule in each write(2).
fn run(directory: &Path, steps: &[Step]) -> Result<()> {
    let mut open: BTreeMap<&str, std::fs::File> = BTreeMap::new();
    for (name, line) in steps {
        if !open.contains_key(name) {
            let path = directory.join(name);
            let file = OpenOptions::new().write(true).open(&path).map_err(Error::io("open", &path))?;
            open.insert(name, file);
        }
        if let Some(file) = open.get_mut(name) {
            let written = file.write_all(line.as_bytes());
            written.map_err(|source| files::refused(SETTING, directory, name, line, source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `allow c 1:3 rwm`, as rules are written in these tests.
    pub(in crate::cgroup) fn rule(text: &str) -> DeviceRule {
        let fields: Vec<&str> = text.split([' ', ':']).collect();
        let kind = match fields[1] {
            "b" => Some(DeviceKind::Block),
            "c" => Some(DeviceKind::Character),
            "p" => Some(DeviceKind::Fifo),
            _ => None,
        };
        let (major, minor) = (fields[2].parse().ok(), fields[3].parse().ok());
        DeviceRule { allow: fields[0] == "allow", kind, major, minor, access: fields[4].to_owned() }
    }

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| check(&rule(text)).unwrap()).collect()
    }

    fn written(texts: &[&str], current: Option<&str>) -> Vec<String> {
        let current = current.and_then(Reduced::parse);
        let steps = steps(&Reduced::from_rules(&rules(texts)).unwrap(), current.as_ref());
        steps.into_iter().map(|(file, line)| format!("{} {line}", file.trim_start_matches("devices."))).collect()
    }

    #[test]
    fn a_new_cgroup_denies_all_then_allows() {
        let texts = ["deny a *:* rwm", "allow c *:* m", "allow c 1:3 rw", "allow c 1:3 m", "allow b 8:* r"];
        assert_eq!(written(&texts, None), ["deny a", "allow b 8:* r", "allow c *:* m", "allow c 1:3 rwm"]);
    }

    #[test]
    fn later_rules_win() {
        assert_eq!(written(&["deny a *:* rwm", "allow c 1:3 rwm", "deny c 1:* w"], None), ["deny a", "allow c 1:3 rm"]);
        assert_eq!(written(&["deny c 1:3 rwm", "allow a *:* rwm"], None), ["allow a"]);
        assert_eq!(written(&["deny b 8:0 w"], None), ["allow a", "deny b 8:0 w"]);
        assert_eq!(written(&["deny a *:* rwm", "allow a 5:1 r"], None), ["deny a", "allow b 5:1 r", "allow c 5:1 r"]);
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused_with_both_rules() {
        let error = Reduced::from_rules(&rules(&["deny a *:* rwm", "allow c 1:* rwm", "deny c 1:3 w"])).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("deny c 1:3 w") && error.contains("c 1:* rwm"), "{error}");
        // Other access of the same devices is no hole.
        Reduced::from_rules(&rules(&["deny a *:* rwm", "allow c *:* m", "deny c 1:3 w"])).unwrap();
    }

    #[test]
    fn a_live_cgroup_changes_by_differences() {
        let current = "c *:* m\nc 1:3 rwm\nc 5:1 rw\n";
        let wanted = ["deny a *:* rwm", "allow c *:* m", "allow c 1:3 r", "allow c 9:9 r"];
        assert_eq!(written(&wanted, Some(current)), ["allow c 9:9 r", "deny c 1:3 wm", "deny c 5:1 rw"]);
        assert_eq!(written(&["deny a *:* rwm"], Some("a *:* rwm\n")), ["deny a"]);
    }

    #[test]
    fn bad_rules_are_named() {
        for (text, part) in [("allow p 1:3 r", "FIFO"), ("allow c 1:3 x", "letters"), ("deny c 1:3 ", "no access")] {
            let error = check(&rule(text)).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("1:3"), "{error}");
        }
    }
}
