//! What cannot be done is said, with the kind that exit codes are made of, and leaves the agent as it was.

use sbx_container::plan::{Interface, Namespace};
use sbx_protocol::guest::{Furnishing, Uplink};
use sbx_protocol::{ContainerEvent, Failure, FailureKind, Reply, Request, StreamKind};

use crate::support::{Agent, Control, create_request, exec_request, id};

fn refused_create(control: &mut Control, request: sbx_protocol::guest::CreateRequest) -> Failure {
    control.refused(&Request::Create(Box::new(request)))
}

#[test]
fn a_program_that_cannot_be_run_is_told_apart_from_one_that_is_not_there() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let cases = [
        ("nonesuch", FailureKind::NotFound, "exec: \"nonesuch\": executable file not found in $PATH"),
        ("/bin/plain", FailureKind::NotExecutable, "exec: \"/bin/plain\": permission denied"),
        ("/etc", FailureKind::NotExecutable, "exec: \"/etc\": is a directory"),
    ];
    for (program, kind, message) in cases {
        let mut request = create_request(&agent, 'a', &[program]);
        if program != "nonesuch" {
            request.furnishings.clear();
        }
        control.create(request);
        let mut waiter = agent.control();
        waiter.send(&Request::WaitContainer { container: id('a') });
        let session = control.attach(&agent, 'a', &[StreamKind::Stdout]);
        let failure = control.start('a').unwrap_err();
        assert_eq!((failure.kind, &*failure.message), (kind, message));
        assert_eq!(session.output(), "", "the session ends with the start");
        assert_eq!(waiter.receive(), Some(Reply::Event(ContainerEvent::Gone { last: None })));
    }
    control.create({
        let mut request = create_request(&agent, 'a', &["sleep", "1000"]);
        request.furnishings.clear();
        request
    });
    control.start('a').unwrap();
    for (program, kind, message) in cases {
        let reply = control.ask(&Request::Exec(Box::new(exec_request('a', &[program])))).unwrap();
        let Reply::Session(session) = reply else { panic!("{reply:?}") };
        let _streams = [StreamKind::Stdout, StreamKind::Stderr].map(|stream| agent.stream(session, stream));
        let failure = control.refused(&Request::Ready { session });
        assert_eq!((failure.kind, &*failure.message), (kind, message));
    }
}

#[test]
fn a_plan_that_fails_in_the_child_fails_the_start_with_its_step() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let mut request = create_request(&agent, 'a', &["true"]);
    let filesystem = sbx_container::plan::MountSource::Filesystem {
        fstype: "tmpfs".into(),
        source: "tmpfs".into(),
        options: vec!["nonesuch=1".into()],
    };
    request.plan.mounts.push(crate::support::plan::mount("/mnt", filesystem));
    control.create(request);
    let failure = control.start('a').unwrap_err();
    assert_eq!(failure.kind, FailureKind::Other);
    assert!(failure.message.contains("/mnt"), "{failure}");
    assert_eq!(control.start('a').unwrap_err(), failure, "asked again it says the same");
    // The id is free for another attempt.
    let mut request = create_request(&agent, 'a', &["true"]);
    request.furnishings.clear();
    control.create(request);
    control.start('a').unwrap();
    assert_eq!(control.wait('a').code, 0);
}

