//! The first program of a test's guest with devices: uses each as a program would, and says on the serial port what it
//! found. Whatever is not as it should be ends it with a reason, and so the machine.
//!
//! What a disk should hold: [`expected`], which the test on the host knows too.

use std::env;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

type Checked = Result<(), Box<dyn Error>>;

const PAGE: usize = 4096;

fn main() -> Checked {
    if std::process::id() != 1 {
        return Err("this is the first program of a guest".into());
    }
    let nothing = None::<&str>;
    for (target, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs")] {
        mount(nothing, target, Some(kind), MsFlags::empty(), nothing)?;
    }
    for word in env::args().skip(1) {
        match word.as_str() {
            "disks" => disks()?,
            "regions" => regions()?,
            "rng" => rng()?,
            "console" => console()?,
            "balloon" => balloon()?,
            "churn" => churn()?,
            other => return Err(format!("what is {other}?").into()),
        }
        println!("guest: {word} ok");
    }
    reboot(RebootMode::RB_AUTOBOOT)?;
    Ok(())
}

/// Page `number` of a disk, of which `seed` is the name.
fn expected(seed: u8, number: usize) -> [u8; PAGE] {
    let mut page = [seed; PAGE];
    page[..8].copy_from_slice(&(number as u64).to_le_bytes());
    page
}

fn text(path: &str) -> Result<String, Box<dyn Error>> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| format!("{path}: {error}").into())
}

fn must(condition: bool, what: &str) -> Checked {
    if condition { Ok(()) } else { Err(what.into()) }
}

