//! Processes of a container as ps(1) shows them (proc_pid_stat(5), proc_pid_status(5)).

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::ProcessRow;
use crate::error::{Error, Step};

/// Clock ticks a second: USER_HZ is 100 on every architecture that we run on.
const TICKS: u64 = 100;
/// A command line longer than this many bytes is cut.
const ARGS_LIMIT: usize = 4096;

/// A row for each of `pids` that still lives. Ids, users too, are numbers of the caller's namespaces.
pub fn rows(pids: &[i32]) -> Result<Vec<ProcessRow>, Error> {
    let machine = Machine::read()?;
    Ok(pids.iter().filter_map(|pid| row(*pid, &machine)).collect())
}

struct Machine {
    boot_time: i64,
    uptime: f64,
    memory: u64,
}

impl Machine {
    fn read() -> Result<Self, Error> {
        let read = |path: &str| fs::read_to_string(path).step(|| format!("read {path}"));
        let stat = read("/proc/stat")?;
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime "));
        let uptime = read("/proc/uptime")?;
        let memory = read("/proc/meminfo")?;
        let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let total = total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(Self {
            boot_time: boot.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            uptime: uptime.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            memory: total.unwrap_or(0) * 1024,
        })
    }
}

fn row(pid: i32, machine: &Machine) -> Option<ProcessRow> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status.lines().find_map(effective_uid).unwrap_or(uid);
    // The command may contain anything, so the fields are counted from its last parenthesis.
    let (head, tail) = stat.rsplit_once(')')?;
    let command = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
    let size = |index: usize| u64::try_from(number(index)).unwrap_or(0);
    let args = command_line(pid).unwrap_or_else(|| format!("[{command}]"));
    Some(ProcessRow {
        pid,
        ppid: i32::try_from(number(1)).unwrap_or(0),
        uid,
        user: uid.to_string(),
        pgid: i32::try_from(number(2)).unwrap_or(0),
        sid: i32::try_from(number(3)).unwrap_or(0),
        state: fields.first().and_then(|field| field.chars().next()).unwrap_or('?'),
        start_time: machine.boot_time + i64::try_from(size(19) / TICKS).unwrap_or(0),
        cpu_time: size(11) + size(12),
        tty: terminal(number(4)),
        nice: number(16),
        priority: number(15),
        threads: number(17),
        virtual_size: size(20),
        resident: size(21) * 4096,
        command,
        args,
        machine_memory: machine.memory,
        uptime: machine.uptime,
    })
}

fn effective_uid(line: &str) -> Option<u32> {
    line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

fn command_line(pid: i32) -> Option<String> {
    let mut bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    bytes.truncate(ARGS_LIMIT);
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return None;
    }
    let printable = |letter: char| if letter == '\0' || letter.is_control() { ' ' } else { letter };
    Some(String::from_utf8_lossy(&bytes).chars().map(printable).collect())
}

/// Name of a terminal by its device number (proc_pid_stat(5), `tty_nr`).
fn terminal(number: i64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        0 => "?".into(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        5 if minor == 1 => "console".into(),
        _ => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let rows = rows(&[own, i32::MAX]).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].pid, own);
        assert!(rows[0].resident > 0 && rows[0].start_time > 1_500_000_000 && !rows[0].args.is_empty());
    }

    #[test]
    fn terminals_have_their_usual_names() {
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal(136 << 8), "pts/0");
        assert_eq!(terminal((137 << 8) | 2), "pts/258");
        assert_eq!(terminal((4 << 8) | 64), "ttyS0");
    }
}
