//! Who may tell a machine that runs what to do. Its guest never looks at the devices that are plugged in.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sbx_vmm::machine::{Boot, Builder, MachineConfig, Maker, Remote, pair};
use sbx_vmm::virtio::Device;

use crate::random::Random;
use crate::{PATIENCE, Running, can_run, config, kernel, log};

/// Places of the machine, of which a device that stands has the first.
const PLACES: usize = 4;

/// A device that holds what came with its description.
struct Holder {
    random: Random,
    _files: Vec<OwnedFd>,
}

impl Device for Holder {
    fn kind(&self) -> u32 {
        self.random.kind()
    }

    fn name(&self) -> &str {
        self.random.name()
    }

    fn features(&self) -> u64 {
        self.random.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        self.random.queue_sizes()
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn queue_ready(&mut self, queue: usize, io: &mut sbx_vmm::virtio::Io) -> Result<(), sbx_vmm::virtio::DeviceError> {
        self.random.queue_ready(queue, io)
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Vec<u8>, sbx_vmm::virtio::DeviceError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _state: &[u8]) -> Result<(), sbx_vmm::virtio::DeviceError> {
        Ok(())
    }
}

fn random() -> Random {
    Random { filled: Arc::default() }
}

fn maker() -> Maker {
    Box::new(|description, files| match description {
        b"holder" => Ok(Box::new(Holder { random: random(), _files: files })),
        b"panic" => panic!("this description is a trap"),
        _ => Err(format!("{} bytes are no device", description.len())),
    })
}

/// A machine that counts on its serial port.
fn start(maker: Option<Maker>) -> Option<Running> {
    if !can_run() {
        return None;
    }
    let kernel = kernel::elf(&kernel::count());
    Some(Running::start(
        || {
            let config = MachineConfig { addresses: PLACES, ..config(1, "") };
            let mut builder = Builder::new(config, log()).unwrap();
            builder.add_device(Box::new(random())).unwrap();
            maker.into_iter().for_each(|maker| builder.maker(maker));
            builder
        },
        |builder| builder.boot(&Boot { kernel: &kernel, initrd: None }).unwrap(),
    ))
}

fn plug(remote: &Remote) -> sbx_vmm::Result<usize> {
    remote.plug(b"holder", &[])
}

fn admit(running: &Running) -> Remote {
    let (remote, socket) = pair().unwrap();
    running.remote.admit(socket).unwrap();
    remote
}

fn reason<T: std::fmt::Debug>(refused: sbx_vmm::Result<T>) -> String {
    refused.unwrap_err().to_string()
}

/// Waits until something holds that others must do first.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The guest goes on.
fn goes_on(running: &Running) {
    let said = running.output.bytes().len();
    running.output.wait("more numbers", |bytes| bytes.len() > said + 40);
}

#[test]
fn devices_come_to_the_first_free_place_until_there_is_none() {
    let Some(running) = start(Some(maker())) else { return };
    let remote = &running.remote;
    for index in 1..PLACES {
        assert_eq!(plug(remote).unwrap(), index);
    }
    assert!(reason(plug(remote)).contains("every place that the guest knows of has a device"));
    assert!(reason(remote.unplug(0)).contains("has no device at address 0"), "that one stands");
    remote.unplug(2).unwrap();
    assert!(reason(remote.unplug(2)).contains("has no device at address 2"));
    assert_eq!(plug(remote).unwrap(), 2);
    goes_on(&running);
    running.stop();
}

#[test]
fn what_is_no_device_is_refused_with_the_reason_and_leaves_nothing_behind() {
    let Some(running) = start(Some(maker())) else { return };
    let (mut end, pipe) = std::io::pipe().unwrap();
    assert!(reason(running.remote.plug(b"x", &[pipe.as_fd()])).contains("the machine: 1 bytes are no device"));
    assert!(reason(running.remote.plug(b"panic", &[pipe.as_fd()])).contains("this description is a trap"));
    let files: Vec<BorrowedFd<'_>> = (0..253).map(|_| pipe.as_fd()).collect();
    assert_eq!(running.remote.plug(b"holder", &files).unwrap(), 1);
    running.remote.unplug(1).unwrap();
    drop(pipe);
    assert_eq!(end.read(&mut [0]).unwrap(), 0, "a descriptor is still open");
    running.stop();
    let Some(without) = start(None) else { return };
    assert!(reason(plug(&without.remote)).contains("it takes no devices while it runs"));
    without.stop();
}

#[test]
fn a_machine_with_devices_that_were_plugged_in_is_not_saved() {
    let Some(running) = start(Some(maker())) else { return };
    assert_eq!(plug(&running.remote).unwrap(), 1);
    let file = tempfile::tempfile().unwrap();
    assert!(reason(running.remote.save(&file)).contains("devices were plugged cannot be saved"));
    running.remote.unplug(1).unwrap();
    running.remote.save(&file).unwrap();
    goes_on(&running);
    running.stop();
}

#[test]
fn a_party_plugs_devices_and_may_do_nothing_else() {
    let Some(running) = start(Some(maker())) else { return };
    let party = admit(&running);
    assert_eq!(plug(&party).unwrap(), 1);
    assert_eq!(plug(&running.remote).unwrap(), 2);
    assert!(reason(party.unplug(2)).contains("has no device at address 2"), "that is another's");
    assert!(reason(running.remote.unplug(1)).contains("has no device at address 1"), "that is another's");
    let file: File = tempfile::tempfile().unwrap();
    let (_, socket) = pair().unwrap();
    for refused in [party.pause(), party.resume(), party.stop(), party.save(&file), party.admit(socket)] {
        assert!(reason(refused).contains("only the machine's owner can ask for that"));
    }
    assert_eq!(file.metadata().unwrap().len(), 0);
    goes_on(&running);
    party.unplug(1).unwrap();
    running.stop();
    assert!(party.unplug(1).is_err(), "the machine has ended");
}

#[test]
fn when_a_party_goes_its_devices_go_and_the_machine_stays() {
    let Some(running) = start(Some(maker())) else { return };
    let (one, two) = (admit(&running), admit(&running));
    let (mut end, pipe) = std::io::pipe().unwrap();
    assert_eq!(one.plug(b"holder", &[pipe.as_fd()]).unwrap(), 1);
    assert_eq!(plug(&two).unwrap(), 2);
    assert_eq!(one.plug(b"holder", &[pipe.as_fd()]).unwrap(), 3);
    drop((one, pipe));
    assert_eq!(end.read(&mut [0]).unwrap(), 0);
    let mut places = Vec::new();
    wait("the places are not free", || {
        places.extend(plug(&two).ok());
        places.len() == 2
    });
    assert_eq!(places, [1, 3]);
    goes_on(&running);
    running.stop();
}

#[test]
fn a_party_that_goes_while_its_device_is_made_gets_none() {
    let (ready, made) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let slow: Maker = Box::new(move |_, files| {
        ready.send(()).map_err(|error| error.to_string())?;
        gone.recv().map_err(|error| error.to_string())?;
        Ok(Box::new(Holder { random: random(), _files: files }))
    });
    let Some(running) = start(Some(slow)) else { return };
    let party = admit(&running);
    let socket = party.socket().try_clone_to_owned().unwrap();
    let (mut end, pipe) = std::io::pipe().unwrap();
    let asks = thread::spawn(move || party.plug(b"holder", &[pipe.as_fd()]));
    made.recv().unwrap();
    // Others are served meanwhile.
    running.remote.pause().unwrap();
    running.remote.resume().unwrap();
    nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&socket), nix::sys::socket::Shutdown::Both).unwrap();
    drop(socket);
    assert!(asks.join().unwrap().is_err());
    running.remote.pause().unwrap();
    running.remote.resume().unwrap();
    go.send(()).unwrap();
    assert_eq!(end.read(&mut [0]).unwrap(), 0, "the device is still there");
    go.send(()).unwrap();
    assert_eq!(plug(&running.remote).unwrap(), 1);
    running.stop();
}

