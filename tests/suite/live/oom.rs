//! A process that is killed for lack of memory is told from one that somebody kills when another's memory has run out.

use std::path::Path;
use std::process::Command;

use parkwarden_tests::agent::binary;
use parkwarden_tests::control_group::ControlGroup;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::node::Node;
use parkwarden_tests::{BuildFlags, Target, fixture};
use serde_json::Value;
use xtask::toolchain::NEWEST;

/// What takes the agent's capabilities but one, as the manifests for clusters without probes do.
const WITHOUT_BPF: &str = "setpriv --no-new-privs --inh-caps=-all,+sys_ptrace --bounding-set=-all,+sys_ptrace";

/// An agent that sees no control groups, as in a pod, where those of other pods are not to be seen; `confined` is put before it.
fn agent(confined: &str, program: &Path, pattern: &str) -> Node {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg(format!("umount --recursive /sys/fs/cgroup && exec {confined} \"$0\" \"$@\"")).arg(program);
    command.args(["agent", "--listen", "127.0.0.1:0", "--kubernetes", "off", "--exe", pattern, "--interval", "1h"]);
    Node::spawn(&mut command)
}

/// How the one process ended whose executable has that name, once it has.
fn end(node: &Node, exe: &str) -> String {
    let of_it = |(labels, count): &(String, f64)| labels.contains(&format!("exe=\"{exe}\"")) && *count > 0.0;
    let labels = node.wait_for(&format!("the end of {exe}"), |node| {
        node.series("parkwarden_process_exits_total").into_iter().find(of_it).map(|(labels, _)| labels)
    });
    let how = labels.split_once("how=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a label");
    how.0.to_owned()
}

#[test]
fn a_kill_is_told_from_the_oom_kill_of_another_process_or_a_doubt_is_told() {
    let agent_file = Copied::file(binary(), "parkwarden");
    // Without BPF nobody tells whom the kernel has chosen.
    for (confined, of_victim, of_bystander) in [("", "oom", "signal"), (WITHOUT_BPF, "perhaps_oom", "perhaps_oom")] {
        let directory = tempfile::tempdir().expect("a directory");
        let copy = |name: &str| {
            let program = directory.path().join(name);
            std::fs::copy(fixture("incident", NEWEST, BuildFlags::Default), &program).expect("copied");
            program
        };
        let group = ControlGroup::of_memory(100 << 20);
        let mut command = group.command(copy("victim"));
        command.args(["-rate", "4000", "-hold", "65536"]);
        let mut victim = Target::spawn_command(command);
        let _: Value = victim.answer();
        let (bystander, _): (_, Value) = Target::ready(&copy("bystander"), [] as [&str; 0]);

        let node = agent(confined, &agent_file.program, &format!("{}/*", directory.path().display()));
        for target in [&victim, &bystander] {
            node.wait_for_state(target.pid(), "watched");
        }
        let _: Value = victim.ask("leak");
        assert_eq!(end(&node, "victim"), of_victim, "{confined:?}: {:#?}", node.said());
        bystander.kill();
        assert_eq!(end(&node, "bystander"), of_bystander, "{confined:?}: {:#?}", node.said());
        drop(victim);
    }
}