fn wait_for(path: &str) {
    while !Path::new(path).exists() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Reads all of a disk and compares; says how many pages it has.
fn compare(path: &str, seed: u8) -> Result<usize, Box<dyn Error>> {
    let mut disk = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let mut content = Vec::new();
    disk.read_to_end(&mut content).map_err(|error| format!("read {path}: {error}"))?;
    for (number, page) in content.chunks(PAGE).enumerate() {
        must(page == expected(seed, number), &format!("{path}: page {number} is not what it should be"))?;
    }
    Ok(content.len() / PAGE)
}

/// `vda` is read-only, `vdb` is not.
fn disks() -> Checked {
    wait_for("/dev/vdb");
    must(text("/sys/block/vda/ro")? == "1" && text("/sys/block/vdb/ro")? == "0", "which disk is read-only?")?;
    must(text("/sys/block/vda/serial")? == "first-disk", "the serial")?;
    let pages = compare("/dev/vda", b'a')?;
    must(text("/sys/block/vda/size")? == (pages * 8).to_string() && pages > 100, "the size")?;
    let written = OpenOptions::new().write(true).open("/dev/vda").and_then(|disk| {
        disk.write_all_at(&[0; PAGE], 0)?;
        disk.sync_all()
    });
    must(written.is_err(), "a read-only disk could be written")?;
    let disk = OpenOptions::new().read(true).write(true).open("/dev/vdb")?;
    for number in 0..256 {
        disk.write_all_at(&expected(b'b', number), (number * PAGE) as u64)?;
    }
    disk.sync_all()?;
    forget()?;
    must(compare("/dev/vdb", b'b')? == 256, "the size of what was written")?;
    // On a block device, these are a write-zeroes that may unmap and one that may not.
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let page = PAGE as i64;
    fallocate(&disk, keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE, 16 * page, 100 * page)?;
    fallocate(&disk, keep | FallocateFlags::FALLOC_FL_ZERO_RANGE, 200 * page, page)?;
    disk.sync_all()?;
    forget()?;
    let mut bytes = [1; PAGE];
    for number in [16, 115, 200] {
        disk.read_exact_at(&mut bytes, (number * PAGE) as u64)?;
        must(bytes == [0; PAGE], &format!("page {number} is not zero"))?;
    }
    must(text("/sys/block/vdb/queue/discard_max_bytes")? != "0", "the disk takes no discards")
}

/// Makes the kernel forget what it has of the disks.
fn forget() -> Checked {
    Ok(fs::write("/proc/sys/vm/drop_caches", "3")?)
}

/// `pmem0` is read-only, `pmem1` is not.
fn regions() -> Checked {
    wait_for("/dev/pmem1");
    for disk in ["pmem0", "pmem1"] {
        must(text(&format!("/sys/block/{disk}/queue/dax"))? == "1", "a region without DAX")?;
    }
    let mut content = vec![0; 300 * PAGE];
    File::open("/dev/pmem0")?.read_exact(&mut content)?;
    for (number, page) in content.chunks(PAGE).enumerate() {
        must(page == expected(b'p', number), &format!("page {number} of the region is not what it should be"))?;
    }
    let region = OpenOptions::new().read(true).write(true).open("/dev/pmem1")?;
    for number in 0..256 {
        region.write_all_at(&expected(b'q', number), (number * PAGE) as u64)?;
    }
    Ok(region.sync_all()?)
}

fn rng() -> Checked {
    must(text("/sys/class/misc/hw_random/rng_current")?.starts_with("virtio_rng"), "the source of random bytes")?;
    let mut bytes = [0; 4096];
    File::open("/dev/hwrng")?.read_exact(&mut bytes)?;
    must(bytes.chunks(16).all(|some| some != [0; 16]), "the bytes are not random")
}

/// Says something, and hears a line.
fn console() -> Checked {
    wait_for("/dev/hvc0");
    let mut console = OpenOptions::new().read(true).write(true).open("/dev/hvc0")?;
    let mut terminal = tcgetattr(&console)?;
    terminal.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&console, SetArg::TCSANOW, &terminal)?;
    console.write_all(b"the guest speaks\n")?;
    let mut lines = BufReader::new(console.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    // More than the host's pipe and the device keep: it must neither stop the guest nor be kept.
    for _ in 0..300 {
        console.write_all(&[b'x'; 1000])?;
    }
    println!("guest: console has spoken");
    lines.read_line(&mut line)?;
    must(line == "the host speaks\nthe host has heard\n", &format!("the host said {line:?}"))
}

/// Leaves the balloon to the host, then gives memory back by itself, and waits until the host has seen it.
fn balloon() -> Checked {
    let free = || -> Result<u64, Box<dyn Error>> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let line = text.lines().find(|line| line.starts_with("MemFree")).ok_or("no MemFree")?;
        Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
    };
    let before = free()?;
    // The host begins when it reads this.
    println!("guest: balloon waits");
    while before - free()?.min(before) < 24 << 10 {
        thread::sleep(Duration::from_millis(10));
    }
    println!("guest: balloon is full");
    while before - free()?.min(before) > 8 << 10 {
        thread::sleep(Duration::from_millis(10));
    }
    println!("guest: balloon is empty");
    let mut memory = vec![1_u8; 40 << 20];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte += 1);
    drop(memory);
    println!("guest: memory is free");
    wait_for("/dev/hvc0");
    let mut line = String::new();
    BufReader::new(File::open("/dev/hvc0")?).read_line(&mut line)?;
    Ok(())
}

/// Uses the disks and the random bytes for ever.
fn churn() -> Checked {
    wait_for("/dev/vdb");
    let disk = OpenOptions::new().read(true).write(true).open("/dev/vdb")?;
    for round in 0_usize.. {
        for number in 0..64 {
            disk.write_all_at(&expected(round as u8, number), (number * PAGE) as u64)?;
        }
        disk.sync_all()?;
        forget()?;
        compare("/dev/vda", b'a')?;
        let mut page = [0; PAGE];
        for number in 0..64 {
            disk.read_exact_at(&mut page, (number * PAGE) as u64)?;
            must(page == expected(round as u8, number), &format!("round {round} page {number}"))?;
        }
        rng()?;
        println!("churn {round}");
    }
    Ok(())
}
