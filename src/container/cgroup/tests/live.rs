//! Processes in cgroups of this kernel: entering, freezing, running out of memory, dying, and what is left.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, read, write};

use super::{Parent, eventually, run_in};
use crate::cgroup::{Cgroup, Version, reap};
use crate::plan::{Memory, Resources};
use crate::sys::{Cloned, clone3};

fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[test]
fn a_child_enters_every_hierarchy_by_itself() {
    let parent = Parent::new();
    let cgroup = parent.create("1", Resources::default());
    let files = cgroup.join_files().unwrap();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    // The child of a process with threads: system calls only, nothing that may wait for a lock.
    let path = c"/proc/self/cgroup";
    match clone3(0, cgroup.directory_v2()).unwrap() {
        Cloned::Child => {
            let mut buffer = [0_u8; 4096];
            let _ = match files.join_v1() {
                Ok(()) => nix::fcntl::open(path, nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty())
                    .and_then(|file| read(&file, &mut buffer))
                    .and_then(|length| write(&writer, &buffer[..length])),
                Err(_) => write(&writer, b"join failed"),
            };
            // Not `raise`: musl would send it to the thread whose number it remembers, which is the parent's.
            crate::sys::exit_now(0)
        }
        Cloned::Parent { pid, .. } => {
            let mut buffer = [0_u8; 4096];
            let length = read(&reader, &mut buffer).unwrap();
            waitpid(Pid::from_raw(pid), None).unwrap();
            let groups = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let inside = groups.lines().filter(|line| line.ends_with(&format!("/{}/1", parent.name))).count();
            assert_eq!(inside, parent.hierarchies.iter().count(), "{groups}");
        }
    }
}

#[test]
fn a_thread_can_enter_v1_alone() {
    let Some(parent) = Parent::only(Version::V1) else {
        return;
    };
    let cgroup = parent.create("1", Resources::default());
    let files = cgroup.join_files().unwrap();
    let inside = std::thread::spawn(move || {
        files.join_v1().unwrap();
        fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    });
    let inside = inside.join().unwrap();
    assert_eq!(inside.matches(&parent.name).count(), parent.hierarchies.iter().count(), "{inside}");
    assert!(!fs::read_to_string("/proc/self/cgroup").unwrap().contains(&format!("{}/1", parent.name)));
}

