//! Limits in OCI form.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDeviceBuilder,
};
use sbx_container::plan::DeviceKind;

use super::{Error, devices};
use crate::host_config::{HostConfig, ThrottleDevice};
use crate::spec::{HostDevice, HostPaths, SandboxSpec};

/// Microseconds; the period that a number of processors is a share of.
const PERIOD: u64 = 100_000;
const NANOS: i64 = 1_000_000_000;

pub(super) fn resources(spec: &SandboxSpec, paths: &HostPaths) -> Result<LinuxResources, Error> {
    let host = &spec.host_config;
    let mut resources = LinuxResources::default();
    resources
        .set_devices(Some(devices::rules(spec, paths)?))
        .set_memory(memory(host))
        .set_cpu(cpu(host)?)
        .set_pids(pids(host))
        .set_block_io(block(host, paths)?);
    Ok(resources)
}

fn memory(host: &HostConfig) -> Option<LinuxMemory> {
    let mut memory = LinuxMemory::default();
    let positive = |value: i64| (value > 0).then_some(value);
    memory.set_limit(positive(host.memory));
    memory.set_reservation(positive(host.memory_reservation));
    // Without a limit of memory there is nothing that swap could add to.
    memory.set_swap((host.memory > 0 && host.memory_swap != 0).then_some(host.memory_swap));
    memory.set_swappiness(host.memory_swappiness.and_then(|value| u64::try_from(value).ok()));
    memory.set_disable_oom_killer((host.oom_kill_disable == Some(true)).then_some(true));
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu(host: &HostConfig) -> Result<Option<LinuxCpu>, Error> {
    let unsigned = |field, value: i64| match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Error::invalid(field, format!("{value} is negative"))),
    };
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(unsigned("CpuShares", host.cpu_shares)?);
    if host.nano_cpus > 0 {
        cpu.set_period(Some(PERIOD));
        let quota = i128::from(host.nano_cpus) * i128::from(PERIOD) / i128::from(NANOS);
        cpu.set_quota(Some(i64::try_from(quota).map_err(|error| Error::invalid("NanoCpus", error))?));
    }
    if let Some(period) = unsigned("CpuPeriod", host.cpu_period)? {
        cpu.set_period(Some(period));
    }
    if host.cpu_quota != 0 {
        cpu.set_quota(Some(host.cpu_quota));
    }
    cpu.set_realtime_period(unsigned("CpuRealtimePeriod", host.cpu_realtime_period)?);
    cpu.set_realtime_runtime((host.cpu_realtime_runtime != 0).then_some(host.cpu_realtime_runtime));
    cpu.set_cpus((!host.cpuset_cpus.is_empty()).then(|| host.cpuset_cpus.clone()));
    cpu.set_mems((!host.cpuset_mems.is_empty()).then(|| host.cpuset_mems.clone()));
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

fn pids(host: &HostConfig) -> Option<LinuxPids> {
    let limit = host.pids_limit?;
    let mut pids = LinuxPids::default();
    pids.set_limit(if limit <= 0 { -1 } else { limit });
    Some(pids)
}

fn block(host: &HostConfig, paths: &HostPaths) -> Result<Option<LinuxBlockIo>, Error> {
    let mut block = LinuxBlockIo::default();
    block.set_weight((host.blkio_weight != 0).then_some(host.blkio_weight));
    let mut weights = Vec::new();
    for device in &host.blkio_weight_device {
        let number = block_device("BlkioWeightDevice", &device.path, paths)?;
        let weight = LinuxWeightDeviceBuilder::default().major(number.major).minor(number.minor).weight(device.weight);
        weights.push(weight.build().map_err(|error| Error::invalid("BlkioWeightDevice", error))?);
    }
    block.set_weight_device((!weights.is_empty()).then_some(weights));
    block.set_throttle_read_bps_device(rates("BlkioDeviceReadBps", &host.blkio_device_read_bps, paths)?);
    block.set_throttle_write_bps_device(rates("BlkioDeviceWriteBps", &host.blkio_device_write_bps, paths)?);
    block.set_throttle_read_iops_device(rates("BlkioDeviceReadIOps", &host.blkio_device_read_iops, paths)?);
    block.set_throttle_write_iops_device(rates("BlkioDeviceWriteIOps", &host.blkio_device_write_iops, paths)?);
    Ok((block != LinuxBlockIo::default()).then_some(block))
}

fn rates(
    field: &'static str,
    list: &[ThrottleDevice],
    paths: &HostPaths,
) -> Result<Option<Vec<LinuxThrottleDevice>>, Error> {
    let mut rates = Vec::new();
    for device in list {
        let number = block_device(field, &device.path, paths)?;
        let rate = LinuxThrottleDeviceBuilder::default().major(number.major).minor(number.minor).rate(device.rate);
        rates.push(rate.build().map_err(|error| Error::invalid(field, error))?);
    }
    Ok((!rates.is_empty()).then_some(rates))
}

fn block_device<'a>(field: &'static str, path: &str, paths: &'a HostPaths) -> Result<&'a HostDevice, Error> {
    let device = paths.devices.iter().find(|device| device.requested == path && device.kind == DeviceKind::Block);
    device.ok_or_else(|| Error::NoDevice { field, path: path.to_owned() })
}
