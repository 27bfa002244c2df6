//! The configuration is what dockerd hands to runc for the same request.

use std::path::PathBuf;

use sbx_container::plan::DeviceKind;
use serde_json::{Value, json};

use super::{Error, runtime_config, wanted_devices};
use crate::host_config::{DeviceMapping, Mount, ThrottleDevice, Ulimit, WeightDevice};
use crate::spec::{HostDevice, HostPaths};
use crate::testing::{Case, ID, strings};

fn paths() -> HostPaths {
    HostPaths {
        rootfs: "/run/root".into(),
        resolv_conf: Some("/c/resolv.conf".into()),
        hostname: Some("/c/hostname".into()),
        hosts: Some("/c/hosts".into()),
        ..HostPaths::default()
    }
}

fn with_paths(paths: &HostPaths, change: impl FnOnce(&mut Case)) -> Result<Value, Error> {
    let case = Case::with(change);
    let machine = case.machine.clone();
    runtime_config(&case.spec(), &machine, paths).map(|config| serde_json::to_value(config).unwrap())
}

fn config(change: impl FnOnce(&mut Case)) -> Value {
    with_paths(&paths(), change).unwrap()
}

/// `DESTINATION TYPE SOURCE OPTIONS` of every mount.
fn mounts(config: &Value) -> Vec<String> {
    let line = |mount: &Value| {
        let text = |key: &str| mount[key].as_str().unwrap_or_default().to_owned();
        let options: Vec<&str> = mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!("{} {} {} {}", text("destination"), text("type"), text("source"), options.join(","))
    };
    config["mounts"].as_array().unwrap().iter().map(line).collect()
}

fn mount_at(config: &Value, destination: &str) -> String {
    let start = format!("{destination} ");
    let found: Vec<String> = mounts(config).into_iter().filter(|line| line.starts_with(&start)).collect();
    assert!(found.len() <= 1, "{found:?}");
    found.into_iter().next().unwrap_or_default()
}

fn namespaces(config: &Value) -> Vec<String> {
    let line = |namespace: &Value| match namespace["path"].as_str() {
        Some(path) => format!("{}={path}", namespace["type"].as_str().unwrap()),
        None => namespace["type"].as_str().unwrap().to_owned(),
    };
    config["linux"]["namespaces"].as_array().unwrap().iter().map(line).collect()
}

const DEFAULT_MOUNTS: [&str; 7] = [
    "/proc proc proc nosuid,noexec,nodev",
    "/dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k",
    "/dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
    "/sys sysfs sysfs nosuid,noexec,nodev,ro",
    "/sys/fs/cgroup cgroup cgroup ro,nosuid,noexec,nodev",
    "/dev/mqueue mqueue mqueue nosuid,noexec,nodev",
    "/dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=67108864",
];

#[test]
fn the_default_mounts_are_dockers() {
    let mut expected = strings(&DEFAULT_MOUNTS);
    expected.extend(strings(&[
        "/etc/resolv.conf bind /c/resolv.conf rbind,rprivate",
        "/etc/hostname bind /c/hostname rbind,rprivate",
        "/etc/hosts bind /c/hosts rbind,rprivate",
    ]));
    assert_eq!(mounts(&config(|_| {})), expected);
}

#[test]
fn a_read_only_root_makes_the_network_files_read_only() {
    let config = config(|case| case.request.host_config.readonly_rootfs = true);
    assert_eq!(config["root"], json!({"path": "/run/root", "readonly": true}));
    assert_eq!(mount_at(&config, "/etc/hosts"), "/etc/hosts bind /c/hosts rbind,rprivate,rro");
    for line in DEFAULT_MOUNTS {
        assert!(mounts(&config).contains(&line.to_owned()), "{line}");
    }
}

