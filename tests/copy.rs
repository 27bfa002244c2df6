//! `cp`: files between a container and the machine that it runs on, whether the container runs or not.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use support::tarball::{Entry, archive};
use support::{BUSYBOX, Machine, each_mode, eventually};

/// A folder to copy: a file of somebody's with all bits, one below, links, a pipe.
fn source(m: &Machine) -> String {
    let script = "mkdir -p src/sub; echo hi >src/f; echo x >src/sub/g; ln -s f src/l; ln -s /nowhere src/bad; \
                  mkfifo src/fifo; ln src/f src/again; chown 1234:2345 src/f; chmod 4751 src/f; chmod 2750 src/sub; \
                  touch -d '2001-02-03 04:05:06 UTC' src/f src/sub";
    m.sh(script).expect_ok();
    m.at("home/src")
}

fn sleeper(m: &Machine, flags: &[&str]) -> String {
    m.detached(&[&["--network", "none"], flags].concat(), &["sleep", "1000"])
}

/// What `sh -c` prints in the container.
#[track_caller]
fn inside(m: &Machine, container: &str, script: &str) -> String {
    m.ok(&["exec", container, "sh", "-c", script])
}

/// A command line for the shell of the machine.
fn line(m: &Machine, args: &[&str]) -> String {
    let command = m.sbx_command(args);
    let words: Vec<_> = command.get_args().skip(3).map(|word| word.to_string_lossy().into_owned()).collect();
    words.join(" ")
}

#[test]
fn a_tree_goes_in_and_comes_out_as_it_was() {
    each_mode(|m| {
        let source = source(m);
        let c = sleeper(m, &[]);
        m.ok(&["cp", &source, &format!("{c}:/tree")]);
        let listing = "cd /tree; find . | sort | while read -r p; do stat -c '%n %a %u:%g %F %Y' $p; done | \
                       sed -E '/ (f|again|sub) /!s/ [0-9]+$//'; for l in l bad; do readlink $l; done; cat sub/g; stat -c %h f";
        let expected = m.sh(&format!("cd {source}; {}", listing.replace("cd /tree; ", ""))).expect_ok();
        assert_eq!(inside(m, &c, listing), expected.text());

        m.ok(&["cp", &format!("{c}:/tree"), &m.at("home/back")]);
        let back = m.path("home/back");
        let file = fs::metadata(back.join("f")).expect("the file");
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4751, 0, 0), "whoever copies owns the copy");
        assert_eq!(file.modified().expect("a time"), SystemTime::UNIX_EPOCH + Duration::from_secs(981_173_106));
        assert_eq!(fs::metadata(back.join("sub")).expect("the folder").mtime(), 981_173_106);
        assert_eq!(file.ino(), fs::metadata(back.join("again")).expect("the other name").ino());
        assert_eq!(fs::read_link(back.join("bad")).expect("the link").to_string_lossy(), "/nowhere");
        assert_eq!(fs::read_to_string(back.join("sub/g")).expect("the file below"), "x\n");
    });
}

