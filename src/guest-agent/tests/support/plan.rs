//! Requests for containers of busybox.

use sbx_container::plan::{
    Capabilities, CgroupPlan, ContainerPlan, DeviceKind, DeviceNode, First, Mount, MountAttributes, MountSource,
    Namespace, Namespaces, ProcessPlan, Propagation, Resources, Root, User,
};
use sbx_protocol::guest::{CreateRequest, Furnishing, OverlayRoot};
use sbx_protocol::{ExecRequest, StreamKind};

use super::Agent;

/// The id of a container: a letter as often as an id is long.
pub(crate) fn id(letter: char) -> String {
    std::iter::repeat_n(letter, 64).collect()
}

/// A container that runs `args`.
pub(crate) fn create_request(agent: &Agent, letter: char, args: &[&str]) -> CreateRequest {
    let id = id(letter);
    let writable = format!("/run/writable/{id}");
    let tmpfs = Furnishing::Mount {
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        target: writable.clone(),
        read_only: false,
        options: vec!["size=64m".into()],
    };
    CreateRequest {
        furnishings: vec![Furnishing::Directory { path: "/run/writable".into(), mode: 0o700 }, tmpfs],
        root: OverlayRoot { layers: vec![agent.path("layer").to_str().unwrap().to_owned()], writable },
        uplinks: vec![],
        plan: plan(&agent.group, &id, args),
        tenant: None,
    }
}

fn plan(group: &str, id: &str, args: &[&str]) -> ContainerPlan {
    ContainerPlan {
        id: id.to_owned(),
        hostname: Some("box".into()),
        domainname: None,
        namespaces: Namespaces {
            mount: Namespace::New,
            pid: Namespace::New,
            ipc: Namespace::New,
            uts: Namespace::New,
            net: Namespace::New,
            cgroup: Namespace::New,
            user: Namespace::Inherit,
            time: Namespace::Inherit,
        },
        id_maps: None,
        root: Root { read_only: false },
        mounts: vec![
            mount("/proc", MountSource::Proc),
            filesystem("/dev", "tmpfs", &["mode=755"]),
            filesystem("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/sys", MountSource::Sysfs),
        ],
        devices: [("null", 3), ("zero", 5), ("urandom", 9)].map(device).to_vec(),
        masked_paths: vec![],
        readonly_paths: vec![],
        sysctls: [].into(),
        cgroup: CgroupPlan { path: format!("{group}/{id}"), resources: Resources::default() },
        interfaces: vec![],
        process: process(args),
        first: First::Program,
    }
}

pub(crate) fn process(args: &[&str]) -> ProcessPlan {
    ProcessPlan {
        args: args.iter().map(|text| (*text).to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: User::Named { spec: String::new(), group_add: vec![] },
        capabilities: Capabilities::default(),
        no_new_privs: false,
        rlimits: vec![],
        seccomp: None,
        terminal: None,
        stdin: false,
        oom_score_adj: None,
        apparmor: None,
        selinux: None,
    }
}

/// A further process; its output is taken.
pub(crate) fn exec_request(letter: char, args: &[&str]) -> ExecRequest {
    ExecRequest { container: id(letter), process: process(args), streams: vec![StreamKind::Stdout, StreamKind::Stderr] }
}

pub(crate) fn mount(target: &str, source: MountSource) -> Mount {
    Mount {
        target: target.to_owned(),
        source,
        attributes: MountAttributes::default(),
        propagation: Propagation::default(),
    }
}

fn filesystem(target: &str, fstype: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|text| (*text).to_owned()).collect();
    mount(target, MountSource::Filesystem { fstype: fstype.into(), source: fstype.into(), options })
}

fn device((name, minor): (&str, u32)) -> DeviceNode {
    let path = format!("/dev/{name}");
    DeviceNode { path, kind: DeviceKind::Character, major: 1, minor, mode: 0o666, uid: 0, gid: 0 }
}