#[test]
fn processes_are_listed_also_from_nested_cgroups() {
    let parent = Parent::new();
    let cgroup = parent.create("1", Resources::default());
    let nested = parent.create("1/a/b", Resources::default());
    let mut children = [run_in(&cgroup, "exec sleep 60"), run_in(&nested, "exec sleep 60")];
    let mut expected: Vec<i32> = children.iter().map(|child| i32::try_from(child.id()).unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(cgroup.pids().unwrap(), expected);
    assert_eq!(nested.pids().unwrap().len(), 1);
    cgroup.kill().unwrap();
    for child in &mut children {
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    assert_eq!(cgroup.pids().unwrap(), Vec::<i32>::new());
    cgroup.remove().unwrap();
    assert!(!cgroup.exists() && !nested.exists());
}

fn freezing_works(parent: &Parent) {
    let cgroup = parent.create("1", Resources::default());
    let mut child = run_in(&cgroup, "while :; do :; done");
    eventually("the loop runs", || state(child.id()) == 'R');
    assert!(!cgroup.frozen().unwrap());
    cgroup.freeze().unwrap();
    assert!(cgroup.frozen().unwrap());
    let used = || fs::read_to_string(format!("/proc/{}/schedstat", child.id())).unwrap();
    let before = used();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(used(), before, "it ran while it was frozen");
    cgroup.freeze().unwrap();
    cgroup.thaw().unwrap();
    assert!(!cgroup.frozen().unwrap());
    eventually("the loop runs again", || used() != before);
    cgroup.freeze().unwrap();
    cgroup.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn processes_freeze_thaw_and_die_frozen() {
    freezing_works(&Parent::new());
}

#[test]
fn processes_freeze_thaw_and_die_frozen_on_v1() {
    if let Some(parent) = Parent::only(Version::V1) {
        freezing_works(&parent);
    }
}

#[test]
fn processes_freeze_thaw_and_die_frozen_on_v2() {
    if let Some(parent) = Parent::only(Version::V2) {
        freezing_works(&parent);
    }
}

fn bombs_are_killed(parent: &Parent) {
    let cgroup = parent.create("1", Resources::default());
    let mut sleepers = run_in(&cgroup, "n=0; while [ $n -lt 200 ]; do sleep 300 & n=$((n+1)); done; wait");
    eventually("all are there", || cgroup.pids().unwrap().len() == 201);
    // Every one that dies is followed by others, as long as one of the makers lives.
    let maker = "f() { while :; do (sleep 0.01) & (sleep 0.01) & wait; done; }; f & f & f & wait";
    let mut makers = run_in(&cgroup, maker);
    eventually("the makers are at work", || cgroup.pids().unwrap().len() > 206);
    cgroup.kill().unwrap();
    assert_eq!(cgroup.pids().unwrap(), Vec::<i32>::new());
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
    assert_eq!(sleepers.wait().unwrap().signal(), Some(9));
    assert_eq!(makers.wait().unwrap().signal(), Some(9));
}

#[test]
fn many_processes_and_makers_of_more_are_killed() {
    bombs_are_killed(&Parent::new());
}

#[test]
fn many_processes_and_makers_of_more_are_killed_on_v1() {
    if let Some(parent) = Parent::only(Version::V1) {
        bombs_are_killed(&parent);
    }
}

#[test]
fn an_oom_kill_is_told_and_counted() {
    let parent = Parent::new();
    let limit = Some(16 << 20);
    let memory = Memory { limit, swap: limit, ..Memory::default() };
    let plan = parent.plan("1", Resources { memory, ..Resources::default() });
    let cgroup = match Cgroup::create(&parent.hierarchies, &plan) {
        Ok(cgroup) => cgroup,
        Err(error) => {
            assert!(parent.hierarchies.v1("memory").is_none(), "{error}");
            eprintln!("skipped: {error}");
            return;
        }
    };
    let watch = cgroup.oom_watch().unwrap();
    let readable = |milliseconds: u16| {
        let mut wait = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::from(milliseconds)).unwrap() > 0
    };
    watch.clear().unwrap();
    assert!(!readable(0));
    assert_eq!(cgroup.oom_kill_count().unwrap(), 0);
    let mut small = run_in(&cgroup, "exec dd if=/dev/zero of=/dev/null bs=1M count=1");
    assert!(small.wait().unwrap().success());
    assert_eq!(cgroup.oom_kill_count().unwrap(), 0);

    let mut child = run_in(&cgroup, "exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(readable(5000));
    assert_eq!(cgroup.oom_kill_count().unwrap(), 1);
    let stats = cgroup.stats().unwrap().memory.unwrap();
    assert_eq!((stats.oom_kills, stats.limit), (1, Some(16 << 20)));
    // Not `failures`: v1 of Linux 6.18 does not count them.
    assert!(stats.max_usage.is_none_or(|most| most > 8 << 20), "{stats:?}");
    watch.clear().unwrap();
    assert!(!readable(0));
    // The removal is told too, so that nobody waits for ever.
    cgroup.remove().unwrap();
    assert!(readable(5000));
    assert_eq!(cgroup.oom_kill_count().unwrap(), 0);
}

#[test]
fn statistics_show_what_was_used() {
    let parent = Parent::new();
    let cgroup = parent.create("1", Resources::default());
    let mut child = run_in(&cgroup, "n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done; sleep 60 & wait");
    eventually("it waits for its child", || cgroup.pids().unwrap().len() == 2);
    let stats = cgroup.stats().unwrap();
    assert!(stats.cpu.usage_ns > 1_000_000, "{stats:?}");
    assert!(stats.cpu.online_cpus >= 1);
    if parent.hierarchies.v1("cpuacct").is_some() {
        assert_eq!(stats.cpu.per_cpu_ns.iter().sum::<u64>() / 1_000_000_000, stats.cpu.usage_ns / 1_000_000_000);
    }
    if let Some(memory) = &stats.memory {
        assert!(memory.usage > 0 && memory.limit.is_none() && memory.working_set() <= memory.usage, "{memory:?}");
        assert!(memory.detail.len() > 10);
    }
    if let Some(pids) = stats.pids {
        assert_eq!((pids.current, pids.limit), (2, None));
    }
    cgroup.kill().unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
    let gone = cgroup.stats().unwrap();
    assert_eq!((gone.cpu.usage_ns, gone.memory, gone.pids), (0, None, None));
}

#[test]
fn many_can_be_made_at_once_below_a_parent_that_is_not_there() {
    let parent = Parent::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let parent = &parent;
            scope.spawn(move || {
                let cgroup = parent.create(&format!("a/b/{number}"), Resources::default());
                // Without processors nobody could enter.
                let mut child = run_in(&cgroup, "exec sleep 60");
                assert_eq!(cgroup.pids().unwrap().len(), 1);
                cgroup.kill().unwrap();
                child.wait().unwrap();
                cgroup.remove().unwrap();
                assert!(!cgroup.exists());
            });
        }
    });
}

