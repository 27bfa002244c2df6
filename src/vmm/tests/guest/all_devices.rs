//! Every device at once, in a confined process, with Linux' drivers.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use sbx_vmm::virtio::vsock::Gate;

use crate::{can_run, initramfs};

#[test]
fn a_confined_machine_works_with_every_device() {
    if !can_run() {
        return;
    }
    let Some(kernel) = env::var_os("SBX_KERNEL") else {
        println!("skipped: SBX_KERNEL does not name a guest kernel");
        return;
    };
    let Some(init) = initramfs::init() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("share")).unwrap();
    fs::write(folder.path().join("share/given"), b"from the host").unwrap();
    fs::write(folder.path().join("initrd"), initramfs::archive(&init)).unwrap();
    let tests = env::current_exe().unwrap();
    let (gate, inner) = Gate::pair().unwrap();
    let child = Command::new(tests.parent().and_then(Path::parent).unwrap().join("examples/all_devices"))
        .arg(kernel)
        .arg(folder.path().join("initrd"))
        .arg(folder.path())
        .stdin(Stdio::from(OwnedFd::from(inner)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // What the guest sends comes back to it.
    let echo = thread::spawn(move || {
        let Ok((_, mut stream)) = gate.accept() else { return };
        let mut back = stream.try_clone().unwrap();
        let mut bytes = [0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            back.write_all(&bytes[..count]).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?}: {said}", output.status);
    assert!(said.contains("Reset"), "{said}");
    assert_eq!(said.matches("went well").count(), 7, "{said}");
    assert!(!said.contains("needs a reset"), "{said}");
    assert_eq!(fs::read(folder.path().join("console")).unwrap(), b"hello from the guest\r\n");
    echo.join().unwrap();
    println!("{said}");
}
