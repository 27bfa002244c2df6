//! Plans: every field arrives, and what cannot arrive is refused by its name.

use oci_spec::runtime::Spec;
use sbx_container::plan::{ContainerPlan, DeviceKind, First, MountSource, Namespace, Propagation, TerminalSize, User};
use serde_json::{Value, json};

use super::{Error, ExecRequest, PlanExtras, exec_process, plan};
use crate::oci::runtime_config;
use crate::spec::HostPaths;
use crate::testing::{Case, ID, strings};

fn planned(change: impl FnOnce(&mut Case)) -> ContainerPlan {
    let case = Case::with(change);
    let machine = case.machine.clone();
    let spec = case.spec();
    let config = runtime_config(&spec, &machine, &HostPaths::default()).unwrap();
    plan(&config, PlanExtras::of(&spec)).unwrap()
}

/// A configuration of somebody else: what `runc spec` writes, shortened.
fn foreign() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
            "args": ["sh"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runc",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup", "options": ["ro", "relatime"]},
            {"destination": "/dev/shm", "type": "tmpfs", "options": ["mode=1777", "size=1m"]},
            {"destination": "/data", "source": "/srv", "options": ["bind", "ro", "rslave"]}
        ],
        "linux": {
            "cgroupsPath": "/pods/one",
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}],
            "rootfsPropagation": "rslave",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn plan_of(json: Value) -> Result<ContainerPlan, Error> {
    let config: Spec = serde_json::from_value(json).unwrap();
    plan(&config, PlanExtras { id: ID.into(), ..PlanExtras::default() })
}

/// The foreign configuration with one value put in.
fn changed(pointer: &str, value: Value) -> Result<ContainerPlan, Error> {
    let mut config = foreign();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[key] = value;
    plan_of(config)
}

#[test]
fn a_plain_request_becomes_a_plan() {
    let plan = planned(|_| {});
    assert_eq!(plan.id, ID);
    assert_eq!(plan.hostname.as_deref(), Some(&ID[..12]));
    assert_eq!(plan.cgroup.path, format!("sbx/{ID}"));
    assert_eq!(plan.process.args, ["sh"]);
    assert_eq!(plan.process.user, User::Named { spec: String::new(), group_add: Vec::new() });
    assert_eq!(plan.process.capabilities.effective.len(), 14);
    assert!(plan.process.capabilities.inheritable.is_empty() && plan.process.capabilities.ambient.is_empty());
    assert_eq!(plan.process.oom_score_adj, Some(0));
    assert!(!plan.process.stdin && plan.process.terminal.is_none() && plan.first == First::Program);
    assert_eq!(plan.namespaces.net, Namespace::New);
    assert_eq!(plan.namespaces.user, Namespace::Inherit);
    assert_eq!(plan.id_maps, None);
    assert_eq!(plan.mounts.len(), 7);
    assert_eq!(plan.masked_paths.len(), 14);
    let places: Vec<&str> = plan.devices.iter().map(|node| node.path.as_str()).collect();
    assert_eq!(places, ["/dev/null", "/dev/random", "/dev/full", "/dev/tty", "/dev/zero", "/dev/urandom"]);
    assert_eq!(plan.cgroup.resources.devices.len(), 8 + 10);
    assert!(!plan.cgroup.resources.devices[0].allow && plan.cgroup.resources.devices[0].kind.is_none());
}

#[test]
fn equal_requests_give_equal_plans() {
    let request = |case: &mut Case| {
        case.request.host_config.cap_add = strings(&["ALL"]);
        case.request.host_config.sysctls.insert("net.core.somaxconn".into(), "5".into());
    };
    assert_eq!(planned(request), planned(request));
}

#[test]
fn what_the_plan_has_and_oci_has_not_comes_from_the_extras() {
    let plan = planned(|case| {
        case.request.config.user = "www:staff".into();
        case.request.config.open_stdin = true;
        case.request.host_config.group_add = strings(&["audio", "5"]);
        case.request.host_config.init = Some(true);
    });
    assert_eq!(plan.process.user, User::Named { spec: "www:staff".into(), group_add: strings(&["audio", "5"]) });
    assert!(plan.first == First::Reaper && plan.process.stdin);
    let shared = planned(|case| {
        case.request.host_config.init = Some(true);
        case.request.host_config.pid_mode = "host".into();
    });
    assert!(shared.first == First::Program, "PID 1 of the host is there already");
}

