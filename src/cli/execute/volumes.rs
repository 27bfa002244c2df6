//! The verbs of `volume`, but for `inspect` and `prune`.

use regex_lite::Regex;
use sbx_engine::{Engine, ErrorKind};
use sbx_sandbox::volumes::VolumeRequest;

use super::{Fault, Outcome, each, print};
use crate::command::{CreateVolume, ListVolumes, RemoveVolumes};
use crate::rows::{VOLUMES, VolumeRow};
use crate::table::{Style, render};

const KNOWN: [&str; 5] = ["dangling", "driver", "label", "label!", "name"];

/// `volume create`.
pub(super) fn create(engine: &Engine, command: &CreateVolume) -> Outcome {
    let volume = engine.create_volume(VolumeRequest {
        name: command.name.clone().unwrap_or_default(),
        driver: "local".to_owned(),
        labels: command.labels.iter().cloned().collect(),
        options: command.options.iter().cloned().collect(),
    })?;
    print(&volume.name)
}

/// `volume ls`.
pub(super) fn list(engine: &Engine, command: &ListVolumes) -> Outcome {
    let filters = &command.filters;
    filters.only(&KNOWN)?;
    let dangling = filters.switch("dangling")?;
    let pattern = |text: &String| Regex::new(text).map_err(|error| Fault::plain(format!("name={text}: {error}")));
    let names: Vec<Regex> = filters.values("name").iter().map(pattern).collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for volume in engine.list_volumes()? {
        let wanted = filters.allows("driver", "local")
            && filters.allow_labels(&volume.labels)
            && (names.is_empty() || names.iter().any(|name| name.is_match(&volume.name)));
        if !wanted {
            continue;
        }
        if let Some(dangling) = dangling
            && engine.volume_in_use(&volume)? == dangling
        {
            continue;
        }
        rows.push(VolumeRow {
            driver: "local".to_owned(),
            mountpoint: engine.volume_data(&volume).display().to_string(),
            scope: "local".to_owned(),
            name: volume.name,
            labels: volume.labels,
        });
    }
    let custom = command.format.as_deref().filter(|format| *format != "table");
    let format = if command.quiet { custom.or(Some("{{.Name}}")) } else { custom };
    let style = Style { truncate: true, human: true, now: 0 };
    print(&render(&VOLUMES, &rows, format, style).map_err(|error| Fault::plain(error.to_string()))?)
}

/// `volume rm`.
pub(super) fn remove(engine: &Engine, command: &RemoveVolumes) -> Outcome {
    each(&command.names, |name| {
        match engine.remove_volume(name) {
            Err(error) if command.force && error.kind == ErrorKind::NotFound => {}
            removed => removed?,
        }
        print(name).map(drop)
    })
}
