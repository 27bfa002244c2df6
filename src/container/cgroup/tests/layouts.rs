//! How systems mount their cgroups, and what a container then sees.

use std::path::{Path, PathBuf};

use crate::cgroup::hierarchy::{own_path, why_missing};
use crate::cgroup::{Error, Hierarchies, Mode, Version, ViewMount, inside_view};
use crate::plan::Namespace;

const V1_SYSTEMD: &str = "\
25 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
31 25 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
33 31 0:28 / /sys/fs/cgroup/systemd rw,relatime shared:11 - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
36 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
37 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:16 - cgroup cgroup rw,memory
38 31 0:33 / /sys/fs/cgroup/net_cls,net_prio rw,relatime shared:17 - cgroup cgroup rw,net_cls,net_prio
";
const V1_SYSTEMD_GROUPS: &str = "\
12:memory:/user.slice
11:net_cls,net_prio:/
4:cpu,cpuacct:/user.slice
1:name=systemd:/user.slice/user-0.slice/session-1.scope
";

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
const HYBRID_GROUPS: &str = "3:name=systemd:/\n2:memory:/work/a\n1:cpu:/\n0::/\n";

const V2: &str =
    "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";

fn summary(hierarchies: &Hierarchies) -> Vec<String> {
    hierarchies.iter().map(|found| format!("{} {}", found.mount_point.display(), found.selector())).collect()
}

/// Where the process of `groups` is in each hierarchy.
fn own(mountinfo: &str, groups: &str) -> Vec<Option<String>> {
    Hierarchies::parse(mountinfo).unwrap().iter().map(|found| own_path(mountinfo, groups, found)).collect()
}

fn some(paths: &[&str]) -> Vec<Option<String>> {
    paths.iter().map(|path| Some((*path).to_owned())).collect()
}

#[test]
fn v1_with_shared_hierarchies_is_found() {
    let found = Hierarchies::parse(V1_SYSTEMD).unwrap();
    assert_eq!(found.mode(), Mode::V1);
    assert_eq!(
        summary(&found),
        [
            "/sys/fs/cgroup/systemd name=systemd",
            "/sys/fs/cgroup/cpu,cpuacct cpu,cpuacct",
            "/sys/fs/cgroup/memory memory",
            "/sys/fs/cgroup/net_cls,net_prio net_cls,net_prio",
        ]
    );
    assert_eq!(found.v1("cpuacct"), found.v1("cpu"));
    assert_eq!(found.v1("pids"), None);
    assert_eq!(found.v2(), None);
    let expected = some(&["user.slice/user-0.slice/session-1.scope", "user.slice", "user.slice", ""]);
    assert_eq!(own(V1_SYSTEMD, V1_SYSTEMD_GROUPS), expected);
}

#[test]
fn hybrid_has_the_unified_hierarchy_first() {
    let found = Hierarchies::parse(HYBRID).unwrap();
    assert_eq!(found.mode(), Mode::Hybrid);
    assert_eq!(summary(&found)[0], "/sys/fs/cgroup/unified ");
    assert!(found.v2().is_some());
    assert_eq!(own(HYBRID, HYBRID_GROUPS), some(&["", "", "work/a", ""]));
}

#[test]
fn v2_alone_is_found() {
    assert_eq!(Hierarchies::parse(V2).unwrap().mode(), Mode::V2);
    assert_eq!(own(V2, "0::/system.slice/x.service\n"), some(&["system.slice/x.service"]));
}

#[test]
fn usual_places_need_no_list_of_mounts() {
    let mounted = |path: &Path, version: Version| {
        let name = path.strip_prefix("/sys/fs/cgroup").unwrap().to_str().unwrap();
        match version {
            Version::V1 => ["cpu", "memory", "systemd", "cpu,cpuacct", "net_cls,net_prio"].contains(&name),
            Version::V2 => name == "unified",
        }
    };
    let hybrid = Hierarchies::at_usual_places(HYBRID_GROUPS, mounted).unwrap();
    let mut expected = summary(&Hierarchies::parse(HYBRID).unwrap());
    let mut found = summary(&hybrid);
    assert_eq!(found[0], expected[0]);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let shared = Hierarchies::at_usual_places(V1_SYSTEMD_GROUPS, mounted).unwrap();
    assert_eq!(shared.v1("cpuacct"), Hierarchies::parse(V1_SYSTEMD).unwrap().v1("cpuacct"));
    // One that is elsewhere, or nowhere, is looked up.
    assert_eq!(Hierarchies::at_usual_places("5:pids:/\n0::/\n", mounted), None);
    assert_eq!(Hierarchies::at_usual_places("5:cpuacct,cpu:/\n", mounted), None);
    assert_eq!(Hierarchies::at_usual_places("", mounted), None);
    assert_eq!(Hierarchies::at_usual_places("nonsense\n", mounted), None);
}

