//! `doctor`: what this machine can do, for people and for scripts.

use std::fmt::Write;

use sbx_engine::{Check, Paths, Report, Verdict};

use super::{Fault, Outcome, print};
use crate::command::Doctor;
use crate::table::one_object;

/// Carries it out. The status is 0 where the mode that was asked about can be used, else 1.
pub(super) fn doctor(paths: &Paths, command: &Doctor) -> Outcome {
    let report = sbx_engine::doctor(paths);
    match command.format.as_deref() {
        None | Some("") => print(&text(&report))?,
        Some(format) => {
            let object = serde_json::to_value(&report).map_err(|error| Fault::plain(error.to_string()))?;
            print(&one_object(&object, format).map_err(|error| Fault::plain(error.to_string()))?)?
        }
    };
    let usable = if command.needs_vm { report.vm } else { report.process };
    Ok(i32::from(!usable))
}

fn text(report: &Report) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        line(&mut text, check, width);
    }
    for (mode, usable) in [("process", report.process), ("vm", report.vm)] {
        let answer = if usable { "can be used" } else { "cannot be used" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "--isolation={mode} {answer}");
    }
    text
}

fn line(text: &mut String, check: &Check, width: usize) {
    let verdict = match check.verdict {
        Verdict::Ok => "ok     ",
        Verdict::Limited => "limited",
        Verdict::Missing => "missing",
    };
    let _ = writeln!(text, "{verdict}  {:width$}  {}", check.name, check.found);
    if !check.advice.is_empty() {
        let _ = writeln!(text, "{:width$}           {}", "", check.advice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_advice() {
        let check = |name, verdict, advice: &str| Check {
            name,
            modes: &["vm"],
            verdict,
            found: "found".into(),
            advice: advice.into(),
        };
        let checks = vec![check("one", Verdict::Ok, ""), check("second", Verdict::Missing, "do this")];
        let shown = text(&Report { process: true, vm: false, checks });
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "ok       one     found");
        assert_eq!(lines[1], "missing  second  found");
        assert_eq!(lines[2].trim(), "do this");
        assert_eq!(lines[3..], ["--isolation=process can be used", "--isolation=vm cannot be used"]);
    }
}
