//! Requests that are fulfilled, and what holds where nothing was said.

use super::{Case, ID, strings};
use crate::facts::Controllers;
use crate::host_config::Ulimit;
use crate::isolation::{Isolation, Mode};
use crate::settings::Limit;
use crate::spec::SeccompChoice;

#[test]
fn nothing_said_gives_dockers_defaults() {
    let spec = Case::default().spec();
    let (config, host) = (&spec.config, &spec.host_config);
    assert_eq!(spec.id.as_str(), ID);
    assert_eq!(spec.name, "web");
    assert_eq!(spec.image.reference, "debian");
    assert_eq!(config.hostname, &ID[..12]);
    assert_eq!(config.stop_signal, "SIGTERM");
    assert_eq!(config.stop_timeout, Some(10));
    assert_eq!(host.network_mode, "bridge");
    assert_eq!(host.ipc_mode, "private");
    assert_eq!(host.cgroupns_mode, "private");
    assert_eq!(host.userns_mode, "host");
    assert_eq!(host.pid_mode, "");
    assert_eq!(host.shm_size, 64 << 20);
    assert_eq!(host.restart_policy.name, "no");
    assert_eq!(host.log_config.r#type, "json-file");
    assert_eq!(host.init, Some(false));
    assert_eq!(host.isolation, "process");
    assert_eq!(host.pids_limit, None);
    assert_eq!(host.readonly_paths.as_ref().unwrap().len(), 5);
    let masked = host.masked_paths.as_ref().unwrap();
    assert!(masked.contains(&"/proc/interrupts".to_owned()));
    assert!(masked.contains(&"/sys/devices/system/cpu/cpu1/thermal_throttle".to_owned()));
    assert_eq!(masked.len(), 14);
    assert_eq!(spec.security.capabilities.len(), 14);
    assert_eq!(spec.security.seccomp, SeccompChoice::Default);
    assert!(!spec.security.no_new_privileges);
    assert!(Case::default().warnings().is_empty());
}

#[test]
fn a_spec_survives_its_stored_form() {
    let spec = Case::with(|case| {
        let host = &mut case.request.host_config;
        host.binds = strings(&["/srv:/srv:ro", "data:/data"]);
        host.memory = 64 << 20;
        host.security_opt = strings(&["seccomp=unconfined", "no-new-privileges"]);
        host.tmpfs.insert("/run".into(), "size=1m".into());
    })
    .spec();
    let stored = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<crate::spec::SandboxSpec>(&stored).unwrap(), spec);
}

#[test]
fn isolation_is_resolved_with_its_reason() {
    let resolved = |flag: &str, environment: &'static str, settings: Option<Isolation>, obstacle: Option<&str>| {
        Case::with(|case| {
            case.request.host_config.isolation = flag.into();
            case.environment = environment;
            case.settings.isolation = settings;
            case.machine.vm_obstacle = obstacle.map(str::to_owned);
        })
        .spec()
        .isolation
    };
    assert_eq!(resolved("vm", "process", None, None).isolation, Mode::Vm);
    assert_eq!(resolved("hyperv", "", None, None).isolation, Mode::Vm);
    assert_eq!(resolved("", "vm", Some(Isolation::Process), None).reason, "SBX_ISOLATION=vm");
    assert_eq!(resolved("", "", Some(Isolation::Vm), None).isolation, Mode::Vm);
    assert_eq!(resolved("default", "", None, None).reason, "default");
    let auto = resolved("auto", "", None, Some("/dev/kvm does not exist"));
    assert_eq!(auto.isolation, Mode::Process);
    assert!(auto.reason.contains("/dev/kvm does not exist"));
}

#[test]
fn memory_defaults_follow_docker() {
    let spec = Case::with(|case| case.request.host_config.memory = 64 << 20).spec();
    assert_eq!(spec.host_config.memory_swap, 128 << 20);
    let unlimited =
        Case::with(|case| (case.request.host_config.memory, case.request.host_config.memory_swap) = (64 << 20, -1))
            .spec();
    assert_eq!(unlimited.host_config.memory_swap, -1);
    let without_swap = |case: &mut Case| {
        case.machine.controllers.swap = false;
        case.request.host_config.memory = 64 << 20;
    };
    assert_eq!(Case::with(without_swap).spec().host_config.memory_swap, -1);
    assert!(Case::with(without_swap).warnings()[0].contains("Memory limited without swap"));
    let old = Case::old(|case| {
        case.request.host_config.oom_kill_disable = Some(true);
        case.request.host_config.memory_swappiness = Some(0);
    });
    assert!(old.warnings()[0].contains("OOM killer is disabled"));
    let old_client = Case::with(|case| case.request.host_config.memory_swappiness = Some(-1)).spec();
    assert_eq!(old_client.host_config.memory_swappiness, None);
    assert_eq!(Case::old(|_| {}).spec().host_config.oom_kill_disable, Some(false));
}

