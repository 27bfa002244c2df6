//! From the limits of a plan to the files of controllers: which are needed, and who writes each.
//!
//! Every limit is enforced or is an error that starts with the option's name; a limit that is not set leaves its file
//! alone, so the same code serves a new cgroup and `update`.

use super::error::{Error, Result};
use super::{Cgroup, Version, block, cpu, devices, files, memory};
use crate::plan::Resources;

/// Option that asks for a limit on the number of tasks.
const PIDS: &str = "--pids-limit";

/// A controller without which a limit cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// The option that set the limit.
    pub(super) setting: String,
    /// Name of the controller as v2 spells it (`io`, not `blkio`).
    pub(super) controller: String,
}

/// Whether the cgroup is new, so that every file has the kernel's default, or is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Fresh,
    Live,
}

/// Which controllers the limits need. Device access is not among them: on v2 it needs none.
pub(super) fn needs(resources: &Resources) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut need = |setting: &str, controller: &str| {
        needs.push(Need { setting: setting.to_owned(), controller: controller.to_owned() });
    };
    if let Some(setting) = memory::first_set(&resources.memory) {
        need(setting, "memory");
    }
    if let Some(setting) = cpu::first_set(&resources.cpu) {
        need(setting, "cpu");
    }
    if let Some(setting) = cpu::first_set_of_sets(&resources.cpu) {
        need(setting, "cpuset");
    }
    if resources.pids.is_some() {
        need(PIDS, "pids");
    }
    if let Some(setting) = block::first_set(&resources.block) {
        need(setting, "io");
    }
    for file in resources.unified.keys() {
        let controller = file.split('.').next().unwrap_or_default();
        if controller != "cgroup" {
            need(&unified_setting(file), controller);
        }
    }
    needs
}

/// Writes every limit that is set.
pub(super) fn apply(cgroup: &Cgroup, resources: &Resources, phase: Phase) -> Result<()> {
    if let Some(setting) = memory::first_set(&resources.memory) {
        memory::apply(cgroup.require(setting, "memory")?, &resources.memory, phase)?;
    }
    if let Some(setting) = cpu::first_set(&resources.cpu) {
        cpu::apply(cgroup.require(setting, "cpu")?, &resources.cpu, phase)?;
    }
    if let Some(setting) = cpu::first_set_of_sets(&resources.cpu) {
        cpu::apply_sets(cgroup.require(setting, "cpuset")?, &resources.cpu)?;
    }
    if let Some(limit) = resources.pids {
        let place = cgroup.require(PIDS, "pids")?;
        files::set(PIDS, &place.directory, "pids.max", &number_or_max(limit))?;
    }
    if let Some(setting) = block::first_set(&resources.block) {
        block::apply(cgroup.require(setting, "io")?, &resources.block)?;
    }
    if !resources.devices.is_empty() {
        devices::apply(cgroup, &resources.devices, phase)?;
    }
    resources.unified.iter().try_for_each(|(file, content)| apply_unified(cgroup, file, content))
}

/// A raw v2 file. Nested keyed files take one line in each write(2).
fn apply_unified(cgroup: &Cgroup, file: &str, content: &str) -> Result<()> {
    let setting = unified_setting(file);
    let bad =
        |reason: &str| Error::BadValue { setting: setting.clone(), value: file.to_owned(), reason: reason.into() };
    let Some((controller, rest)) = file.split_once('.') else {
        return Err(bad("the name of a cgroup v2 file has the form CONTROLLER.NAME"));
    };
    if file.contains('/') || controller.is_empty() || rest.is_empty() {
        return Err(bad("the name of a cgroup v2 file has the form CONTROLLER.NAME"));
    }
    let place = if controller == "cgroup" {
        if !rest.starts_with("max.") && rest != "pressure" {
            return Err(bad("this file moves or stops processes, it is not a limit"));
        }
        cgroup.places.iter().find(|place| place.version == Version::V2)
    } else {
        Some(cgroup.require(&setting, controller)?).filter(|place| place.version == Version::V2)
    };
    let Some(place) = place else {
        return Err(Error::unsupported(
            &setting,
            format!("the {controller} controller is not in cgroup v2 on this system"),
        ));
    };
    content
        .lines()
        .filter(|line| !line.is_empty())
        .try_for_each(|line| files::set(&setting, &place.directory, file, line))
}

fn unified_setting(file: &str) -> String {
    format!("unified resource {file}")
}

/// v2's way of saying "no limit" for a negative number.
pub(super) fn number_or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}
