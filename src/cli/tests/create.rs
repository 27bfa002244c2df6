//! `create` and `run`: the request for the engine, or the message, of every recorded command line.

use std::{ffi::OsString, path::PathBuf};

use sbx_cli::{Command, RunCommand, Surroundings, UsageError, parse_in};
use sbx_sandbox::{
    config::{Config, EndpointConfig, NetworkingConfig},
    host_config::HostConfig,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Recording {
    args: Vec<String>,
    #[serde(default)]
    query: String,
    body: Option<Value>,
    changes: Option<Value>,
    #[serde(default)]
    status: u8,
    #[serde(default)]
    stderr: String,
}

/// How a line of flags is answered where the stock client does something else: a part of our message, or a request.
enum Own {
    Refuses(&'static str),
    Accepts,
}

/// Words that a command line has, our answer, and there is a reason for each.
const OWN: &[(&str, Own)] = &[
    // The image's name and the id file are looked at when they are used.
    ("--pull always", Own::Accepts),
    ("create  ", Own::Accepts),
    ("create Alpine", Own::Accepts),
    ("create alpine:b@d", Own::Accepts),
    ("create a@sha256:1234", Own::Accepts),
    ("create a:b:c", Own::Accepts),
    ("create - x", Own::Accepts),
    ("--cidfile", Own::Accepts),
    // A name alone in a file of labels is a label, as on the command line; Docker drops it.
    ("--label-file tests/fixtures/labels", Own::Accepts),
    // Nobody would enforce these: "no silent drop".
    ("--link a:b", Own::Refuses("--link is not supported: ")),
    ("--kernel-memory", Own::Refuses("--kernel-memory is not supported: ")),
    ("--cpu-count", Own::Refuses("--cpu-count is not supported: ")),
    ("--cpu-percent", Own::Refuses("--cpu-percent is not supported: ")),
    ("--io-maxbandwidth", Own::Refuses("--io-maxbandwidth is not supported: ")),
    ("--io-maxiops", Own::Refuses("--io-maxiops is not supported: ")),
    ("--device vendor.com/class=name", Own::Refuses("--device vendor.com/class=name is not supported: ")),
    ("--gpus", Own::Refuses("--gpus is not supported: ")),
    ("--runtime", Own::Refuses("--runtime is not supported: ")),
    ("--use-api-socket", Own::Refuses("--use-api-socket is not supported: ")),
    ("--disable-content-trust=false", Own::Refuses("--disable-content-trust=false is not supported: ")),
    ("-p target=80,nope=1", Own::Refuses("invalid field key nope")),
    ("gw-priority=5", Own::Refuses("gw-priority is not supported: ")),
    // A user namespace for one container alone: Docker remaps a whole daemon or nothing.
    ("--userns private", Own::Accepts),
    // Docker wraps around.
    ("--cpus 1000000000000", Own::Refuses("value 1000000000000 is too large")),
    // The reason is the words of another JSON parser.
    ("seccomp=tests/fixtures/env1", Own::Refuses("compacting json for seccomp profile (tests/fixtures/env1) failed: ")),
    // What Docker's daemon refuses is refused here already.
    ("--oom-score-adj 2000", Own::Refuses("Invalid value 2000, range for oom score adj is [-1000, 1000]")),
    ("-v b ", Own::Refuses("mount path must be absolute")),
    ("-v rel/x:/b", Own::Refuses("\"rel/x\" includes invalid characters for a local volume name")),
    ("-v ~:/b", Own::Refuses("includes invalid characters for a local volume name")),
    ("-v ~/x:/b", Own::Refuses("includes invalid characters for a local volume name")),
    ("-v a:b ", Own::Refuses("mount path must be absolute")),
    ("-v a:b:c:d", Own::Refuses("invalid volume specification: 'a:b:c:d'")),
    ("-v / ", Own::Refuses("destination can't be '/'")),
    ("-v /a:/ ", Own::Refuses("destination can't be '/'")),
    ("-v a:/ ", Own::Refuses("destination can't be '/'")),
    ("-v /a:/b:nope", Own::Refuses("invalid mode: nope")),
    ("-v /a:/b:ro,rw", Own::Refuses("invalid mode: ro,rw")),
    ("-v x:/b:volume-nocopy", Own::Refuses("volume name is too short")),
    ("-v c:\\x:/b", Own::Refuses("mount path must be absolute")),
    ("-v a:/b:ro:rw", Own::Refuses("invalid volume specification: 'a:/b:ro:rw'")),
    ("--tmpfs run", Own::Refuses("mount path must be absolute")),
    ("--tmpfs  ", Own::Refuses("mount path must be absolute")),
    ("--expose 80/nope", Own::Refuses("invalid proto: nope")),
];

fn recordings() -> Vec<Recording> {
    let here = directory().display().to_string();
    let above = directory().parent().unwrap().display().to_string();
    let text = include_str!("create_golden.json").replace("@CWD@", &here).replace("@PARENT@", &above);
    let mut recordings: Vec<Recording> = serde_json::from_str(&text).unwrap();
    let plain = recordings[0].body.clone().unwrap();
    for recording in &mut recordings {
        let Some(changes) = recording.changes.take() else {
            continue;
        };
        let mut body = plain.clone();
        apply(&mut body, &changes);
        recording.body = Some(body);
    }
    recordings
}

fn apply(body: &mut Value, changes: &Value) {
    for (key, value) in changes.as_object().unwrap() {
        match (key.as_str(), value) {
            ("HostConfig", value) => apply(&mut body["HostConfig"], value),
            (key, Value::Null) => drop(body.as_object_mut().unwrap().remove(key)),
            (key, value) => body[key] = value.clone(),
        }
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(args: &[String]) -> Result<RunCommand, UsageError> {
    let around = Surroundings::new(directory(), |name| match name {
        "SBX_TEST_SET" => Some(OsString::from("from environment")),
        "SBX_TEST_EMPTY" => Some(OsString::new()),
        _ => None,
    });
    match parse_in(args.iter().map(OsString::from), &around)?.command {
        Command::Run(command) | Command::Create(command) => Ok(*command),
        // `--h…` cut short of `--hostname` is `--help`.
        Command::Help(text) => Err(UsageError { message: text, status: 1 }),
        other => panic!("{args:?} is no run: {other:?}"),
    }
}

fn own_answer(args: &[String]) -> Option<&'static Own> {
    let line = format!("{} ", args.join(" "));
    OWN.iter().find(|(part, _)| line.contains(part)).map(|(_, answer)| answer)
}

#[test]
fn own_answers_are_given_and_say_why() {
    let mut used = 0;
    for recording in recordings() {
        let Some(own) = own_answer(&recording.args) else {
            continue;
        };
        used += 1;
        match (own, read(&recording.args)) {
            (Own::Accepts, Ok(_)) => {}
            (Own::Refuses(part), Err(error)) if error.message.contains(part) && error.status == 125 => {}
            (_, found) => panic!("{:?}: {found:?}", recording.args),
        }
    }
    assert!(used >= OWN.len(), "some of the {} cases are not recorded; {used} are", OWN.len());
}

/// Docker's words with our name.
fn ours(message: &str) -> String {
    let message = message
        .replace("Usage:  docker ", "Usage:  sbx ")
        .replace("Run 'docker ", "Run 'sbx ")
        .replace("See 'docker ", "Run 'sbx ")
        .replace("docker: ", "sbx: ")
        .replace("'docker run'", "'sbx run'")
        .replace("'docker create'", "'sbx create'");
    message.trim_end().to_owned()
}

struct Request {
    config: Config,
    host_config: HostConfig,
    networking: NetworkingConfig,
}

fn recorded(body: &Value) -> Request {
    let mut request = Request {
        config: serde_json::from_value(body.clone()).unwrap(),
        host_config: serde_json::from_value(body["HostConfig"].clone()).unwrap(),
        networking: serde_json::from_value(body["NetworkingConfig"].clone()).unwrap(),
    };
    // Docker keeps variables in a map, in any order.
    request.config.env.sort();
    // -1 is the default, said by a number.
    request.host_config.memory_swappiness = request.host_config.memory_swappiness.filter(|value| *value >= 0);
    // One network with nothing asked of it is said by the mode.
    let endpoints = &mut request.networking.endpoints_config;
    if endpoints.len() == 1 {
        endpoints.retain(|_, endpoint| *endpoint != EndpointConfig::default());
    }
    request
}

#[test]
fn requests_and_messages_are_those_of_the_stock_client() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for recording in recordings() {
        if own_answer(&recording.args).is_some() {
            continue;
        }
        compared += 1;
        let found = read(&recording.args);
        let fault = match (&recording.body, found) {
            (Some(body), Ok(command)) => compare(body, &recording.query, command),
            (None, Err(error)) => {
                let expected = (ours(&recording.stderr), recording.status);
                (expected != (error.message.clone(), error.status))
                    .then(|| format!("expected {expected:?}\n   found {error:?}"))
            }
            (Some(_), Err(error)) => Some(format!("expected a request, found {error:?}")),
            (None, Ok(_)) => Some(format!("expected {:?}, found a request", recording.stderr)),
        };
        wrong.extend(fault.map(|fault| format!("{:?}\n  {fault}", recording.args)));
    }
    assert!(compared > 520, "only {compared} recordings");
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn compare(body: &Value, query: &str, command: RunCommand) -> Option<String> {
    let expected = recorded(body);
    let mut request = command.request;
    request.config.env.sort();
    let mut faults = Vec::new();
    if request.config != expected.config {
        faults.push(format!("expected {:?}\n   found {:?}", expected.config, request.config));
    }
    if request.host_config != expected.host_config {
        faults.push(format!("expected {:?}\n   found {:?}", expected.host_config, request.host_config));
    }
    if request.networking != expected.networking {
        faults.push(format!("expected {:?}\n   found {:?}", expected.networking, request.networking));
    }
    let mut wanted = Vec::new();
    if !request.name.is_empty() {
        wanted.push(format!("name={}", request.name));
    }
    if !request.platform.is_empty() {
        wanted.push(format!("platform={}", request.platform.replace('/', "%2F")));
    }
    if wanted.join("&") != query {
        faults.push(format!("expected query {query}, found {wanted:?}"));
    }
    (!faults.is_empty()).then(|| faults.join("\n  "))
}

/// Recorded words without their ends, and with a letter more: whatever comes of it, nothing panics.
#[test]
fn broken_words_are_faults() {
    let (mut accepted, mut refused) = (0, 0);
    for recording in recordings() {
        for (index, word) in recording.args.iter().enumerate().skip(1) {
            for (at, _) in word.char_indices().step_by(4) {
                for broken in [word[..at].to_owned(), format!("{}\u{e9}{}", &word[..at], &word[at..])] {
                    let mut args = recording.args.clone();
                    args[index] = broken;
                    match read(&args) {
                        Ok(_) => accepted += 1,
                        Err(error) => {
                            assert!(!error.message.is_empty() && [1, 125].contains(&error.status));
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} {refused}");
}
