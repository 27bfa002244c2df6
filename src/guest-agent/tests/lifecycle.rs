//! Containers from creation to end.

use sbx_container::plan::Namespace;
use sbx_protocol::{ContainerEvent, ExitStatus, FailureKind, Reply, Request, StreamKind};

use crate::support::{Agent, create_request, exec_request, id};

const OUTPUTS: [StreamKind; 2] = [StreamKind::Stdout, StreamKind::Stderr];

#[test]
fn a_container_says_what_it_says_and_how_it_ended() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sh", "-c", "echo out; echo err >&2; exit 7"]));
    let session = control.attach(&agent, 'a', &OUTPUTS);
    assert!(control.start('a').unwrap() > 1);
    assert_eq!(session.output(), "out\nerr\n");
    assert_eq!(control.wait('a'), ExitStatus { code: 7, oom_killed: false });
    // Whoever asks late, and again, learns the same.
    assert_eq!(agent.control().wait('a'), ExitStatus { code: 7, oom_killed: false });
    let late = control.refused(&Request::Start { container: id('a') });
    assert_eq!(late.kind, FailureKind::Conflict);
}

#[test]
fn a_container_runs_in_namespaces_of_its_own_on_its_own_root() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let script = "echo $$; hostname; touch /new && echo made; cat /proc/self/oom_score_adj; \
                  grep SigIgn /proc/self/status; ls /proc/self/fd | wc -l; awk '$5==\"/\"{print $(NF-2),$(NF-1)}' /proc/self/mountinfo";
    control.create(create_request(&agent, 'a', &["sh", "-c", script]));
    let session = control.attach(&agent, 'a', &OUTPUTS);
    control.start('a').unwrap();
    let said = session.output();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..4], ["1", "box", "made", "0"], "{said}");
    assert_eq!(lines[4].split_whitespace().last(), Some("0000000000000000"), "no signal is ignored");
    // ls has its three and the directory.
    assert_eq!(lines[5], "4", "{said}");
    assert_eq!(lines[6], "overlay overlay", "{said}");
    assert_eq!(control.wait('a').code, 0);
    // The layer is as it was; the change is in the writable layer.
    assert!(!agent.path("layer/new").exists());
    assert!(agent.inside(&format!("/run/writable/{}/upper/new", id('a'))).exists());
}

#[test]
fn a_signal_ends_a_container_with_its_number() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(
        &agent,
        'a',
        &["sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 1; done"],
    ));
    let early = control.refused(&Request::Kill { container: id('a'), signal: libc::SIGTERM });
    assert_eq!((early.kind, early.message), (FailureKind::Conflict, format!("container {} is not running", id('a'))));
    let mut session = control.attach(&agent, 'a', &[StreamKind::Stdout]);
    control.start('a').unwrap();
    expect(&mut session, b"up\n");
    control.tell(&Request::Kill { container: id('a'), signal: libc::SIGTERM });
    assert_eq!(control.wait('a').code, 3);

    control.create(create_request(&agent, 'b', &["sleep", "1000"]));
    control.start('b').unwrap();
    let mut waiter = agent.control();
    waiter.send(&Request::WaitContainer { container: id('b') });
    control.tell(&Request::Kill { container: id('b'), signal: libc::SIGKILL });
    let status = ExitStatus { code: 137, oom_killed: false };
    assert_eq!(waiter.receive(), Some(Reply::Event(ContainerEvent::Exited { status, restarting: false })));
}

fn expect(session: &mut crate::support::Session, expected: &[u8]) {
    use std::io::Read;
    let mut bytes = vec![0; expected.len()];
    session.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, expected);
}

#[test]
fn a_container_that_is_over_can_be_made_anew() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    for round in 1..=3 {
        let mut request = create_request(&agent, 'a', &["sh", "-c", "echo x >> /count; exit $(wc -l < /count)"]);
        if round > 1 {
            request.furnishings.clear();
        }
        control.create(request.clone());
        let twice = control.refused(&Request::Create(Box::new(request)));
        assert_eq!(twice.kind, FailureKind::Conflict, "{twice}");
        control.start('a').unwrap();
        assert_eq!(control.wait('a').code, round, "the writable layer is kept");
    }
}

