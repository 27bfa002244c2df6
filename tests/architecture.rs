//! The house rules, checked: imports, sizes, where `unsafe` may stand, and that the documents tell the truth.
//!
//! These tests read the source tree as text. They need no root, no network and no built binary.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{Source, functions, identifiers, lines_of, repository, rust_sources, text_files, words};

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 100;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "common", "helpers", "helper", "base", "misc"];

/// What may not stand in any file: paths of the machines where this is written, and unfinished work.
/// Put together here so that this file does not hold them.
fn forbidden() -> Vec<String> {
    [
        ["/wo", "rk/wt"],
        ["/wo", "rk/main"],
        ["/wo", "rk/shared"],
        ["/mnt/sand", "boxing"],
        ["model_to", "ols"],
        ["/opt/whe", "els"],
        ["/ro", "ot/.cargo"],
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["unimple", "mented!"],
        ["to", "do!("],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect()
}

/// One row of the import table in ARCHITECTURE.md.
struct Row {
    imports: BTreeSet<String>,
    never: BTreeSet<String>,
}

fn backticked(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn import_table() -> BTreeMap<String, Row> {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = text.split("\n## The import table").nth(1).expect("a section `The import table`");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut table = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 3, "a row of the import table has three cells: {line}");
        let name = backticked(cells[0]).into_iter().next().expect("a crate's name");
        let row = Row { imports: backticked(cells[1]), never: backticked(cells[2]) };
        assert!(table.insert(name.clone(), row).is_none(), "`{name}` stands twice in the import table");
    }
    table
}