#[test]
fn a_terminal_has_the_size_of_the_request() {
    let plan = planned(|case| {
        case.request.config.tty = true;
        case.request.host_config.console_size = [24, 80];
    });
    assert_eq!(plan.process.terminal, Some(TerminalSize { rows: 24, columns: 80 }));
    let unknown = planned(|case| case.request.config.tty = true);
    assert_eq!(unknown.process.terminal, Some(TerminalSize::default()));
}

#[test]
fn mounts_are_told_apart() {
    let plan = planned(|case| case.request.host_config.binds = strings(&["/srv:/data:ro"]));
    let source = |target: &str| plan.mounts.iter().find(|mount| mount.target == target).unwrap();
    assert_eq!(source("/proc").source, MountSource::Proc);
    assert_eq!(source("/sys").source, MountSource::Sysfs);
    assert_eq!(source("/sys/fs/cgroup").source, MountSource::Cgroup);
    assert!(source("/sys").attributes.read_only && source("/sys").attributes.nosuid);
    let shm = MountSource::Filesystem {
        fstype: "tmpfs".into(),
        source: "shm".into(),
        options: strings(&["mode=1777", "size=67108864"]),
    };
    assert_eq!(source("/dev/shm").source, shm);
    let data = source("/data");
    assert_eq!(data.source, MountSource::Bind { path: "/srv".into(), recursive: true, idmapped: false });
    assert!(data.attributes.recursive_read_only);
    assert_eq!(data.propagation, Propagation::RecursivePrivate);
}

#[test]
fn a_user_namespace_arrives_with_its_maps() {
    let plan = planned(|case| {
        case.request.host_config.userns_mode = "private".into();
        case.request.host_config.binds = strings(&["data:/v"]);
    });
    assert_eq!(plan.namespaces.user, Namespace::New);
    assert_eq!(plan.id_maps.unwrap().uids[0].outside, 100_000);
    let idmapped = plan.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Bind { idmapped: true, .. }));
    assert_eq!(idmapped.count(), 1);
}

#[test]
fn a_configuration_of_somebody_else_is_planned() {
    let plan = plan_of(foreign()).unwrap();
    assert!(plan.root.read_only && plan.process.no_new_privs);
    assert_eq!(plan.process.user, User::Ids { uid: 5, gid: 6, additional_gids: vec![7] });
    assert_eq!(plan.process.capabilities.bounding, ["CAP_CHOWN", "CAP_KILL"]);
    assert_eq!(plan.process.capabilities.ambient, ["CAP_KILL"]);
    assert_eq!(plan.namespaces.net, Namespace::Join("/proc/1/ns/net".into()));
    assert_eq!(plan.namespaces.ipc, Namespace::Inherit);
    assert_eq!(plan.cgroup.path, "pods/one");
    assert_eq!(plan.process.rlimits[0].kind, "RLIMIT_NOFILE");
    let bind = plan.mounts.last().unwrap();
    assert_eq!(bind.source, MountSource::Bind { path: "/srv".into(), recursive: false, idmapped: false });
    assert!(bind.attributes.read_only && !bind.attributes.recursive_read_only);
    assert_eq!(plan.process.oom_score_adj, None);
}