#[test]
fn limits_at_their_edges_are_taken() {
    let spec = Case::with(|case| {
        let host = &mut case.request.host_config;
        host.memory = 6 << 20;
        host.memory_reservation = 6 << 20;
        host.nano_cpus = 4_000_000_000;
        host.cpu_shares = 262_144;
        host.cpuset_cpus = "0-3".into();
        host.blkio_weight = 1000;
        host.oom_score_adj = -1000;
        host.pids_limit = Some(-1);
        host.ulimits = vec![Ulimit { name: "nofile".into(), soft: 1, hard: -1 }];
    })
    .spec();
    assert_eq!(spec.host_config.nano_cpus, 4_000_000_000);
    let quota =
        Case::with(|case| (case.request.host_config.cpu_quota, case.request.host_config.cpu_period) = (-1, 1000))
            .spec();
    assert_eq!(quota.host_config.cpu_quota, -1);
    // Nothing asked of controllers that are not there.
    let bare = Case::with(|case| {
        case.machine.controllers =
            Controllers { memory: false, swap: false, pids: false, cpuset: false, ..Controllers::ALL_V2 };
        case.request.host_config.pids_limit = Some(0);
    });
    assert_eq!(bare.spec().host_config.pids_limit, Some(0));
}

#[test]
fn settings_fill_in_what_was_not_said() {
    let with_settings = |change: fn(&mut Case)| {
        Case::with(|case| {
            let container = &mut case.settings.container;
            container.init = true;
            container.no_new_privileges = true;
            container.userns_remap = true;
            container.cgroup_parent = "tenants/a".into();
            container.pids_limit = 500;
            container.shm_size = 1 << 20;
            container.ipc_mode = "shareable".into();
            container.stop_timeout = 3;
            container.ulimits.insert("nofile".into(), Limit { soft: 5, hard: 6 });
            case.settings.log.driver = "none".into();
            change(case);
        })
        .spec()
    };
    let spec = with_settings(|_| {});
    let host = &spec.host_config;
    assert_eq!((host.init, host.pids_limit, host.shm_size), (Some(true), Some(500), 1 << 20));
    assert_eq!((host.userns_mode.as_str(), host.ipc_mode.as_str()), ("private", "shareable"));
    assert_eq!(host.cgroup_parent, "tenants/a");
    assert_eq!(host.ulimits, [Ulimit { name: "nofile".into(), soft: 5, hard: 6 }]);
    assert_eq!(host.log_config.r#type, "none");
    assert_eq!(spec.config.stop_timeout, Some(3));
    assert!(spec.security.no_new_privileges);
    let own = with_settings(|case| {
        let host = &mut case.request.host_config;
        host.init = Some(false);
        host.pids_limit = Some(0);
        host.userns_mode = "host".into();
        host.ulimits = vec![Ulimit { name: "nofile".into(), soft: 1, hard: 1 }];
        host.security_opt = strings(&["no-new-privileges=false"]);
        host.log_config.r#type = "json-file".into();
        case.request.config.stop_timeout = Some(0);
    });
    assert_eq!((own.host_config.init, own.host_config.pids_limit), (Some(false), Some(0)));
    assert_eq!(own.host_config.userns_mode, "host");
    assert_eq!(own.host_config.ulimits.len(), 1);
    assert!(!own.security.no_new_privileges);
    assert_eq!(own.config.stop_timeout, Some(0));
}

#[test]
fn privileged_containers_keep_nothing_from_themselves() {
    let spec = Case::with(|case| case.request.host_config.privileged = true).spec();
    assert_eq!(spec.security.capabilities.len(), 41);
    assert_eq!(spec.host_config.masked_paths, Some(Vec::new()));
    assert_eq!(spec.host_config.readonly_paths, Some(Vec::new()));
    assert_eq!(spec.host_config.cgroupns_mode, "private");
    let old = Case::old(|case| case.request.host_config.privileged = true).spec();
    assert_eq!(old.host_config.cgroupns_mode, "host");
    assert_eq!(Case::old(|_| {}).spec().host_config.cgroupns_mode, "host");
    let own = Case::with(|case| {
        case.request.host_config.masked_paths = Some(Vec::new());
        case.request.host_config.readonly_paths = Some(strings(&["/proc/sys"]));
    });
    let own = own.spec().host_config;
    assert_eq!((own.masked_paths, own.readonly_paths), (Some(Vec::new()), Some(strings(&["/proc/sys"]))));
}

#[test]
fn capabilities_are_added_and_dropped_as_in_docker() {
    let set = |add: &[&str], drop: &[&str]| {
        Case::with(|case| {
            case.request.host_config.cap_add = strings(add);
            case.request.host_config.cap_drop = strings(drop);
        })
        .spec()
        .security
        .capabilities
    };
    assert_eq!(set(&[], &["ALL"]), strings(&[]));
    assert_eq!(set(&["net_admin"], &["all"]), strings(&["CAP_NET_ADMIN"]));
    assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).len(), 40);
    assert_eq!(set(&["CAP_SYS_TIME"], &["CHOWN"]).len(), 14);
    assert!(!set(&[], &["MKNOD", "cap_kill"]).contains(&"CAP_KILL".to_owned()));
}

