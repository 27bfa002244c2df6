//! The files of v2 controllers, in a directory that looks like a cgroup2 mount: for kernels whose controllers are in
//! v1 hierarchies. A file keeps what was last written to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::text;
use crate::cgroup::hierarchy::unified;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::plan::{BlockIo, BlockRate, CgroupPlan, Cpu, Memory, Resources};

const CONTROLLERS: &str = "cpuset cpu io memory hugetlb pids";

struct Fake {
    top: tempfile::TempDir,
}

impl Fake {
    /// A mount with a cgroup `sbx/1` that has all controllers and these files.
    fn new(files: &[&str]) -> Fake {
        let fake = Fake { top: tempfile::tempdir().unwrap() };
        for directory in ["", "sbx", "sbx/1"] {
            let directory = fake.top.path().join(directory);
            fs::create_dir_all(&directory).unwrap();
            for (name, content) in
                [("cgroup.controllers", CONTROLLERS), ("cgroup.subtree_control", ""), ("cgroup.procs", "")]
            {
                fs::write(directory.join(name), content).unwrap();
            }
        }
        for file in files {
            fs::write(fake.file(file), "").unwrap();
        }
        fake
    }

    fn file(&self, name: &str) -> PathBuf {
        self.top.path().join("sbx/1").join(name)
    }

    fn hierarchies(&self) -> Hierarchies {
        Hierarchies::fixture(vec![unified(self.top.path().to_path_buf())])
    }

    fn create(&self, resources: Resources) -> crate::cgroup::Result<Cgroup> {
        Cgroup::create(&self.hierarchies(), &CgroupPlan { path: "sbx/1".into(), resources })
    }

    fn refuses(&self, resources: Resources) -> String {
        self.create(resources).unwrap_err().to_string()
    }
}

fn memory(memory: Memory) -> Resources {
    Resources { memory, ..Resources::default() }
}

fn cpu(cpu: Cpu) -> Resources {
    Resources { cpu, ..Resources::default() }
}

#[test]
fn memory_limits_are_translated() {
    let fake = Fake::new(&["memory.max", "memory.low", "memory.swap.max"]);
    let (limit, swap, reservation) = (Some(1 << 20), Some(3 << 20), Some(1 << 19));
    fake.create(memory(Memory { limit, swap, reservation, ..Memory::default() })).unwrap();
    assert_eq!(text(&fake.file("memory.max")), "1048576");
    assert_eq!(text(&fake.file("memory.swap.max")), "2097152");
    assert_eq!(text(&fake.file("memory.low")), "524288");
}

#[test]
fn unlimited_memory_is_max_and_an_unlimited_reservation_protects_nothing() {
    let fake = Fake::new(&["memory.max", "memory.low", "memory.swap.max"]);
    let limit = Some(-1);
    fake.create(memory(Memory { limit, swap: limit, reservation: limit, ..Memory::default() })).unwrap();
    assert_eq!(text(&fake.file("memory.max")), "max");
    assert_eq!(text(&fake.file("memory.swap.max")), "max");
    assert_eq!(text(&fake.file("memory.low")), "0");
}

#[test]
fn a_swap_limit_alone_is_the_rest_of_the_limit_in_force() {
    let fake = Fake::new(&["memory.max", "memory.swap.max"]);
    fs::write(fake.file("memory.max"), "1000\n").unwrap();
    let mut cgroup = Cgroup::open(&fake.hierarchies(), "sbx/1").unwrap();
    cgroup.update(&memory(Memory { swap: Some(1500), ..Memory::default() })).unwrap();
    assert_eq!(text(&fake.file("memory.swap.max")), "500");
    fs::write(fake.file("memory.max"), "max\n").unwrap();
    let error = cgroup.update(&memory(Memory { swap: Some(1500), ..Memory::default() })).unwrap_err();
    assert!(error.to_string().contains("needs a memory limit"), "{error}");
}

#[test]
fn what_v2_does_not_have_is_refused_by_name() {
    let fake = Fake::new(&["memory.max", "cpu.max"]);
    let error = fake.refuses(memory(Memory { swappiness: Some(60), ..Memory::default() }));
    assert!(error.starts_with("--memory-swappiness:"), "{error}");
    let error = fake.refuses(memory(Memory { disable_oom_killer: true, ..Memory::default() }));
    assert!(error.starts_with("--oom-kill-disable:"), "{error}");
    let error = fake.refuses(cpu(Cpu { realtime_runtime: Some(1000), ..Cpu::default() }));
    assert!(error.starts_with("--cpu-rt-runtime:"), "{error}");
    let error = fake.refuses(cpu(Cpu { realtime_period: Some(1000), ..Cpu::default() }));
    assert!(error.starts_with("--cpu-rt-period:"), "{error}");
    let error = fake.refuses(memory(Memory { limit: Some(1), swap: Some(2), ..Memory::default() }));
    let missing = "--memory-swap: swap accounting is not available (memory.swap.max is missing)";
    assert_eq!(error, missing);
    let error =
        fake.refuses(Resources { block: BlockIo { weight: Some(10), ..BlockIo::default() }, ..Resources::default() });
    assert!(error.starts_with("--blkio-weight:") && error.contains("io.bfq.weight"), "{error}");
    let error = fake.refuses(Resources { pids: Some(1), ..Resources::default() });
    assert_eq!(error, "--pids-limit: this kernel has no pids.max");
}

