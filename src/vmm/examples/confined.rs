//! A process that is confined and then does what its arguments say, for a test that watches: `confined UID GID ROLE DEED`,
//! or `confined UID GID wait`.

use std::error::Error;
use std::io::{self, Read};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::{env, thread};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use sbx_vmm::confine::{Confinement, FILE_SERVER, Role, Threads};
use vm_memory::MmapRegion;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const BLOCK: u32 = 2;
const FILES: u32 = 26;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let word = |index: usize| words.get(index).map(String::as_str).ok_or("too few arguments");
    let confinement = Confinement {
        uid: word(0)?.parse()?,
        gid: word(1)?.parse()?,
        files: 64,
        file_size: Some(1 << 20),
        kept: vec![(FILES, FILE_SERVER.to_vec())],
    };
    let role = match word(2)? {
        "main" => Role::Main,
        "vcpu" => Role::Vcpu,
        "block" => Role::Device(BLOCK),
        "files" => Role::Device(FILES),
        "maker" => Role::Maker,
        _ => return wait(&confinement),
    };
    let deed = word(3)?;
    let threads = confinement.enter()?;
    // A C library sets up what it needs for threads with the first, which in a machine is another than here.
    thread::spawn(|| {}).join().map_err(|_| "a thread panicked")?;
    threads.enter(role)?;
    println!("confined");
    match deed {
        "nothing" => {}
        "open" => println!("opened: {}", open()),
        "socket" => println!("a socket: {}", UdpSocket::bind("127.0.0.1:0").is_ok()),
        "exec" => println!("a program: {}", Command::new("/bin/true").status().is_ok()),
        "thread" => println!("a thread: {}", thread::Builder::new().spawn(|| {}).is_ok()),
        // With the GNU library by the call that a filter cannot look into, and then by the other.
        "device" => println!("a device: {}", device(&threads)?),
        "device-opens" => {
            let opens = move || threads.enter(Role::Device(BLOCK)).map(|()| open());
            println!("a device opened: {:?}", thread::Builder::new().spawn(opens)?.join());
        }
        "executable" => {
            let (rights, kind) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            println!("memory: {}", MmapRegion::<()>::build(None, 4096, rights, kind).is_ok());
        }
        other => return Err(format!("what is {other}?").into()),
    }
    println!("survived");
    Ok(())
}

fn open() -> bool {
    openat(AT_FDCWD, "/", OFlag::O_DIRECTORY, Mode::empty()).is_ok()
}

/// What making a device takes: an eventfd, a timer, and a thread with a name that confines itself, to the capabilities of
/// its kind. The word says that it came so far.
fn device(threads: &Threads) -> Result<String, Box<dyn Error>> {
    let event = EventFd::new(EFD_NONBLOCK)?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    let threads = threads.clone();
    let body = move || {
        let done = threads.enter(Role::Device(BLOCK)).map_err(|error| error.to_string());
        let done = done.and_then(|()| event.write(1).map_err(|error| error.to_string()));
        // Both are closed by who made them.
        (done.and_then(|()| timer.unset().map_err(|error| error.to_string())), event, timer)
    };
    let thread = thread::Builder::new().name("device".into()).stack_size(512 << 10).spawn(body)?;
    thread.join().map_err(|_| "the thread panicked")?.0?;
    Ok("works".into())
}

/// Three threads, of a file server, of a vCPU and of who makes devices, and the main one wait until they have been looked at.
fn wait(confinement: &Confinement) -> Result<(), Box<dyn Error>> {
    let threads = confinement.enter()?;
    let (ready, all) = channel();
    let start = |name: &str, role: Role, end: Receiver<()>| {
        let (ready, threads) = (ready.clone(), threads.clone());
        let body = move || {
            let confined = threads.enter(role).map_err(|error| error.to_string());
            let _watched = ready.send(confined);
            // Ends when the other end of the channel is dropped.
            let _end = end.recv();
        };
        thread::Builder::new().name(name.into()).spawn(body)
    };
    let roles = [("files", Role::Device(FILES)), ("vcpu", Role::Vcpu), ("maker", Role::Maker)];
    let (mut handles, mut ends) = (Vec::new(), Vec::new());
    for (name, role) in roles {
        let (end, waits) = channel();
        handles.push(start(name, role, waits)?);
        ends.push(end);
    }
    for _ in roles {
        all.recv()??;
    }
    threads.enter(Role::Main)?;
    println!("waiting");
    let _any = io::stdin().read(&mut [0])?;
    drop(ends);
    for handle in handles {
        handle.join().map_err(|_| "a thread panicked")?;
    }
    Ok(())
}