#[test]
fn fields_without_a_place_are_refused_by_name() {
    let hook = json!([{"path": "/bin/true"}]);
    for (pointer, value, field) in [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/ociVersion", json!("x"), "ociVersion"),
        ("/hooks", json!({"prestart": hook}), "hooks.prestart"),
        ("/hooks", json!({"createRuntime": hook}), "hooks.createRuntime"),
        ("/hooks", json!({"createContainer": hook}), "hooks.createContainer"),
        ("/hooks", json!({"startContainer": hook}), "hooks.startContainer"),
        ("/hooks", json!({"poststart": hook}), "hooks.poststart"),
        ("/hooks", json!({"poststop": hook}), "hooks.poststop"),
        ("/windows", json!({"layerFolders": []}), "windows"),
        ("/solaris", json!({}), "solaris"),
        ("/vm", json!({"kernel": {"path": "/k"}}), "vm"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 4}), "process.ioPriority"),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO"}), "process.scheduler"),
        ("/process/execCPUAffinity", json!({"initial": "0"}), "process.execCPUAffinity"),
        ("/process/user/umask", json!(7), "process.user.umask"),
        ("/process/user/username", json!("x"), "process.user.username"),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        ("/linux/personality", json!({"domain": "LINUX32"}), "linux.personality"),
        ("/linux/mountLabel", json!("system_u"), "linux.mountLabel"),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 5}}), "linux.timeOffsets"),
        ("/linux/netDevices", json!({"eth0": {}}), "linux.netDevices"),
        ("/linux/rootfsPropagation", json!("unbindable"), "linux.rootfsPropagation"),
        ("/linux/rootfsPropagation", json!("shared"), "linux.rootfsPropagation"),
        ("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 5}]), "linux.resources.hugepageLimits"),
        ("/linux/resources/network", json!({"classID": 5}), "linux.resources.network"),
        ("/linux/resources/rdma", json!({"mlx": {"hcaHandles": 5}}), "linux.resources.rdma"),
        ("/linux/resources/memory", json!({"kernel": 5}), "linux.resources.memory.kernel"),
        ("/linux/resources/memory", json!({"kernelTCP": 5}), "linux.resources.memory.kernelTCP"),
        ("/linux/resources/memory", json!({"useHierarchy": false}), "linux.resources.memory.useHierarchy"),
        ("/linux/resources/cpu", json!({"idle": 1}), "linux.resources.cpu.idle"),
        ("/linux/resources/cpu", json!({"burst": 1}), "linux.resources.cpu.burst"),
        ("/linux/resources/blockIO", json!({"leafWeight": 5}), "linux.resources.blockIO.leafWeight"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s"}),
            "linux.seccomp.listenerPath",
        ),
        ("/mounts/4/options", json!(["bind", "unbindable"]), "mounts[/data].options \"unbindable\""),
        ("/mounts/4/options", json!(["bind", "rnosuid"]), "mounts[/data].options \"rnosuid\""),
        ("/mounts/4/options", json!(["bind", "size=5"]), "mounts[/data].options \"size=5\""),
        ("/mounts/0/options", json!(["hidepid=2"]), "mounts[/proc].options \"hidepid=2\""),
        ("/mounts/4/uidMappings", json!([{"containerID": 0, "hostID": 5, "size": 1}]), "mounts[/data].uidMappings"),
        ("/mounts/3/options", json!(["idmap"]), "mounts[/dev/shm].options"),
    ] {
        let error = changed(pointer, value.clone()).expect_err(&format!("{pointer} {value}")).to_string();
        assert!(error.starts_with("config.json: ") && error.contains(field), "{pointer} {value}: {error}");
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (pointer, value, field) in [
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!([""]), "process.args"),
        ("/process/args", json!(["a\0b"]), "process"),
        ("/process/env", json!(["A=\0"]), "process"),
        ("/process/cwd", json!("tmp"), "process.cwd"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]), "linux.namespaces"),
        ("/linux/namespaces", json!([{"type": "pid"}]), "linux.namespaces"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "user"}]), "linux.uidMappings"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 5, "size": 1}]), "linux.uidMappings"),
        ("/linux/cgroupsPath", json!("/"), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!("/a/../../b"), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!("noslice:a:b"), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!("a--b.slice:a:b"), "linux.cgroupsPath"),
        ("/linux/maskedPaths", json!(["proc"]), "linux.maskedPaths"),
        ("/linux/readonlyPaths", json!(["proc"]), "linux.readonlyPaths"),
        ("/linux/devices", json!([{"path": "x", "type": "c", "major": 1, "minor": 1}]), "linux.devices"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 1}]), "linux.devices"),
        ("/linux/resources/devices", json!([{"allow": true, "access": "x"}]), "linux.resources.devices"),
        ("/linux/resources/devices", json!([{"allow": true, "major": -5, "access": "r"}]), "linux.resources.devices"),
        ("/mounts/4/source", json!("srv"), "mounts[/data].source"),
        ("/mounts/4/destination", json!("data"), "mounts.destination"),
        ("/mounts/3/type", json!("none"), "mounts[/dev/shm].type"),
    ] {
        let error = changed(pointer, value.clone()).expect_err(&format!("{pointer} {value}")).to_string();
        assert!(error.contains(field), "{pointer} {value}: {error}");
    }
    let mut without = foreign();
    without.as_object_mut().unwrap().remove("process");
    assert!(plan_of(without).unwrap_err().to_string().contains("process: missing"));
}

