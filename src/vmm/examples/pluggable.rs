//! A confined machine into which devices are plugged: `pluggable KERNEL INITRD`, or `pluggable SAVED`. Standard input is the
//! machine's end of its control socket. A device is described by a word and a name: `disk NAME` with its file,
//! `share NAME` with a directory, `random NAME`.

use std::env;
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use sbx_vmm::confine::{Confinement, FILE_SERVER};
use sbx_vmm::log::Log;
use sbx_vmm::machine::{Boot, Builder, Initrd, Machine, MachineConfig, SavedMachine};
use sbx_vmm::virtio::Device;
use sbx_vmm::virtio::blk::{self, Blk, BlkConfig, Extent};
use sbx_vmm::virtio::fs::{self, Caching, Fs, Root, Share};
use sbx_vmm::virtio::rng::{Rng, RngConfig};

/// Device id of a file system (virtio specification, section 5).
const FILE_SYSTEM: u32 = 26;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let log = Log::new(|message| println!("vmm: {message}"));
    let mut machine = match args.as_slice() {
        [kernel, initrd] => {
            let config = MachineConfig {
                memory: 128 << 20,
                vcpus: 1,
                addresses: 6,
                command_line: "console=ttyS0 quiet panic=-1 -- plugged".into(),
                serial_limit: 1 << 20,
            };
            let (kernel, initrd) = (File::open(kernel)?, File::open(initrd)?);
            let boot = Boot { kernel: &kernel, initrd: Some(Initrd::File(&initrd)) };
            finish(Builder::new(config, log)?, |builder| builder.boot(&boot))?
        }
        [saved] => finish(Builder::restore(SavedMachine::open(File::open(saved)?)?, log)?, Builder::resume)?,
        _ => return Err("pluggable KERNEL INITRD | SAVED".into()),
    };
    machine.confine(&Confinement {
        uid: 65_534,
        gid: 65_534,
        files: 256,
        file_size: None,
        kept: vec![(FILE_SYSTEM, FILE_SERVER.to_vec())],
    })?;
    let exit = machine.run()?;
    println!("vmm: {exit:?}");
    Ok(())
}

fn finish(
    mut builder: Builder,
    build: impl FnOnce(Builder) -> sbx_vmm::Result<Machine>,
) -> Result<Machine, Box<dyn Error>> {
    builder.serial(Box::new(io::stdout()))?;
    builder.control(io::stdin().as_fd().try_clone_to_owned()?);
    let proc = open("/proc/self/fd", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    builder.maker(Box::new(move |description, files| {
        device(description, files, &proc).map_err(|error| format!("no such device: {error}"))
    }));
    Ok(build(builder)?)
}

/// Makes a device on the machine's thread for that, which is confined.
fn device(description: &[u8], files: Vec<OwnedFd>, proc: &OwnedFd) -> Result<Box<dyn Device>, Box<dyn Error>> {
    let words = str::from_utf8(description)?;
    let (kind, name) = words.split_once(' ').unwrap_or((words, ""));
    let name = name.to_owned();
    let mut files = files.into_iter();
    let mut file = || files.next().ok_or("a file is missing");
    Ok(match kind {
        "disk" => {
            let (serial, access) = (name.clone(), blk::Access::ReadWrite);
            let config = BlkConfig { name, serial, access, block_size: 512, limits: blk::Limits::default() };
            Box::new(Blk::new(config, vec![Extent::whole(File::from(file()?))?])?)
        }
        "share" => Box::new(Fs::new(Share {
            tag: name,
            root: Root::Directory(file()?),
            proc: proc.try_clone()?,
            access: fs::Access::ReadWrite,
            mappable: false,
            caching: Caching::default(),
            limits: fs::Limits { descriptors: 64, ..fs::Limits::default() },
        })?),
        "random" => Box::new(Rng::new(RngConfig { name })?),
        other => return Err(format!("what is {other}?").into()),
    })
}
