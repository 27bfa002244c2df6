//! What a pull shows: bars on a terminal, Docker's plain lines off it, the name alone when quiet.
//!
//! ```text
//!   latest: Pulling from library/alpine
//!   aaaaaaaaaaaa: Pulling fs layer → Downloading [==>  ] → Verifying Checksum → Download complete
//!                                  → Extracting  [==>  ] → Pull complete
//!   Digest: sha256:…
//!   Status: Downloaded newer image for alpine:latest
//!   docker.io/library/alpine:latest
//! ```
//! Off a terminal the two with bars are left out. Layers report from several threads; lines do not mix.

use std::{collections::HashMap, io::Write, sync::Mutex};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::units::human_size;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A line for each layer that changes in place; only on a terminal.
    Bars,
    /// A line for each change.
    Lines,
    /// The name of the image at the end.
    Quiet,
}

/// What happened to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStep {
    /// It is here already.
    Exists,
    /// It will be fetched.
    Found,
    /// It waits for others.
    Waiting,
    /// Bytes that are here, of all.
    Downloading(u64, u64),
    /// The transfer broke off and begins again in this many seconds.
    Retrying(u64),
    /// All bytes are here; their digest is computed.
    Verifying,
    /// It is what was asked for.
    Downloaded,
    /// Bytes that are converted, of all.
    Extracting(u64, u64),
    /// It is ready for use.
    Complete,
}

impl LayerStep {
    fn words(self) -> String {
        match self {
            LayerStep::Exists => "Already exists".to_owned(),
            LayerStep::Found => "Pulling fs layer".to_owned(),
            LayerStep::Waiting => "Waiting".to_owned(),
            LayerStep::Downloading(..) => "Downloading".to_owned(),
            LayerStep::Retrying(1) => "Retrying in 1 second".to_owned(),
            LayerStep::Retrying(seconds) => format!("Retrying in {seconds} seconds"),
            LayerStep::Verifying => "Verifying Checksum".to_owned(),
            LayerStep::Downloaded => "Download complete".to_owned(),
            LayerStep::Extracting(..) => "Extracting".to_owned(),
            LayerStep::Complete => "Pull complete".to_owned(),
        }
    }

    const fn bytes(self) -> Option<(u64, u64)> {
        match self {
            LayerStep::Downloading(now, all) | LayerStep::Extracting(now, all) => Some((now, all)),
            _ => None,
        }
    }
}

/// The end of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// As the user wrote it, with the tag that was meant: `alpine:latest`.
    pub familiar: String,
    /// In full: `docker.io/library/alpine:latest`.
    pub canonical: String,
    /// Of the manifest, `sha256:…`.
    pub digest: String,
    /// It was here already, and is the same.
    pub up_to_date: bool,
    /// What is odd about it: a line of its own.
    pub warning: Option<String>,
}

/// Shows one pull.
pub struct PullProgress<W: Write> {
    mode: Mode,
    state: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    bars: MultiProgress,
    layers: HashMap<String, Layer>,
}

struct Layer {
    bar: ProgressBar,
    said: String,
}

impl<W: Write> PullProgress<W> {
    /// Writes to `out`; bars go to the terminal on the standard error.
    pub fn new(mode: Mode, out: W) -> Self {
        let target = if mode == Mode::Bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let state = State { out, bars: MultiProgress::with_draw_target(target), layers: HashMap::new() };
        Self { mode, state: Mutex::new(state) }
    }

    /// The first line: what is pulled from which repository.
    ///
    /// # Errors
    /// The output is closed.
    pub fn begin(&self, tag_or_digest: &str, repository: &str) -> std::io::Result<()> {
        self.line(&format!("{tag_or_digest}: Pulling from {repository}"))
    }

    /// Something happened to a layer.
    ///
    /// # Errors
    /// The output is closed.
    pub fn layer(&self, digest: &str, step: LayerStep) -> std::io::Result<()> {
        let id: String = digest.rsplit(':').next().unwrap_or(digest).chars().take(12).collect();
        let words = step.words();
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match self.mode {
            Mode::Quiet => Ok(()),
            Mode::Lines => {
                let known = state.layers.get(&id).is_some_and(|layer| layer.said == words);
                if known || step.bytes().is_some() {
                    return Ok(());
                }
                state.layers.insert(id.clone(), Layer { bar: ProgressBar::hidden(), said: words.clone() });
                writeln!(state.out, "{id}: {words}")
            }
            Mode::Bars => {
                state.draw(id, words, step);
                Ok(())
            }
        }
    }

