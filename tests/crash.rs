//! Many at once, and killed at any moment: afterwards one command finds what is left and clears it.
//!
//! `SBX_CRASH_ROUNDS` is how many containers and kills there are (60, in VM mode 12), `SBX_CRASH_SEED` repeats a
//! run. The census at the end of every test is what counts.

mod support;

use std::fs;
use std::time::{Duration, SystemTime};

use support::machine::Mode;
use support::output::Running;
use support::{BUSYBOX, DEADLINE, Machine, each_mode};

/// How many at once, at most.
fn at_once() -> usize {
    rounds().min(20)
}

fn rounds() -> usize {
    // In a nested machine everything takes ten times as long.
    let usual = if support::machine::modes().contains(&support::machine::Mode::Vm) { 12 } else { 60 };
    std::env::var("SBX_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

/// A small generator of numbers (xorshift64), so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn new(test: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_secs() | 1);
        let seed = std::env::var("SBX_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now);
        eprintln!("{test}: SBX_CRASH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

/// Starts many commands, waits for all, gives those that did not end with 0.
fn all_at_once(m: &Machine, commands: &[Vec<String>]) -> Vec<String> {
    let mut faults = Vec::new();
    for some in commands.chunks(at_once()) {
        let running: Vec<Running> =
            some.iter().map(|words| m.start_sbx(&words.iter().map(String::as_str).collect::<Vec<_>>())).collect();
        for one in running {
            let output = one.finish(DEADLINE * 2);
            if output.status != 0 {
                faults.push(output.to_string());
            }
        }
    }
    faults
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn many_short_lives_twenty_at_a_time_leave_nothing() {
    each_mode(|m| {
        let commands: Vec<Vec<String>> = (0..rounds())
            .map(|n| match n % 4 {
                0 => words(&format!("run --rm {BUSYBOX} true")),
                1 => words(&format!("run --rm -v /anonymous --tmpfs /t {BUSYBOX} true")),
                2 => words(&format!("run --rm -p {}:80 {BUSYBOX} true", 20_000 + n)),
                _ => words(&format!("run --rm --network none --read-only {BUSYBOX} true")),
            })
            .collect();
        let faults = all_at_once(m, &commands);
        assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), commands.len(), faults[0]);
        assert_eq!(m.ok(&["ps", "-aq"]), "");
        assert_eq!(m.ok(&["volume", "ls", "-q"]), "");
    });
}

#[test]
fn starts_stops_and_removals_twenty_at_a_time_leave_nothing() {
    each_mode(|m| {
        for round in 0..(rounds() / at_once() / 2).max(1) {
            let names: Vec<String> = (0..at_once()).map(|n| format!("c{round}-{n}")).collect();
            for verb in [
                format!("run -d --name NAME {BUSYBOX} sleep 1000"),
                "stop -t 0 NAME".to_owned(),
                "start NAME".to_owned(),
                "rm -f NAME".to_owned(),
            ] {
                let commands: Vec<Vec<String>> = names.iter().map(|name| words(&verb.replace("NAME", name))).collect();
                let faults = all_at_once(m, &commands);
                assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), names.len(), faults[0]);
            }
        }
    });
}

#[test]
fn the_same_container_told_many_things_at_once_stays_in_a_known_state() {
    each_mode(|m| {
        m.ok(&["create", "--name", "torn", BUSYBOX, "sleep", "1000"]);
        for _ in 0..5 {
            let verbs = ["start", "stop -t 0", "restart -t 0", "kill", "pause", "unpause", "inspect", "start"];
            let running: Vec<Running> =
                verbs.iter().map(|verb| m.start_sbx(&verb.split(' ').chain(["torn"]).collect::<Vec<_>>())).collect();
            for one in running {
                let output = one.finish(DEADLINE * 2);
                assert!([0, 1].contains(&output.status) && !output.stderr.contains("panicked"), "{output}");
            }
            let status = m.inspect("torn", "{{.State.Status}}");
            assert!(["running", "exited", "paused", "created"].contains(&status.as_str()), "{status}");
        }
        // With one name, one of many wins.
        let running: Vec<Running> =
            (0..8).map(|_| m.start_sbx(&["run", "-d", "--name", "one", BUSYBOX, "sleep", "1000"])).collect();
        let won = running.into_iter().map(|one| one.finish(DEADLINE)).filter(|output| output.status == 0).count();
        assert_eq!(won, 1);
    });
}

/// Processes of this machine that run the binary under test, seen from outside: commands by their file, supervisors, which
/// run from a sealed mount of it, by their command line.
fn victims(m: &Machine) -> Vec<i32> {
    let door = fs::read_to_string(m.path("ready")).expect("the machine's door");
    let cgroup = door.split('/').find(|part| part.starts_with("sbx-machine-")).expect("the machine's name").to_owned();
    let binary = m.peer().program();
    let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let ours = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&cgroup));
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let supervises = line.split(|byte| *byte == 0).any(|word| word == b"supervise");
        ours && (supervises || program.to_string_lossy().trim_end_matches(" (deleted)") == binary)
    })
    .collect()
}

