//! Uses every device that a machine can have, from a program of the guest, so that the devices' threads do all that they
//! ever do.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, Flock, FlockArg, fallocate, fcntl};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, VsockAddr, connect, send, socket};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::statvfs::statvfs;
use nix::sys::time::TimeSpec;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

type Done = Result<(), Box<dyn Error>>;
/// What is exercised, and how.
type Part = (&'static str, fn() -> Done);

/// Uses all devices, and says of each whether that went well.
pub(crate) fn all() {
    let parts: [Part; 7] = [
        ("disk", disk),
        ("persistent memory", persistent_memory),
        ("random bytes", random),
        ("console", console),
        ("stream", stream),
        ("network", network),
        ("files", files),
    ];
    for (name, part) in parts {
        match part() {
            Ok(()) => println!("exercise: {name} went well"),
            Err(error) => println!("exercise: {name} failed: {error}"),
        }
    }
}

fn expect(so: bool, what: &str) -> Done {
    if so { Ok(()) } else { Err(what.into()) }
}

fn disk() -> Done {
    let mut disk = OpenOptions::new().read(true).write(true).open("/dev/vda")?;
    let pattern: Vec<u8> = (0..1 << 20).map(|number: u32| (number / 512) as u8).collect();
    disk.write_all(&pattern)?;
    disk.sync_all()?;
    for (mode, from) in [(FallocateFlags::FALLOC_FL_ZERO_RANGE, 0), (FallocateFlags::FALLOC_FL_PUNCH_HOLE, 8192)] {
        fallocate(&disk, mode | FallocateFlags::FALLOC_FL_KEEP_SIZE, from, 4096)?;
    }
    drop(disk);
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    disk = File::open("/dev/vda")?;
    let mut read = vec![0; pattern.len()];
    disk.read_exact(&mut read)?;
    expect(read[16384..] == pattern[16384..], "what was read is not what was written")?;
    expect(read[..4096].iter().all(|byte| *byte == 0), "zeroed bytes are not zero")
}

fn persistent_memory() -> Done {
    let mut start = [0; 5];
    File::open("/dev/pmem0")?.read_exact(&mut start)?;
    expect(start == *b"layer", "it holds something else")
}

fn random() -> Done {
    let mut bytes = [0; 64];
    File::open("/dev/hwrng")?.read_exact(&mut bytes)?;
    expect(bytes.iter().any(|byte| *byte != 0), "64 zeroes")
}

fn console() -> Done {
    OpenOptions::new().write(true).open("/dev/hvc0")?.write_all(b"hello from the guest\n")?;
    Ok(())
}

/// Sends more than fits into any buffer to somebody who sends it back.
fn stream() -> Done {
    const HOST: u32 = 2;
    const PORT: u32 = 1000;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &VsockAddr::new(HOST, PORT))?;
    let mut stream = File::from(socket);
    let mut other = stream.try_clone()?;
    let writer = std::thread::spawn(move || other.write_all(&vec![7; 1 << 20]));
    let mut back = vec![0; 1 << 20];
    stream.read_exact(&mut back)?;
    writer.join().map_err(|_| "the writer panicked")??;
    expect(back.iter().all(|byte| *byte == 7), "other bytes came back")
}

/// Sets the card up, by a message of rtnetlink(7); IPv6 then looks for neighbours by itself.
fn network() -> Done {
    let index: u32 = fs::read_to_string("/sys/class/net/eth0/ifindex")?.trim().parse()?;
    let mut message = Vec::new();
    message.extend_from_slice(&32_u32.to_ne_bytes());
    // RTM_NEWLINK, NLM_F_REQUEST, no sequence and port.
    message.extend_from_slice(&16_u16.to_ne_bytes());
    message.extend_from_slice(&1_u16.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    // struct ifinfomsg: the index, IFF_UP, and that only this flag is meant.
    message.extend_from_slice(&[0; 4]);
    [index, 1, 1].iter().for_each(|word| message.extend_from_slice(&word.to_ne_bytes()));
    let route = SockProtocol::NetlinkRoute;
    let netlink: OwnedFd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route)?;
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    for _ in 0..200 {
        let sent: u64 = fs::read_to_string("/sys/class/net/eth0/statistics/tx_packets")?.trim().parse()?;
        if sent > 0 {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err("no packet was sent".into())
}

fn files() -> Done {
    fs::create_dir_all("/run/share")?;
    mount(Some("share"), "/run/share", Some("virtiofs"), MsFlags::empty(), None::<&str>)?;
    names(Path::new("/run/share"))?;
    content(Path::new("/run/share/file"))?;
    umount("/run/share")?;
    Ok(())
}

fn names(root: &Path) -> Done {
    expect(fs::read(root.join("given"))? == b"from the host", "the host's file")?;
    let folder = root.join("folder");
    fs::create_dir(&folder)?;
    let file = folder.join("a");
    fs::write(&file, b"content")?;
    fs::rename(&file, folder.join("b"))?;
    fs::hard_link(folder.join("b"), folder.join("c"))?;
    symlink("b", folder.join("d"))?;
    expect(fs::read_link(folder.join("d"))? == Path::new("b"), "where the link leads")?;
    mknod(&folder.join("pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0)?;
    fs::set_permissions(folder.join("b"), fs::Permissions::from_mode(0o640))?;
    chown(folder.join("b"), Some(1000), Some(1000))?;
    let (time, flags) = (TimeSpec::new(1, 0), UtimensatFlags::NoFollowSymlink);
    utimensat(nix::fcntl::AT_FDCWD, &folder.join("b"), &time, &time, flags)?;
    expect(fs::read_dir(&folder)?.count() == 4, "four names")?;
    statvfs(root)?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn content(path: &Path) -> Done {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all(&[5; 10_000])?;
    fallocate(&file, FallocateFlags::empty(), 0, 20_000)?;
    file.set_len(16_384)?;
    file.sync_data()?;
    file.sync_all()?;
    nix::unistd::syncfs(&file)?;
    file.seek(SeekFrom::Start(0))?;
    expect(nix::unistd::lseek(&file, 0, nix::unistd::Whence::SeekHole).is_ok(), "where a hole is")?;
    // By copy_file_range(2), within the host.
    fs::copy(path, path.with_extension("copy"))?;
    lock(file.try_clone()?)?;
    let region = MmapRegion::<()>::from_file(FileOffset::new(file.try_clone()?, 0), 4096)?;
    region.as_volatile_slice().write_slice(b"mapped", 0)?;
    drop(region);
    file.sync_all()?;
    let mut start = [0; 6];
    file.read_exact_at(&mut start, 0)?;
    expect(start == *b"mapped", "what was written by a mapping")
}

fn lock(file: File) -> Done {
    let whole =
        libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    match fcntl(file.as_fd(), FcntlArg::F_SETLK(&whole)) {
        Err(Errno::ENOLCK | Errno::EOPNOTSUPP) | Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
    Ok(())
}
