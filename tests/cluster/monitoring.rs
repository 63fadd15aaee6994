//! Prometheus and Alertmanager, which scrape the agent as its pod's annotations say. Debian's Prometheus cannot ask a cluster
//! for its pods, so a file says what that would find.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use parkwarden_tests::manifests::deploy;
use serde_json::{Value, json};
use xtask::command::output;

use crate::machine::Machine;
use crate::servers::{Server, Settings};

/// Where they serve.
const PROMETHEUS: &str = "127.0.0.1:9090";
const ALERTMANAGER: &str = "127.0.0.1:9093";

/// Starts both, with the rules of deploy/, to scrape a pod.
///
/// # Panics
///
/// When the pod has no address, or says nothing of how to scrape it.
pub fn start(machine: &Machine, settings: &Settings, pod: &Value) -> [Server; 2] {
    let annotation = |name: &str| {
        let value = pod["metadata"]["annotations"][format!("prometheus.io/{name}")].as_str();
        value.unwrap_or_else(|| panic!("no prometheus.io/{name}: {:#}", pod["metadata"]))
    };
    assert_eq!(annotation("scrape"), "true");
    let rules = std::fs::read_to_string(deploy("prometheus/parkwarden.rules.yml")).expect("the rules");
    // A leak that stays is told after ten minutes; here it stays long enough within a second.
    assert!(rules.contains("for: 10m"));
    let rules = machine.file("parkwarden.rules.yml", &rules.replace("for: 10m", "for: 1s"));
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER]}]}]},
        "scrape_configs": [{
            "job_name": "parkwarden",
            "honor_labels": true,
            "scheme": annotation("scheme"),
            "metrics_path": annotation("path"),
            "tls_config": {"ca_file": settings.certificate, "server_name": "parkwarden"},
            "static_configs": [{
                "targets": [format!("{}:{}", pod["status"]["podIP"].as_str().expect("an address"), annotation("port"))],
            }],
        }],
    });
    let config = machine.file("prometheus.yml", &config.to_string());
    let data = machine.directory("prometheus");
    let alerts = machine.file("alertmanager.yml", "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n");
    let prometheus = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address={PROMETHEUS}"),
    ];
    let alertmanager = [
        format!("--config.file={}", alerts.display()),
        format!("--storage.path={}", machine.directory("alertmanager").display()),
        format!("--web.listen-address={ALERTMANAGER}"),
        "--cluster.listen-address=".to_owned(),
    ];
    [
        Server::start(Path::new("prometheus"), &prometheus),
        Server::start(Path::new("prometheus-alertmanager"), &alertmanager),
    ]
}

/// The alert of this name that Alertmanager has.
///
/// # Errors
///
/// When it has none.
pub fn alert(name: &str) -> anyhow::Result<Value> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "20"]);
    let alerts: Value = serde_json::from_str(&output(curl.arg(format!("http://{ALERTMANAGER}/api/v2/alerts")))?)?;
    let alerts = alerts.as_array().map(Vec::as_slice).unwrap_or_default();
    alerts.iter().find(|alert| alert["labels"]["alertname"] == name).cloned().with_context(|| format!("{alerts:#?}"))
}
