//! What the agent is told to make: the container's plan with the guest's paths, and how the guest is furnished for it.

use std::path::PathBuf;

use sbx_container::plan::{ContainerPlan, Resources};
use sbx_network::EtcFiles;
use sbx_protocol::guest::{CreateRequest, Furnishing, OverlayRoot, Uplink};
use sbx_sandbox::facts::MachineFacts;
use sbx_sandbox::plan::PlanExtras;
use sbx_sandbox::spec::{HostPaths, SandboxSpec};

use crate::devices;
use crate::error::Error;
use crate::room::Room;
use crate::shares::Shared;

/// Microseconds of a period of `cpu.max` where none is given (`Documentation/admin-guide/cgroup-v2.rst`).
const CPU_PERIOD: u64 = 100_000;

/// Block devices of the machine, by their addresses.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    /// Of each layer, lowest first.
    layers: Vec<String>,
    /// Of the writable layer.
    writable: String,
    /// Of all devices that the container brings, disks or not, as numbers of `virtio-mmio`.
    addresses: Vec<usize>,
}

impl Disks {
    /// Of devices at these addresses: the first is the disk of the layers, the second the writable one.
    pub(crate) fn at(addresses: Vec<usize>, layers: usize) -> Result<Self, Error> {
        let [disk, writable, ..] = addresses[..] else { return Err(Error::NotRunning) };
        Ok(Self {
            layers: (1..=layers).map(|number| format!("virtio-mmio.{disk}/{number}")).collect(),
            writable: format!("virtio-mmio.{writable}"),
            addresses,
        })
    }
}

/// A container's way to the network.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) uplink: Uplink,
    pub(crate) interface: sbx_container::plan::Interface,
}

/// Everything that a request is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) spec: &'a SandboxSpec,
    /// The guest's.
    pub(crate) machine: &'a MachineFacts,
    pub(crate) files: &'a EtcFiles,
    pub(crate) disks: &'a Disks,
    pub(crate) shared: &'a Shared,
    pub(crate) card: Option<Card>,
    pub(crate) room: &'a Room,
}

/// The request, and what the host's control group is to enforce.
pub(crate) fn create_request(parts: Parts<'_>) -> Result<(CreateRequest, Resources), Error> {
    devices::check(&parts.spec.host_config)?;
    let room = parts.room;
    let paths = HostPaths {
        resolv_conf: Some(room.file("resolv.conf")),
        hostname: Some(room.file("hostname")),
        hosts: Some(room.file("hosts")),
        mount_sources: parts.shared.sources.clone(),
        devices: devices::look_up(&parts.spec.host_config),
        join_net: room.joined.network.map(|pid| namespace(pid, "net")),
        join_ipc: room.joined.ipc.map(|pid| namespace(pid, "ipc")),
        join_pid: room.joined.pid.map(|pid| namespace(pid, "pid")),
        shm: room.joined.ipc.map(|pid| format!("/proc/{pid}/root/dev/shm").into()),
        ..HostPaths::default()
    };
    let config = sbx_sandbox::oci::runtime_config(parts.spec, parts.machine, &paths)?;
    let mut extras = PlanExtras::of(parts.spec);
    extras.interfaces = parts.card.iter().map(|card| card.interface.clone()).collect();
    let mut plan = sbx_sandbox::plan::plan(&config, extras)?;
    plan.process.stdin = parts.spec.config.open_stdin;
    let host = split_resources(&mut plan);
    let request = CreateRequest {
        furnishings: furnishings(&parts),
        root: OverlayRoot {
            layers: (0..parts.disks.layers.len()).map(|number| room.layer(number)).collect(),
            writable: room.writable(),
        },
        tenant: room.tenant(),
        uplinks: parts.card.into_iter().map(|card| card.uplink).collect(),
        plan,
    };
    Ok((request, host))
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    format!("/proc/{pid}/ns/{kind}").into()
}

fn furnishings(parts: &Parts<'_>) -> Vec<Furnishing> {
    let mount = |source: &str, fstype: &str, target: String, read_only: bool, options: &[&str]| Furnishing::Mount {
        source: source.to_owned(),
        fstype: fstype.to_owned(),
        target,
        read_only,
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    let device = |address: usize| Furnishing::Device { address: u32::try_from(address).unwrap_or(u32::MAX) };
    let mut steps: Vec<Furnishing> = parts.disks.addresses.iter().copied().map(device).collect();
    for (number, device) in parts.disks.layers.iter().enumerate() {
        steps.push(mount(device, "erofs", parts.room.layer(number), true, &[]));
    }
    steps.push(mount(&parts.disks.writable, "ext4", parts.room.writable(), false, &["discard"]));
    if parts.room.joined.network.is_none() {
        steps.push(Furnishing::Directory { path: parts.room.files(), mode: 0o755 });
        let etc = parts.files;
        for (name, text) in [("hostname", &etc.hostname), ("hosts", &etc.hosts), ("resolv.conf", &etc.resolv_conf)] {
            let path = parts.room.file(name).to_string_lossy().into_owned();
            steps.push(Furnishing::File { path, mode: 0o644, contents: text.clone().into_bytes() });
        }
    }
    steps.extend(parts.shared.furnishings.iter().cloned());
    steps
}

/// Takes what only the host can enforce out of the plan: which processors and how fast its disks. Processor time and the
/// weight among others at the disks are set on both sides: the machine itself must not exceed them either.
fn split_resources(plan: &mut ContainerPlan) -> Resources {
    let guest = &mut plan.cgroup.resources;
    let mut host =
        Resources { cpu: guest.cpu.clone(), block: std::mem::take(&mut guest.block), ..Resources::default() };
    guest.block.weight = host.block.weight;
    guest.cpu.cpus.clear();
    guest.cpu.mems.clear();
    // The guest's control group holds the container to its share. What the guest's kernel and the machine do for it comes
    // on top, within bounds; else the two limits would each hold the other up.
    if let Some(quota) = host.cpu.quota.filter(|quota| *quota > 0) {
        let period = i64::try_from(host.cpu.period.unwrap_or(CPU_PERIOD)).unwrap_or(i64::MAX);
        host.cpu.quota = Some(quota.saturating_add(period / 2));
    }
    // Real-time scheduling of version 1 has no meaning for the machine's threads.
    host.cpu.realtime_runtime = None;
    host.cpu.realtime_period = None;
    host
}
