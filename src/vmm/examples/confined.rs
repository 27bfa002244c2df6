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
use sbx_vmm::confine::{Confinement, FILE_SERVER, Role};
use vm_memory::MmapRegion;

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
        _ => return wait(&confinement),
    };
    let deed = word(3)?;
    confinement.enter()?.enter(role)?;
    println!("confined");
    match deed {
        "nothing" => {}
        "open" => println!("opened: {}", openat(AT_FDCWD, "/", OFlag::O_DIRECTORY, Mode::empty()).is_ok()),
        "socket" => println!("a socket: {}", UdpSocket::bind("127.0.0.1:0").is_ok()),
        "exec" => println!("a program: {}", Command::new("/bin/true").status().is_ok()),
        "thread" => println!("a thread: {}", thread::Builder::new().spawn(|| {}).is_ok()),
        "executable" => {
            let (rights, kind) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            println!("memory: {}", MmapRegion::<()>::build(None, 4096, rights, kind).is_ok());
        }
        other => return Err(format!("what is {other}?").into()),
    }
    println!("survived");
    Ok(())
}

/// Two threads, of a file server and of a vCPU, and the main one wait until they have been looked at.
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
    let ((first, first_end), (second, second_end)) = (channel(), channel());
    let handles = [start("files", Role::Device(FILES), first_end)?, start("vcpu", Role::Vcpu, second_end)?];
    for _ in 0..2 {
        all.recv()??;
    }
    threads.enter(Role::Main)?;
    println!("waiting");
    let _any = io::stdin().read(&mut [0])?;
    drop((first, second));
    for handle in handles {
        handle.join().map_err(|_| "a thread panicked")?;
    }
    Ok(())
}
