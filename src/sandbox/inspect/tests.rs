//! Docker's keys are all there, with Docker's values.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{EndpointFacts, InspectFacts, NetworkFacts, Sizes, inspect};
use crate::health::Health;
use crate::host_config::{PortBinding, RestartPolicy};
use crate::isolation::{Mode, Resolved};
use crate::spec::{MountKind, MountOrigin, SandboxSpec};
use crate::state::{State, Status};
use crate::store::Store;
use crate::testing;

fn shown(spec: &SandboxSpec, state: &State, facts: &InspectFacts) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    inspect(spec, state, &store.files(&spec.id), facts)
}

#[test]
fn every_top_level_key_of_docker_is_there() {
    let json = shown(&testing::spec("web"), &State::default(), &InspectFacts::default());
    for key in [
        "Id",
        "Created",
        "Path",
        "Args",
        "State",
        "Image",
        "ResolvConfPath",
        "HostnamePath",
        "HostsPath",
        "LogPath",
        "Name",
        "RestartCount",
        "Driver",
        "Platform",
        "MountLabel",
        "ProcessLabel",
        "AppArmorProfile",
        "ExecIDs",
        "HostConfig",
        "GraphDriver",
        "Mounts",
        "Config",
        "NetworkSettings",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert!(json.get("SizeRw").is_none());
    assert_eq!(json["Name"], "/web");
    assert_eq!(json["Path"], "true");
    assert_eq!(json["Args"], json!([]));
    assert_eq!(json["ExecIDs"], Value::Null);
    assert_eq!(json["HostConfig"]["CapAdd"], Value::Null);
    assert_eq!(json["Config"]["Entrypoint"], Value::Null);
    assert_eq!(json["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(json["Created"], "2023-11-14T22:13:20.000000005Z");
}

#[test]
fn states_are_shown_as_docker_does() {
    for (status, running, paused, restarting, dead) in [
        (Status::Created, false, false, false, false),
        (Status::Running, true, false, false, false),
        (Status::Paused, true, true, false, false),
        (Status::Restarting, true, false, true, false),
        (Status::Exited, false, false, false, false),
        (Status::Dead, false, false, false, true),
    ] {
        let state = State { status, health: Some(Health::default()), ..State::default() };
        let json = &shown(&testing::spec("web"), &state, &InspectFacts::default())["State"];
        assert_eq!(json["Status"], status.as_str());
        assert_eq!(json["Running"], running);
        assert_eq!(json["Paused"], paused);
        assert_eq!(json["Restarting"], restarting);
        assert_eq!(json["Dead"], dead);
        assert_eq!(json["Health"], json!({"Status": "starting", "FailingStreak": 0, "Log": []}));
    }
}

#[test]
fn the_network_is_shown_twice_for_the_default_bridge() {
    let endpoint = EndpointFacts {
        ip_address: "172.30.0.2".into(),
        ip_prefix_len: 16,
        gateway: "172.30.0.1".into(),
        mac_address: "02:42:ac:1e:00:02".into(),
        ..EndpointFacts::default()
    };
    let network = NetworkFacts {
        ports: BTreeMap::from([
            ("80/tcp".into(), vec![PortBinding { host_ip: "0.0.0.0".into(), host_port: "8080".into() }]),
            ("90/tcp".into(), Vec::new()),
        ]),
        networks: BTreeMap::from([("bridge".into(), endpoint)]),
        ..NetworkFacts::default()
    };
    let facts = InspectFacts { network, sizes: Some(Sizes { writable: 1, root: 2 }), ..InspectFacts::default() };
    let json = shown(&testing::spec("web"), &State::default(), &facts);
    let settings = &json["NetworkSettings"];
    assert_eq!(settings["IPAddress"], "172.30.0.2");
    assert_eq!(settings["Networks"]["bridge"]["IPPrefixLen"], 16);
    assert_eq!(settings["Ports"], json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "90/tcp": null}));
    assert_eq!((&json["SizeRw"], &json["SizeRootFs"]), (&json!(1), &json!(2)));
}

#[test]
fn mounts_of_the_tmpfs_flag_are_not_listed() {
    let mut spec = testing::spec("web");
    let mut tmpfs = testing::volume_mount("", "/run");
    (tmpfs.kind, tmpfs.origin) = (MountKind::Tmpfs, MountOrigin::Tmpfs);
    let mut volume = testing::volume_mount("data", "/data");
    volume.source = "/var/lib/sbx/volumes/data/_data".into();
    spec.mounts = vec![tmpfs, volume];
    let json = shown(&spec, &State::default(), &InspectFacts::default());
    assert_eq!(
        json["Mounts"],
        json!([{
            "Type": "volume", "Name": "data", "Source": "/var/lib/sbx/volumes/data/_data", "Destination": "/data",
            "Driver": "local", "Mode": "z", "RW": true, "Propagation": "",
        }])
    );
}

#[test]
fn limits_say_where_they_are_enforced() {
    let mut spec = testing::spec("web");
    spec.host_config.memory = 64 << 20;
    spec.host_config.pids_limit = Some(9);
    spec.host_config.restart_policy = RestartPolicy { name: "always".into(), maximum_retry_count: 0 };
    spec.host_config.port_bindings.insert("80/tcp".into(), Vec::new());
    let json = shown(&spec, &State::default(), &InspectFacts::default());
    for (field, place) in [
        ("Memory", "host cgroup"),
        ("PidsLimit", "host cgroup"),
        ("Seccomp", "host kernel"),
        ("RestartPolicy", "supervisor"),
        ("PortBindings", "network"),
    ] {
        assert_eq!(json["Enforcement"][field], place, "{field}");
    }
    assert!(json["Enforcement"].get("NanoCpus").is_none());
    assert_eq!(json["HostConfig"]["Isolation"], "process");
    spec.isolation = Resolved { isolation: Mode::Vm, reason: "--isolation=vm".into() };
    let json = shown(&spec, &State::default(), &InspectFacts::default());
    assert_eq!(json["Enforcement"]["Memory"], "guest cgroup");
    assert_eq!(json["HostConfig"]["IsolationReason"], "--isolation=vm");
}
