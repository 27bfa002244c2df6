//! The two ways of a layer into a guest, side by side: `layer_ways KERNEL INITRD IMAGE blk|pmem` boots a guest that mounts
//! the EROFS image and reads its file `/big`, and says what that cost the host. `scripts/bench-vm` makes a table of it.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sbx_vmm::log::Log;
use sbx_vmm::machine::{Boot, Builder, Initrd, MachineConfig};
use sbx_vmm::memory;
use sbx_vmm::virtio::blk::{self, Blk, BlkConfig, Extent};
use sbx_vmm::virtio::pmem::{Pmem, PmemConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [kernel, initrd, image, way] = args.as_slice() else {
        return Err("layer_ways KERNEL INITRD IMAGE blk|pmem".into());
    };
    let config = MachineConfig {
        memory: 256 << 20,
        vcpus: 1,
        addresses: 0,
        command_line: format!("console=ttyS0 quiet -- image {way}"),
        serial_limit: 1 << 20,
    };
    let mut builder = Builder::new(config, Log::new(|message| println!("vmm: {message}")))?;
    builder.serial(Box::new(io::stdout()))?;
    let (kernel, initrd, image) = (File::open(kernel)?, File::open(initrd)?, File::open(image)?);
    if way == "pmem" {
        let extent = memory::Extent { file: &image, offset: 0, length: image.metadata()?.len() };
        let region = builder.map_region(&[extent], memory::Access::ReadOnly)?;
        let config = PmemConfig { name: "pmem".into(), start: region.address.0, size: region.bytes };
        builder.add_device(Box::new(Pmem::read_only(config)?))?;
    } else {
        let (name, serial, limits) = ("disk".into(), "disk".into(), blk::Limits::default());
        let config = BlkConfig { name, serial, access: blk::Access::ReadOnly, block_size: 512, limits };
        builder.add_device(Box::new(Blk::new(config, vec![Extent::whole(image)?])?))?;
    }
    let start = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let watcher = thread::spawn({
        let done = Arc::clone(&done);
        move || most_memory(&done)
    });
    builder.boot(&Boot { kernel: &kernel, initrd: Some(Initrd::File(&initrd)) })?.run()?;
    done.store(true, Ordering::SeqCst);
    let [own, files] = watcher.join().map_err(|_| "the watcher's thread")?;
    println!("host: {way} all_ms={} own_kib={own} file_kib={files}", start.elapsed().as_millis());
    Ok(())
}

/// The most that this process had of memory of its own and of files, in KiB, until it is `done`.
fn most_memory(done: &AtomicBool) -> [u64; 2] {
    let mut most = [0; 2];
    while !done.load(Ordering::SeqCst) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (most, field) in most.iter_mut().zip(["RssAnon:", "RssFile:"]) {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let now = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
            *most = now.max(*most);
        }
        thread::sleep(Duration::from_millis(50));
    }
    most
}
