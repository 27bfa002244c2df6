//! Signals by name or number, as `--stop-signal` and `kill` take them.

/// Names without `SIG` and their numbers on Linux (signal(7)), the same on every architecture that we run on.
const SIGNALS: [(&str, i32); 35] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("RTMIN", 34),
];
const FIRST_REALTIME: i32 = 34;
const LAST_REALTIME: i32 = 64;

/// A text that is no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct InvalidSignal(pub String);

/// The number of a signal given as `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3` or `RTMAX-2`.
pub fn parse(text: &str) -> Result<i32, InvalidSignal> {
    read(text).ok_or_else(|| InvalidSignal(text.to_owned()))
}

fn read(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=LAST_REALTIME).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let number = match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => FIRST_REALTIME + small(offset)?,
        (None, Some("")) => LAST_REALTIME,
        (None, Some(offset)) => LAST_REALTIME - small(offset.strip_prefix('-')?)?,
        (None, None) => return None,
    };
    (FIRST_REALTIME..=LAST_REALTIME).contains(&number).then_some(number)
}

fn small(text: &str) -> Option<i32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u8>().ok()).flatten().map(i32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_known() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("KILL", 9),
            ("SIGUSR1", 10),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX", 64),
            ("RTMAX-2", 62),
            ("SIGWINCH", 28),
            ("64", 64),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            "0",
            "-1",
            "65",
            "SIG",
            "FOO",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMAX-40",
            "RTMAX+1",
            "RTMIN+",
            "99999999999",
        ] {
            assert_eq!(parse(text), Err(InvalidSignal(text.into())), "{text}");
        }
    }
}
