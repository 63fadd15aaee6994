//! Steps of the story about pods that are of several programs, run from files, or end.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden_tests::manifests::deploy;
use serde_json::{Value, json};
use xtask::command::{output, say};

use crate::Cluster;
use crate::client::wait_for;
use crate::machine::prints;
use crate::servers::{NODE, STATIC_PODS};
use crate::steps::{AGENT, LEAKING, SHOP, Story, process_of};

/// Whoever asks for a profile of a pod of two programs is told how to ask for one of them.
pub fn are_told_apart_by_container(_: &mut Cluster, story: &mut Story) {
    let path = format!("/debug/pprof/goroutine?namespace=shop&pod={}", story.pod);
    let mut curl = story.agent().curl(&path);
    curl.args(["--no-fail", "--write-out", "%{http_code}"]);
    let answer = prints(&mut curl);
    assert!(answer.ends_with("400") && answer.contains("&container=: front, quotes"), "{answer}");
    say(answer);
}

/// As deploy/README.md says.
pub fn give_profiles_in_the_agents_container(cluster: &mut Cluster, story: &mut Story) {
    let watched = story.agent().series("parkwarden_goroutines").expect("a scrape");
    let leaking = watched.iter().find(|series| series.has("pod", &story.pod) && series.has("container", LEAKING));
    let labels = &leaking.expect("it is watched").name;
    let pid = labels.split_once("pid=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a pid").0;
    let readme = fs::read_to_string(deploy("README.md")).expect("it is there");
    let line = readme.lines().find(|line| line.starts_with("kubectl ") && line.contains(" snapshot ")).expect("how");
    let (command, _) = line.split_once(" > ").expect("where to");
    let agent = cluster.kubectl.ready_pod(AGENT).expect("it runs");
    let agent = agent["metadata"]["name"].as_str().expect("a name");
    let command = command.replace("parkwarden-x2x4z", agent).replace("4242", pid);
    let mut exec = cluster.kubectl.command(command.strip_prefix("kubectl ").expect("kubectl's"));
    let done = exec.output().expect("kubectl runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.stdout.get(..2), Some(&b"\x1f\x8b"[..]), "a profile is compressed");
    say(format_args!("{command}: {} bytes", done.stdout.len()));
}

/// The pod that a kubelet runs from a file has another uid than its mirror in the API, and its Events go by that.
pub fn are_told_of_when_they_are_static(cluster: &mut Cluster, _: &mut Story) {
    let pod = pod("static", json!({"name": LEAKING, "image": "quotes:1"}));
    let file = cluster.machine.file(&format!("{STATIC_PODS}/pod.json"), &pod.to_string());
    let describe = format!("describe pod --namespace {SHOP} static-{NODE}");
    let line = wait_for("the Event on the static pod", || {
        let text = output(&mut cluster.kubectl.command(&describe))?;
        let line = text.lines().find(|line| line.contains("GoroutineLeak")).with_context(|| text.clone())?;
        Ok(line.trim().to_owned())
    });
    say(line);
    fs::remove_file(file).expect("removed");
    wait_for("the end of the static pod", || {
        ensure!(cluster.kubectl.get(&format!("pod --namespace {SHOP} static-{NODE}")).is_err(), "it is there");
        Ok(())
    });
}

/// Where the kernel tells whom its OOM killer chooses.
pub fn end_as_the_oom_killer_says(cluster: &mut Cluster, story: &mut Story) {
    one_is_killed_for_memory_and_another_by_hand(cluster, story, "signal");
}

/// Where it does not, and the control groups of other pods are not to be seen.
pub fn end_as_their_status_says(cluster: &mut Cluster, story: &mut Story) {
    one_is_killed_for_memory_and_another_by_hand(cluster, story, "perhaps_oom");
}

/// A pod with a limit of memory is killed by the kernel; right after that somebody kills one without, as a kubelet does with those
/// that do not end when told to. How the agent tells the end of the latter.
fn one_is_killed_for_memory_and_another_by_hand(cluster: &mut Cluster, story: &mut Story, of_killed: &str) {
    let limited = json!({"name": "limited", "image": "quotes:1", "resources": {"limits": {"memory": "100Mi"}}});
    let unlimited = json!({"name": "unlimited", "image": "quotes:1"});
    for (name, container) in [("limited", limited), ("unlimited", unlimited)] {
        let file = cluster.machine.file(&format!("{name}.json"), &pod(name, container).to_string());
        cluster.kubectl.does(&format!("apply --filename {}", file.display()));
    }
    let kubectl = &cluster.kubectl;
    wait_for("both pods to be watched", || {
        let watched = story.agent().series("parkwarden_goroutines")?;
        for pod in ["limited", "unlimited"] {
            ensure!(watched.iter().any(|series| series.has("pod", pod)), "{pod} is not in {watched:#?}");
        }
        Ok(())
    });
    let [limited, unlimited] =
        ["limited", "unlimited"].map(|name| kubectl.get(&format!("pod --namespace {SHOP} {name}")).expect("it runs"));
    let pid = process_of(&limited, "quotes").cast_signed();
    // It leaks slowly; what comes in the end comes now.
    kill(Pid::from_raw(pid), Signal::SIGUSR1).expect("it runs");
    let ended = |pod: &str| {
        wait_for(format!("the end of pod {pod}"), || {
            let ends = story.agent().series("parkwarden_process_exits_total")?;
            let end =
                ends.iter().find(|end| end.has("pod", pod) && end.value > 0.0).with_context(|| format!("{ends:#?}"))?;
            Ok(end.clone())
        })
    };
    wait_for("its end", || {
        ensure!(Command::new("test").args(["-e", &format!("/proc/{pid}/exe")]).status()?.code() == Some(1), "it lives");
        Ok(())
    });
    kill(Pid::from_raw(process_of(&unlimited, "quotes").cast_signed()), Signal::SIGKILL).expect("it runs");
    let (limited, unlimited) = (ended("limited"), ended("unlimited"));
    assert!(limited.has("how", "oom"), "{limited:?}");
    assert!(unlimited.has("how", of_killed), "{unlimited:?}");
    say(format_args!("limited: {}; unlimited: {}", limited.name, unlimited.name));
    kubectl.does(&format!("delete pod --namespace {SHOP} limited unlimited"));
}

/// A pod of one container that is neither started again nor given time to end.
fn pod(name: &str, container: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SHOP},
        "spec": {
            "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
            "containers": [container],
        },
    })
}
