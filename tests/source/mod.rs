//! The source tree as text: which files there are, and just enough of Rust's lexical structure to count lines and
//! find identifiers without being fooled by comments and strings.

#![allow(unreachable_pub, reason = "a module of a test binary has no crate to be public to")]

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file.
pub struct Source {
    /// Relative to the repository.
    pub path: String,
    /// As it stands there.
    pub text: String,
    /// The same with comments, strings and character literals blanked out; lines keep their numbers.
    pub code: String,
}

/// A function that has a body.
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line where `fn` stands, from 1.
    pub line: usize,
    /// From `fn` to the closing brace.
    pub lines: usize,
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the repository.
pub fn rust_sources() -> Vec<Source> {
    let rust = text_files().into_iter().filter(|(path, _)| path.ends_with(".rs"));
    rust.map(|(path, text)| Source { code: blank(&text), path, text }).collect()
}

/// Every text file of the repository that is ours, by its relative path.
pub fn text_files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    walk(repository(), &mut files);
    files.sort();
    files
}

fn walk(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.expect("a directory entry");
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().expect("a file type");
        if name == "target" || name == ".git" {
            continue;
        }
        if kind.is_dir() {
            walk(&path, files);
        } else if kind.is_file()
            && name != "Cargo.lock"
            && let Ok(text) = fs::read_to_string(&path)
        {
            files.push((relative(&path), text));
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).map(PathBuf::from).unwrap_or_default().to_string_lossy().into_owned()
}

/// Lines of a file as an editor counts them.
pub fn lines_of(text: &str) -> usize {
    text.lines().count()
}

/// Replaces comments, strings and character literals by spaces.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_comment(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' if starts_raw_string(bytes, at) => end_of_raw_string(bytes, at),
            b'\'' => end_of_char(bytes, at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|window| window == what).map_or(bytes.len(), |at| from + at)
}

fn end_of_comment(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut at) = (1, from + 2);
    while at < bytes.len() && depth > 0 {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn starts_raw_string(bytes: &[u8], at: usize) -> bool {
    let inside_word =
        at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b';
    let quote = bytes[at + 1..].iter().position(|byte| *byte != b'#');
    !inside_word && quote.is_some_and(|quote| bytes[at + 1 + quote] == b'"')
}

fn end_of_raw_string(bytes: &[u8], from: usize) -> usize {
    let hashes = bytes[from + 1..].iter().take_while(|byte| **byte == b'#').count();
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    (find(bytes, from + 2 + hashes, &close) + close.len()).min(bytes.len())
}

/// A character literal, or nothing where the quote opens a lifetime.
fn end_of_char(bytes: &[u8], from: usize) -> usize {
    if bytes.get(from + 1) == Some(&b'\\') {
        return (find(bytes, from + 3, b"'") + 1).min(bytes.len());
    }
    let width = bytes[from + 1..].iter().skip(1).take_while(|byte| **byte & 0xc0 == 0x80).count() + 1;
    if bytes.get(from + 1 + width) == Some(&b'\'') { from + 2 + width } else { from }
}

/// Identifiers and keywords of blanked code.
pub fn identifiers(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| word.starts_with(|c: char| !c.is_numeric()))
}

/// `fooBar_baz` as `foo`, `bar`, `baz`.
pub fn words(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in identifier.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("never empty").extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The functions of blanked code, nested ones included.
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') || name.is_empty() {
            continue;
        }
        // A declaration without a body ends in `;` outside of brackets (`[u8; 4]` has one inside).
        let (mut depth, mut brackets, mut end) = (0_usize, 0_usize, None);
        for (offset, c) in code[at..].char_indices() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                '{' => depth += 1,
                '}' if depth > 1 => depth -= 1,
                '}' => {
                    end = Some(at + offset);
                    break;
                }
                ';' if depth == 0 && brackets == 0 => break,
                _ => {}
            }
        }
        if let Some(end) = end {
            let line = code[..at].matches('\n').count() + 1;
            found.push(Function { name, line, lines: code[at..end].matches('\n').count() + 1 });
        }
    }
    found
}

/// Targets of Markdown links.
pub fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("](") {
        if let Some(end) = text[at..].find(')') {
            found.push(text[at + 2..at + end].to_owned());
        }
    }
    found
}

/// Paths of this repository that a document names in backticks: `src/cli/run.rs`, `tests/`.
pub fn paths_in_backticks(text: &str) -> Vec<String> {
    let plain: String = text.split("```").step_by(2).collect();
    let candidates = plain.split('`').skip(1).step_by(2);
    let roots = ["src/", "tests/", "scripts/", "docs/", ".ci/"];
    candidates
        .filter(|path| roots.iter().any(|root| path.starts_with(root)))
        .filter(|path| path.chars().all(|c| c.is_alphanumeric() || "-_./".contains(c)))
        .map(|path| path.trim_end_matches('.').to_owned())
        .collect()
}

#[test]
fn comments_and_strings_do_not_count_as_code() {
    let code = blank("let a = \"fn x() {\"; // unsafe\nlet b = 'x'; /* { /* */ { */ let c: &'static str = r#\"\"}\"#;");
    assert!(!code.contains("unsafe") && !code.contains("fn x"), "{code}");
    assert_eq!(code.matches(['{', '}']).count(), 0, "{code}");
    assert!(code.contains("'static"), "{code}");
}

#[test]
fn functions_are_found_with_their_length() {
    let found = functions("fn a();\nfn b(x: [u8; 2]) {\n  if y { z }\n}\nimpl T { fn c() {} }");
    let shape: Vec<(String, usize, usize)> = found.into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(shape, [("b".to_owned(), 2, 3), ("c".to_owned(), 5, 1)]);
}

#[test]
fn identifiers_fall_apart_into_words() {
    assert_eq!(words("HostConfig"), ["host", "config"]);
    assert_eq!(words("set_hostname"), ["set", "hostname"]);
    assert_eq!(words("in_guest"), ["in", "guest"]);
}
