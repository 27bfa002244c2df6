//! One message of every kind, with something in every field. A new variant does not compile before it has its sample.

use std::collections::BTreeMap;

use sbx_container::files::Task;
use sbx_container::plan::{
    BlockIo, BlockRate, Capabilities, CgroupPlan, ContainerPlan, Cpu, DeviceKind, DeviceNode, DeviceRule, First, IdMap,
    IdMaps, Interface, Memory, Mount, MountAttributes, MountSource, Namespace, Namespaces, ProcessPlan, Propagation,
    Resources, Rlimit, Root, Seccomp, SeccompArg, SeccompRule, TerminalSize, User,
};
use sbx_protocol::guest::{CreateRequest, Furnishing, OverlayRoot, Tenant, Uplink, WakeRequest};
use sbx_protocol::{
    AttachRequest, BlockUsage, ContainerEvent, ExecRequest, ExitStatus, Failure, FailureKind, FilesRequest, Hello,
    NetworkUsage, ProcessRow, Purpose, Reply, Request, SessionId, StatsSample, StreamKind, VERSION,
};

const SESSION: SessionId = SessionId(300);

fn id() -> String {
    "c0ffee".into()
}

pub(crate) fn hellos() -> Vec<(&'static str, Hello)> {
    let name = |purpose: &Purpose| match purpose {
        Purpose::Control => "control",
        Purpose::Stream { kind: StreamKind::Stdin, .. } => "stream stdin",
        Purpose::Stream { kind: StreamKind::Stdout, .. } => "stream stdout",
        Purpose::Stream { kind: StreamKind::Stderr, .. } => "stream stderr",
    };
    let stream = |kind| Purpose::Stream { session: SESSION, kind };
    [Purpose::Control, stream(StreamKind::Stdin), stream(StreamKind::Stdout), stream(StreamKind::Stderr)]
        .into_iter()
        .map(|purpose| (name(&purpose), Hello { version: VERSION, purpose }))
        .collect()
}

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let name = |request: &Request| match request {
        Request::Wake(_) => "wake",
        Request::Create(_) => "create",
        Request::PowerOff => "power off",
        Request::Start { .. } => "start",
        Request::Attach(_) => "attach",
        Request::Exec(_) => "exec",
        Request::Files(_) => "files",
        Request::Ready { .. } => "ready",
        Request::WaitProcess { .. } => "wait process",
        Request::WaitContainer { .. } => "wait container",
        Request::Resize { .. } => "resize",
        Request::SignalProcess { .. } => "signal process",
        Request::Kill { .. } => "kill",
        Request::Stop { .. } => "stop",
        Request::Pause { .. } => "pause",
        Request::Unpause { .. } => "unpause",
        Request::Top { .. } => "top",
        Request::Stats { .. } => "stats",
        Request::Locate { .. } => "locate",
        Request::Remove { .. } => "remove",
        Request::Admit { .. } => "admit",
    };
    let all = [
        Request::Wake(WakeRequest { now: 1_763_697_600_123_456_789, entropy: vec![1, 2, 3, 255] }),
        Request::Create(Box::new(create())),
        Request::PowerOff,
        Request::Start { container: id() },
        Request::Attach(AttachRequest { container: id(), streams: vec![StreamKind::Stdin], stdin_once: true }),
        Request::Exec(Box::new(ExecRequest {
            container: id(),
            process: process(),
            streams: vec![StreamKind::Stdout, StreamKind::Stderr],
        })),
        Request::Files(Box::new(FilesRequest {
            container: id(),
            task: Task::Stat { path: "/etc".into() },
            streams: vec![StreamKind::Stdout, StreamKind::Stderr],
        })),
        Request::Files(Box::new(FilesRequest {
            container: id(),
            task: Task::Read { path: "/etc/.".into(), name: ".".into() },
            streams: vec![StreamKind::Stdout, StreamKind::Stderr],
        })),
        Request::Files(Box::new(FilesRequest {
            container: id(),
            task: Task::Write {
                directory: "/srv".into(),
                owner: Some(User::Named { spec: "me".into(), group_add: vec![] }),
            },
            streams: vec![StreamKind::Stdin, StreamKind::Stderr],
        })),
        Request::Ready { session: SESSION },
        Request::WaitProcess { session: SESSION },
        Request::WaitContainer { container: id() },
        Request::Resize { session: SESSION, size: TerminalSize { rows: 24, columns: 300 } },
        Request::SignalProcess { session: SESSION, signal: 10 },
        Request::Kill { container: id(), signal: 9 },
        Request::Stop { container: id(), signal: 15, timeout: -1, restart: true },
        Request::Pause { container: id() },
        Request::Unpause { container: id() },
        Request::Top { container: id() },
        Request::Stats { container: id() },
        Request::Locate { container: id() },
        Request::Remove { container: id() },
        Request::Admit { container: id() },
    ];
    all.into_iter().map(|request| (name(&request), request)).collect()
}

