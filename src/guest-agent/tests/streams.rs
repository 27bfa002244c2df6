//! Standard streams: nothing is lost, nothing is kept without a bound, and each ends by itself.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use sbx_container::plan::TerminalSize;
use sbx_protocol::{AttachRequest, FailureKind, Reply, Request, StreamKind};

use crate::support::agent::wait_for;
use crate::support::{Agent, create_request, exec_request, id};

const OUTPUTS: [StreamKind; 2] = [StreamKind::Stdout, StreamKind::Stderr];

/// A container that does nothing, for what is executed in it.
fn idle(agent: &Agent) -> crate::support::Control {
    let mut control = agent.control();
    control.create(create_request(agent, 'a', &["sleep", "100000"]));
    control.start('a').unwrap();
    control
}

#[test]
fn output_from_before_anybody_reads_is_whole() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    // More than every buffer on the way, and the process ends at once.
    control.create(create_request(&agent, 'a', &["seq", "1", "300000"]));
    let mut session = control.attach(&agent, 'a', &OUTPUTS);
    control.start('a').unwrap();
    let mut waiter = agent.control();
    waiter.send(&Request::WaitContainer { container: id('a') });
    // Long enough for the grace of those who hold an output open: it is not for a slow reader.
    thread::sleep(std::time::Duration::from_millis(2500));
    let mut said = String::new();
    session.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.lines().count(), 300_000);
    assert!(said.ends_with("\n300000\n"));
    assert!(matches!(waiter.receive(), Some(Reply::Event(_))));
}

#[test]
fn a_hundred_megabytes_go_through_cat_while_the_agent_stays_small() {
    let Some(agent) = Agent::start() else { return };
    let mut control = idle(&agent);
    let mut request = exec_request('a', &["cat"]);
    request.process.stdin = true;
    request.streams = vec![StreamKind::Stdin, StreamKind::Stdout];
    let mut session = control.exec(&agent, request);
    let mut stdin = session.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let chunk: Vec<u8> = (0..1_000_003u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let mut sum = 0u64;
        for _ in 0..100 {
            stdin.write_all(&chunk).unwrap();
            sum += chunk.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        stdin.shutdown(Shutdown::Write).unwrap();
        (sum, 100 * chunk.len())
    });
    let mut stdout = session.stdout.take().unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (mut sum, mut length) = (0u64, 0);
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        sum += buffer[..count].iter().map(|byte| u64::from(*byte)).sum::<u64>();
        length += count;
    }
    assert_eq!(writer.join().unwrap(), (sum, length));
    assert_eq!(control.wait_process(session.id).code, 0);
    assert!(resident(&agent) < 16 << 20, "{}", resident(&agent));
}

#[test]
fn a_reader_that_stops_stops_its_own_stream_only() {
    let Some(agent) = Agent::start() else { return };
    let mut control = idle(&agent);
    let before = resident(&agent);
    let stuck = control.exec(&agent, exec_request('a', &["sh", "-c", "yes; echo never"]));
    let endless = control.exec(&agent, exec_request('a', &["yes"]));
    let mut buffer = vec![0; 1 << 20];
    let mut reader = endless.stdout.as_ref().unwrap();
    for _ in 0..20 {
        reader.read_exact(&mut buffer).unwrap();
    }
    assert_eq!(control.run(&agent, exec_request('a', &["echo", "fine"])), (0, "fine\n".to_owned()));
    assert!(resident(&agent) < before + (4 << 20), "{before} grew to {}", resident(&agent));
    control.tell(&Request::SignalProcess { session: stuck.id, signal: libc::SIGKILL });
    control.tell(&Request::SignalProcess { session: endless.id, signal: libc::SIGKILL });
    drop(endless.stdout);
    assert_eq!(control.wait_process(endless.id).code, 137);
}

fn resident(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_reader_that_goes_away_lets_the_process_go_on() {
    let Some(agent) = Agent::start() else { return };
    let mut control = idle(&agent);
    let mut session = control.exec(&agent, exec_request('a', &["sh", "-c", "yes | head -c 3000000; exit 4"]));
    session.stdout.take();
    assert_eq!(control.wait_process(session.id).code, 4);
}

#[test]
fn input_ends_where_the_sender_ends_it() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let mut request = create_request(&agent, 'a', &["sh", "-c", "wc -c; echo done"]);
    request.plan.process.stdin = true;
    control.create(request);
    let mut session = control.attach(&agent, 'a', &[StreamKind::Stdin, StreamKind::Stdout]);
    // Before the process runs: it waits.
    session.feed(b"twelve bytes");
    control.start('a').unwrap();
    assert_eq!(session.output(), "12\ndone\n");
    assert_eq!(control.wait('a').code, 0);
}

