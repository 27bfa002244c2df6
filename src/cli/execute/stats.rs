//! `stats`: what containers use.
//!
//! The share of the processor is that between two samples, so the first picture of a stream shows none, and a single
//! picture takes two samples a second apart, as Docker does.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use sbx_engine::{Engine, ErrorKind};
use sbx_protocol::StatsSample;
use sbx_sandbox::id::Id;

use super::{Fault, Outcome, print};
use crate::command::Stats;
use crate::rows::{STATS, StatsRow, Usage};
use crate::table::{Style, render};

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The terminal's cursor goes to the first place (ECMA-48, CUP).
const HOME: &str = "\x1b[H";
/// The rest of the line is cleared (EL).
const CLEAR_LINE: &str = "\x1b[K";
/// The rest of the screen is cleared (ED).
const CLEAR_REST: &str = "\x1b[J";

/// `stats`.
pub(super) fn stats(engine: &Engine, command: &Stats) -> Outcome {
    let mut picture = Picture { engine, command, before: BTreeMap::new() };
    // Names that are not there are told before anything is shown.
    for name in &command.containers {
        engine.find(name)?;
    }
    picture.rows()?;
    if command.no_stream {
        std::thread::sleep(INTERVAL);
        return print(&picture.text()?);
    }
    let screen = std::io::stdout().is_terminal();
    if screen {
        print_now(&format!("{HOME}\x1b[2J"))?;
    }
    loop {
        let text = picture.text()?;
        if screen {
            print_now(&format!("{HOME}{}{CLEAR_REST}", text.replace('\n', &format!("{CLEAR_LINE}\n"))))?;
        } else {
            print_now(&text)?;
        }
        std::thread::sleep(INTERVAL);
        if !command.containers.is_empty() && picture.before.is_empty() {
            return Ok(0);
        }
    }
}

fn print_now(text: &str) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

struct Picture<'a> {
    engine: &'a Engine,
    command: &'a Stats,
    /// The last sample of each container that was there; `None` where it did not run.
    before: BTreeMap<Id, Option<StatsSample>>,
}

impl Picture<'_> {
    fn text(&mut self) -> Result<String, Fault> {
        let rows = self.rows()?;
        let style = Style { truncate: !self.command.no_trunc, human: true, now: 0 };
        let text = render(&STATS, &rows, self.command.format.as_deref(), style);
        text.map_err(|error| Fault::plain(error.to_string()))
    }

    /// What is used now, and keeps the samples for the next time.
    fn rows(&mut self) -> Result<Vec<StatsRow>, Fault> {
        let mut rows = Vec::new();
        let mut samples = BTreeMap::new();
        for (shown_as, id, name) in self.containers()? {
            let sample = match self.engine.stats(&id) {
                Ok(sample) => sample,
                Err(error) if error.kind == ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let before = self.before.get(&id).and_then(Option::as_ref);
            let usage = sample.as_ref().map_or_else(Usage::default, |sample| usage(sample, before));
            rows.push(StatsRow { container: shown_as, id: id.to_string(), name, usage: Some(usage) });
            samples.insert(id, sample);
        }
        self.before = samples;
        Ok(rows)
    }

    /// As they are shown, their ids, their names.
    fn containers(&self) -> Result<Vec<(String, Id, String)>, Fault> {
        if self.command.containers.is_empty() {
            let listed = self.engine.list()?.into_iter();
            let chosen = listed.filter(|one| self.command.all || one.state.status.is_active());
            return Ok(chosen.map(|one| (one.spec.id.to_string(), one.spec.id, one.spec.name)).collect());
        }
        let mut chosen = Vec::new();
        for name in &self.command.containers {
            match self.engine.find(name).and_then(|id| self.engine.spec(&id)) {
                Ok(spec) => chosen.push((name.clone(), spec.id, spec.name)),
                // Removed since.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(chosen)
    }
}

fn usage(sample: &StatsSample, before: Option<&StatsSample>) -> Usage {
    Usage {
        cpu_percent: before.map_or(0.0, |before| cpu_percent(before, sample)),
        memory: sample.memory_used,
        memory_limit: sample.memory_limit,
        network_in: sample.networks.values().map(|network| network.rx_bytes).sum(),
        network_out: sample.networks.values().map(|network| network.tx_bytes).sum(),
        block_in: sample.block.iter().map(|device| device.read_bytes).sum(),
        block_out: sample.block.iter().map(|device| device.write_bytes).sum(),
        pids: sample.pids,
    }
}

/// Percent of one processor: the container's share of the machine's time, times its processors.
fn cpu_percent(before: &StatsSample, after: &StatsSample) -> f64 {
    // A container that was started anew counts from zero.
    let own = after.cpu_total.saturating_sub(before.cpu_total) as f64;
    let machine = after.machine_cpu.saturating_sub(before.machine_cpu) as f64;
    if machine == 0.0 { 0.0 } else { own / machine * f64::from(after.online_cpus) * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_one_processor() {
        let sample =
            |cpu_total, machine_cpu| StatsSample { cpu_total, machine_cpu, online_cpus: 4, ..StatsSample::default() };
        let (before, after) = (sample(1_000, 10_000), sample(1_500, 12_000));
        assert!((cpu_percent(&before, &after) - 100.0).abs() < 1e-9);
        assert_eq!(cpu_percent(&after, &after), 0.0);
        assert_eq!(cpu_percent(&after, &sample(10, 20_000)), 0.0, "it was started anew");
        assert_eq!(usage(&after, None).cpu_percent, 0.0);
    }

    #[test]
    fn interfaces_and_devices_add_up() {
        let network = |rx_bytes| sbx_protocol::NetworkUsage { rx_bytes, tx_bytes: 1, ..Default::default() };
        let device = |read_bytes| sbx_protocol::BlockUsage { read_bytes, write_bytes: 2, ..Default::default() };
        let sample = StatsSample {
            networks: [("eth0".to_owned(), network(10)), ("eth1".to_owned(), network(5))].into(),
            block: vec![device(7), device(8)],
            pids: 3,
            ..StatsSample::default()
        };
        let usage = usage(&sample, None);
        assert_eq!((usage.network_in, usage.network_out, usage.block_in, usage.block_out), (15, 2, 15, 4));
    }
}
