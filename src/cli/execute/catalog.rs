//! `images`, `rmi`, `tag` and `history`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use sbx_engine::{Engine, ErrorKind};
use sbx_image::{ImageSummary, Reference, RemoveMode};

use super::{Fault, Outcome, glob, images, print, tell};
use crate::command::{History, ListImages, RemoveImages, Tag};
use crate::filter::Filters;
use crate::rows::{HISTORY, HISTORY_WITH_TIMES, HistoryRow, IMAGES, IMAGES_WITH_DIGEST, ImageRow};
use crate::table::{Style, render, shows};
use crate::units::{Moment, parse_moment};

const KNOWN: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];

pub(super) fn seconds(time: Option<SystemTime>) -> Option<i64> {
    let since = time?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// The moment that `--filter until=` names; `None` without one.
pub(super) fn until(filters: &Filters) -> Result<Option<Moment>, Fault> {
    match filters.values("until") {
        [] => Ok(None),
        [text] => Ok(Some(parse_moment(text, Moment::now())?)),
        _ => Err(Fault::plain("more than one until filter specified")),
    }
}

fn template_fault(error: crate::template::TemplateError) -> Fault {
    Fault::plain(error.to_string())
}

/// `images`.
pub(super) fn list(engine: &Engine, command: &ListImages) -> Outcome {
    let filters = &command.filters;
    filters.only(&KNOWN)?;
    let dangling = filters.switch("dangling")?;
    let until = until(filters)?;
    let store = engine.images()?;
    let created = |key: &str| {
        let name = filters.values(key).last();
        name.map(|name| Ok::<_, Fault>(store.resolve(name).map_err(sbx_engine::Error::from)?.config.created.clone()))
            .transpose()
    };
    let moment = |text: Option<Option<String>>| text.map(|text| text.as_deref().and_then(sbx_image::parse_rfc3339));
    let (before, since) = (moment(created("before")?), moment(created("since")?));
    let patterns: Vec<&String> = command.reference.iter().chain(filters.values("reference")).collect();
    let custom = command.format.as_deref().filter(|format| *format != "table");
    let format = match (custom, command.quiet, command.digests) {
        (Some(custom), ..) => Some(custom),
        (None, true, _) => Some("{{.ID}}"),
        (None, false, true) => Some(IMAGES_WITH_DIGEST),
        (None, false, false) => None,
    };
    let digests = command.digests || shows(format, "Digest");
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    if shows(format, "Containers") {
        for used in engine.image_uses()? {
            *uses.entry(used.image.to_string()).or_default() += 1;
        }
    }
    let mut rows = Vec::new();
    for mut image in store.list().map_err(sbx_engine::Error::from)? {
        let young = until.is_some_and(|until| seconds(image.created).unwrap_or(0) >= until.seconds);
        let wanted = dangling.is_none_or(|dangling| image.is_dangling() == dangling)
            && filters.allow_labels(&image.labels)
            && before.is_none_or(|moment| image.created < moment)
            && since.is_none_or(|moment| image.created > moment)
            && !young
            && named(&mut image, &patterns);
        if wanted {
            rows.extend(rows_of(&image, digests, command.digests));
        }
    }
    if !uses.is_empty() || shows(format, "Containers") {
        rows.iter_mut().for_each(|row| row.containers = Some(uses.get(&row.id).copied().unwrap_or(0)));
    }
    let style = Style { truncate: !command.no_trunc, human: true, now: Moment::now().seconds };
    print(&render(&IMAGES, &rows, format, style).map_err(template_fault)?)
}

/// Leaves the names that fit a pattern; whether there is one, or no pattern.
fn named(image: &mut ImageSummary, patterns: &[&String]) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let fits = |name: &Reference| {
        let forms = [name.familiar(), name.familiar_repository(), name.to_string(), name.repository()];
        patterns.iter().any(|pattern| forms.iter().any(|form| glob::fits(pattern, form)))
    };
    image.tags.retain(fits);
    image.digests.retain(fits);
    !image.tags.is_empty() || !image.digests.is_empty()
}

/// A row for each name. Digests have rows of their own only where a repository has no tag.
fn rows_of(image: &ImageSummary, with_digest: bool, each_digest: bool) -> Vec<ImageRow> {
    let row = |repository: &str, tag: &str, digest: &str| ImageRow {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        digest: digest.to_owned(),
        id: image.id.to_string(),
        created: seconds(image.created),
        size: image.size,
        containers: None,
    };
    let mut digests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in &image.digests {
        let digest = name.digest().map(|digest| digest.to_string()).unwrap_or_default();
        digests.entry(name.familiar_repository()).or_default().insert(digest);
    }
    let mut rows = Vec::new();
    let mut tagged = BTreeSet::new();
    for name in &image.tags {
        let repository = name.familiar_repository();
        let tag = name.tag().unwrap_or_default();
        let own = digests.get(&repository).filter(|_| with_digest);
        match own {
            None => rows.push(row(&repository, tag, "")),
            Some(own) => rows.extend(own.iter().map(|digest| row(&repository, tag, digest))),
        }
        tagged.insert(repository);
    }
    for (repository, own) in digests.iter().filter(|(repository, _)| !tagged.contains(*repository)) {
        if with_digest || each_digest {
            rows.extend(own.iter().map(|digest| row(repository, "", digest)));
        } else {
            rows.push(row(repository, "", ""));
        }
    }
    if rows.is_empty() {
        rows.push(row("", "", ""));
    }
    rows
}

