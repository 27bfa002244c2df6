//! Who is under test: `sbx`, or Docker when the suites themselves are being checked.

use std::fs;
use std::process::{Command, Stdio};

use super::machine::Machine;
use super::wait::eventually;

/// Who is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The binary of this build.
    Sbx,
    /// `docker`, with a `dockerd` of its own inside each machine.
    Docker,
}

impl Peer {
    /// As `SBX_TEST_PEER` says.
    pub fn chosen() -> Self {
        match std::env::var("SBX_TEST_PEER").as_deref() {
            Ok("docker") => Self::Docker,
            Ok(other) if !other.is_empty() && other != "sbx" => panic!("SBX_TEST_PEER is {other}, not docker or sbx"),
            _ => Self::Sbx,
        }
    }

    /// Whether it is `sbx`.
    pub fn is_sbx(self) -> bool {
        self == Self::Sbx
    }

    /// The program to run.
    pub fn program(self) -> String {
        match self {
            Self::Sbx => env!("CARGO_BIN_EXE_sbx").to_owned(),
            Self::Docker => "docker".to_owned(),
        }
    }

    /// Appends the arguments that put the program into this machine, and then `args`.
    pub fn add_arguments(self, machine: &Machine, command: &mut Command, args: &[&str]) {
        match self {
            Self::Sbx => command.args(["--root", &machine.at("root"), "--run", &machine.at("run")]),
            Self::Docker => command.args(["-H", SOCKET]),
        };
        let Some((verb, rest)) = args.split_first() else { return };
        command.arg(verb);
        let chosen = rest.iter().any(|word| word.starts_with("--isolation"));
        if self.is_sbx() && (*verb == "run" || *verb == "create") && !chosen {
            command.arg(format!("--isolation={}", machine.mode().word()));
        }
        command.args(rest);
    }

    /// Starts what the program needs.
    pub fn start(self, machine: &Machine) {
        if self.is_sbx() {
            return;
        }
        start_dockerd(machine);
    }

    /// Stops it. What does not stop ends with the machine.
    pub fn stop(self, machine: &Machine) {
        if !self.is_sbx() {
            drop(machine.sh("kill $(cat docker.pid); while pidof dockerd >/dev/null; do sleep 0.1; done"));
        }
    }
}

/// Below the machine's own /run: paths of sockets may not be long.
const SOCKET: &str = "unix:///run/docker.sock";

/// A `dockerd` with everything of its own, in the machine's namespaces: storage, containerd, bridge, firewall.
pub fn start_dockerd(machine: &Machine) {
    let log = fs::File::create(machine.path("docker.log")).expect("a log file");
    let mut command = machine.command("dockerd");
    command.args(["--data-root", &machine.at("docker-data"), "--exec-root", "/run/docker-exec"]);
    command.args(["--pidfile", &machine.at("home/docker.pid"), "-H", SOCKET]);
    let errors = log.try_clone().expect("a second descriptor");
    let mut daemon = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("dockerd starts");
    eventually("dockerd", || {
        let ended = daemon.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "{}", fs::read_to_string(machine.path("docker.log")).unwrap_or_default());
        (docker(machine, &["version"]).status == 0).then_some(())
    });
}

/// Runs `docker` against the machine's own `dockerd`.
pub fn docker(machine: &Machine, args: &[&str]) -> super::Output {
    let mut command = machine.command("docker");
    command.args(["-H", SOCKET]).args(args);
    super::output::Running::start(command, Some(b"")).finish(super::DEADLINE)
}
