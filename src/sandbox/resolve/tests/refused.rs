//! Requests that cannot be fulfilled: the field and Docker's words.

use super::{Case, strings};
use crate::config::{Empty, EndpointAddresses, EndpointConfig, Healthcheck};
use crate::facts::Controllers;
use crate::host_config::{DeviceMapping, HostConfig, PortBinding, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice};

fn refused(case: Case, field: &str, message: &str) {
    match case.resolve() {
        Ok(_) => panic!("accepted, expected {message:?}"),
        Err(error) => {
            assert!(error.message.contains(message), "{:?} does not say {message:?}", error.message);
            assert_eq!(error.field, field, "{}", error.message);
        }
    }
}

/// Cases that change only the host configuration, on a machine with version 2.
fn host(field: &str, message: &str, change: impl FnOnce(&mut HostConfig)) {
    refused(Case::with(|case| change(&mut case.request.host_config)), &format!("HostConfig.{field}"), message);
}

fn config(field: &str, message: &str, change: impl FnOnce(&mut crate::config::Config)) {
    refused(Case::with(|case| change(&mut case.request.config)), field, message);
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    host("Runtime", "unknown or invalid runtime name: kata", |host| host.runtime = "kata".into());
    host("Links", "--link is not supported", |host| host.links = strings(&["db:db"]));
    host("StorageOpt", "--storage-opt", |host| drop(host.storage_opt.insert("size".into(), "1g".into())));
    host("DeviceRequests", "--gpus", |host| host.device_requests.push(serde_json::json!({"Count": -1})));
    host("Cgroup", "HostConfig.Cgroup", |host| host.cgroup = "container:x".into());
    host("VolumeDriver", "plugin \"nfs\" not found", |host| host.volume_driver = "nfs".into());
    host("Annotations", "empty string is not permitted", |host| {
        drop(host.annotations.insert(String::new(), "x".into()))
    });
    host("Isolation", "invalid isolation \"lxc\" in --isolation", |host| host.isolation = "lxc".into());
    refused(Case::with(|case| case.environment = "jail"), "HostConfig.Isolation", "SBX_ISOLATION");
    config("Config.ArgsEscaped", "Windows", |config| config.args_escaped = true);
    for platform in ["linux//arm64", "lin ux", "a/b/c/d", "/"] {
        refused(Case::with(|case| case.request.platform = platform.into()), "platform", "invalid OS/architecture");
    }
}

#[test]
fn what_is_the_hosts_is_refused_in_a_virtual_machine() {
    let vm = |field: &str, message: &str, change: fn(&mut HostConfig)| {
        host(field, message, |host| {
            host.isolation = "vm".into();
            change(host);
        });
    };
    vm("NetworkMode", "--network host is not possible with --isolation=vm", |host| host.network_mode = "host".into());
    let tenant = "not possible with --isolation=vm and --network container:x";
    vm("CpusetCpus", tenant, |host| {
        host.network_mode = "container:x".into();
        host.cpuset_cpus = "0".into();
    });
    vm("BlkioDeviceReadBps", "--device-read-bps is not possible with --isolation=vm and --ipc container:x", |host| {
        host.ipc_mode = "container:x".into();
        host.blkio_device_read_bps.push(crate::host_config::ThrottleDevice { path: "/dev/sda".into(), rate: 1 });
    });
    vm("PidMode", "--pid host", |host| host.pid_mode = "host".into());
    vm("IpcMode", "--ipc host", |host| host.ipc_mode = "host".into());
    vm("UTSMode", "--uts host", |host| host.uts_mode = "host".into());
    vm("CgroupnsMode", "--cgroupns host", |host| host.cgroupns_mode = "host".into());
    vm("StorageOpt", "at least 32m", |host| drop(host.storage_opt.insert("size".into(), "1m".into())));
    vm("StorageOpt", "unknown option \"inodes\"", |host| drop(host.storage_opt.insert("inodes".into(), "1".into())));
    vm("Mounts", "bind propagation rshared", |host| host.binds = strings(&["/srv:/srv:rshared"]));
}

