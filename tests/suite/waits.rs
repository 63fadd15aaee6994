//! The functions of the standard library that are named by what is known of its waits are in its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use parkwarden::cause::library::known;
use parkwarden::golang::names::{is_standard, package};
use xtask::toolchain;

/// What versions before those that tests run had, by their names then.
const GONE: [&str; 2] = ["context.propagateCancel", "os/exec.(*Cmd).stdin"];

/// How a function's declaration begins, after `func `, with its receiver's type: `(*T).f` and `T.f` as `T f`.
fn declared(line: &str) -> Option<String> {
    let declaration = line.strip_prefix("func ")?;
    let (receiver, rest) = match declaration.strip_prefix('(') {
        Some(declaration) => declaration.split_once(") ")?,
        None => ("", declaration),
    };
    let name = rest.split(['(', '[']).next()?;
    let receiver = receiver.rsplit(' ').next().unwrap_or_default().split('[').next()?;
    Some(match receiver.strip_prefix('*') {
        Some(receiver) => format!("(*{receiver}).{name}"),
        None if receiver.is_empty() => name.to_owned(),
        None => format!("{receiver}.{name}"),
    })
}

/// All functions of a package.
fn functions(sources: &Path, package: &str) -> BTreeSet<String> {
    let Ok(files) = fs::read_dir(sources.join(package)) else { return BTreeSet::new() };
    let files = files.map(|file| file.expect("a file").path());
    let go = files.filter(|file| file.extension().is_some_and(|extension| extension == "go"));
    let texts = go.map(|file| fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    texts.flat_map(|text| text.lines().filter_map(declared).collect::<Vec<_>>()).collect()
}

#[test]
fn the_standard_librarys_functions_are_there() {
    let mut wanted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for known in known() {
        let patterns = known.innermost.iter().chain(&known.through).chain(&known.from);
        for function in patterns.flat_map(|pattern| pattern.split(" called by ")).filter(|name| is_standard(name)) {
            let package = package(function);
            let name = function[package.len() + 1..].replace("[...]", "");
            wanted.entry(package).or_default().insert(name);
        }
    }
    assert!(wanted.values().map(BTreeSet::len).sum::<usize>() > 50, "{wanted:#?}");
    for version in toolchain::VERSIONS {
        let sources = toolchain::goroot(version).expect("a toolchain").join("src");
        for (package, names) in &mut wanted {
            let there = functions(&sources, package);
            names.retain(|name| !there.contains(name));
        }
    }
    let left = wanted.iter().flat_map(|(package, names)| names.iter().map(move |name| format!("{package}.{name}")));
    let left: Vec<String> = left.collect();
    assert_eq!(left, GONE, "functions that no version's sources have");
}
