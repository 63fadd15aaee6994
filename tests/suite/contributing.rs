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

/// Where links in a document lead, without those to other places than this tree.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.contains("://") && !target.contains(char::is_whitespace))
}

/// What a heading is called in links, as GitHub does it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn links_lead_somewhere() {
    let pages = fs::read_dir(xtask::root().join("docs")).expect("docs").map(|entry| {
        let name = entry.expect("an entry").file_name();
        format!("docs/{}", name.to_string_lossy())
    });
    let top =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md"].map(str::to_owned);
    let mut seen = 0;
    for document in top.into_iter().chain(pages).filter(|name| name.ends_with(".md")) {
        let text = read(&document);
        for link in links(&text) {
            let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
            let directory = Path::new(&document).parent().expect("a file is in a directory");
            let path = if path.is_empty() { document.clone().into() } else { directory.join(path) };
            let leads_to = xtask::root().join(&path);
            assert!(leads_to.exists(), "{document} leads to {link}");
            if let Some(wanted) = heading {
                let there = fs::read_to_string(&leads_to).expect("a page");
                let mut headings = there.lines().filter_map(|line| line.strip_prefix('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == wanted);
                assert!(found, "{document} leads to {link}, a heading that is not there");
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
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