#[test]
fn memory_limits_follow_docker() {
    const MB: i64 = 1 << 20;
    host("Memory", "Minimum memory limit allowed is 6MB", |host| host.memory = 5 * MB);
    host("Memory", "Minimum memory limit allowed is 6MB", |host| host.memory = -1);
    host("MemorySwap", "Minimum memoryswap limit should be larger than memory limit, see usage", |host| {
        (host.memory, host.memory_swap) = (64 * MB, 32 * MB);
    });
    host("MemorySwap", "You should always set the Memory limit when using Memoryswap limit, see usage", |host| {
        host.memory_swap = 64 * MB
    });
    host("MemorySwap", "-1 for unlimited", |host| (host.memory, host.memory_swap) = (64 * MB, -2));
    host("MemoryReservation", "Minimum memory reservation allowed is 6MB", |host| host.memory_reservation = MB);
    host("MemoryReservation", "Minimum memory reservation allowed is 6MB", |host| host.memory_reservation = -1);
    host(
        "MemoryReservation",
        "Minimum memory limit can not be less than memory reservation limit, see usage",
        |host| {
            (host.memory, host.memory_reservation) = (64 * MB, 65 * MB);
        },
    );
    host("MemorySwappiness", "does not support memory swappiness", |host| host.memory_swappiness = Some(10));
    for value in [101, -2] {
        let swappiness = Case::old(|case| case.request.host_config.memory_swappiness = Some(value));
        refused(swappiness, "HostConfig.MemorySwappiness", "valid memory swappiness range is 0-100");
    }
    host("OomKillDisable", "does not support OomKillDisable", |host| host.oom_kill_disable = Some(true));
    host("OomScoreAdj", "Invalid value 1001, range for oom score adj is [-1000, 1000]", |host| {
        host.oom_score_adj = 1001
    });
    host("OomScoreAdj", "Invalid value -1001", |host| host.oom_score_adj = -1001);
    host("ShmSize", "SHM size can not be less than 0", |host| host.shm_size = -1);
}

#[test]
fn a_limit_that_the_kernel_cannot_enforce_is_refused() {
    const NONE: Controllers = Controllers {
        memory: false,
        swap: false,
        memory_reservation: false,
        memory_swappiness: false,
        oom_kill_disable: false,
        cpu_shares: false,
        cpu_bandwidth: false,
        cpu_realtime: false,
        cpuset: false,
        pids: false,
        block_weight: false,
        block_weight_device: false,
        block_throttle: false,
        devices: false,
    };
    let limit = |field: &str, change: fn(&mut HostConfig)| {
        let case = Case::with(|case| {
            case.machine.controllers = NONE;
            change(&mut case.request.host_config);
        });
        refused(case, &format!("HostConfig.{field}"), "your kernel");
    };
    limit("Memory", |host| host.memory = 64 << 20);
    limit("MemoryReservation", |host| host.memory_reservation = 64 << 20);
    limit("PidsLimit", |host| host.pids_limit = Some(5));
    limit("NanoCpus", |host| host.nano_cpus = 500_000_000);
    limit("CpuShares", |host| host.cpu_shares = 512);
    limit("CpuPeriod", |host| host.cpu_quota = 5000);
    limit("CpusetCpus", |host| host.cpuset_cpus = "0".into());
    limit("BlkioWeight", |host| host.blkio_weight = 100);
    limit("BlkioWeightDevice", |host| {
        host.blkio_weight_device = vec![WeightDevice { path: "/dev/sda".into(), weight: 10 }]
    });
    limit("BlkioDeviceReadBps", |host| {
        host.blkio_device_read_bps = vec![ThrottleDevice { path: "/dev/sda".into(), rate: 1 }]
    });
    limit("BlkioDeviceWriteIOps", |host| {
        host.blkio_device_write_iops = vec![ThrottleDevice { path: "/dev/sda".into(), rate: 1 }]
    });
    limit("Devices", |host| host.device_cgroup_rules = strings(&["c 1:3 r"]));
    let swap = Case::with(|case| {
        case.machine.controllers.swap = false;
        (case.request.host_config.memory, case.request.host_config.memory_swap) = (64 << 20, 128 << 20);
    });
    refused(swap, "HostConfig.MemorySwap", "does not support swap limit");
}

