//! What this installation is and what stands in it.

use sbx_sandbox::facts::MachineFacts;
use sbx_sandbox::state::Status;

use crate::{Engine, Result};

/// For `info`.
#[derive(Clone, Debug)]
pub struct Info {
    /// Containers: all, running, paused, stopped.
    pub containers: [usize; 4],
    /// Images.
    pub images: usize,
    /// The machine.
    pub machine: MachineFacts,
    /// Release of the kernel.
    pub kernel_release: String,
    /// `PRETTY_NAME` of os-release(5).
    pub operating_system: String,
}

impl Engine {
    /// Looks everything up.
    pub fn info(&self) -> Result<Info> {
        let mut containers = [0; 4];
        for id in self.store.list()? {
            containers[0] += 1;
            match self.state(&id)?.status {
                Status::Running | Status::Restarting => containers[1] += 1,
                Status::Paused => containers[2] += 1,
                _ => containers[3] += 1,
            }
        }
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let system = nix::sys::utsname::uname().map_err(std::io::Error::from)?;
        Ok(Info {
            containers,
            images: self.images()?.list()?.len(),
            machine: MachineFacts { vm_obstacle: self.vm_obstacle(), ..crate::facts::machine() },
            kernel_release: system.release().to_string_lossy().into_owned(),
            operating_system: name.map(|name| name.trim_matches('"').to_owned()).unwrap_or_default(),
        })
    }
}