/// Kills processes at random moments of random commands; gives how many were hit.
fn kill_at_random(m: &Machine, dice: &mut Dice, kills: usize) -> usize {
    let mut hit = 0;
    for n in 0..kills * 20 {
        if hit >= kills {
            break;
        }
        let name = format!("k{}", n % 7);
        let line = match dice.below(8) {
            0 => format!("run --rm {BUSYBOX} true"),
            1 => format!("run -d --name {name} {BUSYBOX} sleep 1000"),
            2 => format!("run -d --name {name} -p {}:80 --restart always {BUSYBOX} sleep 1000", 30_000 + n % 100),
            3 => format!("run --rm -v vol{}:/data -v /anonymous {BUSYBOX} true", n % 3),
            4 => format!("rm -f {name}"),
            5 => format!("restart -t 0 {name}"),
            6 => format!("exec {name} true"),
            _ => format!("stop -t 0 {name}"),
        };
        let running = m.start_sbx(&line.split(' ').collect::<Vec<_>>());
        std::thread::sleep(Duration::from_micros(dice.below(40_000) as u64));
        let victims = victims(m);
        if !victims.is_empty() {
            let pid = nix::unistd::Pid::from_raw(victims[dice.below(victims.len())]);
            // It may have ended by itself in between: then it does not count.
            hit += usize::from(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok());
        }
        let output = running.finish(DEADLINE);
        assert!(!output.stderr.contains("panicked"), "{output}");
    }
    hit
}

#[test]
fn killed_commands_and_supervisors_leave_nothing_that_one_command_does_not_clear() {
    each_mode(|m| {
        if !m.peer().is_sbx() {
            return support::skip(
                "killed_commands_and_supervisors_leave_nothing_that_one_command_does_not_clear",
                "Docker has other processes",
            );
        }
        let mut dice = Dice::new("crash");
        let kills = rounds();
        let hit = kill_at_random(m, &mut dice, kills);
        assert!(hit >= kills, "only {hit} of {kills} kills hit a process");
        // One command, and what it shows is true: every container can be looked at and is in a state that there is.
        // One of `run --rm` whose command was killed may end, and be gone, at any moment; the others have names of two letters.
        let look = |id: &str, name: &str, args: &[&str]| {
            let output = m.start_sbx(args).finish(DEADLINE);
            let gone = output.status != 0 && name.len() != 2 && !m.ok(&["ps", "-aq", "--no-trunc"]).contains(id);
            (!gone).then(|| output.expect_ok().text().to_owned())
        };
        for line in m.ok(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]).lines() {
            let (id, name) = line.split_once(' ').expect("an id and a name");
            let Some(status) = look(id, name, &["inspect", "--format", "{{.State.Status}}", id]) else { continue };
            assert!(
                ["created", "running", "exited", "dead", "restarting"].contains(&status.as_str()),
                "{id}: {status}"
            );
            if status == "running" {
                look(id, name, &["exec", id, "true"]);
            }
            look(id, name, &["rm", "-f", "-v", id]);
        }
        for volume in m.ok(&["volume", "ls", "-q"]).lines() {
            m.ok(&["volume", "rm", volume]);
        }
        assert_eq!(m.in_busybox(&[], "echo well"), "well");
    });
}

#[test]
fn a_killed_supervisor_ends_its_container_with_a_reason() {
    each_mode(|m| {
        if !m.peer().is_sbx() {
            return support::skip("a_killed_supervisor_ends_its_container_with_a_reason", "Docker has other processes");
        }
        let id = m.detached(&["--name", "left"], &["sleep", "1000"]);
        let victims = victims(m);
        let others = usize::from(m.mode() == Mode::Vm);
        assert_eq!(victims.len(), 1 + others, "a supervisor runs, its machine, and nothing else");
        let is_supervisor = |pid: &&i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sbx-supervisor")
        };
        let supervisor = *victims.iter().find(is_supervisor).expect("the supervisor");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL)
            .expect("the supervisor");
        m.await_inspect(&id, "{{.State.Running}}", "false");
        assert_ne!(m.inspect(&id, "{{.State.ExitCode}}"), "0", "nobody saw it succeed");
        m.ok(&["start", "left"]);
        assert_eq!(m.inspect("left", "{{.State.Status}}"), "running");
    });
}

#[test]
fn a_pull_killed_at_any_moment_leaves_a_store_that_pulls_again() {
    support::machine(|m| {
        use support::double::{Double, Fault};
        if !m.peer().is_sbx() {
            return support::skip(
                "a_pull_killed_at_any_moment_leaves_a_store_that_pulls_again",
                "Docker has other processes",
            );
        }
        let mut dice = Dice::new("pull");
        let double = Double::start(m, 5001, Fault::Nothing);
        for _ in 0..(rounds() / 10).max(3) {
            let running = m.start_sbx(&["pull", &double.reference()]);
            std::thread::sleep(Duration::from_micros(dice.below(150_000) as u64));
            for pid in victims(m) {
                // It may have ended by itself in between.
                let _ended = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            running.finish(DEADLINE);
        }
        m.ok(&["pull", "-q", &double.reference()]);
        assert_eq!(m.ok(&["run", "--rm", &double.reference(), "echo", "well"]), "well");
        m.ok(&["rmi", &double.reference()]);
    });
}