#[test]
fn processor_limits_are_translated() {
    let fake = Fake::new(&["cpu.max", "cpu.weight"]);
    let limits = Cpu { shares: Some(1024), quota: Some(150_000), period: Some(100_000), ..Cpu::default() };
    fake.create(cpu(limits)).unwrap();
    assert_eq!(text(&fake.file("cpu.weight")), "100");
    assert_eq!(text(&fake.file("cpu.max")), "150000 100000");

    let mut cgroup = Cgroup::open(&fake.hierarchies(), "sbx/1").unwrap();
    cgroup.update(&cpu(Cpu { period: Some(999_999), ..Cpu::default() })).unwrap();
    assert_eq!(text(&fake.file("cpu.max")), "150000 999999");
    let error = cgroup.update(&cpu(Cpu { shares: Some(1), ..Cpu::default() })).unwrap_err().to_string();
    assert!(error.starts_with("--cpu-shares: \"1\""), "{error}");

    let fake = Fake::new(&["cpu.max"]);
    fake.create(cpu(Cpu { quota: Some(-1), ..Cpu::default() })).unwrap();
    assert_eq!(text(&fake.file("cpu.max")), "max");
}

#[test]
fn processor_sets_that_the_kernel_would_ignore_are_refused() {
    let fake = Fake::new(&["cpuset.cpus", "cpuset.mems"]);
    fs::write(fake.file("../cpuset.cpus.effective"), "0-3\n").unwrap();
    fs::write(fake.file("../cpuset.mems.effective"), "0\n").unwrap();
    fake.create(cpu(Cpu { cpus: "1-2".into(), mems: "0".into(), ..Cpu::default() })).unwrap();
    assert_eq!(text(&fake.file("cpuset.cpus")), "1-2");
    assert_eq!(text(&fake.file("cpuset.mems")), "0");
    let error = fake.refuses(cpu(Cpu { cpus: "2-4".into(), ..Cpu::default() }));
    assert_eq!(error, "--cpuset-cpus: \"2-4\" is not usable: only 0-3 can be had");
    assert_eq!(text(&fake.file("cpuset.cpus")), "1-2");
}

#[test]
fn block_limits_are_translated() {
    let rate = |value| vec![BlockRate { major: 8, minor: 16, value }];
    for (block, file, expected) in [
        (BlockIo { weight: Some(1000), ..BlockIo::default() }, "io.weight", "10000"),
        (BlockIo { weight_device: rate(10), ..BlockIo::default() }, "io.weight", "8:16 1"),
        (BlockIo { read_bps: rate(4096), ..BlockIo::default() }, "io.max", "8:16 rbps=4096"),
        (BlockIo { write_bps: rate(4096), ..BlockIo::default() }, "io.max", "8:16 wbps=4096"),
        (BlockIo { read_iops: rate(9), ..BlockIo::default() }, "io.max", "8:16 riops=9"),
        (BlockIo { write_iops: rate(0), ..BlockIo::default() }, "io.max", "8:16 wiops=max"),
    ] {
        let fake = Fake::new(&["io.weight", "io.max"]);
        fake.create(Resources { block, ..Resources::default() }).unwrap();
        assert_eq!(text(&fake.file(file)), expected);
    }
    let fake = Fake::new(&["io.bfq.weight", "io.weight"]);
    let block = BlockIo { weight: Some(300), ..BlockIo::default() };
    fake.create(Resources { block, ..Resources::default() }).unwrap();
    assert_eq!(text(&fake.file("io.bfq.weight")), "300");
}