#[test]
fn fields_that_say_nothing_are_taken() {
    for (pointer, value) in [
        ("/hooks", json!({"prestart": []})),
        ("/ociVersion", json!("1.0.2-dev")),
        ("/annotations", json!({"a": "b"})),
        ("/linux/mountLabel", json!("")),
        ("/linux/resources/hugepageLimits", json!([])),
        ("/linux/rootfsPropagation", json!("rprivate")),
        ("/linux/resources/memory", json!({"useHierarchy": true, "checkBeforeUpdate": false})),
        ("/mounts/4/options", json!(["rbind"])),
        ("/mounts/4/type", json!("none")),
    ] {
        let mut config = foreign();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        if pointer == "/mounts/4/options" {
            config["linux"]["rootfsPropagation"] = json!("private");
        }
        plan_of(config).unwrap_or_else(|error| panic!("{pointer}: {error}"));
    }
}

#[test]
fn slices_are_nested_as_systemd_nests_them() {
    for (path, expected) in [
        ("system.slice:sbx:abc", "system.slice/sbx-abc.scope"),
        ("a-b-c.slice:sbx:abc", "a.slice/a-b.slice/a-b-c.slice/sbx-abc.scope"),
        ("-.slice::abc", "abc.scope"),
        ("a.slice:x:b.slice", "a.slice/b.slice"),
        ("a/./b//c", "a/b/c"),
    ] {
        assert_eq!(changed("/linux/cgroupsPath", json!(path)).unwrap().cgroup.path, expected);
    }
}

#[test]
fn a_node_of_the_configuration_takes_the_place_of_a_default_one() {
    let plan = changed("/linux/devices", json!([{"path": "/dev/null", "type": "b", "major": 8, "minor": 0}, {"path": "/dev/f", "type": "p", "major": 0, "minor": 0}])).unwrap();
    let nulls: Vec<_> = plan.devices.iter().filter(|node| node.path == "/dev/null").collect();
    assert_eq!((nulls.len(), nulls[0].kind, nulls[0].mode), (1, DeviceKind::Block, 0o666));
    assert_eq!(plan.devices.len(), 7);
}

#[test]
fn limits_arrive() {
    let plan = changed(
        "/linux/resources",
        json!({
            "memory": {"limit": 5, "swap": -1, "swappiness": 0, "disableOOMKiller": true},
            "cpu": {"shares": 2, "quota": -1, "period": 3, "realtimeRuntime": 4, "realtimePeriod": 5, "cpus": "0", "mems": "1"},
            "pids": {"limit": 0},
            "blockIO": {"weight": 10, "throttleWriteIOPSDevice": [{"major": 1, "minor": 2, "rate": 3}]},
            "unified": {"memory.high": "9"}
        }),
    )
    .unwrap();
    let resources = &plan.cgroup.resources;
    assert_eq!(
        (resources.memory.limit, resources.memory.swap, resources.memory.swappiness),
        (Some(5), Some(-1), Some(0))
    );
    assert!(resources.memory.disable_oom_killer);
    assert_eq!((resources.cpu.shares, resources.cpu.quota, resources.cpu.period), (Some(2), Some(-1), Some(3)));
    assert_eq!((resources.cpu.cpus.as_str(), resources.cpu.mems.as_str()), ("0", "1"));
    assert_eq!(resources.pids, None);
    assert_eq!(resources.block.write_iops[0].value, 3);
    assert_eq!(resources.unified["memory.high"], "9");
    assert!(resources.devices.is_empty(), "no rules restrict nothing");
}

#[test]
fn a_filter_arrives_unchanged() {
    let filter = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{
            "names": ["read", "personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 5, "value": 8, "valueTwo": 9, "op": "SCMP_CMP_MASKED_EQ"}]
        }]
    });
    let seccomp = changed("/linux/seccomp", filter).unwrap().process.seccomp.unwrap();
    assert_eq!((seccomp.default_action.as_str(), seccomp.default_errno), ("SCMP_ACT_ERRNO", Some(38)));
    assert_eq!(seccomp.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    assert_eq!(seccomp.flags, ["SECCOMP_FILTER_FLAG_LOG"]);
    let rule = &seccomp.rules[0];
    assert_eq!((rule.names.len(), rule.action.as_str(), rule.errno), (2, "SCMP_ACT_ALLOW", None));
    assert_eq!((rule.args[0].index, rule.args[0].value, rule.args[0].value_two), (5, 8, 9));
    assert_eq!(rule.args[0].op, "SCMP_CMP_MASKED_EQ");
    let bad = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]});
    assert!(changed("/linux/seccomp", bad).unwrap_err().to_string().contains("arguments 0 to 5"));
}

