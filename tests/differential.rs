//! The same image and flags under sbx, Docker and runc: what does the process see?
//!
//! `tests/probe.sh` prints it line by line; the lines are normalised and compared. Every difference must stand, with
//! its reason, in the table of `docs/differences.md`; an entry marked `always` that no difference matches is an error
//! too, so that the table stays true.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use support::machine::Mode;
use support::peer::{Peer, docker, start_dockerd};
use support::{BUSYBOX, Image, Machine, each_mode, installed, skip};

const PROBE: &str = include_str!("probe.sh");

/// Flags under which Docker and sbx are compared.
const FLAG_SETS: &[&[&str]] = &[
    &[],
    &["--network", "none"],
    &["--network", "host"],
    &["--read-only"],
    &["--init"],
    &["-u", "alice"],
    &["-u", "1234:5678", "--group-add", "audio"],
    &["-m", "64m", "--cpus", "0.5", "--cpu-shares", "512", "--pids-limit", "100", "--cpuset-cpus", "0"],
    &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"],
    &["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"],
    &["--hostname", "named", "--dns", "192.0.2.53", "--add-host", "db:10.0.0.1"],
    &["--tmpfs", "/scratch:size=1m", "--shm-size", "32m", "-v", "/anonymous"],
    &["--ulimit", "nofile=100:200", "--oom-score-adj", "100", "--sysctl", "net.core.somaxconn=99"],
    &["--device", "/dev/loop-control", "-w", "/tmp", "-e", "A=b"],
    &["--pid", "host", "--ipc", "host", "--uts", "host"],
    &["-t"],
];

/// What a process saw: each line, as often as it came.
type Seen = BTreeSet<String>;

/// One row of the table of differences.
struct Explained {
    /// The peer that it is about.
    peer: String,
    /// Lines of the peer alone, or of sbx alone; `*` stands for anything.
    pattern: String,
    /// Must be found in every run.
    always: bool,
}

fn explained() -> Vec<Explained> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/differences.md");
    let text = fs::read_to_string(path).expect("docs/differences.md");
    // Behind the first section it is about other things.
    let table = text.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "a row of docs/differences.md has four cells: {row}");
        assert!(cells[3].len() > 20, "a difference without a reason: {row}");
        assert!(["always", "sometimes"].contains(&cells[2]), "always or sometimes: {row}");
        let (peer, pattern) = (cells[1].to_owned(), cells[0].trim_matches('`').to_owned());
        Explained { peer, pattern, always: cells[2] == "always" }
    })
    .collect()
}

/// Whether a line matches a pattern in which `*` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (n, part) in parts.iter().enumerate() {
        let place = if n + 1 == parts.len() {
            rest.len().checked_sub(part.len()).filter(|_| rest.ends_with(part))
        } else {
            rest.find(part)
        };
        let Some(at) = place else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Signals 32 and 33 are the C library's own. Whoever starts the tests may ignore them, and Docker and runc hand that on to
/// their containers: a fact of the test's surroundings.
fn without_reserved_signals(line: &str) -> String {
    let ignored = line.strip_prefix("status SigIgn ").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.map_or_else(|| line.to_owned(), |mask| format!("status SigIgn {:016x}", mask & !(3 << 31)))
}

/// Takes out what is different every time: ids, addresses, the parts of MAC addresses.
fn normalised(text: &str, id: &str) -> Seen {
    let short = &id[..id.len().min(12)];
    let own =
        text.lines().find_map(|line| line.strip_prefix("address eth0 inet ")).and_then(|cidr| cidr.split('/').next());
    let own6 = text.lines().find_map(|line| line.strip_prefix("address eth0 inet6 fd"));
    let own6 = own6.and_then(|cidr| cidr.split('/').next()).map(|rest| format!("fd{rest}"));
    let prefix6 = own6.as_ref().and_then(|address| address.split("::").next());
    let gateway =
        text.lines().find_map(|line| line.strip_prefix("route default via ")).and_then(|rest| rest.split(' ').next());
    let mut seen = Seen::new();
    for line in text.lines() {
        let mut line = without_reserved_signals(&line.replace(id, "ID").replace(short, "SHORT"));
        for (address, name) in [(own, "OWN"), (gateway, "GATEWAY"), (own6.as_deref(), "OWN6"), (prefix6, "PREFIX6")] {
            if let Some(address) = address {
                line = line.split(' ').map(|word| word.replace(address, name)).collect::<Vec<_>>().join(" ");
            }
        }
        if line.starts_with("address eth0 inet6 fe80") || line.starts_with("route6") {
            line = line
                .split(' ')
                .map(|word| if word.starts_with("fe80::") { "LINKLOCAL" } else { word })
                .collect::<Vec<_>>()
                .join(" ");
        }
        seen.insert(line.trim_end().to_owned());
    }
    seen
}