pub(crate) fn replies() -> Vec<(&'static str, Reply)> {
    let name = |reply: &Reply| match reply {
        Reply::Done => "done",
        Reply::Failed(failure) => match failure.kind {
            FailureKind::NotFound => "failed not found",
            FailureKind::NotExecutable => "failed not executable",
            FailureKind::Conflict => "failed conflict",
            FailureKind::NoSuch => "failed no such",
            FailureKind::Other => "failed other",
        },
        Reply::Started { .. } => "started",
        Reply::Session(_) => "session",
        Reply::Exited(_) => "exited",
        Reply::Event(ContainerEvent::Exited { .. }) => "event exited",
        Reply::Event(ContainerEvent::Gone { .. }) => "event gone",
        Reply::Processes(_) => "processes",
        Reply::Stats(_) => "stats",
        Reply::Admitted { .. } => "admitted",
    };
    let failed = |kind| Reply::Failed(Failure { kind, message: "why".into() });
    let status = ExitStatus { code: 137, oom_killed: true };
    let all = [
        Reply::Done,
        failed(FailureKind::NotFound),
        failed(FailureKind::NotExecutable),
        failed(FailureKind::Conflict),
        failed(FailureKind::NoSuch),
        failed(FailureKind::Other),
        Reply::Started { pid: 4_194_303 },
        Reply::Session(SESSION),
        Reply::Exited(status),
        Reply::Event(ContainerEvent::Exited { status, restarting: true }),
        Reply::Event(ContainerEvent::Gone { last: Some(status) }),
        Reply::Processes(vec![row()]),
        Reply::Stats(Box::new(stats())),
        Reply::Admitted { pid: 77, first_port: 65_536 },
    ];
    all.into_iter().map(|reply| (name(&reply), reply)).collect()
}

fn create() -> CreateRequest {
    let text = str::to_owned;
    CreateRequest {
        furnishings: vec![
            Furnishing::Directory { path: text("/run/l"), mode: 0o755 },
            Furnishing::File { path: text("/run/hosts"), mode: 0o644, contents: b"127.0.0.1 localhost\n".to_vec() },
            Furnishing::Mount {
                source: text("virtio-mmio.3/1"),
                fstype: text("erofs"),
                target: text("/run/l/0"),
                read_only: true,
                options: vec![text("dax=always")],
            },
            Furnishing::Socket { path: text("/run/s"), mode: 0o660, uid: 1000, gid: 100, port: 5000 },
            Furnishing::Device { address: 3 },
        ],
        root: OverlayRoot { layers: vec![text("/run/l/0"), text("/run/l/1")], writable: text("/run/w") },
        uplinks: vec![Uplink {
            card: [2, 0, 0, 0, 0, 1],
            interface: text("eth0"),
            address: [2, 66, 172, 17, 0, 2],
            mtu: 1500,
        }],
        plan: plan(),
        tenant: Some(Tenant { directory: text("/run/t") }),
    }
}

fn plan() -> ContainerPlan {
    let text = str::to_owned;
    let mount = |source| Mount {
        target: text("/t"),
        source,
        attributes: MountAttributes { read_only: true, nosuid: true, ..MountAttributes::default() },
        propagation: Propagation::RecursiveSlave,
    };
    let map = IdMap { inside: 0, outside: 100_000, count: 65_536 };
    ContainerPlan {
        id: id(),
        hostname: Some(text("box")),
        domainname: None,
        namespaces: Namespaces {
            mount: Namespace::New,
            pid: Namespace::New,
            ipc: Namespace::Join(text("/proc/7/ns/ipc")),
            uts: Namespace::New,
            net: Namespace::New,
            cgroup: Namespace::New,
            user: Namespace::New,
            time: Namespace::Inherit,
        },
        id_maps: Some(IdMaps { uids: vec![map], gids: vec![map] }),
        root: Root { read_only: true },
        mounts: vec![
            mount(MountSource::Bind { path: text("/run/b"), recursive: true, idmapped: false }),
            mount(MountSource::Proc),
            mount(MountSource::Sysfs),
            mount(MountSource::Cgroup),
            mount(MountSource::Filesystem {
                fstype: text("tmpfs"),
                source: text("shm"),
                options: vec![text("size=64m")],
            }),
        ],
        devices: vec![DeviceNode {
            path: text("/dev/null"),
            kind: DeviceKind::Character,
            major: 1,
            minor: 3,
            mode: 0o666,
            uid: 0,
            gid: 5,
        }],
        masked_paths: vec![text("/proc/kcore")],
        readonly_paths: vec![text("/proc/sys")],
        sysctls: BTreeMap::from([(text("net.ipv4.ip_unprivileged_port_start"), text("0"))]),
        cgroup: CgroupPlan { path: text("sbx/c0ffee"), resources: resources() },
        interfaces: vec![Interface {
            name: text("eth0"),
            addresses: vec![text("172.17.0.2/16")],
            gateways: vec![text("172.17.0.1")],
        }],
        process: process(),
        first: First::Reaper,
    }
}