#[test]
fn processor_limits_follow_docker() {
    host("NanoCpus", "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available", |host| {
        host.nano_cpus = 5_000_000_000
    });
    host("NanoCpus", "range of CPUs is from 0.01 to 4.00", |host| host.nano_cpus = -1);
    host("NanoCpus", "range of CPUs is from 0.01", |host| host.nano_cpus = 1);
    host("NanoCpus", "Nano CPUs and CPU Period cannot both be set", |host| {
        (host.nano_cpus, host.cpu_period) = (1_000_000_000, 5000)
    });
    host("NanoCpus", "Nano CPUs and CPU Quota cannot both be set", |host| {
        (host.nano_cpus, host.cpu_quota) = (1_000_000_000, 5000)
    });
    host("CpuPeriod", "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)", |host| {
        host.cpu_period = 999
    });
    host("CpuPeriod", "CPU cfs period", |host| host.cpu_period = 1_000_001);
    host("CpuQuota", "CPU cfs quota can not be less than 1ms (i.e. 1000)", |host| host.cpu_quota = 999);
    host("CpuQuota", "CPU cfs quota", |host| host.cpu_quota = -2);
    host("CpuShares", "invalid CPU shares (-1): value must be a positive integer", |host| host.cpu_shares = -1);
    host("CpuShares", "minimum allowed cpu-shares is 2", |host| host.cpu_shares = 1);
    host("CpuShares", "maximum allowed cpu-shares is 262144", |host| host.cpu_shares = 262_145);
    host("CpusetCpus", "Requested CPUs are not available - requested 4, available: 0-3", |host| {
        host.cpuset_cpus = "4".into()
    });
    for list in ["1-", "a", "3-1", ",", "0-99999999999"] {
        host("CpusetCpus", &format!("Invalid value {list} for cpuset cpus"), |host| host.cpuset_cpus = list.into());
    }
    host("CpusetMems", "Requested memory nodes are not available - requested 1, available: 0", |host| {
        host.cpuset_mems = "1".into()
    });
    host("CpusetMems", "Invalid value x for cpuset mems", |host| host.cpuset_mems = "x".into());
    host("CpuRealtimeRuntime", "kernel does not support CPU real-time scheduler", |host| {
        host.cpu_realtime_runtime = 1000
    });
    let realtime = Case::old(|case| {
        case.machine.controllers.cpu_realtime = true;
        let host = &mut case.request.host_config;
        (host.cpu_realtime_period, host.cpu_realtime_runtime) = (1000, 2000);
    });
    refused(
        realtime,
        "HostConfig.CpuRealtimeRuntime",
        "cpu real-time runtime cannot be higher than cpu real-time period",
    );
}

#[test]
fn block_limits_follow_docker() {
    for weight in [1, 9, 1001] {
        host("BlkioWeight", "Range of blkio weight is from 10 to 1000", |host| host.blkio_weight = weight);
        host("BlkioWeightDevice", "Range of blkio weight", |host| {
            host.blkio_weight_device = vec![WeightDevice { path: "/dev/sda".into(), weight }]
        });
    }
    host("BlkioDeviceReadBps", "bad format for device path", |host| {
        host.blkio_device_read_bps = vec![ThrottleDevice { path: "sda".into(), rate: 1 }]
    });
    host("BlkioDeviceWriteBps", "rate of /dev/sda is 0", |host| {
        host.blkio_device_write_bps = vec![ThrottleDevice { path: "/dev/sda".into(), rate: 0 }]
    });
    host("BlkioDeviceReadIOps", "bad format", |host| host.blkio_device_read_iops = vec![ThrottleDevice::default()]);
}

#[test]
fn ulimits_and_devices_follow_docker() {
    let limit = |name: &str, soft, hard| vec![Ulimit { name: name.into(), soft, hard }];
    host("Ulimits", "invalid ulimit type: foo", |host| host.ulimits = limit("foo", 1, 1));
    host("Ulimits", "invalid ulimit type: NOFILE", |host| host.ulimits = limit("NOFILE", 1, 1));
    host("Ulimits", "ulimit soft limit must be less than or equal to hard limit: 2 > 1", |host| {
        host.ulimits = limit("nofile", 2, 1)
    });
    host("Ulimits", "must be less than or equal to hard limit: -1 > 1", |host| host.ulimits = limit("nofile", -1, 1));
    host("Ulimits", "-1 for unlimited", |host| host.ulimits = limit("core", -2, -1));
    host("Ulimits", "duplicate ulimit nofile", |host| {
        host.ulimits = [limit("nofile", 1, 1), limit("nofile", 2, 2)].concat()
    });
    let device = |host: &str, access: &str| {
        vec![DeviceMapping {
            path_on_host: host.into(),
            path_in_container: String::new(),
            cgroup_permissions: access.into(),
        }]
    };
    host("Devices", "invalid device mode: rwx", |host| host.devices = device("/dev/null", "rwx"));
    host("Devices", "bad format for path: dev/null", |host| host.devices = device("dev/null", "r"));
    host("DeviceCgroupRules", "invalid device cgroup rule format: 'c 1:3'", |host| {
        host.device_cgroup_rules = strings(&["c 1:3"])
    });
}

