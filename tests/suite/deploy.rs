//! What users are told to deploy: it is valid, it means what the agent understands, its rules fire when they should, and its
//! dashboard shows what there is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use parkwarden::config::node::NodeConfig;
use parkwarden::config::settings::Settings;
use parkwarden_tests::agent::run;
use parkwarden_tests::manifests::{BASE, Rendered, deploy, kustomizations};
use parkwarden_tests::promql;
use serde_json::{Value, json};
use xtask::{command, packages};

/// The newest release of Kubernetes whose schemas are at hand, and the oldest that knows all that is used.
const KUBERNETES: [&str; 2] = ["1.37", "1.30"];

fn succeeds(command: &mut Command) {
    let name = command::describe(command);
    let output = command.output().unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&said));
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn promtool() -> Command {
    packages::program("promtool").expect("installed")
}

/// `promtool check metrics` finds nothing to say about a scrape, but of a name of OpenTelemetry's: it wants only histograms and
/// summaries to end like this.
pub(crate) fn passes_promtool(scrape: &str) {
    let mut file = tempfile::tempfile().expect("a file");
    let lines = scrape.lines().filter(|line| !line.contains("go_goroutine_count"));
    let checked: String = lines.map(|line| format!("{line}\n")).collect();
    file.write_all(checked.as_bytes()).and_then(|()| file.rewind()).expect("written");
    succeeds(promtool().args(["check", "metrics"]).stdin(file));
}

/// Prometheus' own parser takes a scrape for OpenMetrics.
pub(crate) fn is_open_metrics(scrape: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("scrape");
    // What is stored from a file has to say when it was.
    let timed = |line: &str| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1790000000\n") };
    fs::write(&file, scrape.lines().map(timed).collect::<String>()).expect("written");
    let stored = directory.path().join("stored");
    succeeds(promtool().args(["tsdb", "create-blocks-from", "openmetrics"]).args([&file, &stored]));
}

#[test]
fn the_golden_scrape_passes_promtool() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/metrics.txt");
    passes_promtool(&std::fs::read_to_string(path).expect("the golden scrape"));
}

#[test]
fn the_rules_fire_when_they_should() {
    for arguments in
        ["check config scrape.yml", "check rules parkwarden.rules.yml", "test rules parkwarden.rules.test.yml"]
    {
        succeeds(promtool().args(arguments.split(' ')).current_dir(deploy("prometheus")));
    }
    let mut amtool = packages::program("amtool").expect("installed");
    succeeds(amtool.arg("check-config").arg(deploy("prometheus/alertmanager.yml")));
}

#[test]
fn every_rule_is_tested_and_is_about_metrics_there_are() {
    let tests: Value = serde_saphyr::from_str(&read("prometheus/parkwarden.rules.test.yml")).expect("YAML");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let tested: Vec<Value> = list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])).collect();
    for rule in &alerts() {
        let alert = rule["alert"].as_str().expect("a name");
        let expected = tested.iter().filter(|test| test["alertname"] == alert).map(|test| list(&test["exp_alerts"]));
        let fires: BTreeSet<bool> = expected.map(|alerts| !alerts.is_empty()).collect();
        assert_eq!(fires.len(), 2, "{alert} is to be tested when it fires and when it does not: {fires:?}");
        let labels = promql::labels(rule["expr"].as_str().expect("a query"));
        let annotations = rule["annotations"].to_string();
        for named in annotations.split("$labels.").skip(1) {
            let label = named.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
            assert!(labels.contains(label), "{alert} speaks of a label {label}");
        }
    }
}

/// Every alerting rule.
fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&read("prometheus/parkwarden.rules.yml")).expect("YAML");
    let rules_of = |group: &Value| group["rules"].as_array().expect("rules").clone();
    rules["groups"].as_array().expect("groups").iter().flat_map(rules_of).collect()
}

#[test]
fn every_alert_has_its_section_of_the_runbook_and_leads_there() {
    let runbook = fs::read_to_string(xtask::root().join("docs/runbook.md")).expect("the runbook");
    let sections: Vec<(&str, &str)> =
        runbook.split("\n### ").skip(1).map(|section| section.split_once('\n').expect("a title and a text")).collect();
    let mut titles: Vec<String> = sections.iter().map(|(title, _)| (*title).to_owned()).collect();
    let mut names: Vec<String> =
        alerts().iter().map(|rule| rule["alert"].as_str().expect("a name").to_owned()).collect();
    titles.sort();
    names.sort();
    assert_eq!(titles, names, "sections and alerts");
    for (title, text) in sections {
        for part in ["**What it means.** ", "**What to look at.** ", "**What to do.** "] {
            assert_eq!(text.matches(part).count(), 1, "{title}: {part}");
        }
    }
    let repository = env!("CARGO_PKG_REPOSITORY");
    for rule in alerts() {
        let name = rule["alert"].as_str().expect("a name").to_lowercase();
        let page = format!("{repository}/blob/main/docs/runbook.md#{name}");
        assert_eq!(rule["annotations"]["runbook_url"], *page);
    }
}

