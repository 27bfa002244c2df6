//! OCI limits become the plan's.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice};
use sbx_container::plan::{BlockIo, BlockRate, Cpu, Memory, Resources};

use super::{Error, devices};

pub(super) fn resources(resources: Option<&LinuxResources>) -> Result<Resources, Error> {
    let Some(resources) = resources else {
        return Ok(Resources::default());
    };
    let rules = resources.devices().as_deref().unwrap_or_default();
    Ok(Resources {
        memory: resources.memory().as_ref().map(memory).transpose()?.unwrap_or_default(),
        cpu: resources.cpu().as_ref().map(cpu).transpose()?.unwrap_or_default(),
        pids: resources.pids().as_ref().map(|pids| pids.limit()).filter(|&limit| limit != 0),
        block: resources.block_io().as_ref().map(block).transpose()?.unwrap_or_default(),
        // No rules at all means no restriction.
        devices: if rules.is_empty() { Vec::new() } else { devices::rules(rules)? },
        unified: resources.unified().clone().unwrap_or_default().into_iter().collect(),
    })
}

fn memory(memory: &LinuxMemory) -> Result<Memory, Error> {
    let refuse = |field: &str, reason: &str| Err(Error::unsupported(format!("linux.resources.memory.{field}"), reason));
    if memory.kernel().is_some_and(|limit| limit > 0) {
        return refuse("kernel", "the kernel gave up limits of its own memory with Linux 5.16; use memory.limit");
    }
    if memory.kernel_tcp().is_some_and(|limit| limit > 0) {
        return refuse("kernelTCP", "limits of TCP buffers alone exist in version 1 only; use memory.limit");
    }
    if memory.use_hierarchy() == Some(false) {
        return refuse("useHierarchy", "control groups have been hierarchical since Linux 5.11");
    }
    Ok(Memory {
        limit: memory.limit().filter(|&value| value != 0),
        reservation: memory.reservation().filter(|&value| value != 0),
        swap: memory.swap().filter(|&value| value != 0),
        swappiness: memory.swappiness(),
        disable_oom_killer: memory.disable_oom_killer().unwrap_or(false),
    })
}

fn cpu(cpu: &LinuxCpu) -> Result<Cpu, Error> {
    if cpu.idle().is_some_and(|idle| idle != 0) {
        return Err(Error::unsupported("linux.resources.cpu.idle", "write cpu.idle through linux.resources.unified"));
    }
    if cpu.burst().is_some_and(|burst| burst != 0) {
        return Err(Error::unsupported(
            "linux.resources.cpu.burst",
            "write cpu.max.burst through linux.resources.unified",
        ));
    }
    Ok(Cpu {
        shares: cpu.shares().filter(|&shares| shares != 0),
        quota: cpu.quota().filter(|&quota| quota != 0),
        period: cpu.period().filter(|&period| period != 0),
        realtime_runtime: cpu.realtime_runtime().filter(|&runtime| runtime != 0),
        realtime_period: cpu.realtime_period().filter(|&period| period != 0),
        cpus: cpu.cpus().clone().unwrap_or_default(),
        mems: cpu.mems().clone().unwrap_or_default(),
    })
}

fn block(block: &LinuxBlockIo) -> Result<BlockIo, Error> {
    if block.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(Error::unsupported(
            "linux.resources.blockIO.leafWeight",
            "leaf weights left the kernel with CFQ in Linux 5.0",
        ));
    }
    let weights = block.weight_device().as_deref().unwrap_or_default();
    Ok(BlockIo {
        weight: block.weight().filter(|&weight| weight != 0),
        weight_device: weights.iter().map(weight).collect::<Result<_, _>>()?,
        read_bps: rates("throttleReadBpsDevice", block.throttle_read_bps_device().as_deref())?,
        write_bps: rates("throttleWriteBpsDevice", block.throttle_write_bps_device().as_deref())?,
        read_iops: rates("throttleReadIOPSDevice", block.throttle_read_iops_device().as_deref())?,
        write_iops: rates("throttleWriteIOPSDevice", block.throttle_write_iops_device().as_deref())?,
    })
}

fn weight(device: &LinuxWeightDevice) -> Result<BlockRate, Error> {
    if device.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(Error::unsupported(
            "linux.resources.blockIO.weightDevice.leafWeight",
            "leaf weights left the kernel with CFQ in Linux 5.0",
        ));
    }
    rate("weightDevice", device.major(), device.minor(), u64::from(device.weight().unwrap_or(0)))
}

fn rates(field: &str, devices: Option<&[LinuxThrottleDevice]>) -> Result<Vec<BlockRate>, Error> {
    let convert = |device: &LinuxThrottleDevice| rate(field, device.major(), device.minor(), device.rate());
    devices.unwrap_or_default().iter().map(convert).collect()
}

fn rate(field: &str, major: i64, minor: i64, value: u64) -> Result<BlockRate, Error> {
    let number = |value: i64| {
        u32::try_from(value)
            .map_err(|_| Error::invalid(format!("linux.resources.blockIO.{field}"), format!("device number {value}")))
    };
    Ok(BlockRate { major: number(major)?, minor: number(minor)?, value })
}