fn resources() -> Resources {
    let rate = BlockRate { major: 8, minor: 0, value: 1 << 40 };
    Resources {
        memory: Memory {
            limit: Some(1 << 30),
            reservation: Some(1 << 29),
            swap: Some(-1),
            swappiness: Some(60),
            disable_oom_killer: true,
        },
        cpu: Cpu {
            shares: Some(1024),
            quota: Some(-1),
            period: Some(100_000),
            realtime_runtime: None,
            realtime_period: None,
            cpus: "0-1".into(),
            mems: "0".into(),
        },
        pids: Some(100),
        block: BlockIo {
            weight: Some(500),
            weight_device: vec![rate],
            read_bps: vec![rate],
            write_bps: vec![rate],
            read_iops: vec![rate],
            write_iops: vec![rate],
        },
        devices: vec![DeviceRule {
            allow: true,
            kind: Some(DeviceKind::Block),
            major: None,
            minor: Some(1),
            access: "rwm".into(),
        }],
        unified: BTreeMap::from([("memory.high".into(), "max".into())]),
    }
}

fn process() -> ProcessPlan {
    let capabilities = || vec!["CAP_CHOWN".to_owned()];
    ProcessPlan {
        args: vec!["sh".into(), "-c".into(), "true".into()],
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: User::Named { spec: "nobody:nogroup".into(), group_add: vec!["audio".into()] },
        capabilities: Capabilities {
            bounding: capabilities(),
            effective: capabilities(),
            inheritable: vec![],
            permitted: capabilities(),
            ambient: vec![],
        },
        no_new_privs: true,
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 1024, hard: u64::MAX }],
        seccomp: Some(seccomp()),
        terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        stdin: true,
        oom_score_adj: Some(-500),
        apparmor: Some("docker-default".into()),
        selinux: None,
    }
}

fn seccomp() -> Seccomp {
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        default_errno: Some(1),
        architectures: vec!["SCMP_ARCH_X86_64".into()],
        flags: vec!["SECCOMP_FILTER_FLAG_LOG".into()],
        rules: vec![SeccompRule {
            names: vec!["personality".into()],
            action: "SCMP_ACT_ALLOW".into(),
            errno: None,
            args: vec![SeccompArg { index: 0, value: 8, value_two: 0, op: "SCMP_CMP_EQ".into() }],
        }],
    }
}

fn row() -> ProcessRow {
    ProcessRow {
        pid: 7,
        ppid: 1,
        uid: 1000,
        user: "1000".into(),
        pgid: 7,
        sid: 7,
        state: 'S',
        start_time: 1_763_697_600,
        cpu_time: 12,
        tty: "pts/0".into(),
        nice: -5,
        priority: 20,
        threads: 3,
        virtual_size: 1 << 32,
        resident: 1 << 20,
        command: "sh".into(),
        args: "sh -c true".into(),
        machine_memory: 1 << 34,
        uptime: 1.5,
    }
}

fn stats() -> StatsSample {
    let network = NetworkUsage {
        rx_bytes: 1,
        rx_packets: 2,
        rx_errors: 3,
        rx_dropped: 4,
        tx_bytes: 5,
        tx_packets: 6,
        tx_errors: 7,
        tx_dropped: 8,
    };
    StatsSample {
        read_at: 1_763_697_600_000_000_000,
        cpu_total: 100,
        cpu_user: 60,
        cpu_system: 40,
        machine_cpu: 1 << 50,
        online_cpus: 2,
        throttling: (3, 2, 1),
        memory_used: 5,
        memory_usage: 6,
        memory_max: 7,
        memory_limit: u64::MAX,
        memory_details: BTreeMap::from([("anon".into(), 5)]),
        pids: 2,
        pids_limit: 100,
        networks: BTreeMap::from([("eth0".into(), network)]),
        block: vec![BlockUsage { major: 8, minor: 0, read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 }],
    }
}
