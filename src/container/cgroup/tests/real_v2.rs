//! What v2 alone has: passing controllers down, with the one controller that v1 hierarchies usually leave to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Parent, run_in, text};
use crate::cgroup::hierarchy::unified;
use crate::cgroup::{Cgroup, Hierarchies, Version};
use crate::plan::{CgroupPlan, Cpu, Memory, Resources};

/// A v2 cgroup that may pass the hugetlb controller on. The fields are dropped in this order.
struct Delegated {
    directory: PathBuf,
    parent: Parent,
    _restored: Restored,
    _alone: MutexGuard<'static, ()>,
}

/// Takes back, at the end of a test, what the real top of the hierarchy passes on.
struct Restored {
    control: PathBuf,
    before: String,
}

impl Drop for Restored {
    fn drop(&mut self) {
        if !self.before.contains("hugetlb") {
            // Somebody else's cgroups may use it by now; that is no failure of this test.
            let _ = fs::write(&self.control, "-hugetlb");
        }
    }
}

impl Delegated {
    fn new() -> Option<Delegated> {
        let parent = Parent::only(Version::V2)?;
        let top = parent.hierarchies.v2().unwrap().mount_point.clone();
        if !text(&top.join("cgroup.controllers")).contains("hugetlb") {
            eprintln!("skipped: the v2 hierarchy has no hugetlb controller");
            return None;
        }
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let control = top.join("cgroup.subtree_control");
        let restored = Restored { before: text(&control), control };
        let directory = top.join(&parent.name).join("top");
        parent.create("top/probe", limits()).remove().unwrap();
        fs::write(directory.join("cgroup.subtree_control"), "-hugetlb").unwrap();
        Some(Delegated { directory, parent, _restored: restored, _alone: alone })
    }

    /// The same, seen from a cgroup namespace whose root is the directory.
    fn inner(&self) -> Hierarchies {
        Hierarchies::fixture(vec![unified(self.directory.clone())])
    }
}

fn limits() -> Resources {
    let unified = BTreeMap::from([("hugetlb.2MB.max".to_owned(), "4194304".to_owned())]);
    Resources { unified, ..Resources::default() }
}

#[test]
fn a_raw_file_brings_its_controller_along() {
    let Some(test) = Delegated::new() else { return };
    let cgroup = test.parent.create("a/b/c", limits());
    let top = &test.parent.hierarchies.v2().unwrap().mount_point;
    assert_eq!(text(&top.join(cgroup.path()).join("hugetlb.2MB.max")), "4194304");
    // Later, for a cgroup that was made without it.
    let mut plain = test.parent.create("d/e", Resources::default());
    plain.update(&limits()).unwrap();
    assert_eq!(text(&top.join(plain.path()).join("hugetlb.2MB.max")), "4194304");
}

#[test]
fn a_parent_with_processes_is_named() {
    let Some(test) = Delegated::new() else { return };
    let occupied = test.parent.create("occupied", Resources::default());
    let mut child = run_in(&occupied, "exec sleep 60");
    let plan = test.parent.plan("occupied/1", limits());
    let error = Cgroup::create(&test.parent.hierarchies, &plan).unwrap_err().to_string();
    assert!(error.starts_with("unified resource hugetlb.2MB.max: the hugetlb controller cannot be enabled"), "{error}");
    assert!(error.contains("/occupied:") && error.contains("--cgroup-parent"), "{error}");
    let left = Cgroup::open(&test.parent.hierarchies, &plan.path).unwrap();
    assert!(!left.exists(), "a failed creation left something");
    occupied.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn processes_at_the_top_of_a_namespace_make_room() {
    let Some(test) = Delegated::new() else { return };
    let top = Cgroup::open(&test.parent.hierarchies, &format!("{}/top", test.parent.name)).unwrap();
    let mut children = [run_in(&top, "exec sleep 60"), run_in(&top, "exec sleep 60")];
    let control = test.directory.join("cgroup.subtree_control");
    let plan = |resources| CgroupPlan { path: "sbx/1".into(), resources };
    // Without a limit that needs a controller nobody is moved.
    Cgroup::create(&test.inner(), &plan(Resources::default())).unwrap().remove().unwrap();
    assert_eq!(text(&test.directory.join("cgroup.procs")).lines().count(), 2);
    let cgroup = Cgroup::create(&test.inner(), &plan(limits())).unwrap();
    assert_eq!(text(&test.directory.join("sbx/1/hugetlb.2MB.max")), "4194304");
    assert_eq!(text(&test.directory.join("init/cgroup.procs")).lines().count(), 2);
    assert_eq!(text(&control), "hugetlb");
    assert_eq!(cgroup.pids().unwrap(), Vec::<i32>::new());
    top.kill().unwrap();
    for child in &mut children {
        child.wait().unwrap();
    }
}

#[test]
fn limits_are_set_where_v2_has_the_controllers() {
    let Some(parent) = Parent::only(Version::V2) else {
        return;
    };
    let top = parent.hierarchies.v2().unwrap().mount_point.clone();
    let available = text(&top.join("cgroup.controllers"));
    if !["cpu", "cpuset", "memory", "pids"].iter().all(|wanted| available.split(' ').any(|known| known == *wanted)) {
        eprintln!("skipped: v2 has only these controllers: {available}");
        return;
    }
    let resources = Resources {
        memory: Memory {
            limit: Some(64 << 20),
            swap: Some(96 << 20),
            reservation: Some(32 << 20),
            ..Memory::default()
        },
        cpu: Cpu {
            shares: Some(512),
            quota: Some(150_000),
            period: Some(50_000),
            cpus: "0".into(),
            mems: "0".into(),
            ..Cpu::default()
        },
        pids: Some(33),
        ..Resources::default()
    };
    let mut cgroup = parent.create("nested/1", resources);
    let of = |file: &str| text(&top.join(&parent.name).join("nested/1").join(file));
    assert_eq!(of("memory.max"), (64 << 20).to_string());
    assert_eq!(of("memory.low"), (32 << 20).to_string());
    if top.join(cgroup.path()).join("memory.swap.max").exists() {
        assert_eq!(of("memory.swap.max"), (32 << 20).to_string());
    }
    assert_eq!((of("cpu.weight").as_str(), of("cpu.max").as_str()), ("59", "150000 50000"));
    assert_eq!((of("cpuset.cpus").as_str(), of("cpuset.mems").as_str(), of("pids.max").as_str()), ("0", "0", "33"));
    let cpu = Cpu { period: Some(100_000), ..Cpu::default() };
    cgroup.update(&Resources { cpu, pids: Some(-1), ..Resources::default() }).unwrap();
    assert_eq!((of("cpu.max").as_str(), of("pids.max").as_str()), ("150000 100000", "max"));
    let cpu = Cpu { cpus: "0,4095".into(), ..Cpu::default() };
    let error = cgroup.update(&Resources { cpu, ..Resources::default() }).unwrap_err().to_string();
    assert!(error.starts_with("--cpuset-cpus:"), "{error}");
}