#[test]
fn a_copy_goes_where_docker_would_put_it() {
    each_mode(|m| {
        source(m);
        let c = sleeper(m, &[]);
        inside(m, &c, "mkdir /d; echo old >/file; ln -s /d /to-d; ln -s file /to-file; ln -s /fresh /to-nothing");
        fs::create_dir(m.path("home/dir")).expect("a new folder");
        symlink("dir", m.path("home/dirlink")).expect("a new link");
        symlink("src/sub", m.path("home/sublink")).expect("a new link");
        let copy = |from: &str, to: &str| {
            let inside = |text: &str| text.replace("C:", &format!("{c}:"));
            m.ok(&["cp", &inside(from), &inside(to)])
        };
        // Into the container: onto nothing, into a folder, contents into a folder, over a file, through links.
        for (from, to, there) in [
            ("src/f", "C:/new", "/new"),
            ("src/f", "C:relative", "/relative"),
            ("src/f", "C:/d", "/d/f"),
            ("src", "C:/tree", "/tree/sub/g"),
            ("src", "C:/tree", "/tree/src/sub/g"),
            ("src/.", "C:/d", "/d/sub/g"),
            ("src/sub/.", "C:/contents", "/contents/g"),
            ("sublink/.", "C:/through", "/through/g"),
            ("src/f", "C:/file", "/file"),
            ("src/sub/g", "C:/to-d", "/d/g"),
            ("src/sub/g", "C:/to-d/", "/d/g"),
            ("src/sub/g", "C:/to-file", "/file"),
            ("src/sub/g", "C:/to-nothing", "/fresh"),
            ("src/f", "C:/d/../updir", "/updir"),
        ] {
            assert_eq!(copy(from, to), "", "{from} {to}");
            assert_eq!(inside(m, &c, &format!("test -f {there} && rm {there} && echo there")), "there", "{from} {to}");
        }
        // Out of it.
        inside(m, &c, "echo file >/file; mkdir -p /d/sub; echo g >/d/sub/g; rm -f /d/d");
        for (from, to, there) in [
            ("C:/file", "new", "new"),
            ("C:/file", "dir", "dir/file"),
            ("C:/file", "dirlink", "dir/file"),
            ("C:/d", "dir", "dir/d/sub/g"),
            ("C:/d/.", "dir", "dir/sub/g"),
            ("C:/d", "fresh", "fresh/sub/g"),
            ("C:/d", "fresh", "fresh/d/sub/g"),
            ("C:/d/.", "fresher", "fresher/sub/g"),
            ("C:/to-d/", "through", "through/sub/g"),
            ("C:file", "./dir/../named", "named"),
        ] {
            assert_eq!(copy(from, to), "", "{from} {to}");
            let path = m.path("home").join(there);
            assert!(path.is_file(), "{from} {to}: no {there}");
            fs::remove_file(path).expect("the copy can be removed");
        }
    });
}

#[test]
fn what_cannot_be_copied_is_said_and_nothing_is_changed() {
    each_mode(|m| {
        source(m);
        let c = sleeper(m, &[]);
        inside(m, &c, "mkdir /d; echo file >/file; ln -s loop /loop");
        fs::write(m.path("home/here"), "here").expect("a new file");
        let not_found = format!("Could not find the file /none in container {c}");
        for (from, to, message) in [
            ("C:/none", "x", not_found.as_str()),
            ("src/f", "C:/none/x", &not_found),
            ("src/f", "C:/new/", "no such directory"),
            ("C:/file", "new/", "no such directory"),
            ("C:/file", "none/x", "does not exist"),
            ("src", "C:/file", "cannot copy directory"),
            ("C:/d", "here", "cannot copy directory"),
            ("src/none", "C:/x", "no such file or directory"),
            ("nobody:/x", "x", "No such container: nobody"),
            ("C:/file", "other:/x", "copying between containers is not supported"),
            ("src/f", "here", "must specify at least one container source"),
            ("-", "C:/file", "must be a directory"),
            ("-", "C:/none", "must be a directory"),
            ("C:/file/", "x", "not a directory"),
            ("C:/loop/", "x", "symbolic links"),
            ("C:", "x", "cannot be empty"),
            ("src/f", "C:", if m.peer().is_sbx() { "cannot be empty" } else { "no such directory" }),
        ] {
            let inside = |text: &str| text.replace("C:", &format!("{c}:"));
            m.fails(&["cp", &inside(from), &inside(to)], 1, message);
        }
        m.fails(&["cp", "x"], 1, "requires 2 arguments");
        // A folder never takes the place of a file, nor a file that of a folder.
        inside(m, &c, "mkdir -p /t/src/f /u/src; echo >/u/src/sub");
        m.fails(&["cp", "src", &format!("{c}:/t")], 1, "cannot overwrite directory");
        m.fails(&["cp", "src", &format!("{c}:/u")], 1, "cannot overwrite non-directory");
        let garbage = m.sbx_with(&["cp", "-", &format!("{c}:/d")], b"no archive").expect_status(1);
        assert_eq!(garbage.expect_stderr("archive").stdout, "");
        assert_eq!(inside(m, &c, "ls /d; cat /file"), "file");
        assert!(!m.path("home/x").exists() && !m.path("home/new").exists());
    });
}

