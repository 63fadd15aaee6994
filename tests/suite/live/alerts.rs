//! What reaches whoever is on call: a service leaks in a container of a pod, and Alertmanager has an alert that says which
//! pod, and which `go` statement; one in a container without a pod is killed for lack of memory, and Alertmanager has that.
//! Only the API server that knows the pod is made up.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use flate2::read::GzDecoder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden::config::settings::RuntimeMetrics;
use parkwarden::export::metrics::runtime;
use parkwarden::words::Place;
use parkwarden_tests::agent::binary;
use parkwarden_tests::containers::{Container, Containerd, Run, image};
use parkwarden_tests::copied::Copied;
use parkwarden_tests::free_ports;
use parkwarden_tests::http::{Answer, Server};
use parkwarden_tests::manifests::deploy;
use parkwarden_tests::node::Node;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use serde_json::{Value, json};
use xtask::packages;
use xtask::toolchain::NEWEST;

use super::servers;
use crate::deploy::{is_open_metrics, passes_promtool};

const UID: &str = "0d1e2f3a-4b5c-6d7e-8f90-a1b2c3d4e5f6";

/// What the program says of its leak.
#[derive(Deserialize)]
struct Said {
    created_by: Place,
}

/// An API server with one pod, which has this container.
fn cluster_of(container: &Container) -> Server {
    let pods = json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "10"},
        "items": [{
            "metadata": {"name": "quotes-6d5f7c9b8-x2x4z", "namespace": "shop", "uid": UID, "resourceVersion": "7"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "server", "image": "quotes"}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "server", "containerID": format!("containerd://{}", container.id), "image": "quotes",
                "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}, "lastState": {},
            }]},
        }],
    });
    Server::start(move |request| match request.line.split_once(' ') {
        Some(("GET", path)) if path.contains("watch=true") => Answer::Stream,
        Some(("GET", path)) if path.starts_with("/api/v1/pods?") => Answer::Json(200, pods.clone()),
        Some(("POST", "/api/v1/namespaces/shop/events?")) => Answer::Json(201, request.body.clone()),
        _ => Answer::Json(404, json!({"kind": "Status", "status": "Failure", "code": 404, "message": request.line})),
    })
}

fn kubeconfig(server: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
}

/// A file of `deploy/prometheus` with other values: what stands there must be there.
fn adapted(name: &str, changes: &[(&str, &str)]) -> String {
    let text = fs::read_to_string(deploy("prometheus").join(name)).expect("readable");
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} does not say {from}");
        text.replace(from, to)
    })
}

