//! A confined machine with one of each device, whose guest uses them all: `all_devices KERNEL INITRD FOLDER`. Standard
//! input is the machine's end of a vsock gate; the folder is for files and has `share`, which is shared.

use std::env;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use sbx_vmm::confine::{Confinement, FILE_SERVER};
use sbx_vmm::log::Log;
use sbx_vmm::machine::{Boot, Builder, Initrd, MachineConfig};
use sbx_vmm::memory;
use sbx_vmm::virtio::balloon::{Balloon, BalloonConfig};
use sbx_vmm::virtio::blk::{self, Blk, BlkConfig, Extent};
use sbx_vmm::virtio::console::{Console, ConsoleConfig};
use sbx_vmm::virtio::fs::{self, Caching, Fs, Root, Share};
use sbx_vmm::virtio::net::{self, Net};
use sbx_vmm::virtio::pmem::{Pmem, PmemConfig};
use sbx_vmm::virtio::rng::{Rng, RngConfig};
use sbx_vmm::virtio::vsock::{self, InnerGate, Vsock};

/// Device id of a file system (virtio specification, section 5).
const FILE_SYSTEM: u32 = 26;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<PathBuf> = env::args().skip(1).map(PathBuf::from).collect();
    let [kernel, initrd, folder] = args.as_slice() else { return Err("all_devices KERNEL INITRD FOLDER".into()) };
    let config = MachineConfig {
        memory: 256 << 20,
        vcpus: 2,
        addresses: 0,
        command_line: "console=ttyS0 quiet -- exercise".into(),
        serial_limit: 1 << 20,
    };
    let mut builder = Builder::new(config, Log::new(|message| println!("vmm: {message}")))?;
    builder.serial(Box::new(io::stdout()))?;
    let wire = devices(&mut builder, folder)?;
    let (kernel, initrd) = (File::open(kernel)?, File::open(initrd)?);
    let mut machine = builder.boot(&Boot { kernel: &kernel, initrd: Some(Initrd::File(&initrd)) })?;
    machine.confine(&Confinement {
        uid: 65_534,
        gid: 65_534,
        files: 1024,
        file_size: None,
        kept: vec![(FILE_SYSTEM, FILE_SERVER.to_vec())],
    })?;
    let exit = machine.run()?;
    let mut frame = [0; 2048];
    let length = File::from(wire).read(&mut frame)?;
    println!("vmm: a frame of {length} bytes; {exit:?}");
    Ok(())
}

/// Adds one of each; the other end of the network's wire.
fn devices(builder: &mut Builder, folder: &Path) -> Result<OwnedFd, Box<dyn Error>> {
    let new =
        |name: &str| OpenOptions::new().read(true).write(true).create(true).truncate(true).open(folder.join(name));
    let mut layer = new("layer")?;
    layer.write_all(b"layer")?;
    layer.set_len(128 << 20)?;
    let extents = [memory::Extent { file: &layer, offset: 0, length: 128 << 20 }];
    let region = builder.map_region(&extents, memory::Access::ReadOnly)?;
    let config = PmemConfig { name: "pmem".into(), start: region.address.0, size: region.bytes };
    builder.add_device(Box::new(Pmem::read_only(config)?))?;

    let disk = new("disk")?;
    disk.set_len(64 << 20)?;
    let limits = blk::Limits::default();
    let (name, serial) = ("disk".into(), "disk".into());
    let config = BlkConfig { name, serial, access: blk::Access::ReadWrite, block_size: 512, limits };
    builder.add_device(Box::new(Blk::new(config, vec![Extent::whole(disk)?])?))?;

    builder.add_device(Box::new(Rng::new(RngConfig { name: "rng".into() })?))?;
    let config = BalloonConfig { name: "balloon".into(), target: 4096, deflate_on_oom: true };
    builder.add_device(Box::new(Balloon::new(config)?.0))?;
    builder.add_device(Box::new(Console::new(ConsoleConfig { name: "console".into() }, new("console")?, None)?))?;

    let gate = InnerGate::from(io::stdin().as_fd().try_clone_to_owned()?);
    let config = vsock::Config { guest_cid: 3, allowed_ports: vec![1000] };
    builder.add_device(Box::new(Vsock::new(config, gate)?))?;

    // A tap as far as the device sees: whole frames, each with its header.
    let (wire, tap) = UnixDatagram::pair()?;
    tap.set_nonblocking(true)?;
    builder.add_device(Box::new(Net::new(net::Config { mac: [2, 0, 0, 0, 0, 1], mtu: 1500 }, tap.into())?))?;
    builder.add_device(Box::new(Fs::new(share(folder)?)?))?;
    Ok(wire.into())
}

fn share(folder: &Path) -> Result<Share, Box<dyn Error>> {
    let directory = |path: &Path| open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    Ok(Share {
        tag: "share".into(),
        root: Root::Directory(directory(&folder.join("share"))?),
        proc: directory("/proc/self/fd".as_ref())?,
        access: fs::Access::ReadWrite,
        mappable: false,
        caching: Caching::default(),
        limits: fs::Limits { descriptors: 512, ..fs::Limits::default() },
    })
}
