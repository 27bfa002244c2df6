//! `top`: the processes of a container in the columns of ps(1), without ps.
//!
//! Docker hands its operands to the host's ps. Here the common ones are understood: `-ef`, `aux` and `-o COLUMNS`; any
//! other is refused by its name. Times of day are in UTC, as everywhere in sbx.

use sbx_engine::Engine;
use sbx_protocol::ProcessRow;

use super::{Fault, Outcome, print};
use crate::command::Top;
use crate::units::{Moment, rfc3339};

/// Seconds.
const DAY: i64 = 86_400;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `top`.
pub(super) fn top(engine: &Engine, command: &Top) -> Outcome {
    let columns = columns(&command.ps_options)?;
    let rows = engine.processes(&engine.find(&command.container)?)?;
    let now = Moment::now().seconds;
    let titles: Vec<String> = columns.iter().map(|column| column.title.clone()).collect();
    let texts: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|column| (column.text)(row, now)).collect()).collect();
    print(&crate::table::processes(&titles, &texts))
}

type Text = fn(&ProcessRow, i64) -> String;

struct Shown {
    title: String,
    text: Text,
}

/// Names, title and text of each column that `-o` takes (ps(1), STANDARD FORMAT SPECIFIERS).
const COLUMNS: [(&[&str], &str, Text); 29] = [
    (&["pid", "tgid"], "PID", |row, _| row.pid.to_string()),
    (&["ppid"], "PPID", |row, _| row.ppid.to_string()),
    (&["pgid", "pgrp"], "PGID", |row, _| row.pgid.to_string()),
    (&["sid", "sess", "session"], "SID", |row, _| row.sid.to_string()),
    (&["user", "euser", "uname"], "USER", |row, _| row.user.clone()),
    (&["uid", "euid"], "UID", |row, _| row.uid.to_string()),
    (&["comm", "ucmd", "ucomm"], "COMMAND", |row, _| row.command.clone()),
    (&["args", "command"], "COMMAND", |row, _| row.args.clone()),
    (&["cmd"], "CMD", |row, _| row.args.clone()),
    (&["tty", "tt", "tname"], "TT", |row, _| row.tty.clone()),
    (&["time", "cputime"], "TIME", |row, _| long_time(seconds(row))),
    (&["etime"], "ELAPSED", |row, now| elapsed_time(elapsed(row, now))),
    (&["etimes"], "ELAPSED", |row, now| elapsed(row, now).to_string()),
    (&["stime", "start_time"], "STIME", start_time),
    (&["start", "bsdstart"], "START", start_time),
    (&["lstart"], "STARTED", |row, _| whole_time(row.start_time)),
    (&["stat"], "STAT", |row, _| state(row)),
    (&["s", "state"], "S", |row, _| row.state.to_string()),
    (&["ni", "nice"], "NI", |row, _| row.nice.to_string()),
    (&["pri"], "PRI", |row, _| (39 - row.priority).to_string()),
    (&["nlwp", "thcount"], "NLWP", |row, _| row.threads.to_string()),
    (&["vsz", "vsize"], "VSZ", |row, _| (row.virtual_size / 1024).to_string()),
    (&["rss", "rssize", "rsz"], "RSS", |row, _| (row.resident / 1024).to_string()),
    (&["pcpu", "%cpu"], "%CPU", |row, now| format!("{:.1}", processor_share(row, now))),
    (&["pmem", "%mem"], "%MEM", |row, _| format!("{:.1}", memory_share(row))),
    (&["c"], "C", |row, now| format!("{}", processor_share(row, now).min(99.0) as u64)),
    // Of `-ef` and `aux`, whose columns have other titles.
    (&["-uid"], "UID", |row, _| row.user.clone()),
    (&["-tty"], "TTY", |row, _| row.tty.clone()),
    (&["-time"], "TIME", |row, _| short_time(seconds(row))),
];
const FULL: [&str; 8] = ["-uid", "pid", "ppid", "c", "stime", "-tty", "time", "cmd"];
const USER: [&str; 11] = ["user", "pid", "%cpu", "%mem", "vsz", "rss", "-tty", "stat", "start", "-time", "command"];

