//! What several processes in a container and the host see of the same files in a bind while all of them have these open:
//! syncing, renaming and removing, shared mappings, locks.
//!
//! Each party is a [`Party`]: this very program, which is static, run once more on the host or in the container, with one file
//! open and doing what it is told, a line at a time.

mod support;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use support::sys::{PAGE, Page};
use support::{DEADLINE, Machine, each_mode};

/// Names the folder of the files to a party.
const FOLDER: &str = "SBX_TEST_FOLDER";
/// How an answer begins; libtest writes to the same output.
const ANSWER: &str = "answer: ";

#[test]
fn what_is_renamed_or_removed_while_it_is_open_is_so_for_everybody() {
    each_mode(|m| {
        let [mut a, mut b, mut host] = parties(m);
        a.expect("create one", "ok");
        a.expect("write 0 hello", "ok");
        a.expect("sync", "ok");
        host.expect("show one", "hello");
        b.expect("open one", "ok");
        b.expect("read 0 9", "hello");

        host.expect("rename one two", "ok");
        a.expect("write 5 , world", "ok");
        b.expect("show one", "ENOENT");
        b.expect("show two", "hello, world");
        b.expect("read 0 99", "hello, world");
        a.expect("rename two three", "ok");
        host.expect("show two", "ENOENT");
        host.expect("show three", "hello, world");

        b.expect("unlink three", "ok");
        host.expect("show three", "ENOENT");
        a.expect("links", "0");
        a.expect("write 0 HELLO", "ok");
        b.expect("read 0 99", "HELLO, world");

        host.expect("create four", "ok");
        host.expect("write 0 old", "ok");
        a.expect("open four", "ok");
        b.expect("create five", "ok");
        b.expect("write 0 new", "ok");
        b.expect("rename five four", "ok");
        a.expect("read 0 9", "old");
        a.expect("links", "0");
        host.expect("show four", "new");
        host.expect("unlink four", "ok");
        a.expect("show four", "ENOENT");
        a.expect("write 3 er", "ok");
        a.expect("sync", "ok");
        host.expect("read 0 9", "older");
        b.expect("read 0 9", "new");
        b.expect("links", "0");
        for party in [a, b, host] {
            party.end();
        }
    });
}

#[test]
fn a_page_that_is_mapped_shared_is_one_page_inside_and_reaches_the_host_when_synced() {
    each_mode(|m| {
        let [mut a, mut b, mut host] = parties(m);
        a.expect("create page", "ok");
        a.expect(&format!("length {PAGE}"), "ok");
        a.expect("map", "ok");
        b.expect("open page", "ok");
        b.expect("map", "ok");
        a.expect("poke 0 from a", "ok");
        b.expect("peek 0 6", "from a");
        b.expect("poke 100 from b", "ok");
        a.expect("peek 100 6", "from b");
        b.expect("read 100 6", "from b");

        a.expect("sync", "ok");
        host.expect("open page", "ok");
        host.expect("read 0 6", "from a");
        host.expect("map", "ok");
        host.expect("peek 100 6", "from b");
        // Whoever looks at the file, as opening it does, has what the host has changed in the mapping as well.
        host.expect("write 200 from the host", "ok");
        a.expect("links", "1");
        a.expect("peek 200 13", "from the host");
        b.expect("peek 200 13", "from the host");
        b.expect("read 200 13", "from the host");
        a.expect("peek 0 6", "from a");
        for party in [a, b, host] {
            party.end();
        }
    });
}

#[test]
fn locks_keep_out_the_others_inside_and_on_the_host() {
    each_mode(|m| {
        let [mut a, mut b, mut host] = parties(m);
        a.expect("create locked", "ok");
        b.expect("open locked", "ok");
        host.expect("open locked", "ok");
        // flock(2): of the open file.
        a.expect("flock exclusive", "ok");
        b.expect("flock shared", "EAGAIN");
        host.expect("flock shared", "EAGAIN");
        a.expect("flock none", "ok");
        host.expect("flock shared", "ok");
        b.expect("flock shared", "ok");
        a.expect("flock exclusive", "EAGAIN");
        host.expect("flock none", "ok");
        b.expect("flock none", "ok");
        // fcntl(2): of a process, on a range.
        a.expect("lock write 0 10", "ok");
        b.expect("lock write 9 2", "EAGAIN");
        b.expect("lock write 10 10", "ok");
        host.expect("lock read 0 1", "EAGAIN");
        host.expect("lock read 19 1", "EAGAIN");
        host.expect("lock write 20 1", "ok");
        a.expect("lock read 20 1", "EAGAIN");
        // Waiting for one inside, and for the host.
        a.tell("await write 10 1");
        b.expect("lock none 10 1", "ok");
        a.hear("ok");
        a.tell("await write 20 1");
        host.expect("lock none 0 0", "ok");
        a.hear("ok");
        // They go with their process.
        host.expect("lock write 0 1", "EAGAIN");
        a.end();
        host.expect("lock write 0 11", "ok");
        b.expect("lock write 0 1", "EAGAIN");
        b.end();
        host.expect("lock write 0 0", "ok");
        host.end();
    });
}

/// Two processes in one container and one on the host, in the same folder. The container goes with its machine.
fn parties(m: &Machine) -> [Party; 3] {
    let folder = m.path("shared");
    fs::create_dir(&folder).expect("a new folder");
    let own = std::env::current_exe().expect("this program");
    let (files, program) = (format!("{}:/shared", m.at("shared")), format!("{}:/party:ro", own.display()));
    let id = m.detached(&["-v", &files, "-v", &program], &["sleep", "1000"]);
    let inside = || {
        let variable = format!("{FOLDER}=/shared");
        Party::start(m.sbx_command(&[&["exec", "-i", "-e", &variable, &id, "/party"], &PARTY[..]].concat()))
    };
    let mut outside = Command::new(&own);
    outside.args(PARTY).env(FOLDER, &folder);
    [inside(), inside(), Party::start(outside)]
}