#[test]
fn a_container_that_does_not_run_is_copied_to_and_from() {
    each_mode(|m| {
        let source = source(m);
        let name = m.name("stopped");
        let script = "cat /etc/greeting /data/greeting; echo done >/result";
        let published = ["--name", &name, "-p", "127.0.0.1:18080:80", "-v", "/data", "--pid", "host"];
        let published = if m.mode() == support::machine::Mode::Vm { &published[..6] } else { &published[..] };
        m.ok(&[&["create"], published, &[BUSYBOX, "sh", "-c", script]].concat());
        fs::write(m.path("home/greeting"), "hello\n").expect("a new file");
        m.ok(&["cp", "greeting", &format!("{name}:/etc/greeting")]);
        m.ok(&["cp", "greeting", &format!("{name}:/data/")]);
        assert_eq!(m.inspect(&name, "{{.State.Status}} {{.State.StartedAt}}"), "created 0001-01-01T00:00:00Z");
        assert_eq!(m.ok(&["start", "-a", &name]), "hello\nhello");
        let before = m.inspect(&name, "{{json .State}}");
        m.ok(&["cp", &format!("{name}:/result"), "result"]);
        assert_eq!(fs::read_to_string(m.path("home/result")).expect("the copy"), "done\n");
        m.ok(&["cp", &source, &format!("{name}:/src")]);
        assert_eq!(m.inspect(&name, "{{json .State}}"), before, "nobody has seen it up");
        assert_eq!(m.ok(&["logs", &name]), "hello\nhello");
        // Several at once, and a start that waits for them.
        let commands: Vec<_> = (0..4)
            .map(|number| m.start_sbx(&["cp", &format!("{name}:/src/sub/g"), &format!("copy{number}")]))
            .collect();
        let copies: Vec<_> = commands.into_iter().map(|command| command.finish(support::DEADLINE)).collect();
        copies.into_iter().for_each(|copy| drop(copy.expect_ok()));
        assert_eq!(m.ok(&["start", "-a", &name]), "hello\nhello");
        // One that removes itself at its end does not do so for a copy.
        let once = m.ok(&["create", "--rm", BUSYBOX, "cat", "/etc/greeting"]);
        m.ok(&["cp", "greeting", &format!("{once}:/etc/greeting")]);
        assert_eq!(m.ok(&["start", "-a", &once]), "hello");
    });
}

#[test]
fn a_frozen_container_is_copied_to_and_from() {
    each_mode(|m| {
        let c = sleeper(m, &[]);
        inside(m, &c, "echo frozen >/file");
        m.ok(&["pause", &c]);
        m.ok(&["cp", &format!("{c}:/file"), "file"]);
        m.ok(&["cp", "file", &format!("{c}:/again")]);
        assert_eq!(m.inspect(&c, "{{.State.Status}}"), "paused");
        m.ok(&["unpause", &c]);
        assert_eq!(inside(m, &c, "cat /again"), "frozen");
    });
}

#[test]
fn links_are_followed_where_that_is_asked_for() {
    each_mode(|m| {
        source(m);
        let c = sleeper(m, &[]);
        m.ok(&["cp", "src/l", &format!("{c}:/link")]);
        symlink("src", m.path("home/to-src")).expect("a new link");
        m.ok(&["cp", "to-src/", &format!("{c}:/to-src")]);
        assert_eq!(inside(m, &c, "readlink /to-src"), "src", "a slash does not follow, as in Docker");
        m.ok(&["cp", "-L", "src/l", &format!("{c}:/followed")]);
        m.ok(&["cp", "-L", "src/l", &format!("{c}:/tmp")]);
        assert_eq!(inside(m, &c, "readlink /link; cat /followed; ls /tmp"), "f\nhi\nl");
        inside(m, &c, "mkdir -p /real/sub; echo deep >/real/sub/file; ln -s real/sub /short; ln -s /short/file /f");
        m.ok(&["cp", &format!("{c}:/f"), "kept"]);
        m.ok(&["cp", "--follow-link", &format!("{c}:/f"), "followed"]);
        m.ok(&["cp", "-L", &format!("{c}:/short"), "short"]);
        m.ok(&["cp", &format!("{c}:/short/file"), "below"]);
        let home = m.path("home");
        assert_eq!(fs::read_link(home.join("kept")).expect("a link").to_string_lossy(), "/short/file");
        for copy in ["followed", "short/file", "below"] {
            assert_eq!(fs::read_to_string(home.join(copy)).expect(copy), "deep\n");
        }
    });
}

