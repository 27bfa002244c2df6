//! The first program of a test's guest. Its arguments say what it does: `interrupts` shows them, `tick` counts for ever,
//! `exercise` uses all devices, `image blk|pmem` reads an image, `look-again N` lets the driver look at device N again,
//! `plugged` uses devices that come and go. At the end it resets the machine.

mod exercise;
mod image;
mod plugged;

use std::env;
use std::error::Error;
use std::fs;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn Error>> {
    if std::process::id() != 1 {
        return Err("this is the first program of a guest".into());
    }
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    println!("init: up after {} ms", up.tv_sec() * 1000 + up.tv_nsec() / 1_000_000);
    let nothing = None::<&str>;
    mount(nothing, "/proc", Some("proc"), MsFlags::empty(), nothing)?;
    mount(nothing, "/sys", Some("sysfs"), MsFlags::empty(), nothing)?;
    mount(nothing, "/run", Some("tmpfs"), MsFlags::empty(), nothing)?;
    mount(nothing, "/dev", Some("devtmpfs"), MsFlags::empty(), nothing)?;
    println!("init: {} processors", thread::available_parallelism()?);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "interrupts" => print!("{}", fs::read_to_string("/proc/interrupts")?),
            "tick" => tick(),
            "exercise" => exercise::all(),
            "image" => image::read(&words.next().ok_or("by which way?")?)?,
            "plugged" => plugged::all()?,
            "look-again" => look_again(&words.next().ok_or("at which device?")?)?,
            other => println!("init: what is {other}?"),
        }
    }
    println!("init: done");
    reboot(RebootMode::RB_AUTOBOOT)?;
    Ok(())
}

fn tick() {
    for number in 0_u64.. {
        println!("tick {number}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a word on the console's other side to have come and gone: until a device is there.
fn look_again(device: &str) -> Result<(), Box<dyn Error>> {
    let name = format!("virtio-mmio.{device}");
    println!("init: looking for {name}");
    while fs::write("/sys/bus/platform/drivers/virtio-mmio/bind", &name).is_err() {
        thread::sleep(Duration::from_millis(20));
    }
    println!("init: {name} is there");
    Ok(())
}