    /// The last lines.
    ///
    /// # Errors
    /// The output is closed.
    pub fn end(&self, pulled: &Pulled) -> std::io::Result<()> {
        let status = if pulled.up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
        self.line(&format!("Digest: {}", pulled.digest))?;
        self.line(&format!("Status: {status} {}", pulled.familiar))?;
        if let Some(warning) = &pulled.warning {
            self.line(&format!("WARNING: {warning}"))?;
        }
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(state.out, "{}", pulled.canonical)
    }

    /// A line above the bars.
    fn line(&self, text: &str) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.mode == Mode::Quiet {
            return Ok(());
        }
        let State { out, bars, .. } = &mut *state;
        bars.suspend(|| writeln!(out, "{text}"))
    }
}

impl<W> State<W> {
    fn draw(&mut self, id: String, words: String, step: LayerStep) {
        let bars = &self.bars;
        let layer = self.layers.entry(id.clone()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(0));
            bar.set_prefix(id);
            Layer { bar, said: String::new() }
        });
        if layer.said != words {
            layer.bar.set_style(if step.bytes().is_some() { bar_style() } else { word_style() });
            layer.bar.set_message(words.clone());
            layer.said = words;
        }
        if let Some((now, all)) = step.bytes() {
            layer.bar.set_length(all);
            layer.bar.set_position(now);
        }
        match step {
            // The line stays with its last words.
            LayerStep::Exists | LayerStep::Complete => layer.bar.abandon(),
            _ => layer.bar.tick(),
        }
    }
}

fn bar_style() -> ProgressStyle {
    let sizes = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let all = state.len().unwrap_or(0);
        // The only fault is one of the writer, which is a String.
        let _ = write!(out, "{}/{}", human_size(state.pos()), human_size(all));
    };
    match ProgressStyle::with_template("{prefix}: {msg} [{bar:50}] {sizes}") {
        Ok(style) => style.with_key("sizes", sizes).progress_chars("=> "),
        Err(_) => ProgressStyle::default_bar(),
    }
}

fn word_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(mode: Mode) -> String {
        let mut out = Vec::new();
        {
            let progress = PullProgress::new(mode, &mut out);
            progress.begin("latest", "library/alpine").unwrap();
            let layer = "sha256:0123456789abcdef0123";
            for step in [
                LayerStep::Found,
                LayerStep::Downloading(1, 10),
                LayerStep::Downloading(10, 10),
                LayerStep::Verifying,
                LayerStep::Downloaded,
                LayerStep::Downloaded,
                LayerStep::Extracting(5, 10),
                LayerStep::Complete,
            ] {
                progress.layer(layer, step).unwrap();
            }
            progress.layer("sha256:fedcba9876543210", LayerStep::Exists).unwrap();
            let pulled = Pulled {
                familiar: "alpine:latest".to_owned(),
                canonical: "docker.io/library/alpine:latest".to_owned(),
                digest: "sha256:aa".to_owned(),
                up_to_date: false,
                warning: None,
            };
            progress.end(&pulled).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_those_of_docker() {
        let expected = "latest: Pulling from library/alpine\n\
            0123456789ab: Pulling fs layer\n\
            0123456789ab: Verifying Checksum\n\
            0123456789ab: Download complete\n\
            0123456789ab: Pull complete\n\
            fedcba987654: Already exists\n\
            Digest: sha256:aa\n\
            Status: Downloaded newer image for alpine:latest\n\
            docker.io/library/alpine:latest\n";
        assert_eq!(pull(Mode::Lines), expected);
    }

    #[test]
    fn quiet_says_the_name() {
        assert_eq!(pull(Mode::Quiet), "docker.io/library/alpine:latest\n");
    }

    #[test]
    fn bars_have_sizes() {
        use indicatif::InMemoryTerm;
        let terminal = InMemoryTerm::new(10, 120);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let bars = MultiProgress::with_draw_target(target);
        let mut state = State { out: Vec::<u8>::new(), bars, layers: HashMap::new() };
        state.draw("0123456789ab".to_owned(), "Downloading".to_owned(), LayerStep::Downloading(1_500_000, 3_000_000));
        state.layers["0123456789ab"].bar.force_draw();
        let shown = terminal.contents();
        assert!(shown.starts_with("0123456789ab: Downloading [==="), "{shown}");
        assert!(shown.contains("=> ") && shown.ends_with("] 1.5MB/3MB"), "{shown}");
    }
}
