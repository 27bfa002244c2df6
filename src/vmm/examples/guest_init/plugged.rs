//! Uses devices that come and go while the guest runs, as `tests/guest/plugged.rs` plugs them in. A device at the next
//! address is the host's word to go on.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};

type Done = Result<(), Box<dyn Error>>;

const DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

pub(crate) fn all() -> Done {
    bind(0);
    write_disk("first")?;
    println!("plugged: the disk is in use");
    bind(1);
    use_share()?;
    unbind(1)?;
    unbind(0)?;
    println!("plugged: nothing is in use");

    bind(2);
    bind(0);
    bind(1);
    for serial in ["theirs", "second"] {
        compare(serial)?;
    }
    println!("plugged: two disks are in use");
    bind(3);
    write_disk("theirs")?;
    unbind(0)?;
    println!("plugged: one disk is in use");

    bind(4);
    bind(0);
    compare("third")?;
    compare("second")?;
    println!("plugged: all went well");
    Ok(())
}

/// Waits until there is a device at the address, and lets the driver have it.
fn bind(address: usize) {
    println!("plugged: waits for address {address}");
    while fs::write(format!("{DRIVER}/bind"), format!("virtio-mmio.{address}")).is_err() {
        thread::sleep(Duration::from_millis(20));
    }
    println!("plugged: has address {address}");
}

fn unbind(address: usize) -> Done {
    Ok(fs::write(format!("{DRIVER}/unbind"), format!("virtio-mmio.{address}"))?)
}

/// The disk with that serial number, when it is there.
fn disk(serial: &str) -> Result<String, Box<dyn Error>> {
    for _ in 0..1000 {
        for disk in fs::read_dir("/sys/block")? {
            let disk = disk?;
            if fs::read_to_string(disk.path().join("serial")).is_ok_and(|text| text.trim() == serial) {
                return Ok(format!("/dev/{}", disk.file_name().display()));
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("no disk {serial}").into())
}

fn pattern(serial: &str) -> Vec<u8> {
    serial.bytes().cycle().take(256 << 10).collect()
}

/// Fills the disk, and reads what is there.
fn write_disk(serial: &str) -> Done {
    let mut file = OpenOptions::new().write(true).open(disk(serial)?)?;
    file.write_all(&pattern(serial))?;
    file.sync_all()?;
    drop(file);
    compare(serial)
}

/// Reads the disk, not from the guest's memory.
fn compare(serial: &str) -> Done {
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let mut read = Vec::new();
    File::open(disk(serial)?)?.read_to_end(&mut read)?;
    if read == pattern(serial) { Ok(()) } else { Err(format!("disk {serial} holds something else").into()) }
}

fn use_share() -> Done {
    fs::create_dir_all("/run/share")?;
    mount(Some("share"), "/run/share", Some("virtiofs"), MsFlags::empty(), None::<&str>)?;
    let given = fs::read("/run/share/given")?;
    fs::create_dir("/run/share/folder")?;
    fs::write("/run/share/folder/made", [given, b", and back".to_vec()].concat())?;
    umount("/run/share")?;
    Ok(())
}