/// Our crates by folder name, each with its manifest; the root package is `sbx`.
fn manifests() -> BTreeMap<String, toml::Table> {
    let mut all = BTreeMap::new();
    let read = |path: &Path| -> toml::Table {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    all.insert("sbx".to_owned(), read(&repository().join("Cargo.toml")));
    for entry in fs::read_dir(repository().join("src")).expect("src") {
        let entry = entry.expect("an entry of src");
        let manifest = entry.path().join("Cargo.toml");
        if manifest.exists() {
            all.insert(entry.file_name().to_string_lossy().into_owned(), read(&manifest));
        }
    }
    all
}

/// Folder names of our crates among the dependencies of one section of a manifest.
fn ours(manifest: &toml::Table, section: &str) -> BTreeSet<String> {
    let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else {
        return BTreeSet::new();
    };
    dependencies.keys().filter_map(|name| name.strip_prefix("sbx-")).map(|name| name.replace('-', "_")).collect()
}

#[test]
fn every_crate_imports_exactly_what_the_table_says() {
    let table = import_table();
    let manifests = manifests();
    let listed: BTreeSet<&String> = table.keys().collect();
    let there: BTreeSet<&String> = manifests.keys().collect();
    assert_eq!(listed, there, "the import table and the folders of src/ name different crates");
    let mut faults = Vec::new();
    for (name, manifest) in &manifests {
        let allowed = &table[name].imports;
        let mut used = ours(manifest, "dependencies");
        used.extend(ours(manifest, "build-dependencies"));
        if used != *allowed {
            faults.push(format!("{name}: Cargo.toml imports {used:?}, ARCHITECTURE.md allows {allowed:?}"));
        }
        let tests_only = ours(manifest, "dev-dependencies");
        if let Some(extra) = tests_only.difference(allowed).next() {
            faults.push(format!("{name}: its tests import {extra}, which ARCHITECTURE.md does not allow"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_crate_reaches_what_it_must_never_reach() {
    let lock = fs::read_to_string(repository().join("Cargo.lock")).expect("Cargo.lock");
    let lock: toml::Table = lock.parse().expect("Cargo.lock is TOML");
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name").to_owned();
        let empty = Vec::new();
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array).unwrap_or(&empty);
        let names = dependencies.iter().filter_map(|d| d.as_str()?.split(' ').next()).map(str::to_owned);
        graph.entry(name).or_default().extend(names);
    }
    // Dev-dependencies stand in Cargo.lock like any other, so our own crates are read from their manifests instead.
    let manifests = manifests();
    for (folder, manifest) in &manifests {
        let name = package_name(folder);
        let direct = manifest.get("dependencies").and_then(toml::Value::as_table);
        graph.insert(name, direct.map(|table| table.keys().cloned().collect()).unwrap_or_default());
    }
    let mut faults = Vec::new();
    for (folder, row) in import_table() {
        let start = package_name(&folder);
        for never in &row.never {
            if let Some(path) = path_to(&graph, &start, never) {
                faults.push(format!("{folder} must never reach {never}, but does: {}", path.join(" → ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What cargo itself resolves for the program in a VM, so that a feature that pulls something in is seen too.
#[test]
fn the_guest_agent_is_built_without_kvm_http_and_tls() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--package", "sbx-guest-agent", "--edges", "normal,build", "--prefix", "none", "--offline"])
        .current_dir(repository())
        .output()
        .expect("run cargo tree");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout);
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("sbx-container") && names.contains("sbx-protocol"), "{names:?}");
    let forbidden = ["kvm-", "vm-", "hyper", "http", "h2", "rustls", "ring", "openssl", "native-tls", "tokio", "clap"];
    let found: Vec<&&str> = names.iter().filter(|name| forbidden.iter().any(|begin| name.starts_with(begin))).collect();
    assert!(found.is_empty(), "{found:?}");
    let ours: Vec<&str> = names.into_iter().filter(|name| name.starts_with("sbx-")).collect();
    assert_eq!(ours, ["sbx-archive", "sbx-container", "sbx-guest-agent", "sbx-protocol"]);
}

fn package_name(folder: &str) -> String {
    if folder == "sbx" { folder.to_owned() } else { format!("sbx-{}", folder.replace('_', "-")) }
}

/// The shortest way from one package to another.
fn path_to(graph: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::from([from.to_owned()]);
    let mut paths = std::collections::VecDeque::from([vec![from.to_owned()]]);
    while let Some(path) = paths.pop_front() {
        let last = path.last()?.clone();
        if last == to {
            return Some(path);
        }
        for next in graph.get(&last).into_iter().flatten() {
            if seen.insert(next.clone()) {
                let mut longer = path.clone();
                longer.push(next.clone());
                paths.push_back(longer);
            }
        }
    }
    None
}

/// Runs a check over every Rust file and fails with all that it found.
fn every_source(check: impl Fn(&Source) -> Vec<String>) {
    let sources = rust_sources();
    assert!(sources.len() > 10, "found only {} Rust files: the search is broken", sources.len());
    let faults: Vec<String> = sources
        .iter()
        .flat_map(|source| check(source).into_iter().map(move |fault| format!("{}: {fault}", source.path)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_are_at_most_600_lines_long() {
    every_source(|source| {
        let lines = lines_of(&source.text);
        (lines > MAX_FILE_LINES).then(|| format!("{lines} lines")).into_iter().collect()
    });
}

#[test]
fn functions_are_at_most_100_lines_long() {
    every_source(|source| {
        functions(&source.code)
            .into_iter()
            .filter(|function| function.lines > MAX_FUNCTION_LINES)
            .map(|function| format!("line {}: fn {} has {} lines", function.line, function.name, function.lines))
            .collect()
    });
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    every_source(|source| {
        // `#![…]` may stand before or after; nothing else may.
        let first = source.text.lines().find(|line| !line.starts_with("#![") && !line.is_empty());
        let opens = first.is_some_and(|line| line.starts_with("//! ") && line.len() > 12);
        (!opens).then(|| "does not open with `//!`".to_owned()).into_iter().collect()
    });
}

#[test]
fn unsafe_stands_only_in_files_named_sys() {
    every_source(|source| {
        let named_sys = source.path.ends_with("/sys.rs");
        let uses = identifiers(&source.code).any(|word| word == "unsafe");
        let allows = source.code.contains("allow(unsafe_code)");
        ((uses || allows) && !named_sys)
            .then(|| "has unsafe outside of a file `sys.rs`".to_owned())
            .into_iter()
            .collect()
    });
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    every_source(|source| {
        let path = Path::new(&source.path);
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let mut faults = Vec::new();
        if EMPTY_NAMES.contains(&stem.as_str()) || EMPTY_NAMES.contains(&folder.as_str()) {
            faults.push("its name says nothing".to_owned());
        }
        if stem == folder {
            faults.push(format!("is {folder}/{stem}.rs: call it mod.rs or lib.rs"));
        }
        faults
    });
}

#[test]
fn the_container_crate_does_not_know_where_it_runs() {
    every_source(|source| {
        if !source.path.starts_with("src/container/") {
            return Vec::new();
        }
        let mut found = BTreeSet::new();
        for identifier in identifiers(&source.code) {
            if words(identifier).iter().any(|word| word == "host" || word == "guest") {
                found.insert(format!("identifier `{identifier}` says where it runs"));
            }
        }
        found.into_iter().collect()
    });
}

#[test]
fn crates_do_not_wear_glob_imports() {
    every_source(|source| {
        let globs = source.code.lines().filter(|line| line.trim_start().starts_with("use ") && line.contains("::*"));
        // `use super::*` is the customary first line of a test module, and proptest's macros want its prelude.
        globs
            .filter(|line| !["use super::*;", "use proptest::prelude::*;"].contains(&line.trim()))
            .map(|line| format!("glob import: {}", line.trim()))
            .collect()
    });
}

#[test]
fn nothing_forbidden_is_written_anywhere() {
    let patterns = forbidden();
    let mut faults = Vec::new();
    for (path, text) in text_files() {
        for (number, line) in text.lines().enumerate() {
            for pattern in patterns.iter().filter(|pattern| line.contains(pattern.as_str())) {
                faults.push(format!("{path}:{}: {pattern}", number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn documents_point_at_things_that_exist() {
    let mut faults = Vec::new();
    for (path, text) in text_files().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = Path::new(&path).parent().unwrap_or(Path::new(""));
        for target in source::links(&text) {
            if target.contains("://") || target.starts_with('#') || target.starts_with("mailto:") {
                continue;
            }
            let file = target.split('#').next().unwrap_or_default();
            if !repository().join(folder).join(file).exists() {
                faults.push(format!("{path}: link to {target}, which is not there"));
            }
        }
        for named in source::paths_in_backticks(&text) {
            if !repository().join(&named).exists() {
                faults.push(format!("{path}: names `{named}`, which is not there"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn tests_that_architecture_names_exist() {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = text.split("\n## What is not there").nth(1).expect("a section `What is not there`");
    let all: String = rust_sources().into_iter().map(|source| source.text).collect();
    let names = backticked(section).into_iter().filter(|name| name.contains('_') && !name.contains('/'));
    let missing: Vec<String> = names.filter(|name| !all.contains(&format!("fn {name}()"))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names tests that are not there: {missing:?}");
}

#[test]
fn commands_of_the_documents_are_scripts_that_can_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut seen = BTreeSet::new();
    for (path, text) in text_files().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        for word in text.split(|c: char| !(c.is_alphanumeric() || "-_./".contains(c))) {
            let command = word.trim_start_matches("./").trim_end_matches('.');
            if !command.starts_with("scripts/") || command.len() == "scripts/".len() {
                continue;
            }
            let metadata = fs::metadata(repository().join(command));
            let runs = metadata.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
            assert!(runs, "{path} names {command}, which is no script that can run");
            seen.insert(command.to_owned());
        }
    }
    for script in ["scripts/try", "scripts/test"] {
        assert!(seen.contains(script), "no document tells of {script}");
    }
}

#[test]
fn the_exceptions_of_vm_mode_are_those_of_the_document() {
    let code = fs::read_to_string(repository().join("tests/support/exceptions.rs")).expect("the list of exceptions");
    let table = code.split("NOT_IN_VM_MODE").nth(1).and_then(|rest| rest.split("];").next()).expect("the list itself");
    let listed: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
    let document = fs::read_to_string(repository().join("docs/differences.md")).expect("docs/differences.md");
    let section = document.split("\n## VM mode").nth(1).expect("a section `VM mode`");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<String> = rows
        .flat_map(|row| row.trim_matches(['|', ' ']).split(" | ").map(|cell| cell.trim_matches('`').to_owned()))
        .collect();
    assert_eq!(listed, told);
}
