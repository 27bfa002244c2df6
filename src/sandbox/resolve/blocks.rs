//! Weights and rates of block devices.

use crate::facts::Controllers;
use crate::host_config::{HostConfig, ThrottleDevice};

use super::Invalid;
use super::resources::lacking;

pub(super) fn check(host: &HostConfig, can: &Controllers) -> Result<(), Invalid> {
    let field = "HostConfig.BlkioWeight";
    let in_range = |weight: u16| (10..=1000).contains(&weight);
    if host.blkio_weight > 0 && !in_range(host.blkio_weight) {
        return Err(Invalid::new(field, "Range of blkio weight is from 10 to 1000"));
    }
    let message = "--blkio-weight: your kernel does not support Block I/O weight or the cgroup is not mounted";
    lacking(can.block_weight, host.blkio_weight > 0, field, message)?;
    let field = "HostConfig.BlkioWeightDevice";
    for device in &host.blkio_weight_device {
        path(field, &device.path)?;
        if !in_range(device.weight) {
            return Err(Invalid::new(field, format!("Range of blkio weight is from 10 to 1000: {}", device.path)));
        }
    }
    let message =
        "--blkio-weight-device: your kernel does not support Block I/O weight_device or the cgroup is not mounted";
    lacking(can.block_weight_device, !host.blkio_weight_device.is_empty(), field, message)?;
    for (field, option, devices) in [
        ("HostConfig.BlkioDeviceReadBps", "--device-read-bps", &host.blkio_device_read_bps),
        ("HostConfig.BlkioDeviceWriteBps", "--device-write-bps", &host.blkio_device_write_bps),
        ("HostConfig.BlkioDeviceReadIOps", "--device-read-iops", &host.blkio_device_read_iops),
        ("HostConfig.BlkioDeviceWriteIOps", "--device-write-iops", &host.blkio_device_write_iops),
    ] {
        rates(field, option, devices, can)?;
    }
    Ok(())
}

fn rates(field: &'static str, option: &str, devices: &[ThrottleDevice], can: &Controllers) -> Result<(), Invalid> {
    let message = format!("{option}: your kernel does not support Block I/O limits or the cgroup is not mounted");
    lacking(can.block_throttle, !devices.is_empty(), field, &message)?;
    for device in devices {
        path(field, &device.path)?;
        // 0 removes a limit; at the creation there is none to remove.
        if device.rate == 0 {
            return Err(Invalid::new(field, format!("{option}: the rate of {} is 0", device.path)));
        }
    }
    Ok(())
}

fn path(field: &'static str, path: &str) -> Result<(), Invalid> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    Err(Invalid::new(field, format!("bad format for device path: {path:?}: want an absolute path")))
}
