//! The steps of the story, each of which shows one thing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use parkwarden::clock::unix_now_ns;
use parkwarden::timeline::Timeline;
use parkwarden_tests::manifests::{BASE, Rendered, deploy};
use serde::Deserialize;
use serde_json::{Value, json};
use xtask::command::{output, say};
use xtask::toolchain;

use crate::client::{Agent, Series, wait_for};
use crate::machine::prints;
use crate::{Cluster, manifest, monitoring, servers};

/// Where the recording is, on the node.
const RECORDING: &str = "/var/lib/parkwarden/recording.db";

/// Namespaces, and the container that leaks.
pub const AGENT: &str = "parkwarden";
pub const SHOP: &str = "shop";
pub const LEAKING: &str = "quotes";

/// One of them.
pub type Step = fn(&mut Cluster, &mut Story);

/// What later steps know from earlier ones.
#[derive(Debug, Default)]
pub struct Story {
    agent: Option<Agent>,
    /// Name of the pod that leaks.
    pub pod: String,
    /// The `go` statement that leaks, as the program itself says it.
    created_by: Place,
}

impl Story {
    /// The agent there is now.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("deployed")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Place {
    function: String,
    file: String,
    line: u32,
}

impl Place {
    fn label(&self) -> String {
        format!("{} {}:{}", self.function, self.file, self.line)
    }
}

/// The manifests are applied as they are; the container has the capabilities that they list.
pub fn deploys_the_agent(cluster: &mut Cluster, story: &mut Story) {
    let kubectl = &cluster.kubectl;
    kubectl.does(&format!("apply --filename {}", deploy("kubernetes/base/namespace.yaml").display()));
    let secret = Agent::secret(&cluster.machine, &cluster.settings.authority);
    let mut create = kubectl.command("create secret generic parkwarden-http --namespace parkwarden");
    prints(create.args(secret.iter().map(|file| format!("--from-file={file}"))));
    kubectl.does(&format!("apply --kustomize {}", manifest("agent").display()));

    let pod = wait_for("the agent's pod", || kubectl.ready_pod(AGENT));
    story.agent = Some(Agent::of(&cluster.machine, &cluster.settings, &pod));
    wait_for("the DaemonSet", || {
        let status = kubectl.get("daemonset parkwarden --namespace parkwarden")?["status"].take();
        ensure!(status["numberReady"] == 1, "{status}");
        Ok(())
    });
    may_do_exactly(&pod, &Rendered::of("overlays/secured"));
    assert_eq!(story.agent().value("parkwarden_kubernetes_up").expect("a scrape"), 1.0);
}

/// What this node's container runtime asks for: containerd 1.6 opens `bpf()` for SYS_ADMIN alone.
pub fn gives_what_the_runtime_asks_for(cluster: &mut Cluster, story: &mut Story) {
    let pod = roll_out(cluster, story, "sys-admin");
    cluster.servers.extend(monitoring::start(&cluster.machine, &cluster.settings, &pod));
}

/// Rolls an overlay of deploy/ out over `secured`: what it says of the container's rights and arguments. The agent's pod, which
/// may do just that.
fn roll_out(cluster: &Cluster, story: &mut Story, overlay: &str) -> Value {
    let [base, secured, overlay] = [BASE.to_owned(), "overlays/secured".to_owned(), format!("overlays/{overlay}")]
        .map(|kustomization| Rendered::of(&kustomization));
    let words = |rendered: &Rendered| rendered.agent()["args"].as_array().expect("a list").clone();
    let of_base = words(&base);
    let more = words(&overlay).into_iter().filter(|word| !of_base.contains(word));
    let arguments: Vec<Value> = words(&secured).into_iter().chain(more).collect();
    let container = "/spec/template/spec/containers/0";
    let patch = json!([
        {"op": "replace", "path": format!("{container}/securityContext"), "value": overlay.agent()["securityContext"]},
        {"op": "replace", "path": format!("{container}/args"), "value": arguments},
    ]);
    let kubectl = &cluster.kubectl;
    let mut command = kubectl.command("patch daemonset parkwarden --namespace parkwarden --type json --patch");
    prints(command.arg(patch.to_string()));
    let pod = rolled_out(cluster, story);
    may_do_exactly(&pod, &overlay);
    pod
}

/// The agent's pod once all of them are of the DaemonSet as it is now.
fn rolled_out(cluster: &Cluster, story: &mut Story) -> Value {
    let begun = Instant::now();
    prints(&mut cluster.kubectl.command("rollout status daemonset parkwarden --namespace parkwarden --timeout 120s"));
    let pod = wait_for("the agent's pod", || cluster.kubectl.ready_pod(AGENT));
    say(format_args!("the agent was replaced in {:.1} s", begun.elapsed().as_secs_f64()));
    story.agent = Some(Agent::of(&cluster.machine, &cluster.settings, &pod));
    pod
}

