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

/// One kind of thing: what lists it, run by a shell inside the machine with `$MACHINE` as its folder, and what of each line
/// counts. The commands are few and bare, for in a nested machine every process costs more than what it does.
struct Section {
    title: &'static str,
    command: &'static str,
    counted: fn(&str) -> Option<String>,
}

const fn section(title: &'static str, command: &'static str, counted: fn(&str) -> Option<String>) -> Section {
    Section { title, command, counted }
}

const SECTIONS: [Section; 11] = [
    section("mounts", "cat /proc/self/mountinfo", mount),
    section("links", "ip -o link", |line| {
        let name = line.split(' ').nth(1)?;
        Some(name.split_once('@').map_or(name.to_owned(), |(name, _)| name.to_owned()))
    }),
    section("named network namespaces", "ls /run/netns 2>/dev/null || true", whole),
    section("addresses", "ip -o addr", |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // An address of the link alone comes and goes with the carrier of the bridge.
        (!fields.get(3)?.starts_with("fe80")).then(|| format!("{} {}", fields[1], fields[3]))
    }),
    // The cgroup `inside` is the machine's own; a controller's files are no directories.
    section("cgroups", "find /sys/fs/cgroup/ -mindepth 1 -type d ! -name inside || true", |line| {
        line.strip_prefix("/sys/fs/cgroup/").filter(|path| path.contains('/')).map(str::to_owned)
    }),
    section("processes", "echo $$; ps -eo pid=,ppid=,stat=,args=", whole),
    section("firewall", "nft -s list ruleset", |line| {
        let rule = line.split_once("# handle ").map_or(line, |(rule, _)| rule);
        Some(rule.trim_end().to_owned())
    }),
    section("loop devices", "losetup -l -n -O BACK-FILE; echo $MACHINE", whole),
    // Content of the image store is kept on purpose; a test that removes its images sees that too. So are machines to begin
    // with, of which there are as many as sizes.
    section(
        "files",
        "find \"$MACHINE/root\" \"$MACHINE/run\" -not -path '*/root/templates*' || true; echo $MACHINE",
        whole,
    ),
    section("sockets", "ss -Hltnup; cat /proc/net/unix", socket),
    section("shared memory", "ls /dev/shm", whole),
];

fn whole(line: &str) -> Option<String> {
    Some(line.to_owned())
}

/// Where it is and what is mounted (proc_pid_mountinfo(5)).
fn mount(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split(' ').collect();
    let point = *fields.get(4)?;
    (!point.starts_with("/run/netns")).then(|| format!("{point} {}", fields.last().unwrap_or(&"")))
}

/// One that listens, or an abstract one of the unix family.
fn socket(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    match fields.as_slice() {
        [_, _, _, _, _, _, _, path] if path.starts_with('@') => Some((*path).to_owned()),
        [family @ ("tcp" | "udp"), _, _, _, address, ..] => Some(format!("{family} {address}")),
        _ => None,
    }
}

/// Everything but the machine's first process, what keeps it alive, and what takes the census.
fn processes(lines: &[String]) -> Vec<String> {
    let Some((census, lines)) = lines.split_first() else { return Vec::new() };
    let counted = |line: &String| {
        let mut fields = line.split_whitespace();
        let (pid, parent) = (fields.next()?, fields.next()?);
        let rest: Vec<&str> = fields.collect();
        let expected = pid == "1" || pid == census || parent == census;
        let keeper = parent == "1" && rest.get(1) == Some(&"cat");
        (!expected && !keeper).then(|| rest.join(" "))
    };
    lines.iter().filter_map(counted).collect()
}

/// What is below the machine's folder, the last line, from there on.
fn below_the_last(lines: &[String]) -> Vec<String> {
    let Some((folder, lines)) = lines.split_last() else { return Vec::new() };
    lines.iter().filter(|line| line.starts_with(folder.as_str())).map(|line| line[folder.len()..].to_owned()).collect()
}

impl Census {
    /// Counts now.
    #[track_caller]
    pub fn take(machine: &Machine) -> Self {
        let mut script = format!("MACHINE='{}'\n", machine.at("").trim_end_matches('/'));
        for Section { title, command, .. } in SECTIONS {
            writeln!(script, "echo '=== {title}'\n{command}").expect("a string takes text");
        }
        let output = machine.sh(&script).expect_ok();
        let mut sections: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        let mut current = None;
        for line in output.stdout.lines() {
            if let Some(title) = line.strip_prefix("=== ") {
                current = SECTIONS.iter().find(|section| section.title == title);
            } else if let Some(section) = current
                && let Some(counted) = (section.counted)(line)
            {
                sections.entry(section.title).or_default().push(counted.trim().to_owned());
            }
        }
        for (section, lines) in &mut sections {
            match *section {
                "processes" => *lines = processes(lines),
                "files" | "loop devices" => *lines = below_the_last(lines),
                _ => {}
            }
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
        for Section { title, .. } in SECTIONS {
            let (before, after) = (self.lines(title), later.lines(title));
            let more = without(&after, &before).into_iter().map(|line| format!("  + {line}\n"));
            let less = without(&before, &after).into_iter().map(|line| format!("  - {line}\n"));
            let lines: Vec<String> = more.chain(less).collect();
            if !lines.is_empty() {
                text += &format!("{title}:\n{}", lines.concat());
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
