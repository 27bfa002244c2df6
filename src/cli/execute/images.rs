//! Verbs that bring images in: `pull`, `load`.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};

use sbx_engine::Engine;
use sbx_image::{Event, Image, LayerState, LoadOptions, Platform, Progress, PulledImage, Reference, Silent};

use super::{Fault, Outcome, print, tell};
use crate::command::{Load, Pull};
use crate::progress::{LayerStep, Mode, PullProgress, Pulled};

/// Events of a pull, shown.
struct Shown<W: Write> {
    progress: PullProgress<W>,
}

impl<W: Write + Send> Progress for Shown<W> {
    fn event(&self, event: Event<'_>) {
        // A closed output cannot be told about, and the pull goes on.
        let _ = match event {
            Event::Pulling { tag, repository } => self.progress.begin(tag, repository),
            Event::MirrorFailed { host, problem } => {
                tell(&format!("WARNING: mirror {host}: {problem}"));
                Ok(())
            }
            Event::Layer { blob, state } => self.progress.layer(&blob.to_string(), step(state)),
        };
    }
}

fn step(state: LayerState<'_>) -> LayerStep {
    match state {
        LayerState::PullingFsLayer => LayerStep::Found,
        LayerState::Waiting => LayerStep::Waiting,
        LayerState::Downloading { done, total } => LayerStep::Downloading(done, total),
        LayerState::Retrying { seconds, .. } => LayerStep::Retrying(seconds),
        LayerState::Verifying => LayerStep::Verifying,
        LayerState::DownloadComplete => LayerStep::Downloaded,
        LayerState::Extracting { done, total } => LayerStep::Extracting(done, total),
        LayerState::PullComplete => LayerStep::Complete,
        LayerState::AlreadyExists => LayerStep::Exists,
    }
}

pub(super) fn platform(text: &str) -> Result<Option<Platform>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| Fault::plain(format!("{error}")))
}

/// Whether an image is of the platform that was asked for; empty asks for none.
pub(super) fn check_platform(image: &Image, wanted: &str, name: &str) -> Result<(), Fault> {
    let mismatch = platform(wanted)?.and_then(|wanted| mismatch(image, &wanted, name));
    mismatch.map_or(Ok(()), |message| Err(Fault::plain(message)))
}

/// In Docker's words, that an image is not of the platform that was asked for by name.
pub(super) fn mismatch(image: &Image, wanted: &Platform, name: &str) -> Option<String> {
    let own = image.config.platform();
    (!wanted.is_served_by(&own)).then(|| {
        format!(
            "image with reference {name} was found but its platform ({own}) does not match the specified platform \
             ({wanted})"
        )
    })
}

pub(super) fn reference(text: &str) -> Result<Reference, Fault> {
    Reference::parse(text).map_err(|error| Fault::plain(error.to_string()))
}

/// Pulls and shows it on `out`.
fn pull_shown(
    engine: &Engine,
    reference: Reference,
    platform: Option<Platform>,
    mode: Mode,
    out: impl Write + Send,
) -> Result<PulledImage, Fault> {
    let shown = Shown { progress: PullProgress::new(mode, out) };
    let pulled = engine.pull(reference.clone(), platform.clone(), &shown)?;
    shown.progress.end(&Pulled {
        // An image that exists for one platform only is brought all the same, as Docker does; `run` will not take it.
        warning: platform.and_then(|wanted| mismatch(&pulled.image, &wanted, &reference.familiar())),
        familiar: reference.familiar(),
        canonical: reference.to_string(),
        digest: pulled.digest.to_string(),
        up_to_date: !pulled.newer,
    })?;
    Ok(pulled)
}

/// The pull of `run`: everything goes to the standard error, which the container's output must not be mixed with.
pub(super) fn pull_for_run(
    engine: &Engine,
    reference: Reference,
    platform: Option<Platform>,
    quiet: bool,
) -> Result<Image, Fault> {
    if quiet {
        return Ok(engine.pull(reference, platform, &Silent)?.image);
    }
    let mode = if io::stderr().is_terminal() { Mode::Bars } else { Mode::Lines };
    Ok(pull_shown(engine, reference, platform, mode, io::stderr())?.image)
}

/// `pull`.
pub(super) fn pull(engine: &Engine, command: &Pull) -> Outcome {
    if command.all_tags {
        return Err(Fault::plain("--all-tags is not supported: pull the tags that you need by name"));
    }
    let reference = reference(&command.reference)?;
    if reference.tag().is_some_and(|tag| tag == "latest")
        && !command.reference.contains('@')
        && !command.reference.ends_with(":latest")
        && !command.quiet
    {
        print("Using default tag: latest")?;
    }
    let mode = match (command.quiet, io::stdout().is_terminal() && io::stderr().is_terminal()) {
        (true, _) => Mode::Quiet,
        (false, true) => Mode::Bars,
        (false, false) => Mode::Lines,
    };
    pull_shown(engine, reference, platform(&command.platform)?, mode, io::stdout())?;
    Ok(0)
}

/// `load`.
pub(super) fn load(engine: &Engine, command: &Load) -> Outcome {
    let options = LoadOptions { platform: platform(&command.platform)?, ..LoadOptions::default() };
    let mut input: Box<dyn Read> = match &command.input {
        Some(path) => {
            let opened = File::open(path);
            Box::new(opened.map_err(|error| Fault::plain(format!("open {}: {error}", path.display())))?)
        }
        None if io::stdin().is_terminal() => {
            return Err(Fault::plain("requested load from stdin, but stdin is empty"));
        }
        None => Box::new(io::stdin().lock()),
    };
    for loaded in engine.load(&mut input, &options, &Silent)? {
        for line in loaded.lines() {
            print(&line)?;
        }
    }
    Ok(0)
}
