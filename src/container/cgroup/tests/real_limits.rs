//! Limits on this kernel: set, read back where the kernel keeps them, and refused where it must.

use std::collections::BTreeMap;
use std::fs;

use super::{Parent, run_in, text};
use crate::cgroup::{Cgroup, Version};
use crate::plan::{BlockIo, BlockRate, Cpu, DeviceKind, DeviceRule, Memory, Resources};

const MIB: i64 = 1 << 20;

fn memory(limit: i64, swap: i64) -> Resources {
    Resources { memory: Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() }, ..Resources::default() }
}

/// Number of a disk of this system, for limits that are about one.
fn disk() -> Option<(u32, u32)> {
    let disks =
        fs::read_dir("/sys/block").ok()?.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("dev")).ok());
    let mut numbers = disks.filter_map(|text| {
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    // virtio, SCSI or NVMe; loop devices and zram are no disks.
    numbers.find(|(major, _): &(u32, u32)| ![7, 253].contains(major))
}

#[test]
fn memory_limits_are_set_and_moved_both_ways() {
    let parent = Parent::new();
    let Some(limit) = parent.v1("1", "memory", "memory.limit_in_bytes") else {
        return;
    };
    let swap = limit.with_file_name("memory.memsw.limit_in_bytes");
    let mut cgroup = parent.create(
        "1",
        Resources {
            memory: Memory {
                limit: Some(64 * MIB),
                swap: Some(96 * MIB),
                reservation: Some(32 * MIB),
                swappiness: Some(10),
                disable_oom_killer: true,
            },
            ..Resources::default()
        },
    );
    let both = || (text(&limit).parse::<i64>().unwrap() / MIB, text(&swap).parse::<i64>().unwrap() / MIB);
    assert_eq!(both(), (64, 96));
    assert_eq!(text(&limit.with_file_name("memory.soft_limit_in_bytes")), (32 * MIB).to_string());
    assert_eq!(text(&limit.with_file_name("memory.swappiness")), "10");
    assert!(text(&limit.with_file_name("memory.oom_control")).contains("oom_kill_disable 1"));
    for (next_limit, next_swap) in [(256, 512), (32, 48), (48, 48), (40, 300), (400, 400), (16, 16)] {
        cgroup.update(&memory(next_limit * MIB, next_swap * MIB)).unwrap();
        assert_eq!(both(), (next_limit, next_swap));
    }
    cgroup.update(&memory(32 * MIB, -1)).unwrap();
    assert_eq!(both().0, 32);
    cgroup.update(&memory(32 * MIB, 64 * MIB)).unwrap();
    let unlimited = Memory { limit: Some(-1), ..Memory::default() };
    cgroup.update(&Resources { memory: unlimited, ..Resources::default() }).unwrap();
    let stats = cgroup.stats().unwrap().memory.unwrap();
    assert_eq!((stats.limit, stats.swap_limit), (None, None));

    let error = cgroup.update(&memory(64 * MIB, 32 * MIB)).unwrap_err().to_string();
    assert!(error.starts_with("--memory"), "{error}");
    let swappiness = Memory { swappiness: Some(101), ..Memory::default() };
    let error = cgroup.update(&Resources { memory: swappiness, ..Resources::default() }).unwrap_err().to_string();
    assert!(error.starts_with("--memory-swappiness: \"101\""), "{error}");
}

#[test]
fn processor_limits_are_set() {
    let parent = Parent::new();
    let Some(shares) = parent.v1("1", "cpu", "cpu.shares") else {
        return;
    };
    let of = |file: &str| text(&shares.with_file_name(file));
    let cpu = |cpu: Cpu| Resources { cpu, ..Resources::default() };
    let limits = Cpu { shares: Some(512), quota: Some(150_000), period: Some(50_000), ..Cpu::default() };
    let mut cgroup = parent.create("1", cpu(limits));
    assert_eq!(
        (text(&shares), of("cpu.cfs_quota_us"), of("cpu.cfs_period_us")),
        ("512".into(), "150000".into(), "50000".into())
    );
    cgroup.update(&cpu(Cpu { quota: Some(1000), period: Some(1000), ..Cpu::default() })).unwrap();
    cgroup.update(&cpu(Cpu { quota: Some(-1), period: Some(100_000), ..Cpu::default() })).unwrap();
    assert_eq!(of("cpu.cfs_quota_us"), "-1");
    for (bad, option) in [
        (Cpu { shares: Some(1), ..Cpu::default() }, "--cpu-shares:"),
        (Cpu { shares: Some(262_145), ..Cpu::default() }, "--cpu-shares:"),
        (Cpu { quota: Some(1), ..Cpu::default() }, "--cpu-quota (--cpus):"),
        (Cpu { period: Some(1), ..Cpu::default() }, "--cpu-period:"),
    ] {
        let error = cgroup.update(&cpu(bad)).unwrap_err().to_string();
        assert!(error.starts_with(option), "{error}");
    }
    if shares.with_file_name("cpu.rt_runtime_us").exists() {
        let error =
            cgroup.update(&cpu(Cpu { realtime_runtime: Some(500_000), ..Cpu::default() })).unwrap_err().to_string();
        assert!(error.starts_with("--cpu-rt-runtime:") && error.contains("budget of its parent"), "{error}");
    }
}

#[test]
fn processor_sets_are_inherited_and_narrowed() {
    let parent = Parent::new();
    let Some(cpus) = parent.v1("nested/deep/1", "cpuset", "cpuset.cpus") else {
        return;
    };
    let top = parent.hierarchies.v1("cpuset").unwrap().mount_point.clone();
    parent.create("nested/deep/1", Resources::default());
    assert_eq!(text(&cpus), text(&top.join("cpuset.cpus")));
    assert_eq!(text(&cpus.with_file_name("cpuset.mems")), text(&top.join("cpuset.mems")));

    let cpu = |list: &str| Resources { cpu: Cpu { cpus: list.into(), ..Cpu::default() }, ..Resources::default() };
    parent.create("nested/deep/2", cpu("0"));
    assert_eq!(text(&parent.v1("nested/deep/2", "cpuset", "cpuset.cpus").unwrap()), "0");
    for bad in ["0,9999", "x"] {
        let plan = parent.plan("nested/deep/3", cpu(bad));
        let error = Cgroup::create(&parent.hierarchies, &plan).unwrap_err().to_string();
        assert!(error.starts_with("--cpuset-cpus:") && error.contains(bad), "{error}");
        assert!(!Cgroup::open(&parent.hierarchies, &plan.path).unwrap().exists(), "a failed creation left something");
    }
}

#[test]
fn a_parent_whose_processor_set_was_never_filled_is_filled() {
    let parent = Parent::new();
    let Some(cpus) = parent.v1("1", "cpuset", "cpuset.cpus") else {
        return;
    };
    fs::create_dir(cpus.parent().unwrap().parent().unwrap()).unwrap();
    parent.create("1", Resources::default());
    assert!(!text(&cpus).is_empty());
}

#[test]
fn the_number_of_tasks_is_limited() {
    let parent = Parent::new();
    if parent.hierarchies.v1("pids").is_none() && parent.hierarchies.v1("memory").is_some() {
        eprintln!("skipped: no pids controller");
        return;
    }
    let mut cgroup = parent.create("1", Resources { pids: Some(5), ..Resources::default() });
    let script = "n=0; while [ $n -lt 20 ]; do sleep 30 & n=$((n+1)); done";
    let mut child = run_in(&cgroup, script);
    assert!(!child.wait().unwrap().success(), "20 children were made in spite of the limit");
    let stats = cgroup.stats().unwrap().pids.unwrap();
    assert_eq!(stats.limit, Some(5));
    cgroup.update(&Resources { pids: Some(-1), ..Resources::default() }).unwrap();
    assert_eq!(cgroup.stats().unwrap().pids.unwrap().limit, None);
}

#[test]
fn block_limits_are_set() {
    let parent = Parent::new();
    let Some(rates) = parent.v1("1", "blkio", "blkio.throttle.read_bps_device") else {
        return;
    };
    let Some((major, minor)) = disk() else {
        eprintln!("skipped: this system has no disk");
        return;
    };
    let rate = |value| vec![BlockRate { major, minor, value }];
    let has_weight = ["blkio.weight", "blkio.bfq.weight"].iter().any(|file| {
        rates.parent().and_then(|directory| directory.parent()?.parent().map(|top| top.join(file).exists()))
            == Some(true)
    });
    let block = BlockIo {
        weight: None,
        weight_device: Vec::new(),
        read_bps: rate(1_048_576),
        write_bps: rate(2_097_152),
        read_iops: rate(100),
        write_iops: rate(200),
    };
    let mut cgroup = parent.create("1", Resources { block, ..Resources::default() });
    for (file, value) in [
        ("blkio.throttle.read_bps_device", 1_048_576),
        ("blkio.throttle.write_bps_device", 2_097_152),
        ("blkio.throttle.read_iops_device", 100),
        ("blkio.throttle.write_iops_device", 200),
    ] {
        assert_eq!(text(&rates.with_file_name(file)), format!("{major}:{minor} {value}"));
    }
    let bad = BlockIo { read_bps: vec![BlockRate { major: 999, minor: 999, value: 1 }], ..BlockIo::default() };
    let error = cgroup.update(&Resources { block: bad, ..Resources::default() }).unwrap_err().to_string();
    assert!(error.starts_with("--device-read-bps:") && error.contains("999:999"), "{error}");
    let weight = BlockIo { weight: Some(300), ..BlockIo::default() };
    match cgroup.update(&Resources { block: weight, ..Resources::default() }) {
        Ok(()) => {
            let files = ["blkio.weight", "blkio.bfq.weight"].map(|file| rates.with_file_name(file));
            let file = files.iter().find(|file| file.exists()).unwrap();
            assert_eq!(text(file), "300");
        }
        Err(error) => {
            assert!(!has_weight && error.to_string().starts_with("--blkio-weight:"), "{error}");
        }
    }
}

#[test]
fn devices_are_denied_and_allowed_on_v1() {
    let Some(parent) = Parent::only(Version::V1) else {
        return;
    };
    let Some(list) = parent.v1("1", "devices", "devices.list") else {
        return;
    };
    let rule = |allow, numbers: Option<(u32, u32)>, access: &str| DeviceRule {
        allow,
        kind: numbers.map(|_| DeviceKind::Character),
        major: numbers.map(|(major, _)| major),
        minor: numbers.map(|(_, minor)| minor),
        access: access.into(),
    };
    let devices = vec![rule(false, None, "rwm"), rule(true, Some((1, 3)), "rwm"), rule(true, Some((1, 5)), "rw")];
    let mut cgroup = parent.create("1", Resources { devices, ..Resources::default() });
    assert_eq!(text(&list), "c 1:3 rwm\nc 1:5 rw");
    let script = "(: < /dev/null) && echo null; (: < /dev/zero) && echo zero; (: < /dev/full) && echo full";
    let output =
        |cgroup: &Cgroup| String::from_utf8(run_in(cgroup, script).wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(output(&cgroup), "null\nzero\n");
    let devices = vec![rule(false, None, "rwm"), rule(true, Some((1, 3)), "rwm"), rule(true, Some((1, 7)), "r")];
    cgroup.update(&Resources { devices, ..Resources::default() }).unwrap();
    assert_eq!(text(&list), "c 1:3 rwm\nc 1:7 r");
    assert_eq!(output(&cgroup), "null\nfull\n");
    cgroup.update(&Resources { devices: vec![rule(true, None, "rwm")], ..Resources::default() }).unwrap();
    assert_eq!(output(&cgroup), "null\nzero\nfull\n");
}

#[test]
fn raw_v2_files_are_refused_on_v1() {
    let parent = Parent::new();
    if parent.hierarchies.v1("memory").is_none() {
        eprintln!("skipped: memory is not in a v1 hierarchy");
        return;
    }
    let unified = BTreeMap::from([("memory.high".to_owned(), "1".to_owned())]);
    let plan = parent.plan("1", Resources { unified, ..Resources::default() });
    let error = Cgroup::create(&parent.hierarchies, &plan).unwrap_err().to_string();
    assert_eq!(error, "unified resource memory.high: the memory controller is not in cgroup v2 on this system");
}

#[test]
fn paths_that_leave_their_place_are_refused() {
    let parent = Parent::new();
    let long = "x".repeat(256);
    let too_long = "x/".repeat(2000);
    for path in ["", "/", "a//b", "a/../b", "..", "./a", "a/", "a\nb", "a\0b", long.as_str(), too_long.as_str()] {
        let plan = crate::plan::CgroupPlan { path: path.into(), resources: Resources::default() };
        let error = Cgroup::create(&parent.hierarchies, &plan).unwrap_err().to_string();
        assert!(error.starts_with("cgroup path ") && error.contains("not usable"), "{error}");
        assert!(Cgroup::open(&parent.hierarchies, path).is_err());
    }
}
