//! Tenants: containers that share the machine with the one that it was made for, and leave nothing in it.

use sbx_container::plan::Namespace;
use sbx_protocol::guest::{CreateRequest, Furnishing, Tenant};
use sbx_protocol::{FailureKind, Reply, Request, StreamKind};

use crate::support::agent::wait_for;
use crate::support::{Agent, Control, create_request, exec_request, id};

/// Where everything of a tenant is.
fn directory(letter: char) -> String {
    format!("/run/tenants/{letter}")
}

/// A tenant in the network of the container `a`.
fn tenant(agent: &Agent, control: &mut Control, letter: char, args: &[&str]) -> CreateRequest {
    let pid = match control.ask(&Request::Locate { container: id('a') }) {
        Ok(Reply::Started { pid }) => pid,
        other => panic!("{other:?}"),
    };
    let mut request = create_request(agent, letter, args);
    let directory = directory(letter);
    for step in &mut request.furnishings {
        match step {
            Furnishing::Mount { target, .. } => *target = format!("{directory}/writable"),
            Furnishing::Directory { path, .. } => path.clone_from(&directory),
            other => panic!("{other:?}"),
        }
    }
    let (path, contents) = (format!("{directory}/hosts"), b"127.0.0.1 box\n".to_vec());
    request.furnishings.push(Furnishing::File { path, mode: 0o644, contents });
    let path = format!("{directory}/socket");
    request.furnishings.push(Furnishing::Socket { path, mode: 0o666, uid: 0, gid: 0, port: 5000 });
    request.root.writable = format!("{directory}/writable");
    request.plan.namespaces.net = Namespace::Join(format!("/proc/{pid}/ns/net"));
    request.tenant = Some(Tenant { directory });
    request
}

/// What of a tenant is in the machine: mounts, files, containers.
fn traces(agent: &Agent, letter: char) -> Vec<String> {
    let mounts = agent.run(&["cat", "/proc/self/mountinfo"]);
    let mut traces: Vec<String> =
        mounts.lines().filter(|line| line.contains(&directory(letter))).map(str::to_owned).collect();
    if agent.inside(&directory(letter)).exists() {
        traces.push(directory(letter));
    }
    traces
}

#[test]
fn a_tenant_is_taken_away_when_it_has_ended_and_can_come_again() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sleep", "10000"]));
    control.start('a').unwrap();
    let mut second = agent.control();
    for round in 0..3 {
        let script = "readlink /proc/self/ns/net; exec sleep 10000";
        let request = tenant(&agent, &mut second, 'b', &["sh", "-c", script]);
        second.create(request.clone());
        let session = second.attach(&agent, 'b', &[StreamKind::Stdout]);
        second.start('b').unwrap();
        assert_eq!(traces(&agent, 'b').len(), 2, "round {round}");
        let again = second.refused(&Request::Create(Box::new(request)));
        assert_eq!(
            (again.kind, again.message),
            (FailureKind::Conflict, format!("container {} exists already", id('b')))
        );
        let runs = second.refused(&Request::Remove { container: id('b') });
        assert_eq!((runs.kind, runs.message), (FailureKind::Conflict, format!("container {} has not ended", id('b'))));
        second.tell(&Request::Kill { container: id('b'), signal: libc::SIGKILL });
        assert_eq!(second.wait('b').code, 137);
        let own = control.run(&agent, exec_request('a', &["readlink", "/proc/self/ns/net"])).1;
        assert_eq!(session.output(), own, "the network is shared");
        second.tell(&Request::Remove { container: id('b') });
        assert_eq!(traces(&agent, 'b'), [""; 0], "round {round}");
        assert_eq!(second.refused(&Request::Remove { container: id('b') }).kind, FailureKind::NoSuch);
        assert_eq!(second.refused(&Request::Locate { container: id('b') }).kind, FailureKind::NoSuch);
    }
    assert_eq!(control.run(&agent, exec_request('a', &["echo", "still here"])).1, "still here\n");
}

#[test]
fn a_tenant_ends_with_the_connection_that_made_it() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sleep", "10000"]));
    control.start('a').unwrap();
    // One runs, one is frozen, one was never started.
    for (letter, started) in [('b', true), ('c', true), ('d', false)] {
        let mut owner = agent.control();
        let request = tenant(&agent, &mut owner, letter, &["sleep", "20000"]);
        owner.create(request);
        if started {
            owner.start(letter).unwrap();
        }
        if letter == 'c' {
            owner.tell(&Request::Pause { container: id(letter) });
        }
        assert_eq!(traces(&agent, letter).len(), 2, "{letter}");
        drop(owner);
        wait_for("the end of the tenant", || traces(&agent, letter).is_empty());
        assert_eq!(control.refused(&Request::Locate { container: id(letter) }).kind, FailureKind::NoSuch);
    }
    assert!(!agent.run(&["ps", "ax"]).contains("sleep 20000"));
    assert_eq!(control.run(&agent, exec_request('a', &["echo", "still here"])).1, "still here\n");
}

#[test]
fn tenants_end_with_the_machine() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sleep", "10000"]));
    control.start('a').unwrap();
    let mut second = agent.control();
    let request = tenant(&agent, &mut second, 'b', &["sleep", "20000"]);
    second.create(request);
    second.start('b').unwrap();
    let said = agent.power_off();
    assert!(said.contains(&format!("{}/writable", directory('b'))), "its file system is unmounted: {said}");
}
