//! Paths as `docker cp` reads them: what is meant by a slash or `/.` at the end, and what a copy is called where it goes.
//!
//! Text, not [`std::path::Path`], which makes no difference between `a`, `a/` and `a/.`.

use sbx_sandbox::path::clean;

use crate::{Error, ErrorKind, Result};

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) path: String,
    /// Something is there.
    pub(super) exists: bool,
    /// It is a directory.
    pub(super) is_directory: bool,
}

/// The contents of a directory are meant.
pub(super) fn means_contents(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// Whatever is meant is a directory.
pub(super) fn asserts_directory(path: &str) -> bool {
    means_contents(path) || path.ends_with('/')
}

/// `cleaned` with the end that `original` had.
pub(super) fn with_end_of(cleaned: String, original: &str) -> String {
    let end = match (means_contents(original), original.ends_with('/')) {
        (true, _) if !means_contents(&cleaned) => ".",
        (false, true) => "",
        _ => return cleaned,
    };
    let slash = if cleaned.ends_with('/') { "" } else { "/" };
    format!("{cleaned}{slash}{end}")
}

/// The directory that what is meant is in, or, for contents, the directory itself.
pub(super) fn directory(path: &str) -> String {
    if means_contents(path) {
        return clean(path);
    }
    match clean(path).rsplit_once('/') {
        None => ".".to_owned(),
        Some(("", _)) => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
    }
}

/// Its name there; `.` for contents, as which the root is always meant.
pub(super) fn base(path: &str) -> String {
    let cleaned = clean(path);
    if means_contents(path) || cleaned == "/" {
        return ".".to_owned();
    }
    cleaned.rsplit_once('/').map_or(cleaned.clone(), |(_, base)| base.to_owned())
}

/// `target` of a link at `path` as a path of the same kind, and the name that the copy has to have where the link's differs.
pub(super) fn followed(path: &str, target: &str) -> (String, Option<String>) {
    let target = if target.starts_with('/') { target.to_owned() } else { format!("{}/{target}", directory(path)) };
    let target = with_end_of(target, path);
    let renamed = (base(path) != base(&target)).then(|| base(path));
    (target, renamed)
}

/// Into which directory a copy is unpacked, and under which name.
///
/// Errors: a directory cannot take the place of a file, and a directory that is named as one has to be there.
pub(super) fn arrange(is_directory: bool, name: &str, target: &Target) -> Result<(String, String)> {
    let refused = |message: &str| Err(Error::new(ErrorKind::Invalid, message));
    match (target.exists, target.is_directory) {
        (true, true) => Ok((target.path.clone(), name.to_owned())),
        (true, false) if is_directory => refused("cannot copy directory"),
        (false, _) if !is_directory && asserts_directory(&target.path) => refused("no such directory"),
        _ => Ok((directory(&target.path), base(&target.path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_they_are_written() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/", "a/b/c"),
            ("/a/../../b", "/b"),
            ("../a/..", ".."),
            ("a/..", "."),
            ("..", ".."),
        ] {
            assert_eq!(clean(path), cleaned, "{path:?}");
        }
    }

    #[test]
    fn a_path_has_a_directory_and_a_name() {
        for (path, there) in [
            ("/a/b", ("/a", "b")),
            ("/a/b/", ("/a", "b")),
            ("/a/b/.", ("/a/b", ".")),
            ("/a", ("/", "a")),
            ("/", ("/", ".")),
            (".", (".", ".")),
            ("a", (".", "a")),
        ] {
            assert_eq!((directory(path).as_str(), base(path).as_str()), there, "{path:?}");
        }
    }

    #[test]
    fn the_end_of_a_path_is_kept() {
        for (original, kept) in [("a/", "a/"), ("a/.", "a/."), ("a", "a"), ("./a/b/../.", "a/.")] {
            assert_eq!(with_end_of(clean(original), original), kept, "{original:?}");
        }
        assert_eq!(with_end_of("/".into(), "/"), "/");
    }

    #[test]
    fn a_followed_link_lends_its_name() {
        assert_eq!(followed("/x/l", "f"), ("/x/f".into(), Some("l".into())));
        assert_eq!(followed("/l/", "/t"), ("/t/".into(), Some("l".into())));
        assert_eq!(followed("/l/.", "/t"), ("/t/.".into(), None));
    }

    #[test]
    fn a_copy_goes_into_a_directory_or_takes_the_name_of_its_target() {
        let target = |path: &str, exists, is_directory| Target { path: path.into(), exists, is_directory };
        let arranged =
            |is_directory, name: &str, to: Target| arrange(is_directory, name, &to).map_err(|error| error.to_string());
        let there = |place: &str, name: &str| Ok((place.to_owned(), name.to_owned()));
        assert_eq!(arranged(false, "f", target("/d", true, true)), there("/d", "f"));
        assert_eq!(arranged(true, ".", target("/d/", true, true)), there("/d/", "."));
        assert_eq!(arranged(false, "f", target("/d/g", true, false)), there("/d", "g"));
        assert_eq!(arranged(false, "f", target("/d/g", false, false)), there("/d", "g"));
        assert_eq!(arranged(true, ".", target("/d/g", false, false)), there("/d", "g"));
        assert_eq!(arranged(true, "t", target("/f", true, false)), Err("cannot copy directory".into()));
        assert_eq!(arranged(false, "f", target("/d/", false, false)), Err("no such directory".into()));
    }
}
