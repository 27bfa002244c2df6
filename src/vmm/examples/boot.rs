//! Boots a kernel with an initial file system and shows what it says on its serial port:
//! `boot VMLINUX INITRD [WORDS FOR THE COMMAND LINE]`, with `MEMORY` (MiB), `VCPUS`, `ADDRESSES` and
//! `CONFINE` from the environment.

use std::env;
use std::error::Error;
use std::fs::File;
use std::io;
use std::time::Instant;

use sbx_vmm::confine::Confinement;
use sbx_vmm::log::Log;
use sbx_vmm::machine::{Boot, Builder, Initrd, MachineConfig};

fn number(name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
    Ok(env::var(name).ok().map(|text| text.parse()).transpose()?.unwrap_or(default))
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut args = env::args().skip(1);
    let kernel = File::open(args.next().ok_or("which kernel?")?)?;
    let initrd = args.next().map(File::open).transpose()?;
    let words: Vec<String> = args.collect();
    let config = MachineConfig {
        memory: number("MEMORY", 256)? << 20,
        vcpus: number("VCPUS", 1)? as usize,
        addresses: number("ADDRESSES", 0)? as usize,
        command_line: if words.is_empty() { "console=ttyS0".into() } else { words.join(" ") },
        serial_limit: 1 << 20,
    };
    let mut builder = Builder::new(config, Log::new(|message| eprintln!("vmm: {message}")))?;
    builder.serial(Box::new(io::stdout()))?;
    let mut machine = builder.boot(&Boot { kernel: &kernel, initrd: initrd.as_ref().map(Initrd::File) })?;
    if env::var_os("CONFINE").is_some() {
        machine.confine(&Confinement { uid: 65534, gid: 65534, files: 64, file_size: None, kept: Vec::new() })?;
    }
    eprintln!("vmm: built after {:?}", start.elapsed());
    let exit = machine.run()?;
    eprintln!("vmm: {exit:?} after {:?}", start.elapsed());
    Ok(())
}