#[test]
fn no_party_holds_up_the_machine() {
    let Some(running) = start(Some(maker())) else { return };
    let mut parties: Vec<Remote> = (0..16).map(|_| admit(&running)).collect();
    let (_, socket) = pair().unwrap();
    assert!(reason(running.remote.admit(socket)).contains("16 parties are in already"));
    // Asks without end, and never takes an answer.
    let flood = parties.pop().unwrap().socket().try_clone_to_owned().unwrap();
    let mut asked = 0;
    while nix::unistd::write(&flood, &[5, 1]).is_ok() {
        asked += 1;
    }
    assert!(asked > 100, "{asked}");
    // What means nothing is answered, and what is no socket is let go.
    let nonsense = parties.pop().unwrap();
    nix::unistd::write(nonsense.socket(), &[0xff; 3]).unwrap();
    let mut answer = [0; 4096];
    let length = nix::unistd::read(nonsense.socket(), &mut answer).unwrap();
    assert!(length > 2 && answer[0] == 1, "{:?}", &answer[..length]);
    assert_eq!(plug(&nonsense).unwrap(), 1);
    running.remote.admit(tempfile::tempfile().unwrap().into()).unwrap();
    goes_on(&running);
    drop(parties);
    wait("there is no room", || {
        let (_remote, socket) = pair().unwrap();
        running.remote.admit(socket).is_ok()
    });
    running.stop();
}

#[test]
fn a_machine_ends_with_its_owner_whoever_else_is_there() {
    let Some(running) = start(Some(maker())) else { return };
    let party = admit(&running);
    assert_eq!(plug(&party).unwrap(), 1);
    let Running { remote, thread, .. } = running;
    drop(remote);
    assert_eq!(thread.join().unwrap().unwrap(), sbx_vmm::machine::Exit::Abandoned);
    assert!(party.unplug(1).is_err());
}