#[test]
fn privileged_makes_sys_and_the_cgroups_writable() {
    let privileged = config(|case| case.request.host_config.privileged = true);
    assert_eq!(mount_at(&privileged, "/sys"), "/sys sysfs sysfs nosuid,noexec,nodev");
    assert_eq!(mount_at(&privileged, "/sys/fs/cgroup"), "/sys/fs/cgroup cgroup cgroup nosuid,noexec,nodev");
    assert_eq!(privileged["linux"]["maskedPaths"], json!([]));
    assert_eq!(privileged["linux"].get("seccomp"), None);
    assert_eq!(privileged["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    let writable = config(|case| case.request.host_config.security_opt = strings(&["writable-cgroups"]));
    assert_eq!(mount_at(&writable, "/sys/fs/cgroup"), "/sys/fs/cgroup cgroup cgroup nosuid,noexec,nodev");
    assert_eq!(mount_at(&writable, "/sys"), DEFAULT_MOUNTS[3]);
}

#[test]
fn mounts_of_the_user_take_the_place_of_default_ones() {
    let own_dev = config(|case| case.request.host_config.binds = strings(&["/dev:/dev"]));
    let places: Vec<String> = mounts(&own_dev).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(!places.iter().any(|place| place.starts_with("/dev/")), "{places:?}");
    let own_shm = config(|case| drop(case.request.host_config.tmpfs.insert("/dev/shm".into(), "size=1m".into())));
    assert_eq!(mount_at(&own_shm, "/dev/shm"), "/dev/shm tmpfs tmpfs noexec,nosuid,nodev,rprivate,size=1m");
    let own_hosts = config(|case| case.request.host_config.binds = strings(&["/my/hosts:/etc/hosts:ro"]));
    assert_eq!(mount_at(&own_hosts, "/etc/hosts"), "/etc/hosts bind /my/hosts rbind,rro,rprivate");
}

#[test]
fn mounts_are_ordered_by_depth() {
    let config = config(|case| {
        case.request.host_config.binds = strings(&["/s:/a/b/c", "/s:/z", "/s:/a/b", "/s:/a"]);
    });
    let places: Vec<String> = mounts(&config).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(
        places[7..],
        strings(&["/a", "/z", "/a/b", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/a/b/c"])
    );
}

#[test]
fn shared_memory_follows_the_ipc_mode() {
    let mode = |mode: &'static str| {
        let paths = HostPaths { shm: Some("/run/shm".into()), join_ipc: Some("/proc/1/ns/ipc".into()), ..paths() };
        with_paths(&paths, |case| case.request.host_config.ipc_mode = mode.into()).unwrap()
    };
    assert_eq!(mount_at(&mode("none"), "/dev/shm"), "");
    assert_eq!(mount_at(&mode("host"), "/dev/shm"), "/dev/shm bind /dev/shm rbind,rprivate");
    assert_eq!(mount_at(&mode("shareable"), "/dev/shm"), "/dev/shm bind /run/shm rbind,rprivate");
    assert_eq!(mount_at(&mode("container:x"), "/dev/shm"), "/dev/shm bind /run/shm rbind,rprivate");
    assert_eq!(mount_at(&config(|_| {}), "/dev/shm"), DEFAULT_MOUNTS[6]);
    let small = config(|case| case.request.host_config.shm_size = 1 << 20);
    assert!(mount_at(&small, "/dev/shm").ends_with("size=1048576"));
}

#[test]
fn read_only_binds_reach_the_mounts_below_where_the_kernel_can() {
    let bind = |kernel, change: fn(&mut Mount)| {
        with_paths(&paths(), |case| {
            case.machine.kernel = kernel;
            let mut mount = Mount {
                r#type: "bind".into(),
                source: "/s".into(),
                target: "/t".into(),
                read_only: true,
                ..Mount::default()
            };
            mount.bind_options = Some(Default::default());
            change(&mut mount);
            case.request.host_config.mounts = vec![mount];
        })
        .map(|config| mount_at(&config, "/t"))
    };
    assert_eq!(bind((6, 1), |_| {}).unwrap(), "/t bind /s rbind,rro,rprivate");
    assert_eq!(bind((5, 10), |_| {}).unwrap(), "/t bind /s rbind,ro,rprivate");
    let options = |mount: &mut Mount, change: fn(&mut crate::host_config::BindOptions)| {
        change(mount.bind_options.as_mut().unwrap())
    };
    assert_eq!(
        bind((6, 1), |mount| mount.bind_options.as_mut().unwrap().read_only_non_recursive = true).unwrap(),
        "/t bind /s rbind,ro,rprivate"
    );
    assert_eq!(
        bind((6, 1), |mount| mount.bind_options.as_mut().unwrap().non_recursive = true).unwrap(),
        "/t bind /s bind,rro,rprivate"
    );
    let forced = bind((5, 10), |mount| mount.bind_options.as_mut().unwrap().read_only_force_recursive = true);
    assert!(forced.unwrap_err().to_string().contains("kernel 5.10 has no recursive read-only mounts"));
    let mut mount = Mount { bind_options: Some(Default::default()), ..Mount::default() };
    options(&mut mount, |bind| bind.propagation = "rslave".into());
    let slave = config(|case| {
        let mount = Mount { r#type: "bind".into(), source: "/s".into(), target: "/t".into(), ..mount };
        case.request.host_config.mounts = vec![mount];
    });
    assert_eq!(slave["linux"]["rootfsPropagation"], "rslave");
    assert_eq!(mount_at(&slave, "/t"), "/t bind /s rbind,rslave");
}

#[test]
fn what_is_not_prepared_is_an_error() {
    let image = |case: &mut Case| {
        case.request.host_config.mounts =
            vec![Mount { r#type: "image".into(), source: "tools".into(), target: "/i".into(), ..Mount::default() }];
    };
    let error = with_paths(&paths(), image).unwrap_err();
    assert_eq!(error.to_string(), "mount at /i: image \"tools\" has not been prepared");
    let mut prepared = paths();
    prepared.mount_sources.insert("/i".into(), PathBuf::from("/mnt/tools"));
    assert_eq!(mount_at(&with_paths(&prepared, image).unwrap(), "/i"), "/i bind /mnt/tools rbind,rro,rprivate");
    let inside = |case: &mut Case| {
        let options = crate::host_config::VolumeOptions { subpath: "a".into(), ..Default::default() };
        case.request.host_config.mounts = vec![Mount {
            r#type: "volume".into(),
            source: "data".into(),
            target: "/v".into(),
            volume_options: Some(options),
            ..Mount::default()
        }];
    };
    assert!(matches!(with_paths(&paths(), inside), Err(Error::NoSource { .. })));
    let volume = config(|case| case.request.host_config.binds = strings(&["data:/v"]));
    assert_eq!(mount_at(&volume, "/v"), "/v bind /var/lib/sbx/volumes/data/_data rbind");
}

#[test]
fn namespaces_follow_the_modes() {
    assert_eq!(namespaces(&config(|_| {})), ["mount", "network", "time", "uts", "pid", "ipc", "cgroup"]);
    let host = config(|case| {
        case.machine.namespaces.time = false;
        let host = &mut case.request.host_config;
        for mode in [
            &mut host.network_mode,
            &mut host.pid_mode,
            &mut host.ipc_mode,
            &mut host.uts_mode,
            &mut host.cgroupns_mode,
        ] {
            *mode = "host".into();
        }
    });
    assert_eq!(namespaces(&host), ["mount"]);
    assert_eq!(host.get("hostname"), None);
    assert_eq!(host["linux"]["sysctl"], json!({}));
    let joined =
        HostPaths { join_net: Some("/n".into()), join_pid: Some("/p".into()), join_ipc: Some("/i".into()), ..paths() };
    let other = with_paths(&joined, |case| {
        let host = &mut case.request.host_config;
        for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode] {
            *mode = "container:abc".into();
        }
    });
    assert_eq!(namespaces(&other.unwrap()), ["mount", "network=/n", "time", "uts", "pid=/p", "ipc=/i", "cgroup"]);
    let error = with_paths(&paths(), |case| case.request.host_config.pid_mode = "container:abc".into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "PidMode is \"container:abc\", but the namespace of that container is not known: is it running?"
    );
}

#[test]
fn a_user_namespace_has_maps_and_idmapped_volumes() {
    let config = config(|case| {
        case.request.host_config.userns_mode = "private".into();
        case.request.host_config.binds = strings(&["data:/v", "/srv:/s"]);
    });
    assert!(namespaces(&config).contains(&"user".to_owned()));
    let maps = json!([{"hostID": 100_000, "containerID": 0, "size": 65_536}]);
    assert_eq!((&config["linux"]["uidMappings"], &config["linux"]["gidMappings"]), (&maps, &maps));
    assert!(mount_at(&config, "/v").ends_with("rbind,idmap"));
    assert!(mount_at(&config, "/etc/hosts").ends_with(",idmap"));
    assert_eq!(mount_at(&config, "/s"), "/s bind /srv rbind,rprivate", "what others own keeps its owners");
    assert_eq!(config["linux"]["sysctl"], json!({"net.ipv4.ip_unprivileged_port_start": "0"}));
}

#[test]
fn kernel_parameters_are_dockers_under_the_users() {
    let config = config(|case| {
        case.request.host_config.sysctls.insert("net.ipv4.ping_group_range".into(), "1 0".into());
        case.request.host_config.sysctls.insert("kernel.shmmax".into(), "5".into());
    });
    assert_eq!(
        config["linux"]["sysctl"],
        json!({"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "1 0", "kernel.shmmax": "5"})
    );
}

#[test]
fn the_cgroup_lies_below_its_parent() {
    let path = |parent: &'static str, systemd| {
        let config = config(|case| {
            case.machine.systemd_cgroups = systemd;
            case.request.host_config.cgroup_parent = parent.into();
        });
        config["linux"]["cgroupsPath"].as_str().unwrap().to_owned()
    };
    assert_eq!(path("", false), format!("/sbx/{ID}"));
    assert_eq!(path("/tenants/a/", false), format!("/tenants/a/{ID}"));
    assert_eq!(path("", true), format!("system.slice:sbx:{ID}"));
    assert_eq!(path("a-b.slice", true), format!("a-b.slice:sbx:{ID}"));
}

fn device(requested: &str, path: &str, kind: DeviceKind, numbers: (u32, u32)) -> HostDevice {
    let (major, minor) = numbers;
    HostDevice { requested: requested.into(), path: path.into(), kind, major, minor, mode: 0o100_660, uid: 0, gid: 6 }
}

#[test]
fn devices_are_mapped_with_their_rules() {
    let map = |host: &str, inside: &str, access: &str| DeviceMapping {
        path_on_host: host.into(),
        path_in_container: inside.into(),
        cgroup_permissions: access.into(),
    };
    let mut paths = paths();
    paths.devices = vec![
        device("/dev/fuse", "/dev/fuse", DeviceKind::Character, (10, 229)),
        device("/dev/bus", "/dev/bus/usb/001", DeviceKind::Character, (189, 0)),
        device("/dev/bus", "/dev/bus/usb/002", DeviceKind::Character, (189, 1)),
    ];
    let devices = vec![map("/dev/fuse", "", "rw"), map("/dev/bus", "/dev/usb", "")];
    let request = |case: &mut Case| {
        case.request.host_config.devices = devices.clone();
        case.request.host_config.device_cgroup_rules = strings(&["b 8:* r"]);
    };
    let config = with_paths(&paths, request).unwrap();
    let nodes = config["linux"]["devices"].as_array().unwrap();
    let places: Vec<&str> = nodes.iter().map(|node| node["path"].as_str().unwrap()).collect();
    assert_eq!(places, ["/dev/fuse", "/dev/usb/usb/001", "/dev/usb/usb/002"]);
    assert_eq!(
        nodes[0],
        json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o660, "uid": 0, "gid": 6})
    );
    let rules = config["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules[0], json!({"allow": false, "type": "a", "access": "rwm"}));
    assert_eq!(rules.len(), 8 + 4);
    assert_eq!(rules[8], json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}));
    assert_eq!(rules[11], json!({"allow": true, "type": "b", "major": 8, "access": "r"}));
    let error = with_paths(&HostPaths::default(), request).unwrap_err().to_string();
    assert!(error.contains("error gathering device information while adding custom device \"/dev/fuse\""), "{error}");
}

#[test]
fn a_privileged_container_has_every_device() {
    let mut paths = paths();
    paths.devices = vec![
        device("/dev", "/dev/sda", DeviceKind::Block, (8, 0)),
        device("/dev/fuse", "/dev/fuse", DeviceKind::Character, (10, 229)),
    ];
    let config = with_paths(&paths, |case| {
        case.request.host_config.privileged = true;
        let fuse = DeviceMapping {
            path_on_host: "/dev/fuse".into(),
            path_in_container: "/dev/other".into(),
            ..Default::default()
        };
        case.request.host_config.devices = vec![fuse];
    });
    let config = config.unwrap();
    let places: Vec<&str> =
        config["linux"]["devices"].as_array().unwrap().iter().map(|node| node["path"].as_str().unwrap()).collect();
    assert_eq!(places, ["/dev/sda", "/dev/other"]);
    let rules = config["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules.last().unwrap(), &json!({"allow": true, "type": "a", "access": "rwm"}));
}

#[test]
fn limits_are_translated() {
    let mut paths = paths();
    paths.devices = vec![device("/dev/sda", "/dev/sda", DeviceKind::Block, (8, 0))];
    let config = with_paths(&paths, |case| {
        let host = &mut case.request.host_config;
        host.memory = 64 << 20;
        host.memory_reservation = 32 << 20;
        host.nano_cpus = 1_500_000_000;
        host.cpu_shares = 512;
        host.cpuset_cpus = "0-1".into();
        host.pids_limit = Some(0);
        host.blkio_weight = 300;
        host.blkio_weight_device = vec![WeightDevice { path: "/dev/sda".into(), weight: 200 }];
        host.blkio_device_read_bps = vec![ThrottleDevice { path: "/dev/sda".into(), rate: 1024 }];
        host.ulimits = vec![Ulimit { name: "nofile".into(), soft: 5, hard: -1 }];
        host.oom_score_adj = 7;
    });
    let config = config.unwrap();
    let resources = &config["linux"]["resources"];
    assert_eq!(resources["memory"], json!({"limit": 64 << 20, "reservation": 32 << 20, "swap": 128 << 20}));
    assert_eq!(resources["cpu"], json!({"shares": 512, "quota": 150_000, "period": 100_000, "cpus": "0-1"}));
    assert_eq!(resources["pids"], json!({"limit": -1}));
    assert_eq!(resources["blockIO"]["weight"], 300);
    assert_eq!(resources["blockIO"]["weightDevice"], json!([{"major": 8, "minor": 0, "weight": 200}]));
    assert_eq!(resources["blockIO"]["throttleReadBpsDevice"], json!([{"major": 8, "minor": 0, "rate": 1024}]));
    assert_eq!(config["process"]["rlimits"], json!([{"type": "RLIMIT_NOFILE", "soft": 5, "hard": u64::MAX}]));
    assert_eq!(config["process"]["oomScoreAdj"], 7);
    let missing = with_paths(&HostPaths::default(), |case| {
        case.request.host_config.blkio_device_write_bps = vec![ThrottleDevice { path: "/dev/sdz".into(), rate: 1 }];
    });
    assert!(missing.unwrap_err().to_string().contains("\"/dev/sdz\": no such file or directory (BlkioDeviceWriteBps)"));
}

#[test]
fn nothing_asked_limits_nothing() {
    let config = config(|_| {});
    let resources = config["linux"]["resources"].as_object().unwrap();
    assert_eq!(resources.keys().collect::<Vec<_>>(), ["devices"]);
    assert_eq!(resources["devices"].as_array().unwrap().len(), 8);
}

#[test]
fn the_process_is_the_image_and_the_request() {
    let config = config(|case| {
        case.request.config.tty = true;
        case.request.host_config.console_size = [24, 80];
        case.request.config.entrypoint = Some(strings(&["/bin/echo"]));
        case.request.config.cmd = Some(strings(&["a", "b"]));
        case.request.config.env = strings(&["A=1"]);
        case.request.config.user = "5:6".into();
        case.request.config.working_dir = "/srv".into();
        case.request.config.domainname = "example.com".into();
        case.request.host_config.annotations.insert("k".into(), "v".into());
        case.request.host_config.security_opt = strings(&["no-new-privileges"]);
    });
    let process = &config["process"];
    assert_eq!(process["args"], json!(["/bin/echo", "a", "b"]));
    assert_eq!(process["env"], json!(["PATH=/bin", format!("HOSTNAME={}", &ID[..12]), "TERM=xterm", "A=1", "LANG=C"]));
    assert_eq!(process["cwd"], "/srv");
    assert_eq!(process["user"], json!({"uid": 5, "gid": 6}));
    assert_eq!((&process["terminal"], &process["noNewPrivileges"]), (&json!(true), &json!(true)));
    assert_eq!(process["consoleSize"], json!({"height": 24, "width": 80}));
    assert_eq!(process["capabilities"].get("inheritable"), None);
    assert_eq!((config["hostname"].as_str(), config["domainname"].as_str()), (Some(&ID[..12]), Some("example.com")));
    assert_eq!(config["annotations"], json!({"k": "v"}));
    assert_eq!(process["oomScoreAdj"], 0);
    assert_eq!(process.get("rlimits"), None);
}

#[test]
fn every_device_of_a_request_is_looked_up() {
    let spec = Case::with(|case| {
        let host = &mut case.request.host_config;
        host.privileged = true;
        host.blkio_device_read_iops = vec![ThrottleDevice { path: "/dev/sdb".into(), rate: 1 }];
        host.blkio_weight_device = vec![WeightDevice { path: "/dev/sda".into(), weight: 10 }];
        host.devices = vec![DeviceMapping { path_on_host: "/dev/sda".into(), ..DeviceMapping::default() }];
    })
    .spec();
    assert_eq!(wanted_devices(&spec.host_config), ["/dev", "/dev/sda", "/dev/sdb"]);
}