#[test]
fn namespace_modes_follow_docker() {
    host("PidMode", "invalid PID mode: foo", |host| host.pid_mode = "foo".into());
    host("PidMode", "invalid PID mode: container:", |host| host.pid_mode = "container:".into());
    host("IpcMode", "invalid IPC mode: foo", |host| host.ipc_mode = "foo".into());
    host("UTSMode", "invalid UTS mode: private", |host| host.uts_mode = "private".into());
    host("UsernsMode", "invalid USER mode: foo", |host| host.userns_mode = "foo".into());
    host("CgroupnsMode", "invalid cgroup namespace mode: foo", |host| host.cgroupns_mode = "foo".into());
    host("NetworkMode", "invalid container format container:<name|id>", |host| host.network_mode = "container:".into());
    host("NetworkMode", "invalid container format container:<name|id>", |host| host.network_mode = "container".into());
    host("NetworkMode", "invalid network name \"a b\"", |host| host.network_mode = "a b".into());
    let no_range = Case::with(|case| {
        case.machine.id_maps = None;
        case.request.host_config.userns_mode = "private".into();
    });
    refused(no_range, "HostConfig.UsernsMode", "/etc/subuid");
    let no_cgroup_namespace = Case::with(|case| {
        case.machine.namespaces.cgroup = false;
        case.request.host_config.cgroupns_mode = "private".into();
    });
    refused(no_cgroup_namespace, "HostConfig.CgroupnsMode", "no cgroup namespaces");
    let private = |field: &str, message: &str, change: fn(&mut HostConfig)| {
        host(field, message, |host| {
            host.userns_mode = "private".into();
            change(host);
        });
    };
    private("Privileged", "privileged mode is incompatible with user namespaces.", |host| host.privileged = true);
    private("NetworkMode", "cannot share the host's network namespace when user namespaces are enabled", |host| {
        host.network_mode = "host".into()
    });
    private("PidMode", "cannot share the host PID namespace when user namespaces are enabled", |host| {
        host.pid_mode = "host".into()
    });
    for parent in ["/", "..", "a/../b", "a b", "a:b", "a/./b"] {
        host("CgroupParent", "invalid cgroup-parent", |host| host.cgroup_parent = parent.into());
    }
    let slice = Case::with(|case| {
        case.machine.systemd_cgroups = true;
        case.request.host_config.cgroup_parent = "/docker".into();
    });
    refused(slice, "HostConfig.CgroupParent", "should be a valid slice named as \"xxx.slice\"");
}

#[test]
fn conflicts_with_shared_namespaces_follow_docker() {
    let joined = |field: &str, message: &str, change: fn(&mut Case)| {
        let case = Case::with(|case| {
            case.request.host_config.network_mode = "container:abc".into();
            change(case);
        });
        refused(case, field, message);
    };
    joined("Config.Hostname", "conflicting options: hostname and the network mode", |case| {
        case.request.config.hostname = "x".into()
    });
    joined("HostConfig.Dns", "conflicting options: dns and the network mode", |case| {
        case.request.host_config.dns = strings(&["192.0.2.1"])
    });
    joined("HostConfig.ExtraHosts", "conflicting options: custom host-to-IP mapping and the network mode", |case| {
        case.request.host_config.extra_hosts = strings(&["a:192.0.2.1"]);
    });
    joined(
        "HostConfig.PortBindings",
        "conflicting options: port publishing and the container type network mode",
        |case| {
            case.request.host_config.publish_all_ports = true;
        },
    );
    joined("Config.ExposedPorts", "conflicting options: port exposing and the container type network mode", |case| {
        case.request.config.exposed_ports = [("80/tcp".to_owned(), Empty {})].into();
    });
    let uts = Case::with(|case| {
        case.request.host_config.uts_mode = "host".into();
        case.request.config.hostname = "x".into();
    });
    refused(uts, "Config.Hostname", "conflicting options: hostname and the UTS mode");
    for mode in ["host", "none"] {
        host("PortBindings", "conflicting options: port publishing", |host| {
            host.network_mode = mode.into();
            host.port_bindings.insert("80/tcp".into(), Vec::new());
        });
        let mac = Case::with(|case| {
            case.request.host_config.network_mode = mode.into();
            case.request.config.mac_address = "02:42:ac:11:00:02".into();
        });
        refused(mac, "NetworkingConfig", "cannot be given with this network mode");
    }
}

