//! An initial file system with the guest's program as `/init`, as a cpio archive of the "new" format.

use std::env;
use std::fs;
use std::path::PathBuf;

/// The program `examples/guest_init/main.rs`, where it was built to run without libraries.
pub(crate) fn init() -> Option<Vec<u8>> {
    program("guest_init")
}

/// One of the programs for guests below `examples/`, where it was built to run without libraries.
pub(crate) fn program(name: &str) -> Option<Vec<u8>> {
    if !cfg!(target_env = "musl") {
        println!("skipped: the guest's program needs a static target (x86_64-unknown-linux-musl)");
        return None;
    }
    let deps: PathBuf = env::current_exe().unwrap().parent().unwrap().into();
    Some(fs::read(deps.parent().unwrap().join("examples").join(name)).unwrap())
}

/// The archive: `/dev/console`, `/proc` and `/init`.
pub(crate) fn archive(init: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for folder in ["dev", "proc", "sys", "run"] {
        entry(&mut archive, folder, 0o40755, (0, 0), &[]);
    }
    entry(&mut archive, "dev/console", 0o20600, (5, 1), &[]);
    entry(&mut archive, "init", 0o100_755, (0, 0), init);
    entry(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    archive
}

fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    let (size, length) = (content.len() as u32, name.len() as u32 + 1);
    let fields = [archive.len() as u32, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, length, 0];
    archive.extend_from_slice(b"070701");
    fields.iter().for_each(|field| archive.extend_from_slice(format!("{field:08x}").as_bytes()));
    for part in [format!("{name}\0").as_bytes(), content] {
        archive.extend_from_slice(part);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
}