#[test]
fn archives_go_through_the_standard_streams() {
    each_mode(|m| {
        source(m);
        let c = sleeper(m, &[]);
        let target = format!("{c}:/tmp");
        let tar = archive(&[
            Entry::folder("made/", 0o750),
            Entry::file("made/file", 0o640, "from an archive"),
            Entry::symlink("made/link", "file"),
            Entry::hardlink("made/same", "made/file"),
            Entry::file("deep/below/file", 0o600, "x"),
        ]);
        m.sbx_with(&["cp", "-", &target], &tar).expect_ok();
        let look = "cd /tmp/made; stat -c '%a %h' file; readlink link; cat same; stat -c %a . ../deep/below";
        assert_eq!(inside(m, &c, look), "640 2\nfile\nfrom an archive750\n755");
        let names = m.sh(&format!("{} | tar t", line(m, &["cp", &format!("{c}:/tmp/made"), "-"]))).expect_ok();
        assert_eq!(names.text(), "made/\nmade/file\nmade/link\nmade/same");
        let contents = m.sh(&format!("{} | tar t", line(m, &["cp", &format!("{c}:/tmp/made/."), "-"]))).expect_ok();
        assert_eq!(contents.text(), "./\n./file\n./link\n./same");
        // From one container to another, and one byte of the first.
        let other = sleeper(m, &[]);
        let pipe = [line(m, &["cp", &format!("{c}:/tmp/made"), "-"]), line(m, &["cp", "-", &format!("{other}:/")])];
        m.sh(&pipe.join(" | ")).expect_ok();
        assert_eq!(inside(m, &other, "cat /made/same"), "from an archive");
        m.sh(&format!("{} | head -c 1 >/dev/null", line(m, &["cp", &format!("{c}:/"), "-"]))).expect_ok();
    });
}

#[test]
fn everything_arrives_also_where_it_is_taken_slowly() {
    each_mode(|m| {
        let c = sleeper(m, &[]);
        inside(m, &c, "dd if=/dev/urandom of=/big bs=1M count=12 2>/dev/null; head -c 500000 /big >/small");
        for file in ["big", "small"] {
            let sum = inside(m, &c, &format!("sha256sum </{file}"));
            m.ok(&["cp", &format!("{c}:/{file}"), file]);
            assert_eq!(m.sh(&format!("sha256sum <{file}")).expect_ok().text(), sum);
            let slowly = format!("{} | (sleep 3; tar xO | sha256sum)", line(m, &["cp", &format!("{c}:/{file}"), "-"]));
            assert_eq!(m.sh(&slowly).expect_ok().text(), sum);
            m.ok(&["cp", file, &format!("{c}:/back")]);
            assert_eq!(inside(m, &c, "sha256sum </back"), sum);
        }
        // The same for what a program says: its last words wait for their reader.
        let said = format!("{} | (sleep 3; wc -c)", line(m, &["exec", &c, "cat", "/small"]));
        assert_eq!(m.sh(&said).expect_ok().text(), "500000");
        let run = ["run", "--rm", "--network", "none", BUSYBOX, "head", "-c", "500000", "/dev/zero"];
        assert_eq!(m.sh(&format!("{} | (sleep 3; wc -c)", line(m, &run))).expect_ok().text(), "500000");
    });
}