#[test]
fn a_paused_container_stands_still_and_can_be_killed() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sleep", "1000"]));
    control.start('a').unwrap();
    control.tell(&Request::Pause { container: id('a') });
    let twice = control.refused(&Request::Pause { container: id('a') });
    assert_eq!(twice.message, format!("container {} is already paused", id('a')));
    let session = control.ask(&Request::Exec(Box::new(exec_request('a', &["true"])))).unwrap();
    let Reply::Session(session) = session else { panic!("{session:?}") };
    let _streams = OUTPUTS.map(|kind| agent.stream(session, kind));
    assert_eq!(control.refused(&Request::Ready { session }).kind, FailureKind::Conflict);
    control.tell(&Request::Unpause { container: id('a') });
    assert_eq!(control.run(&agent, exec_request('a', &["echo", "awake"])), (0, "awake\n".to_owned()));
    control.tell(&Request::Pause { container: id('a') });
    control.tell(&Request::Kill { container: id('a'), signal: libc::SIGKILL });
    assert_eq!(control.wait('a').code, 137);
}

#[test]
fn a_container_that_needs_too_much_memory_is_said_to_have() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let mut request = create_request(&agent, 'a', &["sh", "-c", "tail /dev/zero; exit 5"]);
    request.plan.cgroup.resources.memory.limit = Some(24 << 20);
    let made = control.ask(&Request::Create(Box::new(request)));
    if let Err(failure) = &made
        && failure.message.contains("memory")
    {
        eprintln!("skipped: {failure}");
        return;
    }
    control.start('a').unwrap();
    let status = control.wait('a');
    assert!(status.oom_killed, "{status:?}");
    assert!([5, 137].contains(&status.code), "{status:?}");
}

#[test]
fn the_reaper_runs_the_program_as_its_child() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let mut request = create_request(
        &agent,
        'a',
        &["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; echo; (sh -c 'exit 0' &); exit 9"],
    );
    request.plan.first = sbx_container::plan::First::Reaper;
    control.create(request);
    let session = control.attach(&agent, 'a', &OUTPUTS);
    control.start('a').unwrap();
    let said = session.output();
    assert!(said.starts_with("sbx-init -- /bin/sh sh -c"), "{said}");
    assert_eq!(control.wait('a').code, 9);
}

#[test]
fn orphans_are_reaped_and_statuses_are_not_stolen() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    // Without a PID namespace of its own the container's orphans are the agent's.
    let script = "i=0; while [ $i -lt 300 ]; do (sh -c 'exit 1' &) ; i=$((i+1)); done; exit 42";
    let mut request = create_request(&agent, 'a', &["sh", "-c", script]);
    request.plan.namespaces.pid = Namespace::Inherit;
    control.create(request);
    control.create(create_request(&agent, 'b', &["sleep", "1000"]));
    control.start('b').unwrap();
    control.start('a').unwrap();
    for code in 0..20 {
        let (ended, _) = control.run(&agent, exec_request('b', &["sh", "-c", &format!("exit {code}")]));
        assert_eq!(ended, code);
    }
    assert_eq!(control.wait('a').code, 42);
    crate::support::agent::wait_for("the orphans' end", || {
        let zombies = |line: &str| line.split_whitespace().nth(1).is_some_and(|state| state.starts_with('Z'));
        !agent.run(&["ps", "-e", "-o", "pid,stat"]).lines().any(zombies)
    });
}

#[test]
fn power_off_ends_everything_and_names_what_is_mounted() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sleep", "1000"]));
    control.start('a').unwrap();
    let said = agent.power_off();
    assert_eq!(said, format!("powered off; mounted: /run/writable/{}\n", id('a')));
}

#[test]
fn a_machine_does_not_wake_before_1970() {
    let Some(agent) = Agent::start() else { return };
    let wake = sbx_protocol::guest::WakeRequest { now: -1, entropy: vec![7; 32] };
    let failure = agent.control().refused(&Request::Wake(wake));
    assert_eq!(failure.message, "set the clock: a time before 1970");
}