/// `rmi`.
pub(super) fn remove(engine: &Engine, command: &RemoveImages) -> Outcome {
    let mode = if command.force { RemoveMode::Force } else { RemoveMode::Normal };
    let mut faults = Vec::new();
    let mut fatal = false;
    for name in &command.images {
        if let Err(fault) = check_platforms(engine, name, &command.platforms) {
            faults.push(fault.message);
            fatal = true;
            continue;
        }
        match engine.remove_image(name, mode) {
            Ok(removal) => {
                let lines: String = removal.lines().iter().map(|line| format!("{line}\n")).collect();
                print(&lines)?;
            }
            Err(error) => {
                fatal |= error.kind != ErrorKind::NotFound;
                faults.push(error.to_string());
            }
        }
    }
    match (faults.is_empty(), command.force && !fatal) {
        (true, _) => Ok(0),
        (false, false) => Err(Fault::plain(faults.join("\n"))),
        (false, true) => {
            // Nothing is wrong with what is gone already.
            tell(&faults.join("\n"));
            Ok(0)
        }
    }
}

/// An image here is of one platform: naming it changes nothing, naming another is a mistake.
fn check_platforms(engine: &Engine, name: &str, platforms: &[String]) -> Result<(), Fault> {
    if platforms.is_empty() {
        return Ok(());
    }
    let image = engine.images()?.resolve(name).map_err(sbx_engine::Error::from)?;
    platforms.iter().try_for_each(|platform| images::check_platform(&image, platform, name))
}

/// `tag`.
pub(super) fn tag(engine: &Engine, command: &Tag) -> Outcome {
    engine.images()?.tag(&command.source, &command.target).map_err(sbx_engine::Error::from)?;
    Ok(0)
}

/// `history`.
pub(super) fn history(engine: &Engine, command: &History) -> Outcome {
    let store = engine.images()?;
    let image = store.resolve(&command.image).map_err(sbx_engine::Error::from)?;
    images::check_platform(&image, &command.platform, &command.image)?;
    let row = |entry: sbx_image::HistoryEntry| HistoryRow {
        id: entry.id.map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
        created: seconds(entry.created).unwrap_or(0),
        created_by: entry.created_by,
        size: entry.size,
        comment: entry.comment,
    };
    let rows: Vec<HistoryRow> = store.history(&image).into_iter().map(row).collect();
    let custom = command.format.as_deref().filter(|format| *format != "table");
    let format = match (custom, command.quiet, command.human) {
        (Some(custom), ..) => Some(custom),
        (None, true, _) => Some("{{.ID}}"),
        (None, false, true) => None,
        (None, false, false) => Some(HISTORY_WITH_TIMES),
    };
    let style = Style { truncate: !command.no_trunc, human: command.human, now: Moment::now().seconds };
    print(&render(&HISTORY, &rows, format, style).map_err(template_fault)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(tags: &[&str], digests: &[&str]) -> ImageSummary {
        let parse = |texts: &[&str]| texts.iter().map(|text| Reference::parse(text).unwrap()).collect();
        ImageSummary {
            id: sbx_image::Digest::of(b"x"),
            tags: parse(tags),
            digests: parse(digests),
            created: None,
            size: 0,
            labels: BTreeMap::new(),
            platform: sbx_image::Platform::host(),
            diff_ids: Vec::new(),
        }
    }

    fn rows(image: &ImageSummary, with_digest: bool) -> Vec<(String, String, bool)> {
        let rows = rows_of(image, with_digest, with_digest).into_iter();
        rows.map(|row| (row.repository, row.tag, !row.digest.is_empty())).collect()
    }

    #[test]
    fn names_are_rows() {
        let digest = sbx_image::Digest::of(b"m");
        let (own, other) = (format!("busybox@{digest}"), format!("quay.example/a/b@{digest}"));
        let image = summary(&["busybox:1", "busybox:2"], &[&own, &other]);
        let row = |repository: &str, tag: &str, digest| (repository.to_owned(), tag.to_owned(), digest);
        assert_eq!(
            rows(&image, false),
            [row("busybox", "1", false), row("busybox", "2", false), row("quay.example/a/b", "", false)]
        );
        assert!(rows(&image, true).iter().all(|row| row.2));
        assert_eq!(rows(&summary(&[], &[]), false), [row("", "", false)]);
    }

    #[test]
    fn patterns_leave_the_names_that_fit() {
        let mut image = summary(&["busybox:1", "team/app:1"], &[]);
        assert!(named(&mut image.clone(), &[]));
        assert!(!named(&mut image.clone(), &[&"other".to_owned()]));
        for pattern in ["busybox", "busy*:1", "docker.io/library/busybox"] {
            let mut image = image.clone();
            assert!(named(&mut image, &[&pattern.to_owned()]), "{pattern}");
            assert_eq!(image.tags.len(), 1);
        }
        assert!(named(&mut image, &[&"*".to_owned(), &"*/*".to_owned()]) && image.tags.len() == 2);
    }
}