/// What a template says of an alert that has only the labels that every process has: of no pod, and of no known place.
fn rendered_without_labels(template: &str) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{ ") {
        let (action, after) = after.split_once(" }}").expect("an action ends");
        text.push_str(before);
        rest = match action.strip_prefix("with ") {
            Some(_) => after.split_once("{{ end }}").expect("with ends").1,
            None => after,
        };
        let always = ["exe", "pid", "instance", "cause", "reason"].map(|label| format!("$labels.{label}"));
        if action.starts_with("$value") || always.iter().any(|label| label == action) {
            text.push('x');
        }
    }
    text + rest
}

#[test]
fn what_alerts_say_leaves_no_gap_for_a_label_that_is_missing() {
    assert_eq!(rendered_without_labels("{{ $labels.exe }} {{ $labels.pod }}: {{ $value | humanize }}"), "x : x");
    assert_eq!(rendered_without_labels("a{{ with $labels.pod }} ({{ . }}){{ end }} b"), "a b");
    for rule in alerts() {
        for (name, template) in rule["annotations"].as_object().expect("annotations") {
            let text = rendered_without_labels(template.as_str().expect("a text"));
            let gaps = ["  ", " ,", " .", " :", "()", " )"];
            assert!(!gaps.iter().any(|gap| text.contains(gap)) && text.trim() == text, "{name}: {text:?}");
        }
        let of_ended = rule["expr"].as_str().expect("a query").contains("parkwarden_process_exits_total");
        let summary = rule["annotations"]["summary"].as_str().expect("a summary");
        assert!(of_ended || !summary.contains("$labels.exe") || summary.contains("pid {{ $labels.pid }}"), "{summary}");
    }
}

#[test]
fn the_manifests_are_valid_for_kubernetes() {
    let rendered: Vec<Rendered> = kustomizations().iter().map(|kustomization| Rendered::of(kustomization)).collect();
    are_valid_for_kubernetes(&rendered);
}

/// Objects of the API that the Prometheus operator adds, of which there is no schema here.
const OPERATORS: [&str; 3] = ["PodMonitor", "ServiceMonitor", "PrometheusRule"];

/// Everything that was rendered is what the API takes.
pub(crate) fn are_valid_for_kubernetes(rendered: &[Rendered]) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut files: Vec<PathBuf> = Vec::new();
    let mut objects = 0;
    for (number, rendered) in rendered.iter().enumerate() {
        let file = directory.path().join(number.to_string());
        fs::write(&file, &rendered.text).expect("written");
        files.push(file);
        let kinds = rendered.objects.iter().filter_map(|object| object["kind"].as_str());
        objects += kinds.filter(|kind| !OPERATORS.contains(kind)).count();
    }
    let modules = packages::kubernetes().expect("installed");
    for version in KUBERNETES {
        let mut validate = Command::new("python3");
        validate.args(["-m", "kubernetes_validate", "--strict", "-k", version]).args(&files);
        let output = validate.env("PYTHONPATH", &modules).output().expect("python3 runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches(" passed for resource ").count(), objects, "{said}");
    }
}

#[test]
fn the_daemon_set_asks_for_no_more_than_it_has_to() {
    for kustomization in kustomizations() {
        let rendered = Rendered::of(&kustomization);
        let (pod, agent) = (rendered.pod(), rendered.agent());
        assert_eq!(pod["hostPID"], true, "the processes to watch are the node's");
        assert_eq!((&pod["hostNetwork"], &pod["hostIPC"]), (&Value::Null, &Value::Null));
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]), "every node");
        assert_eq!(pod["priorityClassName"], "system-node-critical");

        let context = &agent["securityContext"];
        assert_eq!((&context["privileged"], &context["allowPrivilegeEscalation"]), (&json!(false), &json!(false)));
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        let seccomp = context["seccompProfile"]["type"].as_str().expect("a profile");
        assert!(["RuntimeDefault", "Localhost"].contains(&seccomp), "{seccomp}");
        for resource in ["cpu", "memory"] {
            assert!(
                agent["resources"]["limits"][resource].is_string()
                    && agent["resources"]["requests"][resource].is_string()
            );
        }
        let host: Vec<_> =
            pod["volumes"].as_array().expect("volumes").iter().filter(|v| !v["hostPath"].is_null()).collect();
        let [recording] = host[..] else { panic!("{host:?}") };
        assert_eq!(recording["hostPath"]["path"], "/var/lib/parkwarden");

        let rules = json!([
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": [""], "resources": ["events"], "verbs": ["create"] },
        ]);
        assert_eq!(rendered.object("ClusterRole")["rules"], rules);
        let account = rendered.object("ServiceAccount");
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
        let subject = &rendered.object("ClusterRoleBinding")["subjects"][0];
        for key in ["name", "namespace"] {
            assert_eq!(subject[key], account["metadata"][key]);
        }
    }
}