#[test]
fn tasks_and_raw_files_are_written() {
    let fake = Fake::new(&["pids.max", "memory.high", "cgroup.max.depth"]);
    let unified = [("memory.high", "4096"), ("cgroup.max.depth", "3")];
    let unified = BTreeMap::from(unified.map(|(file, content)| (file.to_owned(), content.to_owned())));
    fake.create(Resources { pids: Some(-1), unified, ..Resources::default() }).unwrap();
    assert_eq!(text(&fake.file("pids.max")), "max");
    assert_eq!(text(&fake.file("memory.high")), "4096");
    assert_eq!(text(&fake.file("cgroup.max.depth")), "3");

    for (file, part) in [
        ("cgroup.procs", "moves or stops"),
        ("cgroup.freeze", "moves or stops"),
        ("memory", "CONTROLLER.NAME"),
        ("memory./../../x", "CONTROLLER.NAME"),
        ("nonsense.max", "nonsense controller"),
        ("memory.nonsense", "this kernel has no memory.nonsense"),
    ] {
        let unified = BTreeMap::from([(file.to_owned(), "1".to_owned())]);
        let error = fake.refuses(Resources { unified, ..Resources::default() });
        assert!(error.starts_with("unified resource ") && error.contains(part), "{file}: {error}");
    }
}

#[test]
fn controllers_are_passed_down_from_the_top() {
    let fake = Fake::new(&["pids.max"]);
    fs::write(fake.file("cgroup.controllers"), "memory").unwrap();
    fs::write(fake.top.path().join("cgroup.subtree_control"), "memory cpu").unwrap();
    // The directory is no real cgroup, so its list stays as it is, and the limit is missing its controller.
    let error = fake.refuses(Resources { pids: Some(10), ..Resources::default() });
    assert!(error.starts_with("--pids-limit: "), "{error}");
    // Written over the beginning of what was there, as this is only a file.
    assert_eq!(text(&fake.top.path().join("cgroup.subtree_control")), "+cpuset +io +pids");
    assert_eq!(text(&fake.top.path().join("sbx/cgroup.subtree_control")), "+cpuset +cpu +io +pids");
    assert_eq!(text(&fake.file("cgroup.subtree_control")), "");
}

#[test]
fn a_parent_that_does_not_delegate_is_an_error_only_for_a_limit_that_needs_it() {
    let fake = Fake::new(&["pids.max"]);
    fs::write(fake.file("cgroup.controllers"), "memory").unwrap();
    let control = fake.top.path().join("sbx/cgroup.subtree_control");
    fs::remove_file(&control).unwrap();
    // A file that can be read and refuses every write.
    std::os::unix::fs::symlink("/proc/self/stat", &control).unwrap();
    fake.create(Resources::default()).unwrap();
    let error = fake.refuses(Resources { pids: Some(10), ..Resources::default() });
    assert!(error.starts_with("--pids-limit: the pids controller cannot be enabled for the children of"), "{error}");
    assert!(error.contains("/sbx:"), "{error}");
}

#[test]
fn statistics_are_read() {
    let fake = Fake::new(&[]);
    for (file, content) in [
        ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n"),
        ("memory.current", "1000\n"),
        ("memory.peak", "2000\n"),
        ("memory.max", "max\n"),
        ("memory.swap.current", "5\n"),
        ("memory.swap.max", "6\n"),
        ("memory.stat", "anon 1\nfile 600\ninactive_file 400\n"),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("pids.current", "7\n"),
        ("pids.max", "8\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 \n8:32 rbytes=10 wbytes=0 cost.x=1\n"),
    ] {
        fs::write(fake.file(file), content).unwrap();
    }
    let cgroup = Cgroup::open(&fake.hierarchies(), "sbx/1").unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.cpu.usage_ns, stats.cpu.user_ns, stats.cpu.kernel_ns), (30_000, 20_000, 10_000));
    assert_eq!((stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled_ns), (4, 2, 7000));
    assert!(stats.cpu.online_cpus >= 1 && stats.cpu.per_cpu_ns.is_empty());
    let memory = stats.memory.unwrap();
    assert_eq!((memory.usage, memory.max_usage, memory.limit), (1000, Some(2000), None));
    assert_eq!((memory.swap, memory.swap_limit), (Some(5), Some(6)));
    assert_eq!((memory.cache, memory.working_set(), memory.failures, memory.oom_kills), (600, 600, 9, 2));
    assert_eq!(memory.detail["anon"], 1);
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (7, Some(8)));
    assert_eq!(stats.block.total_bytes(), (11, 2));
    assert_eq!(stats.block.operations.iter().map(|count| count.value).sum::<u64>(), 13);
    assert_eq!(cgroup.oom_kill_count().unwrap(), 2);
}

#[test]
fn a_cgroup_in_use_is_refused() {
    let fake = Fake::new(&[]);
    fs::write(fake.file("cgroup.procs"), "1\n2\n0\n").unwrap();
    let error = fake.refuses(Resources::default());
    assert!(error.contains("sbx/1 already holds 2 process(es)"), "{error}");
    assert!(fake.file("cgroup.procs").exists());
}