#[test]
fn kernel_parameters_belong_to_namespaces() {
    let sysctl = |name: &str, message: &str, change: fn(&mut HostConfig)| {
        host("Sysctls", message, |host| {
            host.sysctls.insert(name.into(), "1".into());
            change(host);
        });
    };
    let nothing: fn(&mut HostConfig) = |_| {};
    sysctl("vm.swappiness", "sysctl \"vm.swappiness\" is not in a separate kernel namespace", nothing);
    sysctl("kernel.core_pattern", "is not in a separate kernel namespace", nothing);
    sysctl("kernel.hostname", "conflicts with the OCI \"hostname\" field", nothing);
    sysctl("net.ipv4.ip_forward", "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace", |host| {
        host.network_mode = "host".into()
    });
    sysctl("net/ipv4/ip_forward", "not allowed in host network namespace", |host| host.network_mode = "host".into());
    sysctl("net.core.somaxconn", "whose network namespace is joined", |host| host.network_mode = "container:x".into());
    sysctl("kernel.shmmax", "is not allowed in the hosts ipc namespace", |host| host.ipc_mode = "host".into());
    sysctl("fs.mqueue.msg_max", "whose ipc namespace is joined", |host| host.ipc_mode = "container:x".into());
    sysctl("kernel.domainname", "not in a separate kernel namespace", |host| host.uts_mode = "host".into());
    host("Sysctls", "invalid value", |host| drop(host.sysctls.insert("net.core.somaxconn".into(), "1\n2".into())));
    host("Sysctls", "net..core", |host| drop(host.sysctls.insert("net..core".into(), "1".into())));
}

#[test]
fn restart_policies_follow_docker() {
    let policy = |name: &str, maximum_retry_count| RestartPolicy { name: name.into(), maximum_retry_count };
    let cases = [
        ("always", 1, "invalid restart policy: maximum retry count can only be used with 'on-failure'"),
        ("no", -1, "can only be used with 'on-failure' and cannot be negative"),
        ("unless-stopped", 3, "can only be used with 'on-failure'"),
        ("on-failure", -1, "invalid restart policy: maximum retry count cannot be negative"),
        (
            "sometimes",
            0,
            "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
    ];
    for (name, retries, message) in cases {
        host("RestartPolicy", message, |host| host.restart_policy = policy(name, retries));
    }
    host("AutoRemove", "can't create 'AutoRemove' container with restart policy", |host| {
        host.auto_remove = true;
        host.restart_policy = policy("always", 0);
    });
}

#[test]
fn logging_follows_docker() {
    let log = |driver: &'static str, key: &'static str, value: &'static str, message: &str| {
        host("LogConfig", message, |host| {
            host.log_config.r#type = driver.into();
            if !key.is_empty() {
                host.log_config.config.insert(key.into(), value.into());
            }
        });
    };
    log("syslog", "", "", "logger: no log driver named 'syslog' is registered");
    log("local", "", "", "logger: no log driver named 'local' is registered");
    log("json-file", "colour", "red", "unknown log opt 'colour' for json-file log driver");
    log("none", "max-size", "1m", "unknown log opt 'max-size' for none log driver");
    log("json-file", "max-file", "0", "max-file cannot be less than 1");
    log("json-file", "max-file", "x", "invalid value for max-file");
    log("json-file", "max-size", "0", "max-size must be a positive number");
    log("json-file", "max-size", "big", "invalid size: 'big'");
    log("json-file", "compress", "true", "compress cannot be true when max-file is less than 2 or max-size is not set");
    log("json-file", "compress", "maybe", "invalid value for compress");
    log("json-file", "mode", "fast", "logging mode not supported: fast");
    log("json-file", "mode", "non-blocking", "use mode=blocking");
    log("json-file", "labels-regex", "(", "invalid value for labels-regex");
    log("json-file", "tag", "{{.Nothing}}", "{{.Nothing}} is not known");
    log("json-file", "max-buffer-size", "1m", "only supported with 'mode=non-blocking'");
}

