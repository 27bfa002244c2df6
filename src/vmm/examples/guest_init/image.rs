//! An image, mounted and read: how long it takes and what it costs of the guest's memory.

use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::time::{ClockId, clock_gettime};

/// Mounts the image on the disk or in the region, reads its file twice and says what was seen.
pub(crate) fn read(way: &str) -> Result<(), Box<dyn Error>> {
    let (device, options) = if way == "pmem" { ("/dev/pmem0", Some("dax=always")) } else { ("/dev/vda", None) };
    while !Path::new(device).exists() {
        thread::sleep(Duration::from_millis(1));
    }
    let before = free()?;
    fs::create_dir_all("/run/image")?;
    mount(Some(device), "/run/image", Some("erofs"), MsFlags::MS_RDONLY, options)?;
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let (first, again) = (time("/run/image/big")?, time("/run/image/big")?);
    println!(
        "image: {way} mounted_ms={} first_ms={} again_ms={} memory_kib={}",
        up.tv_sec() * 1000 + up.tv_nsec() / 1_000_000,
        first.as_millis(),
        again.as_millis(),
        before.saturating_sub(free()?)
    );
    Ok(())
}

fn time(path: &str) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(start.elapsed())
}

/// Memory that nothing has, in KiB.
fn free() -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:")).ok_or("no MemFree")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}