#[test]
fn without_input_the_process_reads_the_null_device() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["sh", "-c", "readlink /proc/self/fd/0; wc -c"]));
    let session = control.attach(&agent, 'a', &[StreamKind::Stdout]);
    control.start('a').unwrap();
    assert_eq!(session.output(), "/dev/null\n0\n");
}

#[test]
fn a_terminal_has_the_size_that_it_is_given() {
    let Some(agent) = Agent::start() else { return };
    let mut control = idle(&agent);
    let script = "stty size; trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.1; done";
    let mut request = exec_request('a', &["sh", "-c", script]);
    request.process.terminal = Some(TerminalSize { rows: 24, columns: 80 });
    request.streams = vec![StreamKind::Stdin, StreamKind::Stdout];
    let mut session = control.exec(&agent, request);
    let mut said = Vec::new();
    let mut stdout = session.stdout.take().unwrap();
    while !said.ends_with(b"ready\r\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    assert_eq!(said, b"24 80\r\nready\r\n");
    control.tell(&Request::Resize { session: session.id, size: TerminalSize { rows: 50, columns: 132 } });
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "50 132\r\n");
    assert_eq!(control.wait_process(session.id).code, 6);
}

#[test]
fn what_is_typed_at_a_terminal_reaches_the_program() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    let mut request = create_request(&agent, 'a', &["sh"]);
    request.plan.process.terminal = Some(TerminalSize { rows: 24, columns: 80 });
    request.plan.process.stdin = true;
    control.create(request);
    let mut session = control.attach(&agent, 'a', &[StreamKind::Stdin, StreamKind::Stdout]);
    control.start('a').unwrap();
    session.stdin.as_mut().unwrap().write_all(b"tty; exit 11\n").unwrap();
    let mut said = String::new();
    session.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("/dev/console\r\n") || said.contains("/dev/pts/0\r\n"), "{said:?}");
    assert_eq!(control.wait('a').code, 11);
}

#[test]
fn ready_waits_for_every_stream_that_was_announced() {
    let Some(agent) = Agent::start() else { return };
    let mut control = idle(&agent);
    let reply =
        control.ask(&Request::Exec(Box::new(exec_request('a', &["sh", "-c", "touch /ran; echo said"])))).unwrap();
    let Reply::Session(session) = reply else { panic!("{reply:?}") };
    control.send(&Request::Ready { session });
    let mut stdout = agent.stream(session, StreamKind::Stdout);
    // The agent answers others meanwhile, and the process has not started.
    let mut other = agent.control();
    assert_eq!(other.run(&agent, exec_request('a', &["test", "-e", "/ran"])).0, 1);
    let _stderr = agent.stream(session, StreamKind::Stderr);
    assert_eq!(control.receive(), Some(Reply::Done));
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "said\n");
}

#[test]
fn a_session_that_its_opener_leaves_too_early_never_begins() {
    let Some(agent) = Agent::start() else { return };
    let mut control = idle(&agent);
    let mut leaver = agent.control();
    let reply = leaver.ask(&Request::Exec(Box::new(exec_request('a', &["touch", "/ran"])))).unwrap();
    let Reply::Session(session) = reply else { panic!("{reply:?}") };
    drop(leaver);
    wait_for("the session's end", || agent.control().ask(&Request::SignalProcess { session, signal: 0 }).is_err());
    let late = control.refused(&Request::Ready { session });
    assert_eq!((late.kind, &*late.message), (FailureKind::NoSuch, "No such exec instance"));
}

#[test]
fn two_sessions_at_one_process_both_see_all_of_it() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["seq", "1", "50000"]));
    let first = control.attach(&agent, 'a', &[StreamKind::Stdout]);
    let second = control.attach(&agent, 'a', &[StreamKind::Stdout]);
    control.start('a').unwrap();
    let reader = thread::spawn(move || first.output());
    let said = second.output();
    assert_eq!(said.lines().count(), 50_000);
    assert_eq!(reader.join().unwrap(), said);
}

#[test]
fn an_attached_container_that_is_over_says_so() {
    let Some(agent) = Agent::start() else { return };
    let mut control = agent.control();
    control.create(create_request(&agent, 'a', &["true"]));
    control.start('a').unwrap();
    control.wait('a');
    let request = AttachRequest { container: id('a'), streams: vec![], stdin_once: false };
    assert_eq!(control.refused(&Request::Attach(request)).kind, FailureKind::Conflict);
}
