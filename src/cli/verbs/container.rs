//! The verbs of one container's life.

use super::{Count, Verb, operand};
use crate::{
    command::{Attach, Command, Exec, Kill, Logs, Port, Remove, Rename, Start, Stop, Top},
    detach::DetachKeys,
    error::Fault,
    flags::{
        Flag,
        parse::{Operands, Parsed},
        values::parse_decimal,
    },
    run::{
        Caller, RunCommand, flags,
        ports::parse_private_port,
        process::{check_variable, environment},
    },
    units::{Moment, parse_moment},
};

const SEVERAL: &str = "CONTAINER [CONTAINER...]";
const SEVERAL_OPTIONS: &str = "[OPTIONS] CONTAINER [CONTAINER...]";

const fn detach_keys_flag() -> Flag {
    Flag::text("detach-keys", "Key sequence that detaches from the container")
}

fn detach_keys(parsed: &Parsed) -> Result<Option<DetachKeys>, Fault> {
    Ok(parsed.filled("detach-keys").map(|text| DetachKeys::parse(&text)).transpose()?)
}

pub(crate) static RUN: Verb = Verb {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    flags: &[flags::SHARED, flags::RUN_ONLY],
    operands: Operands::EndFlags,
    count: Count::AtLeast(1),
    read: |parsed, around| Ok(Command::Run(Box::new(RunCommand::read(parsed, around, Caller::Run)?))),
};

pub(crate) static CREATE: Verb = Verb {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    flags: &[flags::SHARED],
    operands: Operands::EndFlags,
    count: Count::AtLeast(1),
    read: |parsed, around| Ok(Command::Create(Box::new(RunCommand::read(parsed, around, Caller::Create)?))),
};

pub(crate) static START: Verb = Verb {
    usage: SEVERAL_OPTIONS,
    about: "Start one or more stopped containers",
    flags: &[&[
        Flag::switch("attach", "Show the output and pass signals on").short('a'),
        Flag::text("checkpoint", "Start from a checkpoint").hidden(),
        Flag::text("checkpoint-dir", "Where checkpoints are").hidden(),
        detach_keys_flag(),
        Flag::switch("interactive", "Pass the standard input on").short('i'),
    ]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        for flag in ["checkpoint", "checkpoint-dir"] {
            if !parsed.text(flag).is_empty() {
                return Err(format!("--{flag} is not supported: there are no checkpoints").into());
            }
        }
        let start = Start {
            containers: parsed.operands.clone(),
            attach: parsed.on("attach"),
            interactive: parsed.on("interactive"),
            detach_keys: detach_keys(parsed)?,
        };
        if start.containers.len() > 1 && (start.attach || start.interactive) {
            return Err(Fault::Plain("you cannot start and attach multiple containers at once".to_owned()));
        }
        Ok(Command::Start(start))
    },
};

static STOP_FLAGS: &[Flag] = &[
    Flag::text("signal", "Signal to send").short('s'),
    Flag::int("timeout", "Seconds to wait before killing, -1 for no limit").short('t'),
    Flag::int("time", "").stands_for("timeout").deprecated("use --timeout instead"),
];

fn read_stop(parsed: &Parsed) -> Stop {
    Stop { containers: parsed.operands.clone(), signal: parsed.filled("signal"), timeout: parsed.int("timeout") }
}

pub(crate) static STOP: Verb = Verb {
    usage: SEVERAL_OPTIONS,
    about: "Stop one or more running containers",
    flags: &[STOP_FLAGS],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| Ok(Command::Stop(read_stop(parsed))),
};

pub(crate) static RESTART: Verb = Verb {
    usage: SEVERAL_OPTIONS,
    about: "Restart one or more containers",
    flags: &[STOP_FLAGS],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| Ok(Command::Restart(read_stop(parsed))),
};

pub(crate) static KILL: Verb = Verb {
    usage: SEVERAL_OPTIONS,
    about: "Kill one or more running containers",
    flags: &[&[Flag::text("signal", "Signal to send").short('s')]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        let signal = parsed.filled("signal").unwrap_or_else(|| "KILL".to_owned());
        Ok(Command::Kill(Kill { containers: parsed.operands.clone(), signal }))
    },
};

pub(crate) static REMOVE: Verb = Verb {
    usage: SEVERAL_OPTIONS,
    about: "Remove one or more containers",
    flags: &[&[
        Flag::switch("force", "Kill those that run (SIGKILL) and remove them").short('f'),
        Flag::switch("link", "Remove a link").short('l'),
        Flag::switch("volumes", "Remove their anonymous volumes too").short('v'),
    ]],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        if parsed.on("link") {
            return Err("--link is not supported: there are no links between containers".to_owned().into());
        }
        Ok(Command::Remove(Remove {
            containers: parsed.operands.clone(),
            force: parsed.on("force"),
            volumes: parsed.on("volumes"),
        }))
    },
};

