//! libseccomp, asked through a small C program (`libseccomp.c`) that is built when the tests run.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::super::Instruction;
use super::super::action::Action;
use super::super::arch::Arch;
use super::super::rules::Rule;
use crate::plan::Seccomp;

/// A running copy of the program.
pub(super) struct Reference {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _directory: tempfile::TempDir,
}

impl Drop for Reference {
    fn drop(&mut self) {
        drop(self.commands.take());
        let status = self.child.wait().expect("wait for the reference");
        assert!(std::thread::panicking() || status.success(), "the reference ended with {status}");
    }
}

impl Reference {
    /// `None`, with the reason printed, where libseccomp cannot be had.
    pub(super) fn start() -> Option<Self> {
        if Arch::NATIVE != Arch::X86_64 {
            println!("SKIP: libseccomp is compared on x86_64 only");
            return None;
        }
        let directory = tempfile::tempdir().expect("make a directory");
        let program = directory.path().join("reference");
        let source = directory.path().join("libseccomp.c");
        std::fs::write(&source, include_str!("libseccomp.c")).expect("write the source");
        let built = Command::new("gcc").arg("-O1").arg("-o").arg(&program).arg(&source).arg("-lseccomp").output();
        match built {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                println!("SKIP: libseccomp cannot be asked: {}", String::from_utf8_lossy(&output.stderr));
                return None;
            }
            Err(error) => {
                println!("SKIP: libseccomp cannot be asked: gcc: {error}");
                return None;
            }
        }
        let mut child =
            Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the reference");
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("was asked for"));
        Some(Self { child, commands, answers, _directory: directory })
    }

    fn command(&mut self, line: &str) {
        let commands = self.commands.as_mut().expect("still open");
        commands.write_all(line.as_bytes()).and_then(|()| commands.flush()).expect("write to the reference");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("read from the reference");
        line.trim_end().to_owned()
    }

    /// `None` for a name that it does not know; negative where the architecture does not have it, or has it
    /// multiplexed.
    pub(super) fn number(&mut self, name: &str, arch: Arch) -> Option<i64> {
        self.command(&format!("number {} {name}\n", arch_name(arch)));
        self.line().parse().ok()
    }

    /// The program of a filter, as runc has libseccomp make it; or the errno with which it refuses.
    pub(super) fn compile(&mut self, filter: &Seccomp, native: Arch) -> Result<Vec<Instruction>, i32> {
        let mut commands = self.script(filter, native);
        commands.push_str("end\n");
        self.command(&commands);
        let line = self.line();
        match line.split_once(' ') {
            Some(("error", errno)) => Err(errno.parse().expect("an errno")),
            Some(("program", length)) => {
                let length: usize = length.parse().expect("a length");
                Ok((0..length).map(|_| instruction(&self.line())).collect())
            }
            _ => panic!("the reference says {line:?}"),
        }
    }

    fn script(&self, filter: &Seccomp, native: Arch) -> String {
        let default = Action::parse(&filter.default_action, filter.default_errno).expect("a good default");
        let mut script = format!("begin {:x}\n", default.0);
        let listed = filter.architectures.iter().filter_map(|name| Arch::parse(name).expect("a good architecture"));
        for arch in std::iter::once(native).chain(listed) {
            script.push_str(&format!("arch {}\n", arch_name(arch)));
        }
        // As runc asks for long filters. In short ones without it, libseccomp up to 2.5.4 forgets to load the number
        // where the first call of its list is one that the architecture does not have.
        script.push_str("optimize 2\n");
        for rule in &filter.rules {
            let action = Rule::parse(rule).expect("a good rule").action();
            if action == default {
                continue;
            }
            let conditions: Vec<String> = rule
                .args
                .iter()
                .map(|arg| {
                    let operator = arg.op.strip_prefix("SCMP_CMP_").expect("a good operator");
                    format!("{} {operator} {:x} {:x}", arg.index, arg.value, arg.value_two)
                })
                .collect();
            let mut indices: Vec<u32> = rule.args.iter().map(|arg| arg.index).collect();
            indices.sort_unstable();
            let twice = indices.windows(2).any(|pair| pair[0] == pair[1]);
            for name in &rule.names {
                if twice {
                    for condition in &conditions {
                        script.push_str(&format!("rule {:x} {name} 1 {condition}\n", action.0));
                    }
                } else {
                    let all = conditions.join(" ");
                    script.push_str(&format!("rule {:x} {name} {} {all}\n", action.0, conditions.len()));
                }
            }
        }
        script
    }
}

fn instruction(line: &str) -> Instruction {
    let mut fields = line.split(' ').map(|field| field.parse::<u32>().expect("a number"));
    let mut next = || fields.next().expect("four fields");
    Instruction { code: next() as u16, jt: next() as u8, jf: next() as u8, k: next() }
}

fn arch_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64",
        Arch::X86 => "x86",
        Arch::X32 => "x32",
        Arch::Aarch64 => "aarch64",
        Arch::Arm => "arm",
    }
}
