//! What contributors are told is so: the files that the recipes name are there, and the table of environment variables has
//! those that the sources know, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const VARIABLES: &str = "PARKWARDEN_";

/// Where sources are, and what is no Rust but knows variables.
const SOURCES: [&str; 7] = ["agent", "common", "ebpf", "tests", "xtask", "deploy", ".ci"];

fn read(path: &str) -> String {
    fs::read_to_string(xtask::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_files_that_recipes_name_are_there() {
    for document in ["CONTRIBUTING.md", "docs/new-go-version.md"] {
        let text = read(document);
        let top: BTreeSet<String> = fs::read_dir(xtask::root())
            .expect("the tree")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name != "target")
            .collect();
        let is_of_the_tree = |path: &&str| {
            let first = path.split('/').next().unwrap_or_default();
            top.contains(first) && !path.contains(char::is_whitespace)
        };
        let paths: BTreeSet<&str> = quoted(&text).filter(is_of_the_tree).collect();
        assert!(paths.len() > 5, "{document} names {paths:?}");
        let missing: Vec<_> = paths.iter().filter(|path| !xtask::root().join(path).exists()).collect();
        assert!(missing.is_empty(), "{document} names files that are not there: {missing:?}");
    }
}

#[test]
fn the_table_has_the_environment_variables_that_the_sources_know() {
    let text = read("CONTRIBUTING.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let told: BTreeSet<String> = rows.filter(|name| name.starts_with(VARIABLES)).map(str::to_owned).collect();
    let mut known = BTreeSet::new();
    for directory in SOURCES {
        collect(&xtask::root().join(directory), &mut known);
    }
    assert_eq!(told, known, "left: the table of CONTRIBUTING.md, right: the sources");
}

fn collect(path: &Path, known: &mut BTreeSet<String>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let inside: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        // What cargo and its fuzzer built is none of the sources.
        let built =
            |path: &&PathBuf| !matches!(path.file_name().and_then(|name| name.to_str()), Some("target" | "corpus"));
        return inside.iter().filter(built).for_each(|path| collect(path, known));
    }
    // Objects and captures are no text.
    let Ok(text) = fs::read_to_string(path) else { return };
    let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
    for (start, _) in text.match_indices(VARIABLES) {
        let rest = text.get(start..).unwrap_or_default();
        let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        if name != VARIABLES {
            known.insert(name.to_owned());
        }
    }
}
