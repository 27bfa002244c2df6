//! Command lines that are wrong: the message and the exit status of the stock client.

use std::{ffi::OsString, path::PathBuf};

use sbx_cli::{Command, Surroundings, completion::Shell, parse_in};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recording {
    args: Vec<String>,
    status: u8,
    stderr: String,
}

/// Docker's words with our name, and without its slips (`SRun`, two ways to point to help).
fn ours(message: &str) -> String {
    let message = message
        .replace("Usage:  docker", "Usage:  sbx")
        .replace("\nSee 'docker", "\nRun 'sbx")
        .replace("\nSRun 'docker", "\nRun 'sbx")
        .replace("\nRun 'docker", "\nRun 'sbx")
        .replace("docker: 'docker", "sbx: 'sbx")
        .replace("docker: unknown command: docker", "sbx: unknown command: sbx")
        .replace("docker: ", "sbx: ");
    message.trim_end().to_owned()
}

fn read(args: &[&str]) -> Result<Command, sbx_cli::UsageError> {
    let around = Surroundings::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")), |_| None);
    parse_in(args.iter().map(OsString::from), &around).map(|invocation| invocation.command)
}

#[test]
fn wrong_lines_are_answered_as_by_the_stock_client() {
    let recordings: Vec<Recording> = serde_json::from_str(include_str!("usage_golden.json")).unwrap();
    let mut wrong = Vec::new();
    for recording in &recordings {
        let args: Vec<&str> = recording.args.iter().map(String::as_str).collect();
        let expected = (ours(&recording.stderr), recording.status);
        let found = read(&args).map_err(|error| (error.message, error.status));
        if found != Err(expected.clone()) {
            wrong.push(format!("{args:?}\n  expected {expected:?}\n     found {found:?}"));
        }
    }
    assert!(recordings.len() > 80);
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), recordings.len(), wrong.join("\n"));
}

#[test]
fn help_is_text_on_the_standard_output() {
    for line in
        ["", "--help", "help", "container", "container --help", "run --help", "help run", "ps -h", "help container ls"]
    {
        let args: Vec<&str> = line.split_whitespace().collect();
        match read(&args) {
            Ok(Command::Help(text)) => assert!(text.starts_with("Usage:  sbx "), "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    let Ok(Command::Help(text)) = read(&["run", "--help"]) else { panic!("no help") };
    assert!(text.contains("\n  -d, --detach  "), "{text}");
    assert!(text.contains("sbx container run, sbx run"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // `-h` is a host name there.
    assert!(matches!(read(&["run", "-h", "x", "image"]), Ok(Command::Run(_))));
}

#[test]
fn two_spellings_are_one_verb() {
    for (short, long) in [
        ("ps -a", "container ls -a"),
        ("ps -a", "container list -a"),
        ("images -q", "image ls -q"),
        ("rmi x", "image remove x"),
        ("rm -f x", "container rm -f x"),
        ("info", "system info"),
        ("top x -o pid", "container top x -o pid"),
    ] {
        let read = |line: &str| read(&line.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(read(short), read(long));
    }
}

#[test]
fn what_nobody_enforces_is_refused_by_name() {
    for (line, flag, status) in [
        ("start --checkpoint x y", "--checkpoint is not supported: ", 125),
        ("rm --link x", "--link is not supported: ", 125),
        ("images --tree", "--tree is not supported: ", 125),
        // Docker's client passes any driver on, and its daemon does not find it: status 1.
        ("volume create -d nfs", "--driver nfs is not supported: ", 1),
        ("volume create --scope multi", "--scope is not supported: ", 125),
        ("volume ls --cluster", "--cluster is not supported: ", 125),
        ("pull --disable-content-trust=false x", "--disable-content-trust=false is not supported: ", 125),
        ("run --volume-driver x y", "--volume-driver is not supported: ", 125),
    ] {
        let error = read(&line.split(' ').collect::<Vec<_>>()).unwrap_err();
        assert!(error.message.contains(flag) && error.status == status, "{line}: {error:?}");
    }
}

#[test]
fn global_flags_stand_before_the_verb() {
    let around = Surroundings::new(PathBuf::from("/"), |_| None);
    let words = ["--root", "/r", "-D", "--run=/x", "ps", "-a"].map(OsString::from);
    let invocation = parse_in(words, &around).unwrap();
    assert_eq!(invocation.globals.root, PathBuf::from("/r"));
    assert_eq!(invocation.globals.run, PathBuf::from("/x"));
    assert_eq!(invocation.globals.config, PathBuf::from("/etc/sbx/config.toml"));
    assert!(invocation.globals.debug);
    assert!(matches!(read(&["-v", "whatever"]), Ok(Command::ProgramVersion)));
}

#[test]
fn completion_scripts_name_every_verb() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = shell.script();
        for word in ["rename", "unpause", "--memory-swap", "volume", "prune"] {
            assert!(script.contains(word) || script.contains(word.trim_start_matches('-')), "{shell:?}: {word}");
        }
    }
    assert!(matches!(read(&["completion", "zsh"]), Ok(Command::Completion(Shell::Zsh))));
    assert!(read(&["completion", "tcsh"]).is_err());
}

/// What bash offers at a place of the line.
fn offered(words: &[&str]) -> Vec<String> {
    let script = format!(
        "{}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_sbx\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        Shell::Bash.script(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1
    );
    let output = std::process::Command::new("bash").args(["--norc", "-c", &script]).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

#[test]
fn bash_completes_verbs_groups_and_flags() {
    assert_eq!(offered(&["sbx", "rest"]), ["restart"]);
    assert_eq!(offered(&["sbx", "vol"]), ["volume"]);
    assert_eq!(offered(&["sbx", "volume", "cr"]), ["create"]);
    assert_eq!(offered(&["sbx", "run", "--memory-sw"]), ["--memory-swap", "--memory-swappiness"]);
    assert_eq!(offered(&["sbx", "--root", "/x", "container", "ls", "--no"]), ["--no-trunc"]);
    assert!(offered(&["sbx", "run", "ima"]).is_empty());
}