/// The process has the capabilities of the manifest and no other, and cannot get others; its system calls are filtered.
fn may_do_exactly(pod: &Value, manifest: &Rendered) {
    assert_eq!(manifest.agent()["securityContext"]["privileged"], false);
    let listed = manifest.capabilities().iter().fold(0, |set, name| set | 1 << capability(name));
    let pid = process_of(pod, "parkwarden");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of the kernel's");
        line.trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let set_of_process = u64::from_str_radix(&field(set), 16).expect("hexadecimal");
        assert_eq!(set_of_process, listed, "{set} of pid {pid} is {set_of_process:x}, the manifest's {listed:x}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()));
}

/// A leak is proven in a stripped program of a pod, and told with the names that Kubernetes knows it by. The other container
/// of the same pod does not leak and is not said to.
pub fn names_a_leaking_pod(cluster: &mut Cluster, story: &mut Story) {
    cluster.kubectl.does(&format!("apply --filename {}", manifest("shop.yaml").display()));
    let pod = wait_for("the pod that leaks", || cluster.kubectl.ready_pod(SHOP));
    story.pod = pod["metadata"]["name"].as_str().expect("a name").to_owned();
    story.created_by = wait_for("the program's own word", || {
        let log =
            output(&mut cluster.kubectl.command(&format!("logs --namespace shop --container quotes {}", story.pod)))?;
        let said: Value = serde_json::from_str(log.lines().next().context("it has said nothing yet")?)?;
        Ok(Place::deserialize(&said["created_by"])?)
    });
    let leaks = wait_for("a proven leak", || {
        let leaks = story.agent().series("parkwarden_leaked_goroutines")?;
        let proven = leaks.iter().any(|leak| leak.has("verdict", "proven"));
        ensure!(proven, "{leaks:#?}, and of proofs {}", proofs(story.agent(), &story.pod)?);
        Ok(leaks)
    });
    let [leak] = &leaks[..] else { panic!("one leak, not {leaks:#?}") };
    assert!(names(leak, story), "{} made by {}: {leak:?}", story.pod, story.created_by.label());
    assert!(leak.value > 0.0);
    assert!(probe_hits(story).expect("a scrape") > 0.0, "it is watched without probes");
    let watched = story.agent().series("parkwarden_goroutines").expect("a scrape");
    assert!(watched.iter().any(|series| series.has("pod", &story.pod) && series.has("container", "front")));
    say(format_args!("{} {}", leak.name, leak.value));
}

fn probe_hits(story: &Story) -> anyhow::Result<f64> {
    Ok(story.agent().series("parkwarden_probe_hits_total")?.iter().map(|probe| probe.value).sum())
}

/// What a report says of attempts to prove.
fn proofs(agent: &Agent, pod: &str) -> anyhow::Result<String> {
    let list: Value = serde_json::from_str(&agent.get("/api/v1/processes")?)?;
    let processes = list["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let process = processes.iter().find(|process| process["pod"] == pod && process["container"] == LEAKING);
    let Some(process) = process else { return Ok(format!("{list:#}")) };
    let report: Value = serde_json::from_str(&agent.get(&format!("/api/v1/processes/{}", process["pid"]))?)?;
    Ok(format!("{:#}", report["observed"]["proofs"]))
}

fn names(leak: &Series, story: &Story) -> bool {
    leak.has("namespace", SHOP)
        && leak.has("pod", &story.pod)
        && leak.has("container", LEAKING)
        && leak.has("created_by", &story.created_by.label())
}

/// The Event is where people look first.
pub fn shows_an_event(cluster: &mut Cluster, story: &mut Story) {
    let line = wait_for("the Event", || {
        let text = output(&mut cluster.kubectl.command(&format!("describe pod --namespace shop {}", story.pod)))?;
        let line = text.lines().find(|line| line.contains("GoroutineLeak")).context("there is none yet")?;
        Ok(line.trim().to_owned())
    });
    for part in ["Warning", "parkwarden", "container quotes:", &story.created_by.label(), "can never run again"] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    say(line);
}

/// A profile of a pod, for whoever has the token, opened by Go's own tool.
pub fn serves_a_profile_by_pod(cluster: &mut Cluster, story: &mut Story) {
    let path = format!("/debug/pprof/goroutine?pod={}&namespace=shop&container=quotes", story.pod);
    let profile = cluster.machine.path("goroutine.pb.gz");
    prints(story.agent().curl(&path).arg("--output").arg(&profile));
    let go = toolchain::goroot(toolchain::NEWEST).expect("installed").join("bin/go");
    let mut pprof = toolchain::go_command(&go).expect("a cache directory");
    pprof.env("PPROF_TMPDIR", cluster.machine.path(""));
    let top = prints(pprof.args(["tool", "pprof", "-top"]).arg(&profile));
    let row = |function: &str| top.lines().find(|line| line.split_whitespace().any(|word| word == function));
    let gopark = row("runtime.gopark").unwrap_or_else(|| panic!("{top}"));
    assert!(row("main.ask").is_some() && row("runtime.chansend1").is_some(), "{top}");
    say(gopark.trim());

    // Nobody without it.
    let mut anonymous = Command::new("curl");
    let mut with = story.agent().curl(&path);
    let without = with.arg("--output").arg("/dev/null").get_args().map(ToOwned::to_owned).collect::<Vec<_>>();
    let header = without.iter().position(|word| word == "--header").expect("the token's");
    anonymous.args(&without[..header]).args(&without[header + 2..]).args(["--write-out", "%{http_code}"]);
    let refused = anonymous.output().expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "401");
}

/// Prometheus finds the agent by the annotations of its manifest, and the rules of deploy/ do the rest.
pub fn raises_an_alert(_: &mut Cluster, story: &mut Story) {
    let alert = wait_for("the alert", || monitoring::alert("GoroutineLeakProven"));
    let labels = &alert["labels"];
    let created_by = story.created_by.label();
    for (label, value) in
        [("namespace", SHOP), ("pod", &story.pod), ("container", LEAKING), ("created_by", created_by.as_str())]
    {
        assert_eq!(labels[label], value, "{label} of {alert:#}");
    }
    say(&alert["annotations"]["summary"]);
}

/// Of the DaemonSet, one agent goes and another comes; the file stays on the node.
pub fn keeps_the_recording(cluster: &mut Cluster, story: &mut Story) {
    let kubectl = &cluster.kubectl;
    let before = looks(cluster, story).expect("a recording");
    let old = kubectl.ready_pod(AGENT).expect("it is there");
    kubectl.does("rollout restart daemonset parkwarden --namespace parkwarden");
    let new = rolled_out(cluster, story);
    assert_ne!(old["metadata"]["uid"], new["metadata"]["uid"]);

    let came = new["metadata"]["creationTimestamp"].as_str().expect("a time");
    let came =
        humantime::parse_rfc3339(came).expect("a time").duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let after = wait_for("more in the recording", || {
        let looks = looks(cluster, story)?;
        let new = looks.iter().filter(|look| u128::from(**look) > came).count();
        ensure!(new >= 3, "{new} looks of the new agent");
        Ok(looks)
    });
    assert!(before.len() >= 3 && after.starts_with(&before), "what was recorded before is gone: {before:?}, {after:?}");
    say(format_args!("{} looks were recorded before, {} since", before.len(), after.len() - before.len()));
    // The leak is proven anew, and told of no second time.
    wait_for("the leak", || {
        let leaks = story.agent().series("parkwarden_leaked_goroutines")?;
        ensure!(leaks.iter().any(|leak| names(leak, story) && leak.has("verdict", "proven")), "{leaks:#?}");
        Ok(())
    });
    let written = wait_for("the Event, again", || {
        let events = kubectl.get("events --namespace shop --field-selector reason=GoroutineLeak")?;
        let written = story.agent().series("parkwarden_kubernetes_events_total")?;
        let written = written.iter().find(|series| series.has("outcome", "written")).context("no such series")?.value;
        ensure!(written >= 1.0, "the new agent has written none yet");
        Ok(events["items"].as_array().map_or(0, Vec::len))
    });
    assert_eq!(written, 1);
    let shop = kubectl.ready_pod(SHOP).expect("it is there");
    let restarts = shop["status"]["containerStatuses"].as_array().expect("a list").iter();
    assert!(restarts.clone().all(|container| container["restartCount"] == 0), "nobody noticed");
}

/// When the looks were that the recording has of the container that leaks, in Unix milliseconds.
fn looks(cluster: &Cluster, story: &Story) -> anyhow::Result<Vec<u64>> {
    let mut timeline = Command::new(&cluster.parts.agent);
    timeline.args(["timeline", "--record", RECORDING, "--pod", &story.pod, "--format", "json"]);
    let timeline: Timeline = serde_json::from_str(&output(&mut timeline)?)?;
    let lives: Vec<_> = timeline.lives.iter().filter(|life| life.exe.ends_with(LEAKING)).collect();
    let [life] = lives[..] else { bail!("it is one process, not {}", lives.len()) };
    Ok(life.segments.iter().flat_map(|segment| segment.ms.iter().copied()).collect())
}

/// Nobody needs the API server to see what leaks: what is known of pods stays in use, and when it is back it is asked again.
pub fn goes_on_without_the_api(cluster: &mut Cluster, story: &mut Story) {
    let leaked = |story: &Story| -> anyhow::Result<f64> {
        let leaks = story.agent().series("parkwarden_leaked_goroutines")?;
        let leak = leaks.iter().find(|leak| names(leak, story)).with_context(|| format!("{leaks:#?}"))?;
        Ok(leak.value)
    };
    cluster.api = None;
    wait_for("the outage to be seen", || is(story, 0.0));
    let before = leaked(story).expect("it is still named");
    wait_for("more to be seen without the API", || {
        let now = leaked(story)?;
        ensure!(now > before, "{now} after {before}");
        Ok(())
    });
    let looks = story.agent().series("parkwarden_process_last_look_timestamp_seconds").expect("a scrape");
    assert!(
        looks.iter().all(|look| look.has("pod", &story.pod) && unix_now_ns() as f64 / 1e9 - look.value < 30.0),
        "{looks:#?}"
    );

    cluster.api = Some(servers::api(&cluster.machine, &cluster.parts));
    wait_for("the end of the outage to be seen", || is(story, 1.0));
    // Pods made now are known too.
    wait_for("another pod", || {
        output(&mut cluster.kubectl.command("scale deployment shop --namespace shop --replicas 2"))
    });
    let pods = wait_for("the other pod, by its name", || {
        // With what the container may do and its filter of system calls lets through, there are probes.
        let hits = story.agent().series("parkwarden_probe_hits_total").expect("a scrape");
        assert!(hits.iter().map(|probe| probe.value).sum::<f64>() > 0.0, "{hits:#?}");
        let watched = story.agent().series("parkwarden_goroutines")?;
        let named = watched.iter().filter(|series| series.has("namespace", SHOP) && series.has("container", LEAKING));
        let named: Vec<&Series> = named.collect();
        ensure!(named.len() == 2, "{named:#?}");
        Ok(named.len())
    });
    say(format_args!("{pods} pods are named"));
}

/// With a seccomp profile of its own it needs no SYS_ADMIN for its probes, on this node too; without probes it needs little, and
/// still proves.
pub fn obeys_its_overlays(cluster: &mut Cluster, story: &mut Story) {
    // As the overlay says; this `/var` is the cluster's own.
    let profile = deploy("kubernetes/overlays/seccomp/parkwarden.json");
    let place = "/var/lib/kubelet/seccomp/parkwarden.json";
    prints(Command::new("install").args(["-D", "-m", "0644"]).arg(profile).arg(place));
    for (overlay, probes) in [("seccomp", true), ("census", false)] {
        roll_out(cluster, story, overlay);
        wait_for(overlay, || {
            let leaks = story.agent().series("parkwarden_leaked_goroutines")?;
            ensure!(leaks.iter().any(|leak| names(leak, story) && leak.has("verdict", "proven")), "{leaks:#?}");
            Ok(())
        });
        assert_eq!(probe_hits(story).expect("a scrape") > 0.0, probes, "overlay {overlay}");
    }
}

fn is(story: &Story, up: f64) -> anyhow::Result<()> {
    let found = story.agent().value("parkwarden_kubernetes_up")?;
    ensure!(found == up, "it is {found}");
    Ok(())
}

/// A process of a pod's container, by the name of its program: in which, its control group tells.
pub fn process_of(pod: &Value, program: &str) -> u32 {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id");
    let id = id.rsplit('/').next().expect("an id");
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is = |pid: &u32| {
        let proc = Path::new("/proc").join(pid.to_string());
        let group = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        group.contains(id) && fs::read_to_string(proc.join("comm")).is_ok_and(|name| name.trim() == program)
    };
    pids.into_iter().find(is).unwrap_or_else(|| panic!("no {program} in {id}"))
}

/// The number of a capability, from linux/capability.h.
fn capability(name: &str) -> u32 {
    match name {
        "SYS_PTRACE" => 19,
        "SYS_ADMIN" => 21,
        "PERFMON" => 38,
        "BPF" => 39,
        other => panic!("what number has the capability {other}?"),
    }
}
