//! `save`, `export` and `import`: images and containers to and from files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sbx_engine::{Engine, copy};
use sbx_image::{ImportRequest, Silent};

use super::images::{check_platform, platform, reference};
use super::{Fault, Outcome, print};
use crate::command::{Export, Import, Save};

/// `save`.
pub(super) fn save(engine: &Engine, command: &Save) -> Outcome {
    if !command.platform.is_empty() {
        let store = engine.images()?;
        for name in &command.images {
            let image = store.resolve(name).map_err(sbx_engine::Error::from)?;
            check_platform(&image, &command.platform, name)?;
        }
    }
    write_to(command.output.as_deref(), ("save", "image"), &mut |out| Ok(engine.save(&command.images, out)?))
}

/// `export`.
pub(super) fn export(engine: &Engine, command: &Export) -> Outcome {
    let mut files = engine.files(&command.container)?;
    write_to(
        command.output.as_deref(),
        ("export", "container"),
        &mut |out| Ok(copy::export(&mut files, out).map(drop)?),
    )
}

/// Writes an archive to where it is told.
type Give<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<(), Fault>;

/// Writes what `give` gives to a file or the standard output.
fn write_to(path: Option<&Path>, (verb, what): (&str, &str), give: Give<'_>) -> Outcome {
    match path {
        Some(path) => {
            check_output(path)
                .map_err(|problem| Fault::plain(format!("failed to {verb} {what}: invalid output path: {problem}")))?;
            write_file(path, give)?;
        }
        None if io::stdout().is_terminal() => {
            let message = format!("cowardly refusing to {verb} to a terminal. Use the -o flag or redirect");
            return Err(Fault::plain(message));
        }
        None => {
            let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
            give(&mut out)?;
            out.flush()?;
        }
    }
    Ok(0)
}

/// The file appears whole or not at all.
fn write_file(path: &Path, give: Give<'_>) -> Result<(), Fault> {
    let temporary = beside(path);
    let failed = |error: io::Error| Fault::plain(format!("cannot write {}: {error}", path.display()));
    let written = (|| {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        give(&mut out)?;
        out.flush().map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)
    })();
    if written.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".sbx-{}", std::process::id()));
    path.with_file_name(name)
}

fn check_output(path: &Path) -> Result<(), String> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory
        && !directory.is_dir()
    {
        return Err(format!("directory {:?} does not exist", directory.display().to_string()));
    }
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(format!("{:?} must be a regular file", path.display().to_string())),
        _ if path.file_name().is_none() => Err(format!("{:?} must be a regular file", path.display().to_string())),
        _ => Ok(()),
    }
}

/// `import`.
pub(super) fn import(engine: &Engine, command: &Import) -> Outcome {
    let source = command.source.as_str();
    if ["http://", "https://"].iter().any(|scheme| source.starts_with(scheme)) {
        let message = format!("import of {source} is not supported: download it and give the file, or - and a pipe");
        return Err(Fault::plain(message));
    }
    let request = ImportRequest {
        reference: command.repository.as_deref().map(reference).transpose()?,
        changes: command.changes.clone(),
        message: command.message.clone(),
        platform: platform(&command.platform)?,
        ..ImportRequest::default()
    };
    let mut input: Box<dyn Read> = match source {
        "-" if io::stdin().is_terminal() => {
            return Err(Fault::plain("requested import from stdin, but stdin is a terminal"));
        }
        "-" => Box::new(io::stdin().lock()),
        path => Box::new(File::open(path).map_err(|error| Fault::plain(format!("open {path}: {error}")))?),
    };
    let image = engine.import(&request, &mut input, &Silent)?;
    print(&image.id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_in_directories_that_exist_are_written() {
        let directory = std::env::temp_dir();
        assert_eq!(check_output(&directory.join("new.tar")), Ok(()));
        assert_eq!(check_output(Path::new("new.tar")), Ok(()));
        assert!(check_output(&directory).is_err());
        assert!(check_output(Path::new("/")).is_err() && check_output(Path::new("/dev/null")).is_err());
        assert!(check_output(&directory.join("none/new.tar")).is_err_and(|text| text.contains("does not exist")));
    }
}