#[test]
fn files_go_to_the_mounts_that_the_container_sees() {
    each_mode(|m| {
        source(m);
        fs::create_dir(m.path("shared")).expect("a new folder");
        let bind = format!("{}:/bind", m.at("shared"));
        let flags = ["-v", "vol:/vol", "-v", &bind, "--tmpfs", "/fast", "-v", "vol:/fixed:ro", "--read-only"];
        let c = sleeper(m, &flags);
        for place in ["/vol", "/bind", "/fast"] {
            m.ok(&["cp", "src/sub/g", &format!("{c}:{place}/g")]);
            m.ok(&["cp", &format!("{c}:{place}/g"), "back"]);
            assert_eq!(inside(m, &c, &format!("cat {place}/g")), "x");
        }
        assert_eq!(fs::read_to_string(m.path("shared/g")).expect("the file in the bind"), "x\n");
        m.fails(&["cp", "src/f", &format!("{c}:/f")], 1, "container rootfs is marked read-only");
        m.fails(&["cp", "src/f", &format!("{c}:/fixed/f")], 1, "mounted volume is marked read-only");
        m.ok(&["rm", "-f", &c]);
        m.ok(&["volume", "rm", "vol"]);
    });
}

#[test]
fn archive_mode_gives_files_to_the_containers_user() {
    each_mode(|m| {
        source(m);
        let c = sleeper(m, &["--user", "1000:50"]);
        m.ok(&["cp", "src/f", &format!("{c}:/tmp/kept")]);
        m.ok(&["cp", "-a", "src/f", &format!("{c}:/tmp/given")]);
        assert_eq!(inside(m, &c, "stat -c %u:%g /tmp/kept /tmp/given"), "1234:2345\n1000:50");
        let root = sleeper(m, &[]);
        m.ok(&["cp", "-a", "src/f", &format!("{root}:/tmp/kept")]);
        assert_eq!(inside(m, &root, "stat -c %u:%g /tmp/kept"), "1234:2345");
    });
}

#[test]
fn owners_are_those_of_the_containers_users() {
    each_mode(|m| {
        source(m);
        let c = sleeper(m, &["--userns", "private"]);
        m.ok(&["cp", "src/f", &format!("{c}:/tmp/f")]);
        m.ok(&["cp", &format!("{c}:/tmp/f"), "back"]);
        assert_eq!(inside(m, &c, "stat -c '%u:%g %a' /tmp/f /dev/null"), "1234:2345 4751\n0:0 666");
        assert_eq!(inside(m, &c, "echo x >/dev/null; awk '{ print $1, $3 }' /proc/self/uid_map"), "0 65536");
        let back = fs::metadata(m.path("home/back")).expect("the copy");
        assert_eq!((back.uid(), back.permissions().mode() & 0o7777), (0, 0o4751));
    });
}

#[test]
fn a_file_system_is_exported_without_its_mounts_and_imported_again() {
    each_mode(|m| {
        let c = sleeper(m, &["-v", "/data", "--tmpfs", "/fast"]);
        inside(
            m,
            &c,
            "echo mine >/mine; echo data >/data/kept-out; echo fast >/fast/kept-out; chown 5:6 /mine; rm -r /etc/group",
        );
        m.ok(&["export", "-o", "all.tar", &c]);
        let names = m.sh("tar tvf all.tar --numeric-owner | sed 's/  */ /g' | cut -d' ' -f1,2,6").expect_ok();
        for name in ["-rw-r--r-- 5/6 mine", "drwxr-xr-x 0/0 data/", "bin/busybox", "proc/"] {
            assert!(names.stdout.contains(name), "{name} in\n{names}");
        }
        for name in ["kept-out", "etc/group", "proc/1", "dev/null"] {
            assert!(!names.stdout.contains(name), "no {name} in\n{names}");
        }
        m.ok(&["import", "all.tar", "again:1"]);
        assert_eq!(m.ok(&["run", "--rm", "--network", "none", "again:1", "cat", "/mine"]), "mine");
        // Of one that does not run, to the standard output.
        m.ok(&["rm", "-f", "-v", &c]);
        let stopped = m.ok(&["create", "--network", "none", BUSYBOX, "true"]);
        let listed = m.sh(&format!("{} | tar t bin/busybox", line(m, &["export", &stopped]))).expect_ok();
        assert_eq!(listed.text(), "bin/busybox");
        m.fails(&["export", "-o", "none/all.tar", &stopped], 1, "invalid output path");
        m.fails(&["export", "nobody"], 1, "No such container: nobody");
        m.ok(&["rmi", "again:1"]);
    });
}