/// Arguments that make this program a party.
const PARTY: [&str; 3] = ["--exact", "what_a_party_is_told_it_does", "--nocapture"];

/// A process that holds a file.
struct Party {
    child: Child,
    input: ChildStdin,
    answers: mpsc::Receiver<String>,
    last: String,
}

impl Party {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a party");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, answer)) = line.split_once(ANSWER) {
                    let _ = sender.send(answer.to_owned());
                }
            }
        });
        Self { child, input, answers, last: String::new() }
    }

    #[track_caller]
    fn tell(&mut self, order: &str) {
        order.clone_into(&mut self.last);
        writeln!(self.input, "{order}").expect("a party that listens");
    }

    #[track_caller]
    fn hear(&self, expected: &str) {
        let answer = self.answers.recv_timeout(DEADLINE);
        assert_eq!(answer.as_deref(), Ok(expected), "the answer to: {}", self.last);
    }

    #[track_caller]
    fn expect(&mut self, order: &str, expected: &str) {
        self.tell(order);
        self.hear(expected);
    }

    #[track_caller]
    fn end(self) {
        let Self { mut child, input, .. } = self;
        drop(input);
        assert!(child.wait().expect("a child can be waited for").success());
    }
}

/// Is a party where one is wanted, and does nothing elsewhere.
#[test]
fn what_a_party_is_told_it_does() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    std::env::set_current_dir(folder).expect("the folder");
    let mut held = Held::default();
    for order in io::stdin().lines() {
        let order = order.expect("a line");
        match held.obey(&order) {
            Ok(answer) => println!("{ANSWER}{answer}"),
            Err(error) => {
                println!("{ANSWER}{:?}", Errno::from_raw(error.raw_os_error().expect("an error of the system")))
            }
        }
    }
}

/// What a party has.
#[derive(Default)]
struct Held {
    file: Option<File>,
    page: Option<Page>,
}

impl Held {
    fn obey(&mut self, order: &str) -> io::Result<String> {
        let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = |text: &str| text.parse::<u64>().expect("a number");
        match verb {
            "create" => self.open(OpenOptions::new().read(true).write(true).create_new(true), first)?,
            "open" => self.open(OpenOptions::new().read(true).write(true), first)?,
            "length" => self.file().set_len(number(first))?,
            "write" => self.file().write_all_at(second.as_bytes(), number(first))?,
            "read" => return self.read(number(first), number(second)),
            "sync" => match &self.page {
                Some(page) => page.sync()?,
                None => self.file().sync_all()?,
            },
            "links" => return Ok(self.file().metadata()?.nlink().to_string()),
            "show" => return fs::read_to_string(first),
            "rename" => fs::rename(first, second)?,
            "unlink" => fs::remove_file(first)?,
            "map" => self.page = Some(Page::map(self.file())?),
            "poke" => self.poke(number(first) as usize, second),
            "peek" => return Ok(self.peek(number(first) as usize, number(second) as usize)),
            "flock" => match first {
                "shared" => self.file().try_lock_shared().map_err(system_error)?,
                "exclusive" => self.file().try_lock().map_err(system_error)?,
                _ => self.file().unlock()?,
            },
            "lock" => self.lock(first, second, |lock| fcntl(self.file(), FcntlArg::F_SETLK(lock)))?,
            "await" => self.lock(first, second, |lock| fcntl(self.file(), FcntlArg::F_SETLKW(lock)))?,
            _ => panic!("no party understands: {order}"),
        }
        Ok("ok".to_owned())
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("an open file")
    }

    fn open(&mut self, options: &OpenOptions, name: &str) -> io::Result<()> {
        self.file = Some(options.open(name)?);
        Ok(())
    }

    fn read(&self, at: u64, most: u64) -> io::Result<String> {
        let mut bytes = vec![0; most as usize];
        let count = self.file().read_at(&mut bytes, at)?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    fn poke(&mut self, at: usize, text: &str) {
        let page = self.page.as_mut().expect("a mapping");
        text.bytes().enumerate().for_each(|(i, byte)| page.set(at + i, byte));
    }

    fn peek(&self, at: usize, count: usize) -> String {
        let page = self.page.as_ref().expect("a mapping");
        (at..at + count).map(|at| char::from(page.get(at))).collect()
    }

    fn lock(&self, kind: &str, range: &str, set: impl Fn(&libc::flock) -> nix::Result<i32>) -> io::Result<()> {
        let kind = match kind {
            "read" => libc::F_RDLCK,
            "write" => libc::F_WRLCK,
            _ => libc::F_UNLCK,
        };
        let (start, length) = range.split_once(' ').expect("a start and a length");
        let number = |text: &str| text.parse().expect("a number");
        let whence = libc::SEEK_SET as i16;
        set(&libc::flock {
            l_type: kind as i16,
            l_whence: whence,
            l_start: number(start),
            l_len: number(length),
            l_pid: 0,
        })?;
        Ok(())
    }
}

/// As flock(2) has said it.
fn system_error(error: TryLockError) -> io::Error {
    match error {
        TryLockError::WouldBlock => io::Error::from(Errno::EAGAIN),
        TryLockError::Error(error) => error,
    }
}