pub(crate) static EXEC: Verb = Verb {
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    flags: &[&[
        Flag::switch("detach", "Run the command in the background").short('d'),
        detach_keys_flag(),
        Flag::list("env", "Set environment variables").short('e').checked("list", check_variable),
        Flag::list("env-file", "Read environment variables from a file"),
        Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
        Flag::switch("privileged", "Give the command all privileges"),
        Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
        Flag::text("user", "User and group (<name|uid>[:<group|gid>])").short('u'),
        Flag::text("workdir", "Working directory inside the container").short('w'),
    ]],
    operands: Operands::EndFlags,
    count: Count::AtLeast(2),
    read: |parsed, around| {
        Ok(Command::Exec(Exec {
            container: operand(parsed, 0),
            command: parsed.operands.get(1..).unwrap_or_default().to_vec(),
            detach: parsed.on("detach"),
            detach_keys: detach_keys(parsed)?,
            env: environment(parsed, around).map_err(Fault::Plain)?,
            interactive: parsed.on("interactive"),
            tty: parsed.on("tty"),
            privileged: parsed.on("privileged"),
            user: parsed.filled("user"),
            working_dir: parsed.filled("workdir"),
        }))
    },
};

pub(crate) static ATTACH: Verb = Verb {
    usage: "[OPTIONS] CONTAINER",
    about: "Attach the terminal's streams to a running container",
    flags: &[&[
        detach_keys_flag(),
        Flag::switch("no-stdin", "Do not attach STDIN"),
        Flag::switch("sig-proxy", "Pass received signals to the process").default("true"),
    ]],
    operands: Operands::Mixed,
    count: Count::Exactly(1),
    read: |parsed, _| {
        Ok(Command::Attach(Attach {
            container: operand(parsed, 0),
            stdin: !parsed.on("no-stdin"),
            signal_proxy: parsed.switch("sig-proxy").unwrap_or(true),
            detach_keys: detach_keys(parsed)?,
        }))
    },
};

pub(crate) static LOGS: Verb = Verb {
    usage: "[OPTIONS] CONTAINER",
    about: "Show what a container wrote",
    flags: &[&[
        Flag::switch("details", "Show the labels and variables chosen with --log-opt"),
        Flag::switch("follow", "Go on as more is written").short('f'),
        Flag::text("since", "Not older than a time (2013-01-02T13:23:37Z) or a duration (42m)"),
        Flag::text("tail", "Number of lines from the end").short('n').default("\"all\""),
        Flag::switch("timestamps", "Show times").short('t'),
        Flag::text("until", "Not younger than a time (2013-01-02T13:23:37Z) or a duration (42m)"),
    ]],
    operands: Operands::Mixed,
    count: Count::Exactly(1),
    read: |parsed, _| {
        let now = Moment::now();
        let moment = |flag: &str| {
            let found = parsed.filled(flag).map(|text| parse_moment(&text, now)).transpose();
            found.map_err(|why| Fault::Plain(format!("invalid value for \"{flag}\": {why}")))
        };
        Ok(Command::Logs(Logs {
            container: operand(parsed, 0),
            follow: parsed.on("follow"),
            since: moment("since")?,
            until: moment("until")?,
            tail: parse_tail(parsed.text("tail"))?,
            timestamps: parsed.on("timestamps"),
            details: parsed.on("details"),
        }))
    },
};

/// A number of lines; `all` and negative numbers are no bound, as in Docker.
fn parse_tail(text: &str) -> Result<Option<u64>, Fault> {
    if text.is_empty() || text == "all" {
        return Ok(None);
    }
    let lines = parse_decimal(text).map_err(|_| {
        Fault::Plain(format!("invalid value for \"tail\": {text} is neither a number of lines nor \"all\""))
    })?;
    Ok(u64::try_from(lines).ok())
}

pub(crate) static WAIT: Verb = Verb {
    usage: SEVERAL,
    about: "Block until one or more containers stop, then print their exit codes",
    flags: &[],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| Ok(Command::Wait(parsed.operands.clone())),
};

pub(crate) static PORT: Verb = Verb {
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List the published ports of a container, or one of them",
    flags: &[],
    operands: Operands::Mixed,
    count: Count::Between(1, 2),
    read: |parsed, _| {
        let private_port = parsed.operands.get(1).map(|text| parse_private_port(text)).transpose();
        Ok(Command::Port(Port { container: operand(parsed, 0), private_port: private_port.map_err(Fault::Plain)? }))
    },
};

pub(crate) static RENAME: Verb = Verb {
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    flags: &[],
    operands: Operands::Mixed,
    count: Count::Exactly(2),
    read: |parsed, _| {
        let (container, name) = (operand(parsed, 0), operand(parsed, 1));
        if container.trim().is_empty() || name.trim().is_empty() {
            return Err(Fault::Plain("Error: Neither old nor new names may be empty".to_owned()));
        }
        Ok(Command::Rename(Rename { container, name }))
    },
};

pub(crate) static PAUSE: Verb = Verb {
    usage: SEVERAL,
    about: "Pause all processes within one or more containers",
    flags: &[],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| Ok(Command::Pause(parsed.operands.clone())),
};

pub(crate) static UNPAUSE: Verb = Verb {
    usage: SEVERAL,
    about: "Unpause all processes within one or more containers",
    flags: &[],
    operands: Operands::Mixed,
    count: Count::AtLeast(1),
    read: |parsed, _| Ok(Command::Unpause(parsed.operands.clone())),
};

pub(crate) static TOP: Verb = Verb {
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    flags: &[],
    operands: Operands::EndFlags,
    count: Count::AtLeast(1),
    read: |parsed, _| {
        let ps_options = parsed.operands.get(1..).unwrap_or_default().to_vec();
        Ok(Command::Top(Top { container: operand(parsed, 0), ps_options }))
    },
};
