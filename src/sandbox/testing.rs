//! Specifications and machines for tests.

use std::collections::{BTreeMap, BTreeSet};

use sbx_container::plan::{IdMap, IdMaps};

use crate::config::{Config, CreateRequest, NetworkingConfig};
use crate::facts::{CgroupVersion, Controllers, ImageFacts, MachineFacts, NamespaceSupport};
use crate::host_config::HostConfig;
use crate::id::Id;
use crate::isolation::{Mode, Resolved};
use crate::resolve::{Context, Identity, Invalid, Warning, resolve};
use crate::settings::Settings;
use crate::spec::{ImageRecord, MountKind, MountOptions, MountOrigin, MountPoint, SCHEMA, SandboxSpec, Security};
use crate::timestamp::Timestamp;

pub(crate) fn spec(name: &str) -> SandboxSpec {
    SandboxSpec {
        schema: SCHEMA,
        id: Id::random().unwrap(),
        name: name.to_owned(),
        created: Timestamp::from_unix(1_700_000_000, 5),
        isolation: Resolved { isolation: Mode::Process, reason: "default".into() },
        image: ImageRecord::default(),
        config: Config { cmd: Some(vec!["true".into()]), ..Config::default() },
        host_config: HostConfig::default(),
        networking: NetworkingConfig::default(),
        mounts: Vec::new(),
        security: Security::default(),
        only_kept: false,
    }
}

pub(crate) fn volume_mount(name: &str, destination: &str) -> MountPoint {
    MountPoint {
        kind: MountKind::Volume,
        name: name.to_owned(),
        source: String::new(),
        destination: destination.to_owned(),
        driver: "local".to_owned(),
        mode: "z".to_owned(),
        rw: true,
        propagation: String::new(),
        origin: MountOrigin::Volume,
        options: MountOptions { copy_data: true, ..MountOptions::default() },
    }
}

pub(crate) fn machine() -> MachineFacts {
    let range = vec![IdMap { inside: 0, outside: 100_000, count: 65_536 }];
    MachineFacts {
        kernel: (6, 12),
        platform: "linux/amd64".into(),
        hostname: "host".into(),
        cpus: 4,
        cpu_list: "0-3".into(),
        memory_nodes: "0".into(),
        memory: 8 << 30,
        cgroup: CgroupVersion::V2,
        controllers: Controllers::ALL_V2,
        systemd_cgroups: false,
        namespaces: NamespaceSupport { user: true, cgroup: true, time: true },
        cap_last_cap: 40,
        apparmor: false,
        selinux: false,
        seccomp: true,
        thermal_throttle: vec![0, 1],
        ipv4_forwarding: true,
        id_maps: Some(IdMaps { uids: range.clone(), gids: range }),
        vm_obstacle: None,
    }
}

/// The same with version 1 of the control groups.
pub(crate) fn old_machine() -> MachineFacts {
    MachineFacts { cgroup: CgroupVersion::V1, controllers: Controllers::ALL_V1, ..machine() }
}

pub(crate) fn image() -> ImageFacts {
    ImageFacts {
        id: format!("sha256:{}", "a".repeat(64)),
        digest: format!("sha256:{}", "b".repeat(64)),
        layers: vec![format!("sha256:{}", "c".repeat(64))],
        platform: "linux/amd64".into(),
        config: Config {
            cmd: Some(vec!["sh".into()]),
            env: vec!["PATH=/bin".into(), "LANG=C".into()],
            labels: BTreeMap::from([("from".to_owned(), "image".to_owned())]),
            ..Config::default()
        },
    }
}

/// Everything that a case can change.
pub(crate) struct Case {
    pub(crate) request: CreateRequest,
    pub(crate) image: ImageFacts,
    pub(crate) settings: Settings,
    pub(crate) machine: MachineFacts,
    pub(crate) environment: &'static str,
    pub(crate) inherited: Vec<(String, Vec<MountPoint>)>,
    pub(crate) absent: BTreeSet<String>,
}

impl Default for Case {
    fn default() -> Self {
        let mut request = CreateRequest::default();
        request.config.image = "debian".into();
        Self {
            request,
            image: image(),
            settings: Settings::default(),
            machine: machine(),
            environment: "",
            inherited: Vec::new(),
            absent: BTreeSet::new(),
        }
    }
}

pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

impl Case {
    pub(crate) fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut case = Self::default();
        change(&mut case);
        case
    }

    pub(crate) fn old(change: impl FnOnce(&mut Self)) -> Self {
        Self::with(|case| {
            case.machine = old_machine();
            change(case);
        })
    }

    pub(crate) fn resolve(self) -> Result<(SandboxSpec, Vec<Warning>), Invalid> {
        let context = Context {
            image: &self.image,
            settings: &self.settings,
            machine: &self.machine,
            identity: Identity { id: ID.parse().unwrap(), name: "web".into(), created: Timestamp::from_unix(1, 0) },
            isolation_environment: self.environment,
            beside: None,
            inherited: self.inherited,
            absent_sources: self.absent,
        };
        resolve(self.request, context)
    }

    pub(crate) fn spec(self) -> SandboxSpec {
        self.resolve().unwrap().0
    }

    pub(crate) fn warnings(self) -> Vec<String> {
        self.resolve().unwrap().1.into_iter().map(|warning| warning.0).collect()
    }
}

pub(crate) fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
