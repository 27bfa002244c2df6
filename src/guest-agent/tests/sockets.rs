//! Unix sockets of the machine whose server is the host.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use sbx_container::plan::MountSource;
use sbx_protocol::guest::Furnishing;

use crate::support::agent::wait_for;
use crate::support::{Agent, create_request, exec_request};

const PATH: &str = "/run/binds/with a name that is much longer than the one hundred and seven bytes that an address has \
                    room for/server.sock";

fn forward(agent: &Agent, port: u32) -> UnixListener {
    let server = UnixListener::bind(agent.path(&format!("port-{port}"))).unwrap();
    let mut request = create_request(agent, 'a', &["sleep", "10000"]);
    let socket = Furnishing::Socket { path: PATH.into(), mode: 0o620, uid: 1000, gid: 100, port };
    request.furnishings.push(socket);
    let parent = PATH.rsplit_once('/').unwrap().0.to_owned();
    let bind = MountSource::Bind { path: parent, recursive: true, idmapped: false };
    request.plan.mounts.push(crate::support::plan::mount("/binds", bind));
    let mut control = agent.control();
    control.create(request);
    control.start('a').unwrap();
    server
}

fn connect(agent: &Agent) -> UnixStream {
    // By its directory, whose path is short: the test's own addresses have no more room.
    let directory = std::fs::File::open(agent.inside(PATH.rsplit_once('/').unwrap().0)).unwrap();
    let path = format!("/proc/self/fd/{}/server.sock", std::os::fd::AsRawFd::as_raw_fd(&directory));
    UnixStream::connect(path).unwrap()
}

#[test]
fn a_forwarded_socket_has_its_owner_and_passes_both_ways() {
    let Some(agent) = Agent::start() else { return };
    let server = forward(&agent, 5000);
    let found = std::fs::metadata(agent.inside(PATH)).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!((found.mode() & 0o777, found.uid(), found.gid()), (0o620, 1000, 100));
    let seen = agent.control().run(&agent, exec_request('a', &["stat", "-c", "%F %a", "/binds/server.sock"]));
    assert_eq!(seen, (0, "socket 620\n".to_owned()));

    let answering = thread::spawn(move || {
        let (mut socket, _) = server.accept().unwrap();
        let mut question = String::new();
        // Ends although the asking side still reads: half-close is passed on.
        socket.read_to_string(&mut question).unwrap();
        socket.write_all(question.to_uppercase().as_bytes()).unwrap();
        server
    });
    let mut client = connect(&agent);
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HELLO");
    drop(answering.join().unwrap());
}

#[test]
fn many_connections_pass_much_at_the_same_time() {
    const LENGTH: usize = 3 << 20;
    let Some(agent) = Agent::start() else { return };
    let server = forward(&agent, 5000);
    thread::spawn(move || {
        while let Ok((mut socket, _)) = server.accept() {
            thread::spawn(move || {
                let mut copy = socket.try_clone().unwrap();
                // An echo that ends when its question does.
                let _ = std::io::copy(&mut socket, &mut copy);
                let _ = copy.shutdown(Shutdown::Write);
            });
        }
    });
    let clients: Vec<_> = (0..20u8)
        .map(|number| {
            let mut writer = connect(&agent);
            let mut reader = writer.try_clone().unwrap();
            let writing = thread::spawn(move || {
                writer.write_all(&vec![number; LENGTH]).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let reading = thread::spawn(move || {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).unwrap();
                assert!(bytes.len() == LENGTH && bytes.iter().all(|byte| *byte == number));
            });
            (writing, reading)
        })
        .collect();
    for (writing, reading) in clients {
        writing.join().unwrap();
        reading.join().unwrap();
    }
}

#[test]
fn a_reader_that_stops_holds_its_writer_back() {
    let Some(agent) = Agent::start() else { return };
    let server = forward(&agent, 5000);
    let mut client = connect(&agent);
    let (socket, _) = server.accept().unwrap();
    client.set_nonblocking(true).unwrap();
    let chunk = vec![0; 1 << 16];
    let mut sent = 0;
    let mut refused = 0;
    while refused < 100 {
        match client.write(&chunk) {
            Ok(count) => {
                sent += count;
                refused = 0;
            }
            Err(_) => {
                refused += 1;
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        assert!(sent < 8 << 20, "nothing holds the writer back");
    }
    drop(client);
    let mut rest = Vec::new();
    let mut socket = socket;
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), sent, "what was taken arrives");
}

#[test]
fn a_server_that_is_not_there_ends_the_connection() {
    let Some(agent) = Agent::start() else { return };
    let server = forward(&agent, 5000);
    drop(server);
    std::fs::remove_file(agent.path("port-5000")).unwrap();
    let mut client = connect(&agent);
    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    let before = open();
    for _ in 0..50 {
        let _ = connect(&agent).read(&mut [0; 8]);
    }
    wait_for("the connections' end", || open() <= before);
}