fn column(name: &str) -> Option<Shown> {
    let found = COLUMNS.iter().find(|(names, ..)| names.contains(&name))?;
    Some(Shown { title: found.1.to_owned(), text: found.2 })
}

fn columns(options: &[String]) -> Result<Vec<Shown>, Fault> {
    let mut lists = Vec::new();
    let mut user = false;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let letters = word.strip_prefix('-').unwrap_or(word);
        let (letters, list) = match letters.split_once('o') {
            Some((letters, rest)) => (letters, Some(rest)),
            None => (letters, None),
        };
        match letters.chars().find(|letter| !"Aaefuxw".contains(*letter)) {
            None if !word.starts_with("--") && word.len() > usize::from(word.starts_with('-')) => {}
            _ => return Err(not_supported(word)),
        }
        user |= letters.contains('u');
        if let Some(list) = list {
            let list = if list.is_empty() { words.next().map(String::as_str) } else { Some(list) };
            let list = list.ok_or_else(|| Fault::plain("top: ps option \"-o\" needs the names of columns"))?;
            read_list(list, &mut lists)?;
        }
    }
    if !lists.is_empty() {
        return Ok(lists);
    }
    let names: &[&str] = if user { &USER } else { &FULL };
    Ok(names.iter().filter_map(|name| column(name)).collect())
}

/// `pid,comm`; `pid=NAME` is a column with another title, up to the end of the text.
fn read_list(list: &str, columns: &mut Vec<Shown>) -> Result<(), Fault> {
    let (plain, title) = match list.split_once('=') {
        Some((plain, title)) => (plain, Some(title)),
        None => (list, None),
    };
    for name in plain.split([',', ' ']).filter(|name| !name.is_empty()) {
        let hidden = name.starts_with('-');
        let found = column(name).filter(|_| !hidden);
        columns.push(found.ok_or_else(|| {
            Fault::plain(format!("top: column {name:?} is not supported: use those of -ef and aux, etime, nice, nlwp"))
        })?);
    }
    if let (Some(title), Some(last)) = (title, columns.last_mut()) {
        last.title = title.to_owned();
    }
    Ok(())
}

fn not_supported(word: &str) -> Fault {
    Fault::plain(format!("top: ps option {word:?} is not supported: use -ef, aux or -o COLUMN,…"))
}

/// Processor time in seconds.
fn seconds(row: &ProcessRow) -> u64 {
    row.cpu_time / 100
}

fn elapsed(row: &ProcessRow, now: i64) -> i64 {
    (now - row.start_time).max(0)
}

/// Percent of one processor since the start.
fn processor_share(row: &ProcessRow, now: i64) -> f64 {
    let lived = elapsed(row, now);
    if lived == 0 { 0.0 } else { row.cpu_time as f64 / lived as f64 }
}

fn memory_share(row: &ProcessRow) -> f64 {
    if row.machine_memory == 0 { 0.0 } else { row.resident as f64 * 100.0 / row.machine_memory as f64 }
}

