//! Which mode a container gets, and whether this machine can run virtual machines.
//!
//! Whether KVM works is found out by running guest code, once after each boot: the answer is kept below `RUN`.

use std::fs;
use std::path::PathBuf;

use sbx_sandbox::facts::MachineFacts;
use sbx_sandbox::host_config::HostConfig;
use sbx_sandbox::isolation::{self, Isolation, Mode, Resolved, Sources};
use sbx_sandbox::store::Store;
use sbx_vm_mode::artifacts::{self, Artifacts};
use sbx_vm_mode::size::Size;

use crate::{Engine, Error, ErrorKind, Paths, Result};

impl Engine {
    /// The mode that a container gets for what the user asked (`--isolation`), and why it is no virtual machine where
    /// that was looked at; `beside` is how a container whose namespaces it joins is kept apart, and its name. Fails where an explicit mode cannot be had.
    pub(crate) fn isolation(&self, asked: &str, beside: Option<(Mode, &str)>) -> Result<(Resolved, Option<String>)> {
        let environment = std::env::var("SBX_ISOLATION").unwrap_or_default();
        let sources = Sources {
            flag: asked,
            environment: &environment,
            settings: self.settings.isolation.unwrap_or(Isolation::Process),
            settings_given: self.settings.isolation.is_some(),
            beside,
        };
        let invalid = |error| Error::of(ErrorKind::Invalid, error);
        // Whoever gets a process anyway need not wait for the answer.
        let without = isolation::resolve(sources, None).map_err(invalid)?;
        if without.isolation == Mode::Process || beside.is_some() {
            return Ok((without, None));
        }
        let obstacle = self.vm_obstacle();
        let resolved = isolation::resolve(sources, obstacle.as_deref()).map_err(invalid)?;
        match (resolved.isolation, obstacle) {
            (Mode::Vm, Some(obstacle)) => {
                let message = format!("--isolation=vm is not possible here: {obstacle}; sbx doctor tells more");
                Err(Error::new(ErrorKind::Invalid, message))
            }
            (_, obstacle) => Ok((resolved, obstacle)),
        }
    }

    /// What the kernel that a container runs on can do.
    pub(crate) fn machine_of(
        &self,
        mode: Mode,
        host: &HostConfig,
        vm_obstacle: Option<String>,
    ) -> Result<MachineFacts> {
        let facts = MachineFacts { vm_obstacle, ..crate::facts::machine() };
        machine_on(&self.store, facts, mode, host)
    }

    /// Refuses an isolation that cannot be had, before anything is pulled for it.
    pub fn check_isolation(&self, asked: &str) -> Result<()> {
        self.isolation(asked, None).map(drop)
    }

    /// Why virtual machines cannot be run here; `None` where they can.
    #[must_use]
    pub fn vm_obstacle(&self) -> Option<String> {
        if let Err(error) = artifacts() {
            return Some(error.to_string());
        }
        kvm_obstacle(&self.paths)
    }
}

/// Why KVM cannot run a guest here; `None` where it can.
pub(crate) fn kvm_obstacle(paths: &Paths) -> Option<String> {
    let kept = paths.run.join("kvm");
    if kept.exists() {
        return None;
    }
    let obstacle = sbx_vm_mode::kvm_usable().err().map(|obstacle| obstacle.to_string());
    // Only a shortcut: without the file the next command asks again. An obstacle may go away, so it is not kept.
    if obstacle.is_none() {
        let _ = fs::write(&kept, "");
    }
    obstacle
}

/// The guest's kernel and agent, as the program or its environment names them.
pub(crate) fn artifacts() -> std::result::Result<Artifacts, sbx_vm_mode::Error> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("sbx"));
    Artifacts::find(std::env::var_os(artifacts::VARIABLE).as_deref(), &program)
}

/// What the kernel that a container runs on can do, on a host that has been looked at.
pub(crate) fn machine_on(store: &Store, facts: MachineFacts, mode: Mode, host: &HostConfig) -> Result<MachineFacts> {
    match mode {
        Mode::Process => Ok(facts),
        Mode::Vm => {
            let owner = crate::joined::owner(store, host)?;
            let size = Size::of(owner.as_ref().map_or(host, |owner| &owner.host_config), facts.cpus);
            Ok(sbx_vm_mode::facts::machine(&facts, size))
        }
    }
}