#[test]
fn a_creator_in_a_container_sees_its_part_as_the_whole() {
    // The outer engine bound the container's own directories (no cgroup namespace).
    let mounts = "\
700 699 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro master:15 - cgroup cgroup rw,cpu,cpuacct
701 699 0:32 /docker/abc /sys/fs/cgroup/memory ro master:16 - cgroup cgroup rw,memory
";
    let found = Hierarchies::parse(mounts).unwrap();
    assert_eq!(summary(&found), ["/sys/fs/cgroup/cpu,cpuacct cpu,cpuacct", "/sys/fs/cgroup/memory memory"]);
    assert_eq!(own(mounts, "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc/inner\n"), some(&["inner", ""]));
    // A process outside of what is mounted; `/docker/abcdef` is not below `/docker/abc`.
    assert_eq!(own(mounts, "12:memory:/docker/abcdef\n4:cpu,cpuacct:/\n"), [None, None]);
    // A mount from outside of the cgroup namespace: where this process is in it cannot be told.
    assert_eq!(own("30 24 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/\n"), [None]);
}

#[test]
fn the_usual_place_wins_over_copies_and_later_over_earlier() {
    let mounts = "\
90 24 0:32 /x /srv/box/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
91 24 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
92 24 0:32 /y /srv/other/memory rw - cgroup cgroup rw,memory
93 24 0:99 / /mnt/with\\040space\\134 rw - cgroup cgroup rw,noprefix,name=extra
94 24 0:99 /z /mnt/with\\040space\\134 rw - cgroup cgroup rw,name=extra
";
    let found = Hierarchies::parse(mounts).unwrap();
    assert_eq!(summary(&found), ["/sys/fs/cgroup/memory memory", "/mnt/with space\\ name=extra"]);
    assert_eq!(own(mounts, "2:memory:/\n1:name=extra:/z/here\n"), some(&["", "here"]));
}

#[test]
fn lines_that_make_no_sense_are_passed_over() {
    let mounts = "\n- cgroup\nx - cgroup2\n1 2 3 - cgroup2 a b\n30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2\n";
    assert!(matches!(Hierarchies::parse(mounts), Err(Error::NotMounted)));
    let error = Hierarchies::parse("").unwrap_err().to_string();
    assert!(error.contains("mount cgroup2 on /sys/fs/cgroup"), "{error}");
}

#[test]
fn the_reason_for_a_missing_controller_is_told() {
    let known = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\nblkio\t0\t5\t1\n";
    assert!(why_missing("memory", known).contains("cgroup_disable=memory"));
    assert!(why_missing("io", known).contains("not in any mounted"));
    assert!(why_missing("pids", known).contains("built without"));
}

#[test]
fn the_view_of_v1_has_links_for_shared_hierarchies() {
    let found = Hierarchies::parse(V1_SYSTEMD).unwrap();
    let view = inside_view(&found, &Namespace::New, "sbx/1");
    let link = |target: &str, to: &str| ViewMount::Symlink { target: target.into(), to: to.into() };
    let mount = |target: &str, options: &str| ViewMount::Cgroup { target: target.into(), options: options.into() };
    assert_eq!(
        view,
        [
            ViewMount::Tmpfs,
            mount("systemd", "name=systemd"),
            link("cpu", "cpu,cpuacct"),
            link("cpuacct", "cpu,cpuacct"),
            mount("cpu,cpuacct", "cpu,cpuacct"),
            mount("memory", "memory"),
            link("net_cls", "net_cls,net_prio"),
            link("net_prio", "net_cls,net_prio"),
            mount("net_cls,net_prio", "net_cls,net_prio"),
        ]
    );
}

#[test]
fn the_view_without_a_namespace_binds_the_containers_own_directories() {
    let found = Hierarchies::parse(HYBRID).unwrap();
    let view = inside_view(&found, &Namespace::Inherit, "sbx/1");
    let bind = |target: &str| ViewMount::Bind {
        source: PathBuf::from(format!("/sys/fs/cgroup/{target}/sbx/1")),
        target: target.into(),
    };
    let expected = [ViewMount::Tmpfs, bind("unified"), bind("cpu"), bind("memory"), bind("systemd")];
    assert_eq!(view, expected);
}

#[test]
fn the_view_of_v2_is_one_mount() {
    let found = Hierarchies::parse(V2).unwrap();
    for namespace in [Namespace::New, Namespace::Inherit, Namespace::Join("/proc/1/ns/cgroup".into())] {
        let expected = vec![ViewMount::Cgroup2 { target: String::new() }];
        assert_eq!(inside_view(&found, &namespace, "sbx/1"), expected);
    }
}

#[test]
fn this_system_is_understood() {
    let found = Hierarchies::detect().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (mut one, mut other) = (summary(&found), summary(&Hierarchies::parse(&mounts).unwrap()));
    one.sort();
    other.sort();
    assert_eq!(one, other);
    for hierarchy in found.iter() {
        assert!(hierarchy.mount_point.join("cgroup.procs").exists(), "{hierarchy:?}");
        assert!(hierarchy.own_path().unwrap().is_some(), "{hierarchy:?}");
    }
}
