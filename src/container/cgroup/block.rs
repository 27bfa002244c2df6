//! Block device weights and rates (`Documentation/admin-guide/cgroup-v1/blkio-controller.rst`; cgroup-v2.rst, "IO").
//!
//! Rates are enforced for every disk by the throttling layer. Weights are enforced by whichever proportional
//! scheduler a disk uses (BFQ, on v2 also the cost model), which is the disk's setting and not a cgroup's.

use std::path::Path;

use super::error::{Error, Result};
use super::{Place, Version, files};
use crate::plan::{BlockIo, BlockRate};

const WEIGHT: &str = "--blkio-weight";
const WEIGHT_DEVICE: &str = "--blkio-weight-device";

/// One of the four kinds of rate.
struct Rate<'a> {
    setting: &'static str,
    v1: &'static str,
    /// Key in `io.max`.
    v2: &'static str,
    of: &'a [BlockRate],
}

fn rates(block: &BlockIo) -> [Rate<'_>; 4] {
    let rate = |setting, v1, v2, of| Rate { setting, v1, v2, of };
    [
        rate("--device-read-bps", "blkio.throttle.read_bps_device", "rbps", &block.read_bps),
        rate("--device-write-bps", "blkio.throttle.write_bps_device", "wbps", &block.write_bps),
        rate("--device-read-iops", "blkio.throttle.read_iops_device", "riops", &block.read_iops),
        rate("--device-write-iops", "blkio.throttle.write_iops_device", "wiops", &block.write_iops),
    ]
}

/// The first option that is set, if any.
pub(super) fn first_set(block: &BlockIo) -> Option<&'static str> {
    if block.weight.is_some() {
        return Some(WEIGHT);
    }
    if !block.weight_device.is_empty() {
        return Some(WEIGHT_DEVICE);
    }
    rates(block).iter().find(|rate| !rate.of.is_empty()).map(|rate| rate.setting)
}

/// Writes the weights and rates that are set.
pub(super) fn apply(place: &Place, block: &BlockIo) -> Result<()> {
    let directory = &place.directory;
    if let Some(weight) = block.weight {
        check_weight(WEIGHT, u64::from(weight))?;
        let (file, weight) = weight_file(place, WEIGHT, u64::from(weight))?;
        files::set(WEIGHT, directory, file, &weight.to_string())?;
    }
    for BlockRate { major, minor, value } in &block.weight_device {
        check_weight(WEIGHT_DEVICE, *value)?;
        let (file, weight) = weight_file(place, WEIGHT_DEVICE, *value)?;
        // v1 has a file of its own for devices, v2 keys the same file by device.
        let file = match place.version {
            Version::V1 => format!("{file}_device"),
            Version::V2 => file.to_owned(),
        };
        files::set(WEIGHT_DEVICE, directory, &file, &format!("{major}:{minor} {weight}"))?;
    }
    for rate in rates(block) {
        for BlockRate { major, minor, value } in rate.of {
            match place.version {
                Version::V1 => files::set(rate.setting, directory, rate.v1, &format!("{major}:{minor} {value}"))?,
                Version::V2 => {
                    // 0 takes a rate away again, as v1 has it.
                    let value = if *value == 0 { "max".to_owned() } else { value.to_string() };
                    files::set(rate.setting, directory, "io.max", &format!("{major}:{minor} {}={value}", rate.v2))?;
                }
            }
        }
    }
    Ok(())
}

fn check_weight(setting: &str, weight: u64) -> Result<()> {
    if (10..=1000).contains(&weight) {
        return Ok(());
    }
    let reason = "it must be between 10 and 1000".to_owned();
    Err(Error::BadValue { setting: setting.to_owned(), value: weight.to_string(), reason })
}

/// The file that takes weights on this kernel, and the weight in its range.
fn weight_file(place: &Place, setting: &str, weight: u64) -> Result<(&'static str, u64)> {
    let has = |file: &str| Path::new(&place.directory).join(file).exists();
    match place.version {
        Version::V1 if has("blkio.weight") => Ok(("blkio.weight", weight)),
        Version::V1 if has("blkio.bfq.weight") => Ok(("blkio.bfq.weight", weight)),
        Version::V2 if has("io.bfq.weight") => Ok(("io.bfq.weight", weight)),
        Version::V2 if has("io.weight") => Ok(("io.weight", cost_weight(weight))),
        version => {
            let (first, second) = match version {
                Version::V1 => ("blkio.weight", "blkio.bfq.weight"),
                Version::V2 => ("io.bfq.weight", "io.weight"),
            };
            let reason = format!("no I/O scheduler of this kernel has weights (neither {first} nor {second} exists)");
            Err(Error::unsupported(setting, reason))
        }
    }
}

/// 10 to 1000 onto the 1 to 10000 of `io.weight`, a straight line, as the OCI runtimes have it.
fn cost_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_span_the_range_of_the_cost_model() {
        assert_eq!([10, 100, 500, 1000].map(cost_weight), [1, 910, 4950, 10_000]);
    }

    #[test]
    fn weights_out_of_range_are_named() {
        for weight in [0, 9, 1001] {
            let error = check_weight(WEIGHT, weight).unwrap_err().to_string();
            assert!(error.starts_with("--blkio-weight:") && error.contains("between 10 and 1000"), "{error}");
        }
        check_weight(WEIGHT, 10).unwrap();
    }
}
