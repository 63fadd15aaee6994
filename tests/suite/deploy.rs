//! What users are told to deploy: it is valid, it means what the agent understands, and its rules fire when they should.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use parkwarden::export::metrics::definitions;
use parkwarden::node::config::NodeConfig;
use parkwarden::node::settings::Settings;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn succeeds(command: &mut Command) {
    let name = xtask::command::describe(command);
    let output = command.output().unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn the_rules_fire_when_they_should() {
    let promtool =
        |arguments: &[&str]| succeeds(Command::new("promtool").args(arguments).current_dir(deploy("prometheus")));
    promtool(&["check", "config", "scrape.yml"]);
    promtool(&["check", "rules", "parkwarden.rules.yml"]);
    promtool(&["test", "rules", "parkwarden.rules.test.yml"]);
    succeeds(Command::new("amtool").arg("check-config").arg(deploy("prometheus/alertmanager.yml")));
}

#[test]
fn every_rule_is_tested_and_is_about_metrics_there_are() {
    let rules = std::fs::read_to_string(deploy("prometheus/parkwarden.rules.yml")).expect("rules");
    let tests = std::fs::read_to_string(deploy("prometheus/parkwarden.rules.test.yml")).expect("tests");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        let named = tests.matches(&format!("alertname: {alert}\n")).count();
        assert!(named >= 2, "{alert} is tested {named} times: once when it fires and once when it does not");
    }
    let known: BTreeSet<&str> = definitions::ALL.iter().map(|metric| metric.name).collect();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let used: BTreeSet<&str> = rules.split(|c| !is_name(c)).filter(|word| word.starts_with("parkwarden_")).collect();
    assert!(!used.is_empty());
    for name in used {
        assert!(known.contains(name), "{name} is no metric of the agent");
    }
}

#[test]
fn the_manifests_configuration_is_the_agents() {
    let file = deploy("kubernetes/base/parkwarden.toml");
    let config = NodeConfig::load(&Settings::default(), Some(&file)).expect("valid");
    assert!(config.watch.prove.is_some() && config.record.0.is_some());
    assert_eq!(config.listen.port(), NodeConfig::default().listen.port());
}
