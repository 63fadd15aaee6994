//! ARCHITECTURE.md's table of who may import whom is what the sources do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Directions = BTreeMap<String, BTreeSet<String>>;

/// What sees everything.
const ABOVE: [&str; 3] = ["main", "lib", "commands"];

/// The table, and its rows in order.
fn written() -> (Directions, Vec<String>) {
    let text = fs::read_to_string(xtask::root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, table) = text.split_once("```directions\n").expect("a table of directions");
    let (table, _) = table.split_once("```").expect("its end");
    let rows = table.lines().map(|row| {
        let mut words = row.split_whitespace().map(str::to_owned);
        (words.next().expect("a folder"), words.collect())
    });
    let rows: Vec<(String, BTreeSet<String>)> = rows.collect();
    let order = rows.iter().map(|(folder, _)| folder.clone()).collect();
    (rows.into_iter().collect(), order)
}

/// The same of the sources, tests left out.
fn found() -> Directions {
    let sources = xtask::root().join("agent/src");
    let mut files = Vec::new();
    collect(&sources, &mut files);
    let mut found = Directions::new();
    for file in &files {
        let folder = folder_of(file.strip_prefix(&sources).expect("below it"));
        let text = fs::read_to_string(file).expect("a source");
        let code = text.split("#[cfg(test)]\nmod tests {").next().expect("there is always one");
        let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        assert!(!code.contains("crate::{"), "{}: one `use` a module, so that this test can read it", file.display());
        let imports = found.entry(folder.clone()).or_default();
        for import in code.split("crate::").skip(1) {
            let end = import.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(import.len());
            imports.insert(import[..end].to_owned());
        }
    }
    let folders: BTreeSet<String> = found.keys().cloned().collect();
    for (folder, imports) in &mut found {
        imports.retain(|import| import != folder && folders.contains(import));
    }
    found.retain(|folder, _| !ABOVE.contains(&folder.as_str()));
    found
}

fn folder_of(path: &Path) -> String {
    let first = path.iter().next().expect("a name").to_string_lossy();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if path.is_dir() && name != "tests" {
            collect(&path, files);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "testing.rs" {
            files.push(path);
        }
    }
}

#[test]
fn imports_run_as_the_table_says() {
    let (written, order) = written();
    let found = found();
    assert_eq!(written.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "the folders of agent/src");
    for (folder, imports) in &found {
        assert_eq!(imports, &written[folder], "what {folder} imports: left as found, right as written");
    }
    for (row, folder) in order.iter().enumerate() {
        for import in &written[folder] {
            assert!(order[..row].contains(import), "{folder} stands above {import}, which it imports");
        }
    }
}