#[test]
fn security_options_are_understood() {
    let security =
        |options: &[&str]| Case::with(|case| case.request.host_config.security_opt = strings(options)).spec().security;
    assert!(security(&["no-new-privileges"]).no_new_privileges);
    assert!(security(&["no-new-privileges:true"]).no_new_privileges);
    assert!(!security(&["no-new-privileges=true", "no-new-privileges=0"]).no_new_privileges);
    assert_eq!(security(&["seccomp=unconfined"]).seccomp, SeccompChoice::Unconfined);
    assert_eq!(security(&["seccomp:unconfined"]).seccomp, SeccompChoice::Unconfined);
    assert_eq!(security(&["seccomp=builtin"]).seccomp, SeccompChoice::Default);
    assert_eq!(security(&["label=disable", "apparmor=unconfined"]).apparmor, None);
    assert_eq!(security(&["label:disable"]), security(&["disable"]));
    assert_eq!(security(&["writable-cgroups=false"]).writable_cgroups, Some(false));
    let apparmor = Case::with(|case| {
        case.machine.apparmor = true;
        case.request.host_config.security_opt = strings(&["apparmor=custom"]);
    });
    assert_eq!(apparmor.spec().security.apparmor.as_deref(), Some("custom"));
    let no_filter = Case::with(|case| case.machine.seccomp = false);
    assert_eq!(no_filter.spec().security.seccomp, SeccompChoice::Unconfined);
    assert!(Case::with(|case| case.machine.seccomp = false).warnings()[0].contains("without default profile"));
}

#[test]
fn what_belongs_to_a_namespace_of_its_own_may_be_set() {
    let spec = Case::with(|case| {
        for name in
            ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max", "kernel.domainname", "net/ipv4/ip_forward"]
        {
            case.request.host_config.sysctls.insert(name.into(), "1".into());
        }
    })
    .spec();
    assert_eq!(spec.host_config.sysctls.len(), 5);
}

#[test]
fn the_host_name_is_the_hosts_where_its_namespace_is() {
    for change in [(|case: &mut Case| case.request.host_config.network_mode = "host".into()) as fn(&mut Case), |case| {
        case.request.host_config.uts_mode = "host".into()
    }] {
        assert_eq!(Case::with(change).spec().config.hostname, "host");
    }
    let named = Case::with(|case| {
        case.request.host_config.network_mode = "host".into();
        case.request.config.hostname = "own".into();
    });
    assert_eq!(named.spec().config.hostname, "own");
}

#[test]
fn warnings_are_dockers() {
    let forwarding = Case::with(|case| case.machine.ipv4_forwarding = false).warnings();
    assert_eq!(forwarding, ["IPv4 forwarding is disabled. Networking will not work."]);
    let no_network = Case::with(|case| {
        case.machine.ipv4_forwarding = false;
        case.request.host_config.network_mode = "none".into();
    });
    assert!(no_network.warnings().is_empty());
    let platform = Case::with(|case| case.image.platform = "linux/arm64".into()).warnings();
    assert!(platform[0].contains(
        "The requested image's platform (linux/arm64) does not match the detected host platform (linux/amd64)"
    ));
    let asked = Case::with(|case| {
        case.image.platform = "linux/arm64".into();
        case.request.platform = "linux/arm64".into();
    });
    assert!(asked.warnings().is_empty());
    let log = Case::with(|case| drop(case.request.host_config.log_config.config.insert("max-file".into(), "3".into())));
    assert!(log.warnings()[0].contains("max-file has no effect without max-size"));
}

#[test]
fn names_ports_and_addresses_are_taken() {
    Case::with(|case| {
        let host = &mut case.request.host_config;
        host.extra_hosts = strings(&["a:192.0.2.1", "b:fd00::1", "c=192.0.2.2", "d:host-gateway", "e:[fd00::2]"]);
        host.dns = strings(&["192.0.2.1", "fd00::53"]);
        host.dns_search = strings(&["example.com", "."]);
        host.dns_options = strings(&["ndots:2"]);
        for (port, host_port) in [("80/tcp", "8080"), ("53/udp", ""), ("90", "9000-9010")] {
            let binding = crate::host_config::PortBinding { host_ip: "127.0.0.1".into(), host_port: host_port.into() };
            host.port_bindings.insert(port.into(), vec![binding]);
        }
        case.request.config.mac_address = "02:42:ac:11:00:02".into();
        case.request.config.user = "nobody:nogroup".into();
        case.request.config.hostname = "a.b".into();
    })
    .spec();
    for user in ["0", "1000:1000", "2147483647", "name", "a-b.c_d", "1000:", ":5"] {
        assert!(Case::with(|case| case.request.config.user = user.into()).resolve().is_ok(), "{user}");
    }
}