/// CVE-2018-15664 and its kin: the container exchanges a folder for a link to the machine's files while files are copied
/// through it.
#[test]
fn no_link_leads_a_copy_out_of_the_container() {
    each_mode(|m| {
        fs::create_dir(m.path("canary")).expect("a new folder");
        fs::write(m.path("canary/file"), "untouched").expect("a new file");
        let canary = m.at("canary");
        let c = sleeper(m, &[]);
        let race = format!(
            "mkdir -p /a /in{canary}; echo inside >/a/file; while :; do rm -rf /x; ln -s {canary} /x; rm /x; cp -r /a /x; done"
        );
        m.ok(&["exec", "-d", &c, "sh", "-c", &race]);
        fs::write(m.path("home/file"), "from outside").expect("a new file");
        let rounds = if m.mode() == support::machine::Mode::Vm { 10 } else { 60 };
        for _ in 0..rounds {
            // Whether one finds its way is the race's to decide.
            m.sbx(&["cp", "file", &format!("{c}:/x/file")]);
            m.sbx(&["cp", &format!("{c}:/x/file"), "back"]);
            let back = fs::read_to_string(m.path("home/back")).unwrap_or_default();
            assert_ne!(back, "untouched", "a file of the machine has come out of the container");
        }
        let names: Vec<_> = fs::read_dir(m.path("canary"))
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read_to_string(m.path("canary/file")).expect("the canary"), "untouched");
    });
}

#[test]
fn a_copy_that_is_killed_leaves_nothing() {
    each_mode(|m| {
        let stopped = m.ok(&["create", "--network", "none", BUSYBOX, "cat", "/file"]);
        let running = sleeper(m, &[]);
        for container in [&stopped, &running] {
            let target = format!("{container}:/");
            let mut command = m.start_sbx(&["cp", "-", &target]);
            // The first block of an archive that never goes on.
            command.write("x");
            let of_a_copy = format!("pgrep -f '[c]p - {target}' || true");
            eventually("the copy", || (!m.sh(&of_a_copy).expect_ok().text().is_empty()).then_some(()));
            std::thread::sleep(Duration::from_millis(300));
            m.sh(&format!("kill -KILL $(pgrep -f '[c]p - {target}')")).expect_ok();
            command.finish(support::DEADLINE);
        }
        assert_eq!(inside(m, &running, "ls -A / | grep -c . "), inside(m, &running, "ls -A / | grep -c ."));
        // The container that does not run is down again: it can be started, and its supervisor can be killed as well.
        fs::write(m.path("home/file"), "whole\n").expect("a new file");
        m.ok(&["cp", "file", &format!("{stopped}:/file")]);
        assert_eq!(m.ok(&["start", "-a", &stopped]), "whole");
        let target = format!("{stopped}:/");
        let command = m.start_sbx(&["cp", "-", &target]);
        let of_the_supervisor = format!("pgrep -f '[s]upervise {stopped}' || true");
        eventually("its supervisor", || (!m.sh(&of_the_supervisor).expect_ok().text().is_empty()).then_some(()));
        m.sh(&format!("kill -KILL $(pgrep -f '[s]upervise {stopped}')")).expect_ok();
        drop(command);
        assert_eq!(m.ok(&["start", "-a", &stopped]), "whole");
    });
}

#[test]
fn a_container_that_ends_ends_its_copies() {
    each_mode(|m| {
        let c = sleeper(m, &["--restart", "always"]);
        let command = m.start_sbx(&["cp", "-", &format!("{c}:/")]);
        let before = m.inspect(&c, "{{.State.StartedAt}}");
        std::thread::sleep(Duration::from_millis(300));
        m.ok(&["restart", "-t", "0", &c]);
        assert_ne!(m.inspect(&c, "{{.State.StartedAt}}"), before);
        drop(command);
        fs::write(m.path("home/file"), "whole\n").expect("a new file");
        m.ok(&["cp", "file", &format!("{c}:/file")]);
        assert_eq!(inside(m, &c, "cat /file"), "whole");
    });
}
