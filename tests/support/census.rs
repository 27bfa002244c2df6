//! A census of everything on a machine that a container engine could leave behind.
//!
//! Each section is a sorted list of lines; two censuses are compared line by line, and what differs is what leaked (or
//! went missing). The machine's namespaces make it exact: whatever is seen, `sbx` made.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::machine::Machine;

/// Everything there is, section by section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census(BTreeMap<&'static str, Vec<String>>);

/// Section and the shell command that lists it, run inside the machine with `$MACHINE` as its folder.
const SECTIONS: [(&str, &str); 11] = [
    (
        "mounts",
        "sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | awk '$2 !~ /^\\/run\\/netns/ { print $2, $NF }'",
    ),
    ("links", "ip -o link | awk '{ sub(/@.*/, \"\", $2); print $2 }'"),
    ("named network namespaces", "ls /run/netns 2>/dev/null || true"),
    // An address of the link alone comes and goes with the carrier of the bridge.
    ("addresses", "ip -o addr | awk '$4 !~ /^fe80/ { print $2, $4 }'"),
    // The cgroup `inside` is the machine's own; a controller's files are no directories.
    (
        "cgroups",
        "find /sys/fs/cgroup/ -mindepth 1 -type d ! -name inside | sed 's|^/sys/fs/cgroup/||' | grep / || true",
    ),
    // Its first process, what keeps it alive, and what takes the census.
    (
        "processes",
        "ps -eo pid=,ppid=,stat=,args= | awk -v me=$$ '!($1 == 1 || $1 == me || $2 == me || ($2 == 1 && $4 == \"cat\")) { $1 = $2 = \"\"; print }'",
    ),
    ("firewall", "nft -s list ruleset | sed 's/[[:space:]]*# handle [0-9]*$//'"),
    ("loop devices", "losetup -l -n -O BACK-FILE | grep -F \"$MACHINE\" || true"),
    // Content of the image store is kept on purpose; a test that removes its images sees that too. So are machines to begin
    // with, of which there are as many as sizes.
    ("files", "find \"$MACHINE/root\" \"$MACHINE/run\" -not -path '*/root/templates*' | sed \"s|^$MACHINE/||\""),
    ("sockets", "ss -Hltnup | awk '{ print $1, $5 }'; awk 'NR > 1 && $8 ~ /^@/ { print $8 }' /proc/net/unix"),
    ("shared memory", "ls /dev/shm"),
];

impl Census {
    /// Counts now.
    #[track_caller]
    pub fn take(machine: &Machine) -> Self {
        let mut script = format!("MACHINE='{}'\n", machine.at("").trim_end_matches('/'));
        for (section, command) in SECTIONS {
            writeln!(script, "echo '=== {section}'\n{command}").expect("a string takes text");
        }
        let output = machine.sh(&script).expect_ok();
        let mut sections: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut current = None;
        for line in output.stdout.lines() {
            if let Some(title) = line.strip_prefix("=== ") {
                current = SECTIONS.iter().map(|(section, _)| *section).find(|section| *section == title);
            } else if let Some(section) = current {
                sections.entry(section).or_default().push(line.trim().to_owned());
            }
        }
        for (section, lines) in &mut sections {
            // The order of firewall rules means something, that of everything else does not.
            if *section != "firewall" {
                lines.sort();
            }
        }
        Self(sections)
    }

    /// Counts when two counts in a row agree, so that what is still going away is not taken for the normal state.
    #[track_caller]
    pub fn settled(machine: &Machine) -> Self {
        let mut last = Self::take(machine);
        for _ in 0..50 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let now = Self::take(machine);
            if now == last {
                return now;
            }
            last = now;
        }
        last
    }

    /// What a later census has and this one has not (`+`), and the other way round (`-`). Empty when they agree.
    pub fn difference(&self, later: &Self) -> String {
        let mut text = String::new();
        for (section, _) in SECTIONS {
            let (before, after) = (self.lines(section), later.lines(section));
            let more = without(&after, &before).into_iter().map(|line| format!("  + {line}\n"));
            let less = without(&before, &after).into_iter().map(|line| format!("  - {line}\n"));
            let lines: Vec<String> = more.chain(less).collect();
            if !lines.is_empty() {
                text += &format!("{section}:\n{}", lines.concat());
            }
        }
        text
    }

    fn lines(&self, section: &str) -> Vec<String> {
        self.0.get(section).cloned().unwrap_or_default()
    }
}

/// Lines of the first list that the second does not have as often.
fn without(lines: &[String], other: &[String]) -> Vec<String> {
    let mut left = other.to_vec();
    let mut more = Vec::new();
    for line in lines {
        match left.iter().position(|candidate| candidate == line) {
            Some(at) => drop(left.swap_remove(at)),
            None => more.push(line.clone()),
        }
    }
    more
}
