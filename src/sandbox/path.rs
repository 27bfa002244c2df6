//! Paths as words, without a look at any file system.

/// The path without needless dots and slashes, `..` taken as it is written (Go's `path.Clean`).
#[must_use]
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(&last)) if last != ".." => drop(parts.pop()),
            ("..", None) if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The same of a path that begins at the root, whether it says so or not.
#[must_use]
pub fn clean_rooted(path: &str) -> String {
    clean(&format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::{clean, clean_rooted};

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("a/./b//c/", "a/b/c"),
            ("a/..", "."),
            ("../a/../..", "../.."),
            ("/", "/"),
            ("//a//b/../c/.", "/a/c"),
            ("/../..", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!((clean_rooted("a/../../b"), clean_rooted("/x/")), ("/b".to_owned(), "/x".to_owned()));
    }
}