/// Prometheus with the shipped scrape configuration and rules, quick and with an Alertmanager.
fn prometheus(dir: &Path, port: u16, node: &Node, alertmanager: u16) -> servers::Server {
    let address = node.url.trim_start_matches("http://");
    let quick = "global: {scrape_interval: 1s, evaluation_interval: 1s}\n";
    let alerting =
        format!("alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]}}\n");
    let config = [quick, &alerting, &adapted("scrape.yml", &[("localhost:9465", address)])].concat();
    fs::write(dir.join("prometheus.yml"), config).expect("written");
    // A leak that stays is told after ten minutes; here it stays long enough within a second.
    let rules = adapted("parkwarden.rules.yml", &[("for: 10m", "for: 1s")]);
    fs::write(dir.join("parkwarden.rules.yml"), rules).expect("written");
    let arguments = [
        format!("--config.file={}", dir.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    // The server comes with its tool.
    packages::program("promtool").expect("installed");
    servers::start(Command::new("prometheus"), &arguments, dir)
}

/// Alertmanager with the shipped configuration, quick and with a receiver that listens.
fn alertmanager(dir: &Path, port: u16, receiver: &Server) -> servers::Server {
    let changes = [("http://127.0.0.1:9095", &*receiver.url()), ("group_wait: 30s", "group_wait: 1s")];
    fs::write(dir.join("alertmanager.yml"), adapted("alertmanager.yml", &changes)).expect("written");
    let arguments = [
        format!("--config.file={}", dir.join("alertmanager.yml").display()),
        format!("--storage.path={}", dir.join("alertmanager").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--cluster.listen-address=".to_owned(),
    ];
    packages::program("amtool").expect("installed");
    servers::start(Command::new("prometheus-alertmanager"), &arguments, dir)
}

fn get(port: u16, path: &str) -> Option<Value> {
    let body = ureq::get(format!("http://127.0.0.1:{port}{path}")).call().ok()?.into_body().read_to_string().ok()?;
    serde_json::from_str(&body).ok()
}

/// A scrape in the format and encoding that Prometheus asks for.
fn as_prometheus_asks(node: &Node) -> String {
    let request = ureq::get(format!("{}/metrics", node.url))
        .header("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
        .header("Accept-Encoding", "gzip");
    let mut response = request.call().expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut text = String::new();
    GzDecoder::new(response.body_mut().as_reader()).read_to_string(&mut text).expect("gzip");
    text
}

#[test]
fn leaks_and_what_they_end_in_reach_alertmanager() {
    let dir = tempfile::tempdir().expect("a directory");
    let containerd = Containerd::start();
    // Only what runs this program is watched.
    let program = format!("/srv{}/quotes", containerd.group);
    let image_name = "localhost/quotes:test";
    let file = fixture("quotes", NEWEST, BuildFlags::Stripped);
    containerd.import("default", &image(image_name, &[(&program, &file)], &[&program]));
    let run = Run { namespace: "default", image: image_name, ..Run::default() };
    let of_pod = containerd.run(&Run { pod_uid: Some(UID), ..run });
    let alone = containerd.run(&Run { memory_limit: Some(128 << 20), ..run });

    let api = cluster_of(&of_pod);
    let config = dir.path().join("kubeconfig");
    fs::write(&config, kubeconfig(&api.url()).to_string()).expect("written");
    let mut agent = Command::new(binary());
    agent.args(["agent", "--listen", "127.0.0.1:0", "--kubernetes", "on", "--node-name", "node-1", "--exe", &program]);
    agent.args(["--threshold", "0s", "--interval", "500ms", "--prove", "--max-pause", "5s"]);
    let node = Node::spawn(agent.env("KUBECONFIG", &config));

    let receiver = Server::start(|_| Answer::Json(200, json!({})));
    let [prometheus_port, alertmanager_port] = free_ports();
    let _alertmanager = alertmanager(dir.path(), alertmanager_port, &receiver);
    let _prometheus = prometheus(dir.path(), prometheus_port, &node, alertmanager_port);

    let alerts_of = |name: &str, container: &str| {
        let alerts = get(alertmanager_port, "/api/v2/alerts")?;
        let ours = |alert: &&Value| alert["labels"]["alertname"] == *name && alert["labels"]["container"] == *container;
        let found: Vec<Value> = alerts.as_array()?.iter().filter(ours).cloned().collect();
        (!found.is_empty()).then_some(found)
    };
    let created_by = of_pod.said::<Said>().created_by.to_string();
    for (container, name, namespace, pod) in
        [(&of_pod, "server", Some("shop"), Some("quotes-6d5f7c9b8-x2x4z")), (&alone, alone.id.as_str(), None, None)]
    {
        let alerts =
            node.wait_for(&format!("an alert of container {name}"), |_| alerts_of("GoroutineLeakProven", name));
        let [alert] = &*alerts else { panic!("one leak is told of {} times: {alerts:#?}", alerts.len()) };
        let labels = json!({
            "severity": "warning", "created_by": created_by, "namespace": namespace, "pod": pod, "exe": "quotes",
            "pid": container.pid.to_string(),
        });
        // Labels that are empty are none to Prometheus.
        for (name, value) in labels.as_object().expect("an object") {
            assert_eq!(alert["labels"][name], *value, "{name}: {alert:#}");
        }
        assert_eq!(alert["status"]["state"], "active", "{alert:#}");
        let text = alert["annotations"]["description"].as_str().expect("a description");
        assert!(text.contains(&format!(" goroutines made by {created_by} that block at ")), "{text}");
    }

    // One page for each of the two.
    for container in ["server", &alone.id] {
        node.wait_for(&format!("a page about container {container}"), |_| {
            receiver.asked().into_iter().find(|page| page.body["groupLabels"]["container"] == *container)
        });
    }
    let event = node
        .wait_for("an Event on the pod", |_| api.asked().into_iter().find(|request| request.line.starts_with("POST ")));
    assert_eq!(event.body["involvedObject"]["name"], "quotes-6d5f7c9b8-x2x4z", "{event:#?}");

    // It leaks slowly; what comes in the end comes now.
    kill(Pid::from_raw(alone.pid.cast_signed()), Signal::SIGUSR1).expect("it runs");
    let ended = node.wait_for("its end", |node| {
        let of_it = |labels: &str| labels.contains(&format!("container=\"{}\"", alone.id));
        let ends = node.series("parkwarden_process_exits_total");
        ends.into_iter().find(|(labels, count)| of_it(labels) && *count > 0.0)
    });
    assert!(ended.0.contains("how=\"oom\""), "{ended:?}, {:?}", node.said());
    let alerts = node.wait_for("an alert of its end", |_| alerts_of("GoroutineLeakOOMKilled", &alone.id));
    assert_eq!(alerts[0]["labels"]["how"], "oom", "{alerts:#?}");

    // Whoever reads the log alone has been told too, once each.
    let said = node.said();
    let of_it = format!("pid {} (quotes, {}): ", alone.pid, alone.id);
    let told: Vec<&str> = said.iter().filter_map(|line| line.split_once(&of_it)).map(|(_, told)| told).collect();
    let made = format!(" goroutines made by {created_by} can never run again: ");
    let (ends, before): (Vec<&str>, Vec<&str>) = told.iter().partition(|line| line.starts_with("ended with a leak: "));
    assert_eq!(before.iter().filter(|line| line.contains(&made)).count(), 1, "{said:#?}");
    assert!(ends.len() == 1 && ends[0].contains(&format!(" made by {created_by} ")), "{said:#?}");

    passes_promtool(&node.get("/metrics").1);
    let scrape = as_prometheus_asks(&node);
    is_open_metrics(&scrape);
    let own = format!("process_resident_memory_bytes{{exe=\"parkwarden\",pid=\"{}\"}} ", node.pid());
    assert!(scrape.lines().any(|line| line.starts_with(&own)), "{scrape}");
}

/// What a query finds.
fn query(port: u16, query: &str) -> Option<Vec<Value>> {
    let answer = ureq::get(format!("http://127.0.0.1:{port}/api/v1/query")).query("query", query).call().ok()?;
    let answer: Value = serde_json::from_str(&answer.into_body().read_to_string().ok()?).ok()?;
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    answer["data"]["result"].as_array().cloned()
}

#[test]
fn dashboards_for_go_processes_find_their_series_in_prometheus() {
    let dir = tempfile::tempdir().expect("a directory");
    let copied = Copied::of("vitals");
    let mut command = Command::new(&copied.program);
    command.args(["-fault", "healthy", "-n", "2"]);
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    let node = Node::start(&copied.pattern(), &["--mode", "census", "--interval", "500ms"]);
    node.wait_for_state(target.pid(), "watched");
    let [port, nobody] = free_ports();
    let _prometheus = prometheus(dir.path(), port, &node, nobody);
    for row in runtime::ALL.iter().filter(|row| row.at == RuntimeMetrics::Basic) {
        let name = row.definition.name;
        node.wait_for(name, |_| query(port, &format!("{name}{{exe=\"vitals\"}}")).filter(|found| !found.is_empty()));
    }
    // The rows of the shipped dashboard, over two scrapes and more.
    let dashboard = fs::read_to_string(deploy("grafana/parkwarden.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    // What depends on the control group, and on something being wrong.
    let may_be_empty = ["memory_group", "throttled", "runtime_unusual"];
    let mut asked = 0;
    for panel in panels.iter().filter(|panel| (31..=43).contains(&panel["id"].as_u64().expect("an id"))) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = target["expr"].as_str().expect("a query").replace("$__rate_interval", "10s");
            let text = ["instance", "namespace", "pod", "exe"]
                .iter()
                .fold(text, |text, name| text.replace(&format!("\"${name}\""), "\".*\""));
            asked += 1;
            if may_be_empty.iter().any(|part| text.contains(part)) {
                assert!(query(port, &text).is_some(), "{text}");
            } else {
                node.wait_for(&text, |_| query(port, &text).filter(|found| !found.is_empty()));
            }
        }
    }
    assert_eq!(asked, 11);
}
