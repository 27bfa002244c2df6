//! Several containers in one machine: every request names the one that it means, and touches no other.

use sbx_container::plan::Namespace;
use sbx_protocol::{FailureKind, Reply, Request, StreamKind};

use crate::support::{Agent, create_request, exec_request, id};

#[test]
fn two_containers_live_and_end_by_themselves() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    for (letter, seconds) in [('a', 10_000), ('b', 20_000)] {
        let script = format!("echo I am {letter}; exec sleep {seconds}");
        let mut request = create_request(&agent, letter, &["sh", "-c", &script]);
        request.plan.hostname = Some(format!("box-{letter}"));
        control.create(request);
    }
    // Sessions are opened in one order and containers started in the other.
    let first = control.attach(&agent, 'a', &[StreamKind::Stdout]);
    let second = control.attach(&agent, 'b', &[StreamKind::Stdout]);
    let started = [control.start('b').unwrap(), control.start('a').unwrap()];
    assert_ne!(started[0], started[1]);
    assert_eq!(control.run(&agent, exec_request('b', &["hostname"])).1, "box-b\n");
    assert_eq!(control.run(&agent, exec_request('a', &["hostname"])).1, "box-a\n");

    for (letter, pid, args) in [('a', started[1], "sleep 10000"), ('b', started[0], "sleep 20000")] {
        let rows = match control.ask(&Request::Top { container: id(letter) }).unwrap() {
            Reply::Processes(rows) => rows,
            other => panic!("{other:?}"),
        };
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].pid, &*rows[0].args, &*rows[0].user), (pid, args, "0"));
        let stats = match control.ask(&Request::Stats { container: id(letter) }).unwrap() {
            Reply::Stats(stats) => stats,
            other => panic!("{other:?}"),
        };
        assert_eq!(stats.pids, 1, "{stats:?}");
        assert!(stats.online_cpus > 0 && stats.machine_cpu > 0 && stats.memory_limit > 0, "{stats:?}");
    }

    let mut waits_for_b = agent.control();
    waits_for_b.send(&Request::WaitContainer { container: id('b') });
    control.tell(&Request::Kill { container: id('a'), signal: libc::SIGKILL });
    assert_eq!(control.wait('a').code, 137);
    assert_eq!(first.output(), "I am a\n");
    let gone = control.refused(&Request::Top { container: id('a') });
    assert_eq!((gone.kind, gone.message), (FailureKind::Conflict, format!("container {} is not running", id('a'))));
    assert_eq!(control.run(&agent, exec_request('b', &["echo", "still here"])).1, "still here\n");
    control.tell(&Request::Kill { container: id('b'), signal: libc::SIGTERM });
    control.tell(&Request::Kill { container: id('b'), signal: libc::SIGKILL });
    assert!(matches!(waits_for_b.receive(), Some(Reply::Event(_))));
    assert_eq!(second.output(), "I am b\n");
}

#[test]
fn the_containers_of_a_pod_share_the_namespaces_that_they_join() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sleep", "10000"]));
    let pid = control.start('a').unwrap();
    let mut request =
        create_request(&agent, 'b', &["sh", "-c", "hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/mnt"]);
    let of_first = |kind: &str| Namespace::Join(format!("/proc/{pid}/ns/{kind}"));
    request.plan.namespaces.net = of_first("net");
    request.plan.namespaces.ipc = of_first("ipc");
    request.plan.namespaces.uts = of_first("uts");
    request.plan.hostname = None;
    control.create(request);
    let session = control.attach(&agent, 'b', &[StreamKind::Stdout]);
    control.start('b').unwrap();
    let second = session.output();
    let (_, first) = control.run(
        &agent,
        exec_request('a', &["sh", "-c", "hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/mnt"]),
    );
    let (first, second): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    assert_eq!(first[..2], second[..2], "host name and network are shared");
    assert_ne!(first[2], second[2], "mounts are not");
}

#[test]
fn many_containers_come_and_go_and_leave_nothing() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    let mut after_first = 0;
    for round in 0..12 {
        let letter = char::from(b'a' + round % 6);
        let mut request = create_request(&agent, letter, &["sh", "-c", "echo hi; exit 1"]);
        if round >= 6 {
            request.furnishings.clear();
        }
        control.create(request);
        let session = control.attach(&agent, letter, &[StreamKind::Stdout]);
        control.start(letter).unwrap();
        assert_eq!(session.output(), "hi\n");
        assert_eq!(control.wait(letter).code, 1);
        if round == 0 {
            after_first = descriptors();
        }
    }
    // The agent lets go of the last stream a moment after the host has seen its end.
    crate::support::agent::wait_for("every descriptor's end", || descriptors() <= after_first);
}
