//! The machine itself: what PID 1 does once before it serves, what it learns when the machine wakes, and how it ends.
//!
//! Nobody is there to mend a machine that cannot be prepared, and nobody to ask. So whatever fails here ends it, after one
//! line on the console: the kernel is booted with `reboot=k panic=-1`, a restart ends the virtual machine at once, and
//! its host shows the line as the reason.

mod kernel;
mod mounts;
mod power;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use sbx_container::Error;
use sbx_container::netlink::Conversation;
use sbx_container::usage::Machine;
use sbx_protocol::guest::WakeRequest;

pub(crate) use power::{end_machine_on_panic, give_up, power_off};

use crate::sys;

/// Where the agent keeps what is its own, and where a container's child attaches its root.
pub(crate) const STAGE: &str = "/run/sbx";

/// Makes a machine out of a kernel that has just begun its init.
pub(crate) fn prepare() -> Result<(), Error> {
    mounts::leave_initramfs()?;
    mounts::attach_kernel_file_systems()?;
    mounts::delegate_controllers()?;
    kernel::name_machine()?;
    kernel::set_parameters();
    kernel::lift_limits()?;
    kernel::protect_agent()?;
    bring_loopback_up()
}

fn bring_loopback_up() -> Result<(), Error> {
    let up = Conversation::open().and_then(|mut conversation| conversation.up(1));
    up.map_err(|error| Error::new("bring lo up", error))
}

/// Takes time and entropy: at the start, and whenever the machine comes back from having been saved.
pub(crate) fn wake(request: &WakeRequest) -> Result<(), Error> {
    add_entropy(&request.entropy).map_err(|error| Error::new("add entropy", error))?;
    let since_1970 = u64::try_from(request.now).map_err(|_| Error::new("set the clock", "a time before 1970"))?;
    let now = TimeSpec::from_duration(Duration::from_nanos(since_1970));
    clock_settime(ClockId::CLOCK_REALTIME, now).map_err(|error| Error::new("set the clock", error.desc()))
}

fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    let random = File::options().write(true).open("/dev/urandom")?;
    sys::add_entropy(random.as_fd(), bytes)
}

/// What the machine has now; memory and processors can come and go.
pub(crate) fn size() -> Result<Machine, Error> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|error| Error::new("read /proc/meminfo", error))?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
    Ok(Machine { cpus: u32::try_from(online).unwrap_or(1), memory: kilobytes * 1024 })
}