/// The first namespaces of any kernel, those of the agent of a virtual machine (include/linux/proc_ns.h). Their numbers there have
/// nothing to do with the host's, whose others they may happen to have.
const OF_ANY_KERNEL: &str =
    "cgroup:[4026531835] ipc:[4026531839] pid:[4026531836] time:[4026531834] user:[4026531837] uts:[4026531838]";

/// The namespaces outside of a container, as the probe is told of them.
fn outer_namespaces(m: &Machine) -> String {
    if m.mode() == Mode::Vm {
        return format!("OUTER={OF_ANY_KERNEL}");
    }
    let kinds = "cgroup ipc mnt net pid time user uts";
    let all = m.sh(&format!("for kind in {kinds}; do readlink /proc/self/ns/$kind; done")).expect_ok();
    format!("OUTER={}", all.stdout.replace('\n', " ").trim())
}

/// What Docker or sbx shows under some flags.
fn seen_by(m: &Machine, peer: Peer, flags: &[&str], outer: &str) -> Seen {
    let file = m.at("cid");
    let args = [&["create", "--cidfile", &file, "-e", outer], flags, &[BUSYBOX, "sh", "-c", PROBE]].concat();
    let run = |args: &[&str]| if peer.is_sbx() { m.sbx(args) } else { docker(m, args) };
    run(&args).expect_ok();
    let id = fs::read_to_string(m.path("cid")).expect("the id");
    let output = run(&["start", "-a", &id]);
    assert!(output.stdout.contains("hostname "), "the probe did not come to its end under {peer:?}\n{output}");
    run(&["rm", "-f", "-v", &id]).expect_ok();
    fs::remove_file(m.path("cid")).expect("the file is there");
    normalised(&output.stdout.replace('\r', ""), &id)
}

/// Differences that no row explains, and under which flags they were seen.
type Faults = BTreeMap<String, Vec<String>>;

/// Adds the differences that no row explains; ticks off the rows that explain one.
fn compare(
    peer: &str,
    flags: &str,
    theirs: &Seen,
    ours: &Seen,
    table: &[Explained],
    used: &mut BTreeSet<usize>,
) -> Faults {
    let theirs_only = theirs.difference(ours).map(|line| format!("-{line}"));
    let ours_only = ours.difference(theirs).map(|line| format!("+{line}"));
    let mut faults = Faults::new();
    for line in theirs_only.chain(ours_only) {
        match table.iter().position(|row| row.peer == peer && matches(&row.pattern, &line)) {
            Some(row) => drop(used.insert(row)),
            None => faults.entry(line).or_default().push(flags.to_owned()),
        }
    }
    faults
}

fn fail_on(faults: &Faults, table: &[Explained], used: &BTreeSet<usize>, peer: &str) {
    let stale = table.iter().enumerate().filter(|(n, row)| row.peer == peer && row.always && !used.contains(n));
    let stale: Vec<String> = stale.map(|(_, row)| format!("  `{}`", row.pattern)).collect();
    let mut text = String::new();
    if !faults.is_empty() {
        text += &format!("differences from {peer} that docs/differences.md does not explain (- {peer}, + sbx):\n");
    }
    for (line, flags) in faults {
        let place =
            if flags.len() == FLAG_SETS.len() { "always".to_owned() } else { format!("with {}", flags.join(", ")) };
        text += &format!("  {line}    [{place}]\n");
    }
    if !stale.is_empty() {
        text += &format!("rows of docs/differences.md that say `always` and are not so:\n{}\n", stale.join("\n"));
    }
    assert!(text.is_empty(), "{text}");
}