#[test]
fn the_manifests_configuration_is_the_agents() {
    for kustomization in kustomizations() {
        let rendered = Rendered::of(&kustomization);
        let (pod, agent) = (rendered.pod(), rendered.agent());
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("parkwarden.toml");
        rendered.write_configuration(&file);
        let config = NodeConfig::load(&Settings::default(), Some(&file)).expect("valid");
        assert!(config.watch.prove.is_some());

        // Its arguments are the agent's, with the file where the pod has it.
        let mounts = agent["volumeMounts"].as_array().expect("mounts");
        let mounted = |path: &Path, volume: &str| {
            mounts
                .iter()
                .any(|mount| mount["name"] == volume && path.starts_with(mount["mountPath"].as_str().expect("a path")))
        };
        let arguments = agent["args"].as_array().expect("arguments").iter();
        let mut arguments: Vec<String> = arguments.map(|word| word.as_str().expect("a word").to_owned()).collect();
        let at = arguments.iter().position(|word| word == "--config").expect("--config") + 1;
        assert!(mounted(Path::new(&arguments[at]), "config"), "{arguments:?}");
        arguments[at] = file.to_str().expect("UTF-8").to_owned();
        arguments.push("--print-config".to_owned());
        let printed = run(&arguments);
        assert!(printed.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&printed.stderr));
        assert!(mounted(config.record.0.as_deref().expect("a recording"), "recording"));

        // It is scraped where it listens.
        let port = config.listen.port();
        assert_eq!(port, NodeConfig::default().listen.port());
        assert!(config.listen.ip().is_unspecified());
        assert_eq!(agent["ports"], json!([{ "name": "http", "containerPort": port }]));
        let template = &rendered.object("DaemonSet")["spec"]["template"]["metadata"];
        let labels = &template["labels"];
        let monitored = rendered.objects.iter().find(|object| object["kind"] == "PodMonitor");
        if let Some(monitor) = monitored {
            let selector = monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels");
            assert!(
                !selector.is_empty() && selector.iter().all(|(name, value)| labels[name] == *value),
                "{selector:?}"
            );
            let endpoint = json!([{ "port": "http", "honorLabels": true, "interval": "30s" }]);
            assert_eq!(monitor["spec"]["podMetricsEndpoints"], endpoint);
            assert_eq!(monitor["metadata"]["namespace"], rendered.object("DaemonSet")["metadata"]["namespace"]);
            assert_eq!(template["annotations"], Value::Null, "it would be scraped twice");
        } else {
            let annotations = &template["annotations"];
            assert_eq!(annotations["prometheus.io/scrape"], "true");
            assert_eq!(annotations["prometheus.io/port"], port.to_string());
            assert_eq!(annotations["prometheus.io/path"], "/metrics");
            let secured = arguments.iter().any(|argument| argument.starts_with("--tls-cert="));
            assert_eq!(annotations["prometheus.io/scheme"] == "https", secured);
        }
        assert_eq!(pod["terminationGracePeriodSeconds"], 30);
    }
}

#[test]
fn the_unit_has_the_capabilities_of_the_manifest() {
    let unit = read("systemd/parkwarden.service");
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("a set");
    let named: Vec<_> = set.split(' ').filter_map(|name| name.strip_prefix("CAP_")).collect();
    assert_eq!(named, Rendered::of(BASE).capabilities());
    assert!(unit.lines().any(|line| line == "NoNewPrivileges=yes"));
}

#[test]
fn what_is_to_be_executed_in_the_agents_container_is_there_and_is_understood() {
    let image = read("Containerfile");
    let entry = image.lines().find_map(|line| line.strip_prefix("ENTRYPOINT [\"")?.strip_suffix("\"]"));
    let readme = read("README.md");
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| {
            line.strip_prefix("kubectl --namespace parkwarden exec ")?.split_once(" -- ").map(|(_, command)| command)
        })
        .collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        let mut words = command.split(" > ").next().unwrap_or_default().split(' ');
        assert_eq!(words.next(), entry, "{command}");
        // The process may be missing, but the words mean something.
        let words = words.map(|word| if word == "4242" { "4194305" } else { word });
        let ended = run(words);
        assert!(matches!(ended.status.code(), Some(0 | 4)), "{command}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/parkwarden.json")).expect("JSON")
}

