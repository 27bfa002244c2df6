//! Layers that no honest tool would write, through `import` and `load`: each is refused with a clear error, or what
//! it holds stays inside the container. Nothing of the host changes, ever.

mod support;

use std::fs;
use std::time::Instant;

use support::tarball::{Entry, archive};
use support::{BUSYBOX, Image, Machine, Output, machine};

/// What may happen to a layer.
enum Verdict {
    /// An error that contains the word.
    Refused(&'static str),
    /// It is imported, and a script inside prints exactly this.
    Shows(&'static str, &'static str),
    /// Either an error, or an image that starts; what matters is that the host is untouched.
    Either,
}
use Verdict::{Either, Refused, Shows};

/// A layer over busybox.
struct Case(&'static str, Vec<Entry>, Verdict);

fn file(name: &str) -> Entry {
    Entry::file(name, 0o644, "hostile\n")
}

fn named(bytes: &[u8]) -> Entry {
    Entry { name: bytes.to_vec(), ..file("x") }
}

fn paths() -> Vec<Case> {
    let long = "n".repeat(255);
    let too_long = "n".repeat(256);
    let deep = "d/".repeat(2000);
    vec![
        Case("a path that climbs out", vec![file("../canary/climbed")], Either),
        Case("a path that climbs out of a folder", vec![file("data/../../canary/climbed")], Either),
        Case("an absolute path is one below the root", vec![file("/absolute")], Shows("cat /absolute", "hostile")),
        Case("a path with dots in it", vec![file("./data/./dots")], Shows("cat /data/dots", "hostile")),
        Case("an empty name", vec![named(b"")], Either),
        Case("a name of a dot", vec![Entry::folder("./", 0o755)], Shows("stat -c %a /", "755")),
        Case("a name with a NUL in a PAX record", vec![file("x").pax("path", b"a\0b")], Either),
        Case(
            "a name that is not UTF-8",
            vec![named(b"data/\xff\xfe")],
            // By the shell's own pattern: `ls` of busybox shows a question mark for what it cannot print.
            Shows("cd /data; for f in *; do printf '%s\\n' \"$f\"; done | tail -1 | od -An -tx1", "ff fe 0a"),
        ),
        Case(
            "a name of 255 bytes",
            vec![file(&format!("data/{long}"))],
            Shows("ls /data | awk '{ print length($0) }' | sort -n | tail -1", "255"),
        ),
        Case("a name of 256 bytes", vec![file(&format!("data/{too_long}"))], Refused("")),
        Case("a path of 4000 bytes", vec![file(&format!("{deep}leaf"))], Either),
        Case("a name of 64 KiB in a PAX record", vec![file("x").pax("path", "p".repeat(65536))], Refused("")),
        Case(
            "new lines and escape sequences in a name",
            vec![named(b"data/a\n\x1b[31mb")],
            Shows("cd /data; for f in *; do printf '%s\\n' \"$f\"; done | wc -l", "3"),
        ),
        Case("a PAX path that climbs out", vec![file("innocent").pax("path", "../../canary/climbed")], Either),
        Case("a file with a trailing slash", vec![named(b"data/slash/")], Either),
    ]
}

fn links() -> Vec<Case> {
    let chain: Vec<Entry> = (0..60).map(|n| Entry::symlink(&format!("l{n}"), &format!("l{}", n + 1))).collect();
    vec![
        Case(
            "writing through a link to an absolute path",
            vec![Entry::symlink("out", "/canary"), file("out/through")],
            Either,
        ),
        Case(
            "writing through a link that climbs",
            vec![Entry::symlink("out", "../../../../canary"), file("out/through")],
            Either,
        ),
        Case(
            "writing through a link in a lower layer",
            vec![Entry::symlink("etc", "/tmp"), file("etc/through")],
            Either,
        ),
        Case("a hard link to a file outside", vec![Entry::hardlink("shadow", "../../../etc/shadow")], Refused("")),
        Case(
            "a hard link to an absolute path",
            vec![Entry::hardlink("shadow", "/etc/no-such-file-in-the-layer")],
            Refused(""),
        ),
        Case("a hard link to what is not there", vec![Entry::hardlink("a", "missing")], Refused("missing")),
        Case("a hard link to itself", vec![Entry::hardlink("a", "a")], Refused("")),
        Case("a hard link to a folder", vec![Entry::folder("f/", 0o755), Entry::hardlink("a", "f")], Refused("")),
        Case(
            "a hard link to a symbolic link",
            vec![Entry::symlink("s", "/etc/shadow"), Entry::hardlink("h", "s")],
            Shows("readlink /h", "/etc/shadow"),
        ),
        Case("a hard link that comes before its target", vec![Entry::hardlink("a", "later"), file("later")], Either),
        Case(
            "hard links share one file",
            vec![file("one"), Entry::hardlink("two", "one")],
            Shows("stat -c %h /one", "2"),
        ),
        Case("a link to itself", vec![Entry::symlink("self", "self")], Shows("readlink /self", "self")),
        Case("a chain of 60 links", chain, Shows("cat /l0 2>/dev/null || echo loop", "loop")),
        Case("a link with an empty target", vec![Entry::symlink("empty", "")], Either),
        Case("a link of 5000 bytes", vec![Entry::symlink("long", &"t".repeat(5000))], Either),
    ]
}

fn whiteouts() -> Vec<Case> {
    vec![
        Case("a whiteout hides one file", vec![file("data/.wh.seed")], Shows("ls -A /data", "")),
        Case(
            "an opaque folder hides all below it",
            vec![file("data/.wh..wh..opq"), file("data/new")],
            Shows("ls -A /data", "new"),
        ),
        Case(
            "an opaque mark after the new files",
            vec![file("data/new"), file("data/.wh..wh..opq")],
            Shows("ls -A /data", "new"),
        ),
        Case("a whiteout of the parent", vec![file("data/.wh...")], Either),
        Case("a whiteout of a dot", vec![file("data/.wh..")], Either),
        Case("a whiteout without a name", vec![file("data/.wh.")], Either),
        Case("a whiteout of nothing", vec![file(".wh.nothing-there")], Shows("echo well", "well")),
        Case("a whiteout that climbs", vec![file("../.wh.canary")], Either),
        Case("a whiteout of what the same layer has", vec![file("fresh"), file(".wh.fresh")], Either),
        Case("an opaque root", vec![file(".wh..wh..opq")], Either),
    ]
}

fn kinds() -> Vec<Case> {
    let replaced = vec![Entry::folder("f/", 0o755), file("f/inside"), Entry::symlink("f", "/etc"), file("f/again")];
    let numbers = vec![file("x").pax("uid", "4294967296")];
    vec![
        Case(
            "device nodes are there and cannot be opened",
            vec![Entry::device("disk", b'4', 8, 0)],
            Shows("stat -c %F /disk; cat /disk 2>/dev/null || echo no", "block special file\nno"),
        ),
        Case("a character device 0:0 is no whiteout by stealth", vec![Entry::device("data/seed", b'3', 0, 0)], Either),
        Case("a fifo", vec![Entry::fifo("pipe")], Shows("stat -c %F /pipe", "fifo")),
        Case(
            "set-user-id stays for root and others",
            vec![Entry::file("suid", 0o6755, "x")],
            Shows("stat -c %a /suid", "6755"),
        ),
        Case("mode bits that do not exist", vec![Entry::file("odd", 0o177_777, "x")], Either),
        Case("a folder replaced by a link", replaced, Either),
        Case(
            "a folder over a file of the layer below",
            vec![Entry::folder("data/seed/", 0o755)],
            Shows("stat -c %F /data/seed", "directory"),
        ),
        Case("a file over a folder of the layer below", vec![file("home")], Shows("stat -c %F /home", "regular file")),
        Case(
            "the same name twice: the last one counts",
            vec![Entry::file("twice", 0o644, "first"), Entry::file("twice", 0o600, "second")],
            Shows("cat /twice; stat -c ' %a' /twice", "second 600"),
        ),
        Case("a user id beyond 32 bits", numbers, Refused("")),
        Case(
            "the mark of an opaque overlay folder",
            vec![Entry::folder("data/", 0o755).pax("SCHILY.xattr.trusted.overlay.opaque", "y")],
            Either,
        ),
        Case(
            "a redirect of an overlay folder",
            vec![Entry::folder("data/", 0o755).pax("SCHILY.xattr.trusted.overlay.redirect", "/etc")],
            Either,
        ),
        Case(
            "file capabilities survive",
            vec![
                Entry::file("capable", 0o755, "x")
                    .pax("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            ],
            Either,
        ),
        Case(
            "an attribute with a name of 300 bytes",
            vec![file("x").pax(&format!("SCHILY.xattr.user.{}", "a".repeat(300)), "v")],
            Either,
        ),
        Case("a kind that does not exist", vec![Entry { kind: b'Z', ..file("odd") }], Either),
        Case("a GNU volume header", vec![Entry { kind: b'V', ..file("volume") }], Either),
        Case("a file continued from another archive", vec![Entry { kind: b'M', ..file("part") }], Either),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        Case("a size beyond the end", vec![Entry { claimed_size: Some(1 << 20), ..file("short") }], Refused("")),
        Case("a size of 8 GiB", vec![Entry { claimed_size: Some(0o77_777_777_777), ..file("huge") }], Refused("")),
        Case("a PAX size that says another than the header", vec![file("x").pax("size", "1000000")], Refused("")),
        Case("a PAX size that is no number", vec![file("x").pax("size", "-1")], Refused("")),
        Case("a PAX size beyond 64 bits", vec![file("x").pax("size", "99999999999999999999")], Refused("")),
        Case(
            "a time beyond all calendars",
            vec![Entry { mtime: 0o77_777_777_777, ..file("late") }],
            Shows("cat /late", "hostile"),
        ),
        Case("a PAX time that is no number", vec![file("x").pax("mtime", "tomorrow")], Either),
        Case(
            "a sparse map that overlaps itself",
            vec![
                file("x")
                    .pax("GNU.sparse.major", "0")
                    .pax("GNU.sparse.minor", "1")
                    .pax("GNU.sparse.map", "0,8,4,8")
                    .pax("GNU.sparse.size", "100"),
            ],
            Either,
        ),
        Case(
            "a sparse file of 8 EiB",
            vec![
                file("x")
                    .pax("GNU.sparse.major", "0")
                    .pax("GNU.sparse.minor", "1")
                    .pax("GNU.sparse.map", "0,8")
                    .pax("GNU.sparse.size", "9223372036854775807"),
            ],
            Either,
        ),
    ]
}

/// Everything of the host that a layer could aim at.
fn canary(m: &Machine) -> String {
    m.sh("cd /; { find etc -xdev -printf '%p %m %u %g %s %l\\n' 2>/dev/null | sort; } | md5sum; ls -A / | md5sum")
        .expect_ok()
        .stdout
}

fn judge(m: &Machine, case: &Case) -> Option<String> {
    let Case(name, entries, verdict) = case;
    let image = Image::busybox_under("test/hostile:1", vec![archive(entries)]);
    let loaded = m.sbx(&["load", "-q", "-i", &image.archive().to_string_lossy()]);
    let complaint = complaint(m, &loaded, verdict);
    drop(m.sbx(&["rmi", "-f", "test/hostile:1"]));
    complaint.map(|text| format!("{name}: {text}"))
}

fn complaint(m: &Machine, loaded: &Output, verdict: &Verdict) -> Option<String> {
    if loaded.stderr.contains("panicked") || loaded.status > 2 {
        return Some(format!("a crash is no verdict\n{loaded}"));
    }
    match verdict {
        Refused(word) => {
            let said = loaded.stderr.to_lowercase();
            let good = loaded.status == 1 && !said.trim().is_empty() && said.contains(word);
            (!good).then(|| format!("not refused with `{word}`\n{loaded}"))
        }
        Shows(script, expected) => {
            if loaded.status != 0 {
                return Some(format!("refused\n{loaded}"));
            }
            let shown = m.sbx(&["run", "--rm", "test/hostile:1", "sh", "-c", script]);
            (shown.status != 0 || shown.text() != expected.trim()).then(|| format!("expected {expected:?}\n{shown}"))
        }
        Either if loaded.status == 0 => {
            let shown = m.sbx(&["run", "--rm", "test/hostile:1", "true"]);
            // A layer may take away what is needed to start; it may not take the engine down.
            let good = !shown.stderr.contains("panicked") && [0, 125, 126, 127].contains(&shown.status);
            (!good).then(|| format!("{shown}"))
        }
        Either => loaded.stderr.trim().is_empty().then(|| format!("no word of what is wrong\n{loaded}")),
    }
}

fn all_are_harmless(cases: &[Case]) {
    machine(|m| {
        if !m.peer().is_sbx() {
            return support::skip("hostile layers", "Docker unpacks layers into the real file system");
        }
        m.load(&Image::busybox());
        let before = canary(m);
        let mut faults: Vec<String> = cases.iter().filter_map(|case| judge(m, case)).collect();
        if canary(m) != before {
            faults.push("the host changed".to_owned());
        }
        m.ok(&["rmi", "-f", BUSYBOX]);
        assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
    });
}

#[test]
fn hostile_paths_stay_inside() {
    all_are_harmless(&paths());
}

#[test]
fn hostile_links_stay_inside() {
    all_are_harmless(&links());
}

#[test]
fn hostile_whiteouts_hide_only_what_is_theirs() {
    all_are_harmless(&whiteouts());
}

#[test]
fn hostile_kinds_of_files_do_no_harm() {
    all_are_harmless(&kinds());
}

#[test]
fn hostile_sizes_are_refused() {
    all_are_harmless(&sizes());
}

#[test]
fn the_hostile_layers_are_sixty_or_more() {
    let all = [paths(), links(), whiteouts(), kinds(), sizes()];
    let names: std::collections::BTreeSet<&str> = all.iter().flatten().map(|Case(name, ..)| *name).collect();
    assert!(names.len() >= 60, "{}", names.len());
}

/// Bombs: small archives that say they are large. Neither memory nor disk nor time may follow them.
#[test]
fn bombs_are_defused_in_bounded_memory_disk_and_time() {
    machine(|m| {
        if !m.peer().is_sbx() {
            return support::skip("bombs_are_defused_in_bounded_memory_disk_and_time", "it is about sbx's limits");
        }
        let (root, binary, run) = (m.at("root"), m.peer().program(), m.at("run"));
        // One file of 100 GiB of zeros: its header, and zeros for ever.
        let header =
            &archive(&[Entry { claimed_size: Some(0o77_777_777_777), ..Entry::file("zeros", 0o644, "") }])[..512];
        fs::write(m.path("header"), header).expect("a new file");
        let many: Vec<Entry> = (0..200_000).map(|n| Entry::file(&format!("f{n}"), 0o644, "")).collect();
        fs::write(m.path("many.tar"), archive(&many)).expect("a new file");
        let limit = "ulimit -v 1500000; ulimit -f 4194304";
        let cases = [
            (
                "zeros",
                format!(
                    "{limit}; (cat {}; head -c 3G /dev/zero) | gzip -1 | timeout 100 {binary} --root {root} --run {run} import - test/bomb:1",
                    m.at("header")
                ),
            ),
            (
                "many",
                format!(
                    "{limit}; timeout 100 {binary} --root {root} --run {run} import {} test/bomb:2",
                    m.at("many.tar")
                ),
            ),
        ];
        for (name, script) in cases {
            let start = Instant::now();
            let mut command = m.command("bash");
            command.args(["-c", &script]);
            let output =
                support::output::Running::start(command, Some(b"")).finish(std::time::Duration::from_secs(120));
            assert!([0, 1].contains(&output.status) && !output.stderr.contains("panicked"), "{name}: {output}");
            let used = m.sh(&format!("du -sm {root} | cut -f1")).expect_ok().text().parse::<u64>().expect("a number");
            assert!(used < 4200, "{name}: {used} MiB on the disk");
            assert!(start.elapsed().as_secs() < 100, "{name}: {:?}", start.elapsed());
            let images = m.ok(&["images", "-q"]);
            if !images.is_empty() {
                m.ok(&["rmi", "-f", &images]);
            }
        }
    });
}