#[test]
fn ports_and_names_follow_docker() {
    for port in ["", "tcp", "0", "70000", "80/sctp", "80/", "-1", "80-90", "+80", "80/TCP"] {
        refused(
            Case::with(|case| drop(case.request.host_config.port_bindings.insert(port.into(), Vec::new()))),
            "HostConfig.PortBindings",
            "invalid",
        );
        config("Config.ExposedPorts", "invalid", |config| config.exposed_ports = [(port.to_owned(), Empty {})].into());
    }
    let bind = |host_ip: &str, host_port: &str, message: &str| {
        host("PortBindings", message, |host| {
            let binding = PortBinding { host_ip: host_ip.into(), host_port: host_port.into() };
            host.port_bindings.insert("80/tcp".into(), vec![binding]);
        });
    };
    for port in ["x", "70000", "90-80", "1-", "-", "1-2-3", " 80"] {
        bind("", port, "invalid port specification");
    }
    bind("localhost", "80", "invalid IP address: localhost");
    for entry in ["", "name", ":192.0.2.1", "name:", "name:x", "a b:192.0.2.1", "a\n:192.0.2.1"] {
        host("ExtraHosts", "add-host", |host| host.extra_hosts = strings(&[entry]));
    }
    host("Dns", "example.com is not an ip address", |host| host.dns = strings(&["example.com"]));
    for domain in ["", "a b", "-x", ".x", "a\nnameserver 192.0.2.1"] {
        host("DnsSearch", "is not a valid domain", |host| host.dns_search = strings(&[domain]));
    }
    host("DnsOptions", "invalid DNS option", |host| host.dns_options = strings(&["a b"]));
    for mac in [
        "x",
        "02:42:ac:11:00",
        "02:42:ac:11:00:02:03",
        "0g:42:ac:11:00:02",
        "01:00:5e:00:00:01",
        "00:00:00:00:00:00",
        "2:42:ac:11:0:2",
    ] {
        config("Config.MacAddress", "is not a valid mac address", |config| config.mac_address = mac.into());
    }
}

#[test]
fn endpoints_are_checked() {
    let endpoint = |message: &str, change: fn(&mut EndpointConfig)| {
        let case = Case::with(|case| {
            let mut endpoint = EndpointConfig::default();
            change(&mut endpoint);
            case.request.networking.endpoints_config.insert("bridge".into(), endpoint);
        });
        refused(case, "NetworkingConfig", message);
    };
    endpoint("links are not supported", |endpoint| endpoint.links = strings(&["a"]));
    endpoint("unknown driver option \"x\"", |endpoint| drop(endpoint.driver_opts.insert("x".into(), "y".into())));
    endpoint("is not a valid mac address", |endpoint| endpoint.mac_address = "x".into());
    endpoint("invalid alias", |endpoint| endpoint.aliases = strings(&["a b"]));
    endpoint("invalid IPv4 address: 1.2.3", |endpoint| {
        endpoint.ipam_config = Some(EndpointAddresses { ipv4: "1.2.3".into(), ..Default::default() });
    });
    endpoint("invalid IPv6 address: 192.0.2.1", |endpoint| {
        endpoint.ipam_config = Some(EndpointAddresses { ipv6: "192.0.2.1".into(), ..Default::default() });
    });
    endpoint("--link-local-ip", |endpoint| {
        endpoint.ipam_config = Some(EndpointAddresses { link_local: strings(&["169.254.0.1"]), ..Default::default() });
    });
}