#[test]
fn removal_can_be_repeated_and_needs_no_complete_cgroup() {
    let parent = Parent::new();
    let cgroup = parent.create("1", Resources::default());
    parent.create("1/nested/more", Resources::default());
    let path = format!("{}/1", parent.name);
    // As after a crash in the middle of a removal.
    let last = parent.hierarchies.iter().last().unwrap();
    for part in ["nested/more", "nested", ""] {
        fs::remove_dir(last.mount_point.join(&path).join(part)).unwrap();
    }
    let again = Cgroup::open(&parent.hierarchies, &path).unwrap();
    again.remove().unwrap();
    again.remove().unwrap();
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
    let nothing = Cgroup::open(&parent.hierarchies, &path).unwrap();
    assert!(!nothing.exists() && nothing.directory_v2().is_none());
    nothing.kill().unwrap();
    nothing.remove().unwrap();
}

#[test]
fn an_occupied_cgroup_is_not_made_again() {
    let parent = Parent::new();
    let cgroup = parent.create("1", Resources::default());
    parent.create("1", Resources::default());
    let mut child = run_in(&cgroup, "exec sleep 60");
    let error = Cgroup::create(&parent.hierarchies, &parent.plan("1", Resources::default())).unwrap_err().to_string();
    assert!(error.contains("already holds 1 process(es)"), "{error}");
    assert!(cgroup.exists());
    cgroup.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn orphans_are_found_killed_and_removed() {
    let parent = Parent::new();
    let name = |digit: char| digit.to_string().repeat(64);
    let [live, orphan, half, other] = [name('1'), name('2'), name('3'), "not-a-container".to_owned()];
    let found = |id: &str| Cgroup::open(&parent.hierarchies, &format!("{}/{id}", parent.name)).unwrap().exists();
    assert_eq!(reap(&parent.hierarchies, &parent.name, &|_| false).unwrap(), Vec::<String>::new());
    for id in [&live, &orphan, &other] {
        parent.create(id, Resources::default());
    }
    let cgroup = parent.create(&format!("{orphan}/nested"), Resources::default());
    let mut child = run_in(&cgroup, "exec sleep 60");
    // Left in a single hierarchy that is not the first.
    let last = parent.hierarchies.iter().last().unwrap();
    fs::create_dir_all(last.mount_point.join(&parent.name).join(&half)).unwrap();
    let reaped = reap(&parent.hierarchies, &parent.name, &|id| id == live).unwrap();
    assert_eq!(reaped, [orphan.clone(), half.clone()]);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(found(&live) && found(&other) && !found(&orphan) && !found(&half));
    assert_eq!(reap(&parent.hierarchies, &parent.name, &|id| id == live).unwrap(), Vec::<String>::new());
}

/// Not a test: `cargo test -- --ignored --nocapture` prints medians of what a start and an end pay for.
#[test]
#[ignore = "prints times"]
fn what_it_costs() {
    use std::time::Instant;
    let parent = Parent::new();
    parent.create("0", Resources::default());
    let mut times: Vec<[u128; 6]> = Vec::new();
    for round in 0..41 {
        let mut marks = vec![Instant::now()];
        let mut mark = || marks.push(Instant::now());
        let hierarchies = crate::cgroup::Hierarchies::detect().unwrap();
        mark();
        let limit = Some(64 << 20);
        let memory = Memory { limit, swap: limit, ..Memory::default() };
        let resources = Resources { memory, pids: Some(100), ..Resources::default() };
        let plan = parent.plan(&format!("{round}-1"), resources);
        let cgroup = Cgroup::create(&hierarchies, &plan).unwrap();
        mark();
        let files = cgroup.join_files().unwrap();
        mark();
        std::thread::scope(|scope| {
            if parent.hierarchies.v2().is_none() || parent.hierarchies.iter().count() > 1 {
                scope.spawn(|| files.join_v1().unwrap());
            }
        });
        mark();
        cgroup.kill().unwrap();
        mark();
        cgroup.remove().unwrap();
        mark();
        times.push(std::array::from_fn(|step| (marks[step + 1] - marks[step]).as_nanos() / 1000));
    }
    for (step, name) in ["detect", "create", "join_files", "join (thread)", "kill", "remove"].iter().enumerate() {
        let mut of: Vec<u128> = times.iter().map(|times| times[step]).collect();
        of.sort_unstable();
        println!("{name}: {} us (90 %: {})", of[20], of[36]);
    }
}
