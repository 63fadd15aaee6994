//! The SBOM: what the program is made of, as CycloneDX, from `Cargo.lock`.
//!
//! cargo-cyclonedx would write a file into each package's sources. All that it would know, cargo tells: names, versions,
//! licences, who needs whom. It is the same for both targets, and has no time and no random number in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::command::{self, output};

/// The SBOM of the program, as text.
pub fn of_materials() -> anyhow::Result<String> {
    let mut cargo = command::cargo();
    let metadata = output(
        cargo
            .args(["metadata", "--locked", "--format-version=1"])
            .args(["--filter-platform=x86_64-unknown-linux-gnu", "--filter-platform=aarch64-unknown-linux-gnu"]),
    )?;
    let metadata: Value = serde_json::from_str(&metadata).context("what cargo metadata says")?;
    let bill = bill(&metadata).context("cargo metadata says nothing of parkwarden")?;
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

fn bill(metadata: &Value) -> Option<Value> {
    let packages = by_id(&metadata["packages"])?;
    let nodes = by_id(&metadata["resolve"]["nodes"])?;
    let (root, program) = packages.iter().find(|(_, package)| package["name"] == "parkwarden")?;
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut left = vec![*root];
    while let Some(id) = left.pop() {
        if needs.contains_key(id) {
            continue;
        }
        let built_with = nodes.get(id)?["deps"].as_array()?.iter().filter(|needed| !is_for_tests_only(needed));
        let needed: BTreeSet<&str> = built_with.filter_map(|needed| needed["pkg"].as_str()).collect();
        left.extend(&needed);
        needs.insert(id, needed);
    }
    let name = |id: &str| packages.get(id).map(|package| address(package));
    let components = needs.keys().filter(|id| *id != root).map(|id| Some(component(packages.get(id)?, "library")));
    let mut components = components.collect::<Option<Vec<_>>>()?;
    components.sort_by_key(|component| component["purl"].to_string());
    let dependencies = needs.iter().map(|(id, needed)| {
        let needed = needed.iter().map(|id| name(id)).collect::<Option<BTreeSet<_>>>()?;
        Some((name(id)?, needed))
    });
    let dependencies = dependencies.collect::<Option<BTreeMap<_, _>>>()?;
    Some(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(program, "application") },
        "components": components,
        "dependencies": dependencies
            .into_iter()
            .map(|(name, needed)| json!({ "ref": name, "dependsOn": needed }))
            .collect::<Vec<_>>(),
    }))
}

fn by_id(list: &Value) -> Option<BTreeMap<&str, &Value>> {
    list.as_array()?.iter().map(|item| Some((item["id"].as_str()?, item))).collect()
}

fn is_for_tests_only(needed: &Value) -> bool {
    needed["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind["kind"] == "dev"))
}

/// Its package URL.
fn address(package: &Value) -> String {
    let text = |field: &str| package[field].as_str().unwrap_or_default();
    // What is no letter, digit or one of `.-_~` is to be encoded; in a version that is the `+` before its metadata.
    format!("pkg:cargo/{}@{}", text("name"), text("version").replace('+', "%2B"))
}

fn component(package: &Value, kind: &str) -> Value {
    let address = address(package);
    let mut component = json!({
        "type": kind,
        "bom-ref": address,
        "purl": address,
        "name": package["name"],
        "version": package["version"],
    });
    if let Some(license) = package["license"].as_str() {
        // Older packages write `A/B` for `A OR B`.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_the_program_is_made_of_and_not_what_tests_it() {
        let bill: Value = serde_json::from_str(&of_materials().expect("a bill")).expect("JSON");
        let components = bill["components"].as_array().expect("components");
        let has = |name: &str| components.iter().any(|component| component["name"] == name);
        assert!(has("aya") && has("parkwarden-common") && has("hyper"));
        assert!(!has("proptest") && !has("xtask") && !has("windows-sys"), "tests, contributors' tools, other systems");
        assert_eq!(bill["metadata"]["component"]["name"], "parkwarden");
        let known: BTreeSet<&str> = components.iter().filter_map(|component| component["purl"].as_str()).collect();
        assert_eq!(known.len(), components.len(), "each once");
        for dependency in bill["dependencies"].as_array().expect("dependencies") {
            for needed in dependency["dependsOn"].as_array().expect("a list") {
                assert!(known.contains(needed.as_str().expect("a name")), "{needed}");
            }
        }
        let licensed = components.iter().filter(|component| component["licenses"].is_array()).count();
        assert_eq!(licensed, components.len(), "every part says under which licence it may be used");
    }
}