/// `[D-]HH:MM:SS`.
fn long_time(seconds: u64) -> String {
    let days = if seconds >= 86_400 { format!("{}-", seconds / 86_400) } else { String::new() };
    format!("{days}{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// `M:SS`.
fn short_time(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// `[[D-]HH:]MM:SS`.
fn elapsed_time(seconds: i64) -> String {
    match seconds {
        ..3600 => format!("{:02}:{:02}", seconds / 60, seconds % 60),
        _ => long_time(seconds.unsigned_abs()),
    }
}

/// The hour of today, the day of this year, or the year.
fn start_time(row: &ProcessRow, now: i64) -> String {
    let (start, present) = (rfc3339(row.start_time), rfc3339(now));
    if start.get(..10) == present.get(..10) || elapsed(row, now) < DAY {
        return start.get(11..16).unwrap_or_default().to_owned();
    }
    if start.get(..4) == present.get(..4) {
        return format!("{}{}", month(&start), start.get(8..10).unwrap_or_default());
    }
    start.get(..4).unwrap_or_default().to_owned()
}

fn month(time: &str) -> &'static str {
    let number = time.get(5..7).and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    MONTHS.get(number.wrapping_sub(1)).copied().unwrap_or("???")
}

/// `Sat Nov 21 02:44:55 2026`.
fn whole_time(seconds: i64) -> String {
    const WEEK: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let weekday = usize::try_from(seconds.div_euclid(DAY).rem_euclid(7)).unwrap_or(0);
    let text = rfc3339(seconds);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    format!("{} {} {} {} {}", WEEK[weekday], month(&text), part(8, 10), part(11, 19), part(0, 4))
}

/// `Ss`, `Sl`: state, niceness, leader of a session, threads.
fn state(row: &ProcessRow) -> String {
    let mut text = row.state.to_string();
    match row.nice {
        ..0 => text.push('<'),
        0 => {}
        _ => text.push('N'),
    }
    if row.sid == row.pid {
        text.push('s');
    }
    if row.threads > 1 {
        text.push('l');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> ProcessRow {
        ProcessRow {
            pid: 7,
            ppid: 1,
            uid: 1000,
            user: "bob".to_owned(),
            sid: 7,
            state: 'S',
            start_time: 1_795_229_095,
            cpu_time: 366_100,
            tty: "pts/0".to_owned(),
            nice: 5,
            priority: 25,
            threads: 3,
            virtual_size: 10 << 20,
            resident: 5 << 20,
            command: "sleep".to_owned(),
            args: "sleep 1000".to_owned(),
            machine_memory: 100 << 20,
            ..ProcessRow::default()
        }
    }

    fn shown(options: &[&str], later: i64) -> Vec<(String, String)> {
        let options: Vec<String> = options.iter().map(|text| (*text).to_owned()).collect();
        let row = row();
        let columns = columns(&options).unwrap_or_else(|fault| panic!("{}", fault.message));
        columns.iter().map(|column| (column.title.clone(), (column.text)(&row, row.start_time + later))).collect()
    }

    fn line(options: &[&str], later: i64) -> (String, String) {
        let (titles, texts): (Vec<_>, Vec<_>) = shown(options, later).into_iter().unzip();
        (titles.join(" "), texts.join(" "))
    }

    #[test]
    fn the_usual_forms() {
        let full = ("UID PID PPID C STIME TTY TIME CMD", "bob 7 1 50 02:44 pts/0 01:01:01 sleep 1000");
        for options in [&[][..], &["-ef"], &["-e", "-f"], &["-A"], &["ax"]] {
            let line = line(options, 7322);
            assert_eq!((line.0.as_str(), line.1.as_str()), full, "{options:?}");
        }
        let (titles, texts) = line(&["aux"], 7322);
        assert_eq!(titles, "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        assert_eq!(texts, "bob 7 50.0 5.0 10240 5120 pts/0 SNsl 02:44 61:01 sleep 1000");
    }

    #[test]
    fn columns_are_chosen_by_name() {
        for options in [&["-o", "pid,comm"][..], &["-opid,comm"], &["-eo", "pid comm"], &["-o", "pid", "-o", "comm"]] {
            assert_eq!(line(options, 0), ("PID COMMAND".to_owned(), "7 sleep".to_owned()), "{options:?}");
        }
        assert_eq!(line(&["o", "pid,args=WHAT, IT IS"], 0).0, "PID WHAT, IT IS");
        assert_eq!(line(&["-o", "etime,etimes,lstart"], 90_061).1, "1-01:01:01 90061 Sat Nov 21 02:44:55 2026");
        assert_eq!(line(&["-o", "stime"], 90_061).1, "Nov21");
        assert_eq!(line(&["-o", "stime"], 90_061 * 100).1, "2026");
    }

    #[test]
    fn the_rest_is_refused_by_name() {
        for (options, word) in [
            (&["-Z"][..], "-Z"),
            (&["--forest"], "--forest"),
            (&["-efH"], "-efH"),
            (&["-"], "\"-\""),
            (&["1"], "\"1\""),
            (&["-o", "label"], "\"label\""),
            (&["-o", "-uid"], "\"-uid\""),
            (&["-o"], "\"-o\""),
        ] {
            let options: Vec<String> = options.iter().map(|text| (*text).to_owned()).collect();
            let fault = columns(&options).err().map(|fault| fault.message).unwrap_or_default();
            assert!(fault.contains(word), "{fault}");
        }
    }
}