#[test]
fn every_difference_from_docker_is_explained() {
    each_mode(|m| {
        if !installed("dockerd") || !installed("docker") {
            return skip("every_difference_from_docker_is_explained", "docker.io is not installed");
        }
        if !m.peer().is_sbx() {
            return skip("every_difference_from_docker_is_explained", "Docker is not compared with itself");
        }
        // On a machine of its own, since both would like the same addresses for their bridge.
        let other = Machine::start(m.mode());
        start_dockerd(&other);
        docker(&other, &["load", "-q", "-i", &Image::busybox().archive().to_string_lossy()]).expect_ok();
        let (outer, their_outer, table) = (outer_namespaces(m), outer_namespaces(&other), explained());
        let (mut faults, mut used) = (Faults::new(), BTreeSet::new());
        for flags in FLAG_SETS {
            let theirs = seen_by(&other, Peer::Docker, flags, &their_outer);
            let ours = seen_by(m, Peer::Sbx, flags, &outer);
            for (line, flags) in compare("docker", &flags.join(" "), &theirs, &ours, &table, &mut used) {
                faults.entry(line).or_default().extend(flags);
            }
        }
        Peer::Docker.stop(&other);
        fail_on(&faults, &table, &used, "docker");
    });
}

/// A bundle for runc: the image's files, and the configuration that `umoci` makes of an image.
fn bundle(m: &Machine) -> String {
    let bundle = m.at("bundle");
    let script = format!(
        "skopeo --insecure-policy copy -q docker-archive:{} oci:{}:1; umoci unpack --image {}:1 {bundle} >/dev/null",
        Image::busybox().archive().display(),
        m.at("layout"),
        m.at("layout"),
    );
    m.sh(&script).expect_ok();
    bundle
}

fn seen_by_runc(m: &Machine, bundle: &str, outer: &str) -> Seen {
    let file = format!("{bundle}/config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("config.json")).expect("JSON");
    config["process"]["args"] = serde_json::json!(["sh", "-c", PROBE]);
    config["process"]["terminal"] = false.into();
    config["process"]["env"].as_array_mut().expect("an environment").push(outer.into());
    fs::write(&file, config.to_string()).expect("config.json can be written");
    let output = m.sh(&format!("runc --root {} run --bundle {bundle} probe </dev/null", m.at("runc")));
    assert!(output.stdout.contains("hostname "), "the probe did not come to its end under runc\n{output}");
    normalised(&output.stdout, "probe")
}

#[test]
fn every_difference_from_runc_is_explained() {
    each_mode(|m| {
        for program in ["runc", "umoci", "skopeo"] {
            if !installed(program) {
                return skip("every_difference_from_runc_is_explained", &format!("{program} is not installed"));
            }
        }
        if !m.peer().is_sbx() {
            return skip("every_difference_from_runc_is_explained", "Docker is not compared with runc");
        }
        let (outer, table) = (outer_namespaces(m), explained());
        let mut used = BTreeSet::new();
        let theirs = seen_by_runc(m, &bundle(m), &outer);
        let ours = seen_by(m, Peer::Sbx, &["--network", "none"], &outer);
        let faults = compare("runc", "--network none", &theirs, &ours, &table, &mut used);
        fail_on(&faults, &table, &used, "runc");
    });
}

/// Flags that ask for a namespace of the host, which no machine has.
fn asks_for_the_host(flags: &[&str]) -> bool {
    flags.contains(&"host")
}

#[test]
fn every_difference_between_the_modes_is_explained() {
    each_mode(|m| {
        if m.mode() == Mode::Process {
            return skip("every_difference_between_the_modes_is_explained", "process mode is what is compared with");
        }
        let other = Machine::start(Mode::Process);
        other.load(&Image::busybox());
        let (outer, their_outer, table) = (outer_namespaces(m), outer_namespaces(&other), explained());
        let (mut faults, mut used) = (Faults::new(), BTreeSet::new());
        for flags in FLAG_SETS.iter().filter(|flags| !asks_for_the_host(flags)) {
            let theirs = seen_by(&other, Peer::Sbx, flags, &their_outer);
            let ours = seen_by(m, Peer::Sbx, flags, &outer);
            for (line, flags) in compare("process", &flags.join(" "), &theirs, &ours, &table, &mut used) {
                faults.entry(line).or_default().extend(flags);
            }
        }
        fail_on(&faults, &table, &used, "process");
    });
}

#[test]
fn patterns_match_whole_lines() {
    assert!(matches("-mount /sys*", "-mount /sys sysfs ro"));
    assert!(matches("*a*c", "xxabbc") && matches("abc", "abc") && matches("a*", "a"));
    assert!(!matches("abc", "abcd") && !matches("a*c", "ab") && !matches("b*", "ab"));
}

#[test]
fn the_table_of_differences_has_no_row_twice() {
    let mut seen = BTreeMap::new();
    for row in explained() {
        let before = seen.insert((row.peer.clone(), row.pattern.clone()), ());
        assert!(before.is_none(), "twice: {} {}", row.peer, row.pattern);
    }
}