#[test]
fn dockers_filter_survives_the_way_through_oci() {
    for change in [
        (|_| {}) as fn(&mut Case),
        |case| case.request.host_config.cap_add = strings(&["SYS_ADMIN", "BPF"]),
        |case| case.request.host_config.cap_drop = strings(&["ALL"]),
        |case| case.machine.kernel = (4, 7),
    ] {
        let case = Case::with(change);
        let machine = case.machine.clone();
        let spec = case.spec();
        let direct = crate::seccomp::default_profile(&spec.security.capabilities, machine.kernel);
        assert_eq!(planned(change).process.seccomp, Some(direct));
    }
    for option in ["seccomp=unconfined", "privileged"] {
        let plan = planned(|case| match option {
            "privileged" => case.request.host_config.privileged = true,
            _ => case.request.host_config.security_opt = strings(&[option]),
        });
        assert_eq!(plan.process.seccomp, None, "{option}");
    }
    let own = "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_ERRNO\"}]}";
    let plan = planned(|case| {
        case.request.host_config.security_opt = strings(&[own]);
        case.request.host_config.privileged = true;
    });
    let seccomp = plan.process.seccomp.unwrap();
    assert_eq!((seccomp.default_action.as_str(), seccomp.rules[0].names[0].as_str()), ("SCMP_ACT_ALLOW", "mkdir"));
}

fn executed(request: &ExecRequest, change: impl FnOnce(&mut Case)) -> Result<sbx_container::plan::ProcessPlan, Error> {
    let case = Case::with(change);
    let machine = case.machine.clone();
    exec_process(&case.spec(), &machine, request)
}

fn command(words: &[&str]) -> ExecRequest {
    ExecRequest { args: strings(words), ..ExecRequest::default() }
}

#[test]
fn exec_has_what_the_container_has() {
    let change = |case: &mut Case| {
        case.request.config.env = strings(&["A=1"]);
        case.request.config.user = "www".into();
        case.request.config.working_dir = "/srv".into();
        case.request.config.tty = true;
        case.request.host_config.group_add = strings(&["audio"]);
        case.request.host_config.cap_drop = strings(&["KILL"]);
        case.request.host_config.security_opt = strings(&["no-new-privileges"]);
        case.request.host_config.oom_score_adj = 9;
    };
    let process = executed(&command(&["id"]), change).unwrap();
    assert_eq!(process.args, ["id"]);
    assert_eq!(process.env, strings(&["PATH=/bin", &format!("HOSTNAME={}", &ID[..12]), "A=1", "LANG=C"]));
    assert_eq!((process.cwd.as_str(), process.terminal), ("/srv", None));
    assert_eq!(process.user, User::Named { spec: "www".into(), group_add: strings(&["audio"]) });
    assert_eq!(process.capabilities.effective.len(), 13);
    assert!(process.no_new_privs && !process.stdin);
    assert_eq!(process.oom_score_adj, Some(9));
    let first = planned(change).process;
    assert_eq!((first.seccomp, first.capabilities), (process.seccomp, process.capabilities));
}

#[test]
fn exec_has_what_it_asks_for() {
    let request = ExecRequest {
        env: strings(&["A=2", "LANG"]),
        user: "0:0".into(),
        working_dir: "/tmp".into(),
        terminal: Some(TerminalSize { rows: 2, columns: 3 }),
        stdin: true,
        privileged: true,
        ..command(&["sh", "-c", "x"])
    };
    let process = executed(&request, |case| case.request.config.env = strings(&["A=1"])).unwrap();
    assert_eq!(process.env, strings(&["PATH=/bin", &format!("HOSTNAME={}", &ID[..12]), "TERM=xterm", "A=2"]));
    assert_eq!((process.cwd.as_str(), process.stdin), ("/tmp", true));
    assert_eq!(process.terminal, Some(TerminalSize { rows: 2, columns: 3 }));
    assert_eq!(process.capabilities.effective.len(), 41);
    assert!(process.capabilities.inheritable.is_empty());
    for (request, message) in [
        (command(&[]), "no exec command specified"),
        (command(&[""]), "no exec command specified"),
        (command(&["a\0"]), "null byte"),
        (ExecRequest { env: strings(&["A=\0"]), ..command(&["a"]) }, "null byte"),
        (ExecRequest { working_dir: "tmp".into(), ..command(&["a"]) }, "Cwd must be an absolute path"),
    ] {
        let error = executed(&request, |_| {}).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