#[test]
fn the_portable_part_follows_docker() {
    config("Config.WorkingDir", "the working directory 'tmp' is invalid, it needs to be an absolute path", |config| {
        config.working_dir = "tmp".into()
    });
    config("Config.StopSignal", "invalid signal: FOO", |config| config.stop_signal = "FOO".into());
    config("Config.StopSignal", "invalid signal: 0", |config| config.stop_signal = "0".into());
    config("Config.StopTimeout", "invalid stop timeout -2", |config| config.stop_timeout = Some(-2));
    config("Config.Env", "invalid environment variable: =x", |config| config.env = strings(&["=x"]));
    config("Config.Env", "invalid environment variable: ", |config| config.env = strings(&[""]));
    config("Config.Labels", "key of a label is empty", |config| drop(config.labels.insert(String::new(), "x".into())));
    config("Config.Hostname", "is too long (maximum 64 bytes)", |config| config.hostname = "x".repeat(65));
    config("Config.Domainname", "is too long", |config| config.domainname = "x".repeat(65));
    for name in ["a b", "a\tb", "a\nb", "a/b", "a:b", "a#b"] {
        config("Config.Hostname", "invalid hostname format", |config| config.hostname = name.into());
    }
    config("Config", "null byte", |config| config.cmd = Some(strings(&["a\0b"])));
    config("Config", "null byte", |config| config.env = strings(&["A=\0"]));
    config("Config.Cmd", "empty string", |config| config.cmd = Some(strings(&[""])));
    for user in ["a:b:c", "a/b", "a b", "x\n"] {
        config("Config.User", "invalid user", |config| config.user = user.into());
    }
    for user in
        ["4294967296", "2147483648", "00", "0x0", "+1", "-1", "1:99999999999", "0:-5", "99999999999999999999999"]
    {
        config("Config.User", "uids and gids must be in range 0-2147483647", |config| config.user = user.into());
    }
    for path in ["", "data", "/", "/..", "//"] {
        config("Config.Volumes", if path.starts_with('/') { "destination can't be '/'" } else { "" }, |config| {
            config.volumes = [(path.to_owned(), Empty {})].into();
        });
    }
}

#[test]
fn health_checks_follow_docker() {
    let health = |message: &str, change: fn(&mut Healthcheck)| {
        config("Config.Healthcheck", message, |config| {
            let mut check = Healthcheck { test: strings(&["CMD", "true"]), ..Healthcheck::default() };
            change(&mut check);
            config.healthcheck = Some(check);
        });
    };
    health("Interval in Healthcheck cannot be less than 1ms", |check| check.interval = 999_999);
    health("Timeout in Healthcheck cannot be less than 1ms", |check| check.timeout = -1);
    health("StartPeriod in Healthcheck cannot be less than 1ms", |check| check.start_period = 1);
    health("StartInterval in Healthcheck cannot be less than 1ms", |check| check.start_interval = 1);
    health("Retries in Healthcheck cannot be negative", |check| check.retries = -1);
    health("Unknown healthcheck type 'RUN'", |check| check.test = strings(&["RUN", "x"]));
    health("CMD needs a command", |check| check.test = strings(&["CMD"]));
    health("CMD-SHELL needs one command line", |check| check.test = strings(&["CMD-SHELL"]));
}

#[test]
fn security_options_follow_docker() {
    let option =
        |option: &str, message: &str| host("SecurityOpt", message, |host| host.security_opt = strings(&[option]));
    option("foo", "invalid --security-opt 1: \"foo\"");
    option("foo=bar", "invalid --security-opt 2: \"foo=bar\"");
    option("no-new-privileges=maybe", "invalid --security-opt 2");
    option("apparmor=docker-default", "AppArmor is not enabled in your kernel");
    option("label=type:svirt_t", "SELinux is not enabled in your kernel");
    option("seccomp={", "decoding seccomp profile failed");
    option("systempaths=unconfined", "invalid --security-opt 2");
    let without = Case::with(|case| {
        case.machine.seccomp = false;
        case.request.host_config.security_opt = strings(&["seccomp={}"]);
    });
    refused(
        without,
        "HostConfig.SecurityOpt",
        "seccomp is not enabled in your kernel, cannot run a custom seccomp profile",
    );
    let labelled = Case::with(|case| {
        case.machine.selinux = true;
        case.request.host_config.security_opt = strings(&["label=level:s0"]);
    });
    refused(labelled, "HostConfig.SecurityOpt", "only label=disable is supported");
    let writable = Case::with(|case| {
        case.request.host_config.userns_mode = "private".into();
        case.request.host_config.security_opt = strings(&["writable-cgroups"]);
    });
    refused(writable, "HostConfig.SecurityOpt", "WritableCgroups conflicts with user namespaces");
    host("CapAdd", "invalid CapAdd: unknown capability: \"CAP_FLY\"", |host| host.cap_add = strings(&["fly"]));
    host("CapDrop", "invalid CapDrop: unknown capability: \"CAP_FLY\"", |host| host.cap_drop = strings(&["CAP_FLY"]));
    let newer = Case::with(|case| {
        case.machine.cap_last_cap = 37;
        case.request.host_config.cap_add = strings(&["BPF"]);
    });
    refused(newer, "HostConfig.CapAdd", "capability not supported by your kernel");
}
