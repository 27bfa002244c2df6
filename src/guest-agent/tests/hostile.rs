//! A host that is broken, or that means harm: what it says changes nothing, and the agent serves on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use sbx_protocol::{
    Hello, MAX_FRAME, Purpose, Reply, Request, SessionId, StreamKind, VERSION, read_frame, write_frame,
};

use crate::support::agent::wait_for;
use crate::support::{Agent, create_request, exec_request, id};

fn hello(version: u32) -> Vec<u8> {
    let mut wire = Vec::new();
    write_frame(&mut wire, &Hello { version, purpose: Purpose::Control }).unwrap();
    wire
}

/// Says `bytes` and hears the agent out.
fn answer_to(agent: &Agent, bytes: &[u8]) -> Vec<u8> {
    let mut socket = agent.connect();
    // It may hang up before everything is said.
    let _ = socket.write_all(bytes);
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard);
    heard
}

fn reason(answer: &[u8]) -> String {
    let mut input = answer;
    match read_frame(&mut input) {
        Ok(Some(Reply::Failed(failure))) => failure.message,
        other => panic!("{other:?} in {answer:02x?}"),
    }
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let Some(agent) = Agent::start() else { return };
    for version in [0, VERSION - 1, VERSION + 1, u32::MAX] {
        let said = reason(&answer_to(&agent, &hello(version)));
        let expected = format!(
            "the agent speaks version {VERSION} of the protocol, not {version}; both must come from one build of sbx"
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn nonsense_closes_its_connection_with_a_reason() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sleep", "1000"]));
    control.start('a').unwrap();

    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes().to_vec();
    assert!(reason(&answer_to(&agent, &too_long)).contains("more than the"), "before the greeting");
    let after_greeting = |bytes: &[u8]| answer_to(&agent, &[&hello(VERSION), bytes].concat());
    assert!(reason(&after_greeting(&too_long)).contains("more than the"));
    assert!(reason(&after_greeting(&[3, 0, 0, 0, 0xff, 0xff, 0xff])).contains("not understood"));
    assert!(reason(&after_greeting(&[0, 0, 0, 0])).contains("not understood"), "an empty message");
    // A greeting that is promised and does not come: not held for ever.
    let mut endless = u32::try_from(MAX_FRAME).unwrap().to_le_bytes().to_vec();
    endless.resize(300_000, 1);
    assert_eq!(reason(&answer_to(&agent, &endless)), "a greeting that does not end");

    assert_eq!(control.run(&agent, exec_request('a', &["echo", "fine"])), (0, "fine\n".to_owned()));
}

#[test]
fn requests_before_the_nonsense_are_carried_out() {
    let Some(agent) = Agent::start() else { return };
    let mut wire = hello(VERSION);
    for _ in 0..3 {
        write_frame(&mut wire, &Request::Top { container: id('f') }).unwrap();
    }
    wire.extend_from_slice(&[1, 0, 0, 0, 0xff]);
    let answer = answer_to(&agent, &wire);
    let mut input = answer.as_slice();
    let mut replies = Vec::new();
    while let Some(Reply::Failed(failure)) = read_frame(&mut input).unwrap() {
        replies.push(failure.message);
    }
    assert_eq!(replies.len(), 4, "{replies:?}");
    assert!(replies[3].contains("not understood"), "{replies:?}");
}

#[test]
fn streams_of_no_session_are_closed() {
    let Some(agent) = Agent::start() else { return };
    let mut socket = agent.stream(SessionId(u64::MAX), StreamKind::Stdout);
    assert_eq!(socket.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn random_bytes_leave_the_agent_serving() {
    let Some(agent) = Agent::start() else { return };
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[2]
    };
    for round in 0..400usize {
        let length = usize::from(random()) * (1 + round % 7);
        let mut bytes: Vec<u8> = (0..length).map(|_| random()).collect();
        if round % 2 == 0 {
            bytes.splice(0..0, hello(VERSION));
        }
        if round % 3 == 0 && bytes.len() > 40 {
            // A length that fits, so that the message itself is looked at.
            let place = if round % 2 == 0 { hello(VERSION).len() } else { 0 };
            let rest = u32::try_from(bytes.len() - place - 4).unwrap();
            bytes[place..place + 4].copy_from_slice(&rest.to_le_bytes());
            // Never the one request that is meant to end everything.
            bytes[place + 4] = 3 + bytes[place + 4] % 14;
        }
        let mut socket = agent.connect();
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(Shutdown::Both);
    }
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["true"]));
    control.start('a').unwrap();
    assert_eq!(control.wait('a').code, 0);
    wait_for("the connections' end", || descriptors(&agent) < 40);
}

fn descriptors(agent: &Agent) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

#[test]
fn many_connections_that_say_nothing_keep_nobody_out() {
    let Some(agent) = Agent::start() else { return };
    let idle: Vec<UnixStream> = (0..500).map(|_| agent.connect()).collect();
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["true"]));
    control.start('a').unwrap();
    assert_eq!(control.wait('a').code, 0);
    drop(idle);
    wait_for("the connections' end", || descriptors(&agent) < 40);
}

#[test]
fn replies_that_nobody_reads_are_not_kept_without_a_bound() {
    let Some(agent) = Agent::start() else { return };
    let mut socket = agent.connect();
    socket.write_all(&hello(VERSION)).unwrap();
    let mut requests = Vec::new();
    for _ in 0..2_000 {
        write_frame(&mut requests, &Request::Start { container: "x".repeat(400) }).unwrap();
    }
    // Each is answered by a failure that names the container, and none of the answers is read.
    let hung_up = (0..100).any(|_| socket.write_all(&requests).is_err());
    assert!(hung_up, "the agent takes requests without end");
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(resident < 32 << 10, "{resident} kB");
    assert_eq!(
        agent.control().refused(&Request::Top { container: id('f') }).message,
        format!("No such container: {}", id('f'))
    );
}
