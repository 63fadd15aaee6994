//! The Helm chart: Helm takes it, and what comes out is what `deploy/kubernetes` says, with and without each overlay.

use std::fs;
use std::path::Path;

use parkwarden::config::node::NodeConfig;
use parkwarden::config::settings::Settings;
use parkwarden_tests::manifests::{BASE, CHART, Rendered, deploy, helm, kustomizations};
use serde_json::{Value, json};

use crate::deploy::are_valid_for_kubernetes;

/// What `deploy/kubernetes` has, and the values that are to give the same.
fn same() -> Vec<(&'static str, Value)> {
    vec![
        (BASE, json!({})),
        ("overlays/apparmor", json!({ "rights": { "appArmorUnconfined": true } })),
        ("overlays/census", json!({ "mode": "census" })),
        ("overlays/prometheus-operator", json!({ "scrape": { "by": "podMonitor" } })),
        (
            "overlays/seccomp",
            json!({ "rights": { "seccompProfile": { "type": "Localhost", "localhostProfile": "parkwarden.json" } } }),
        ),
        ("overlays/secured", json!({ "httpSecret": "parkwarden-http" })),
        ("overlays/sys-admin", json!({ "rights": { "sysAdmin": true } })),
    ]
}

fn everything() -> Value {
    json!({
        "scrape": { "by": "serviceMonitor", "labels": { "release": "prometheus" } },
        "rules": { "enabled": true },
        "dashboard": { "enabled": true },
        "httpSecret": "parkwarden-http",
        "select": { "namespaces": ["shop-*"] },
        "extraConfig": "[limits]\nprocesses = 99",
        "rights": { "dacReadSearch": true },
    })
}

/// The pod, but for names that kustomize makes and what it does not say.
fn pod(rendered: &Rendered) -> Value {
    let mut pod = rendered.pod().clone();
    let agent = &mut pod["containers"][0];
    agent.as_object_mut().expect("a container").remove("imagePullPolicy");
    for volume in pod["volumes"].as_array_mut().expect("volumes") {
        if !volume["configMap"].is_null() {
            volume["configMap"] = json!("the configuration");
        }
    }
    pod
}

fn configuration(rendered: &Rendered) -> NodeConfig {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("parkwarden.toml");
    rendered.write_configuration(&file);
    NodeConfig::load(&Settings::default(), Some(&file)).expect("the agent takes it")
}

#[test]
fn the_chart_gives_what_the_manifests_and_each_overlay_give() {
    let same = same();
    assert_eq!(same.iter().map(|(name, _)| *name).collect::<Vec<_>>(), kustomizations(), "one line each");
    for (kustomization, values) in &same {
        let (ours, theirs) = (Rendered::of(kustomization), Rendered::of_chart(values));
        assert_eq!(pod(&theirs), pod(&ours), "left: the chart with {values}, right: {kustomization}");
        assert_eq!(format!("{:?}", configuration(&theirs)), format!("{:?}", configuration(&ours)));
        for (kind, what) in
            [("ClusterRole", "rules"), ("ClusterRoleBinding", "subjects"), ("DaemonSet", "updateStrategy")]
        {
            let of = |rendered: &Rendered| {
                let object = rendered.object(kind);
                if object["spec"].is_null() { object[what].clone() } else { object["spec"][what].clone() }
            };
            assert!(!of(&ours).is_null());
            assert_eq!(of(&theirs), of(&ours), "{kind}");
        }
        let scraped = |rendered: &Rendered| {
            let mut annotations = rendered.object("DaemonSet")["spec"]["template"]["metadata"]["annotations"].clone();
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.retain(|name, _| name.starts_with("prometheus.io/"));
            }
            annotations.as_object().cloned().unwrap_or_default()
        };
        assert_eq!(scraped(&theirs), scraped(&ours), "{kustomization}");
        let endpoints = |rendered: &Rendered| {
            let monitor = rendered.objects.iter().find(|object| object["kind"] == "PodMonitor");
            monitor.map(|monitor| monitor["spec"]["podMetricsEndpoints"].clone())
        };
        assert_eq!(endpoints(&theirs), endpoints(&ours), "{kustomization}");
    }
}

#[test]
fn helm_finds_nothing_to_warn_of_and_kubernetes_takes_what_it_renders() {
    let found: Value = serde_json::from_str(&helm("lint", &json!({}))).expect("JSON");
    let messages = found["messages"].as_array().expect("messages");
    let warnings: Vec<_> = messages.iter().filter(|message| message["severity"].as_i64() != Some(1)).collect();
    assert!(warnings.is_empty() && found["total_charts_linted"] == 1, "{found}");
    are_valid_for_kubernetes(&[Rendered::of_chart(&json!({})), Rendered::of_chart(&everything())]);
}

#[test]
fn the_charts_rules_and_dashboard_are_those_of_deploy() {
    let rendered = Rendered::of_chart(&everything());
    let read = |path| fs::read_to_string(deploy(path)).expect("the file");
    let rules: Value = serde_saphyr::from_str(&read("prometheus/parkwarden.rules.yml")).expect("YAML");
    assert_eq!(rendered.object("PrometheusRule")["spec"], rules);
    let dashboard = rendered.objects.iter().find_map(|object| object["data"]["parkwarden.json"].as_str());
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(json(dashboard.expect("a dashboard")), json(&read("grafana/parkwarden.json")));

    let monitor = rendered.object("ServiceMonitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["honorLabels"], &endpoint["scheme"]), (&json!(true), &json!("https")));
    let (service, labels) =
        (rendered.object("Service"), &rendered.object("DaemonSet")["spec"]["template"]["metadata"]["labels"]);
    assert_eq!(service["spec"]["selector"], *labels);
    assert_eq!(endpoint["port"], service["spec"]["ports"][0]["name"]);

    let config = configuration(&rendered);
    assert_eq!(config.limits.processes, 99);
    assert!(rendered.capabilities().contains(&"DAC_READ_SEARCH".to_owned()));
}

#[test]
fn the_chart_records_only_if_it_is_to() {
    let rendered = Rendered::of_chart(&json!({ "record": { "enabled": false } }));
    assert_eq!(configuration(&rendered).record.0, None);
    assert!(!rendered.pod()["volumes"].to_string().contains("hostPath"));
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart = fs::read_to_string(deploy(CHART).join(Path::new("Chart.yaml"))).expect("the chart");
    let chart: Value = serde_saphyr::from_str(&chart).expect("YAML");
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], xtask::release::VERSION, "{field}");
    }
}