#[test]
fn every_step_that_fails_names_itself() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let with = |step: Furnishing| {
        let mut request = create_request(&agent, 'a', &["true"]);
        request.furnishings = vec![step];
        request
    };
    let mount = |source: &str, fstype: &str, target: &str| Furnishing::Mount {
        source: source.into(),
        fstype: fstype.into(),
        target: target.into(),
        read_only: true,
        options: vec![],
    };
    let file = |path: &str| Furnishing::File { path: path.into(), mode: 0o600, contents: vec![1] };
    let cases = [
        (mount("virtio-mmio.999/1", "ext4", "/run/m"), "wait for the disk virtio-mmio.999/1: it did not appear"),
        (mount("tag", "nonesuch", "/run/m"), "mount nonesuch tag on /run/m: "),
        (mount("tmpfs", "tmpfs", "relative"), "\"relative\": not an absolute path"),
        (file("/run/nonesuch/file"), "write /run/nonesuch/file: "),
        (file("file"), "\"file\": not an absolute path"),
        (Furnishing::Device { address: 999 }, "find the device virtio-mmio.999: "),
        (Furnishing::Directory { path: "/proc/nonesuch".into(), mode: 0o755 }, "create the directory /proc/nonesuch: "),
        (
            Furnishing::Socket { path: "/".into(), mode: 0, uid: 0, gid: 0, port: 1 },
            "listen at /: not the path of a file",
        ),
    ];
    for (step, expected) in cases {
        let failure = refused_create(&mut control, with(step));
        assert_eq!(failure.kind, FailureKind::Other);
        assert!(failure.message.starts_with(expected), "{failure}");
    }
}

#[test]
fn a_container_that_cannot_be_made_names_what_is_wrong() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let uplink =
        || Uplink { card: [2, 0, 0, 0, 0, 99], interface: "eth0".into(), address: [2, 0, 0, 0, 0, 1], mtu: 1500 };

    let mut request = create_request(&agent, 'a', &["true"]);
    request.root.layers.push("/nonesuch".into());
    assert!(refused_create(&mut control, request).message.starts_with("open the layer /nonesuch: "));

    let mut request = create_request(&agent, 'a', &["true"]);
    request.root.writable = "/proc/nonesuch".into();
    assert!(refused_create(&mut control, request).message.starts_with("root file system: create /proc/nonesuch"));

    let request = create_request(&agent, 'a', &[]);
    assert_eq!(refused_create(&mut control, request).message, "process: no command specified");

    let mut request = create_request(&agent, 'a', &["true"]);
    request.plan.cgroup.path = "../../escape".into();
    assert!(refused_create(&mut control, request).message.contains("escape"));

    let mut request = create_request(&agent, 'a', &["true"]);
    request.uplinks = vec![uplink()];
    request.plan.interfaces = vec![Interface { name: "eth0".into(), addresses: vec![], gateways: vec![] }];
    let failure = refused_create(&mut control, request.clone());
    assert_eq!(failure.message, "wait for the network card 02:00:00:00:00:63: it did not appear");
    request.plan.namespaces.net = Namespace::Inherit;
    assert!(refused_create(&mut control, request).message.starts_with("network: "));

    // None of them is in the way of one that is right.
    let mut request = create_request(&agent, 'a', &["true"]);
    request.furnishings.truncate(1);
    control.create(request);
    control.start('a').unwrap();
    assert_eq!(control.wait('a').code, 0);
}

#[test]
fn ids_that_nobody_has_are_refused_everywhere() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let container = id('f');
    let session = sbx_protocol::SessionId(77);
    let size = sbx_protocol::TerminalSize { rows: 1, columns: 1 };
    let requests = [
        Request::Start { container: container.clone() },
        Request::Exec(Box::new(exec_request('f', &["true"]))),
        Request::WaitContainer { container: container.clone() },
        Request::Kill { container: container.clone(), signal: 9 },
        Request::Pause { container: container.clone() },
        Request::Unpause { container: container.clone() },
        Request::Top { container: container.clone() },
        Request::Stats { container },
        Request::Ready { session },
        Request::WaitProcess { session },
        Request::Resize { session, size },
        Request::SignalProcess { session, signal: 9 },
    ];
    for request in requests {
        assert_eq!(control.refused(&request).kind, FailureKind::NoSuch, "{request:?}");
    }
    let stop = Request::Stop { container: id('f'), signal: 15, timeout: 1, restart: false };
    assert!(control.refused(&stop).message.contains("supervisor"));
}