/// Calls `visit` with every text that `key` has anywhere in it.
fn visit<'a>(value: &'a Value, key: &str, see: &mut impl FnMut(&'a str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| visit(item, key, see)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(text) if name == key => see(text),
                    _ => visit(field, key, see),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_dashboard_is_one_by_grafanas_types() {
    let installed = packages::grafana().expect("installed").join("node_modules");
    let directory = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(&installed, directory.path().join("node_modules")).expect("a link");
    let types = fs::read_to_string(xtask::root().join("tests/grafana/dashboard.ts")).expect("the types");
    fs::write(directory.path().join("dashboard.ts"), types + &read("grafana/parkwarden.json")).expect("written");
    let mut tsc = Command::new("node");
    tsc.arg(installed.join("typescript/bin/tsc")).args(["--noEmit", "--strict", "--skipLibCheck"]);
    succeeds(tsc.args(["--module", "nodenext", "dashboard.ts"]).current_dir(directory.path()));
}

#[test]
fn the_dashboards_queries_parse_and_are_about_what_there_is() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    // `$` stays where a variable is not defined, and does not parse.
    let filled_in = |query: &str| {
        let query = query.replace("$__rate_interval", "5m");
        variables.iter().fold(query, |query, variable| {
            query.replace(&format!("\"${}\"", variable["name"].as_str().expect("a name")), "\".*\"")
        })
    };
    let mut queries = Vec::new();
    visit(&dashboard["panels"], "expr", &mut |query| queries.push(filled_in(query)));
    visit(&dashboard["annotations"], "expr", &mut |query| queries.push(filled_in(query)));
    assert!(queries.len() > 20);
    for query in &queries {
        promql::labels(query);
    }
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let query = filled_in(variable["query"]["query"].as_str().expect("a query"));
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')'));
        let (series, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(SERIES, LABEL)");
        assert!(promql::labels(series).contains(label), "{query}");
        queries.push(series.to_owned());
        // All means also those without the label.
        assert_eq!(variable["allValue"], ".*");
    }
    // Whatever a legend or a link names is in the data.
    visit(&dashboard["panels"], "legendFormat", &mut |legend| {
        for name in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            let known = queries.iter().any(|query| promql::labels(query).contains(name));
            assert!(known, "no metric has a label {name}");
        }
    });
    let rules: Vec<_> = queries.iter().map(|query| json!({ "record": "dashboard:query", "expr": query })).collect();
    let groups: Vec<_> =
        rules.iter().enumerate().map(|(n, rule)| json!({ "name": format!("{n}"), "rules": [rule] })).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rules.json");
    fs::write(&file, json!({ "groups": groups }).to_string()).expect("written");
    succeeds(promtool().args(["check", "rules"]).arg(&file));
}

#[test]
fn what_processes_say_of_themselves_is_only_shown_by_the_dashboard() {
    let dashboard = dashboard();
    // Links begin with what Prometheus was told to scrape; all else in them is encoded.
    visit(&dashboard["panels"], "url", &mut |url| {
        let rest =
            url.strip_prefix("${scheme}://${__data.fields.instance}/").or_else(|| url.strip_prefix("/d/parkwarden?"));
        let rest = rest.unwrap_or_else(|| panic!("{url} could lead anywhere"));
        for value in rest.split("${").skip(1).filter_map(|value| value.split('}').next()) {
            assert!(value.ends_with(":percentencode") || value.ends_with(":queryparam"), "{url}");
        }
    });
    // No cell or text is taken for HTML or Markdown but what is written here.
    let panels = dashboard["panels"].as_array().expect("panels");
    for text in panels.iter().filter(|panel| panel["type"] == "text") {
        assert!(!text["options"].to_string().contains("${"), "{text}");
    }
    let mut kinds = BTreeSet::new();
    let overrides = |panel: &Value| panel["fieldConfig"]["overrides"].as_array().cloned().unwrap_or_default();
    let properties =
        panels.iter().flat_map(overrides).flat_map(|each| each["properties"].as_array().cloned().unwrap_or_default());
    for cell in properties.filter(|property| property["id"] == "custom.cellOptions") {
        kinds.insert(cell["value"]["type"].as_str().expect("a kind").to_owned());
    }
    assert_eq!(kinds, BTreeSet::from(["color-text".to_owned()]));
}
