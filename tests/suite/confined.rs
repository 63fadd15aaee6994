//! The agent with the rights that `deploy/` gives it and no others: they are enough for programs of any user, and each is
//! there for something.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use parkwarden::report::Report;
use parkwarden_tests::agent::binary;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::manifests::{BASE, Rendered};
use parkwarden_tests::node::Node;
use parkwarden_tests::target::Target;
use serde_json::Value;

/// Debian's user `nobody`.
const SOMEBODY: u32 = 65534;

/// As its number, which is what programs older than a capability know it by (`include/uapi/linux/capability.h`).
const NUMBERS: [(&str, u32); 5] =
    [("DAC_READ_SEARCH", 2), ("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("PERFMON", 38), ("BPF", 39)];

/// What makes a verdict come soon.
const SOON: [&str; 8] = ["--threshold", "200ms", "--interval", "500ms", "--prove", "true", "--max-pause", "5s"];

/// A program of another user that leaks what can be proven, and an agent that only root may execute beside it.
struct Scene {
    leaking: Copied,
    target: Target,
    agent: Copied,
}

impl Scene {
    fn new() -> Self {
        let leaking = Copied::of("piling");
        let mut command = Command::new(&leaking.program);
        command.arg("only-orphans").uid(SOMEBODY).gid(SOMEBODY);
        let mut target = Target::spawn_command(command);
        let _: Value = target.answer();
        // Root without capabilities is any other user where permissions are looked at: not in the source tree.
        Self { leaking, target, agent: Copied::file(binary(), "parkwarden") }
    }

    fn pid(&self) -> u32 {
        self.target.pid()
    }

    /// The agent, as root with these capabilities and no way to get others.
    fn command(&self, capabilities: &[String], arguments: &[&str]) -> Command {
        let only = number(capabilities).iter().map(|number| format!(",+cap_{number}")).collect::<String>();
        let mut command = Command::new("setpriv");
        command.args(["--no-new-privs", &format!("--inh-caps=-all{only}"), &format!("--bounding-set=-all{only}")]);
        command.arg(&self.agent.program).args(["agent", "--listen", "127.0.0.1:0", "--kubernetes", "off"]);
        command.args(["--exe", &self.leaking.pattern()]).args(SOON).args(arguments);
        command
    }

    fn node(&self, capabilities: &[String], arguments: &[&str]) -> Node {
        let node = Node::spawn(&mut self.command(capabilities, arguments));
        assert_confined(node.pid(), capabilities);
        node
    }
}

fn number(capabilities: &[String]) -> Vec<u32> {
    let of = |name: &String| NUMBERS.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
    capabilities.iter().map(|name| of(name).unwrap_or_else(|| panic!("what is the number of {name}?"))).collect()
}

/// The process has exactly these capabilities, and cannot get others.
fn assert_confined(pid: u32, capabilities: &[String]) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).expect(name);
    let mask = number(capabilities).iter().fold(0u64, |mask, number| mask | 1 << number);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(u64::from_str_radix(field(set), 16), Ok(mask), "{set} of {capabilities:?}");
    }
    assert_eq!((field("CapAmb"), field("NoNewPrivs")), ("0000000000000000", "1"));
}

/// Waits until a leak of the process is proven; then its report.
fn proven(node: &Node, pid: u32) -> Report {
    node.wait_for("a proven leak", |node| node.process(pid).filter(|process| process["verdict"] == "proven"));
    node.report(pid).expect("it is watched")
}

/// The agent watches with probes, and has proven the leak.
fn assert_watches_and_proves(node: &Node, pid: u32) {
    let report = proven(node, pid);
    assert!(!report.observed.probes.is_empty(), "{:#?}", report.observed.modes);
    for probe in report.observed.probes.iter().filter(|probe| probe.function != "runtime.goexit1") {
        assert!(probe.hits > 0, "nothing ends in this program, but {probe:?}");
    }
    let events = report.observed.events;
    assert!(events.created > 0 && events.parked + events.waited > 0, "{events:?}");
    let orphans =
        report.groups.iter().find(|group| group.created_by.as_ref().is_some_and(|by| by.function == "main.orphan"));
    assert!(orphans.is_some_and(|group| group.proven > 0), "{:#?}", report.groups);
}

/// The agent may not look at the process, and says so, with the remedy.
fn assert_unseen(node: &Node, pid: u32, remedy: &str) {
    let mut said = Vec::new();
    node.wait_for("what it says of a process that it may not look at", |node| {
        said.extend(node.said());
        let has = |text: &str| said.iter().any(|line| line.contains(text));
        (has(&format!("pid {pid} may not be looked at")) && has(remedy)).then_some(())
    });
    assert!(node.series("parkwarden_processes_unseen")[0].1 > 0.0);
    assert!(node.process(pid).is_none());
}

fn without(capabilities: &[String], missing: &[&str]) -> Vec<String> {
    capabilities.iter().filter(|name| !missing.contains(&name.as_str())).cloned().collect()
}

#[test]
fn the_capabilities_of_the_manifest_are_enough_and_each_is_there_for_something() {
    let all = Rendered::of(BASE).capabilities();
    let scene = Scene::new();
    for mode in ["filter", "trace"] {
        let node = scene.node(&all, &["--mode", mode]);
        assert_watches_and_proves(&node, scene.pid());
        // Of other processes of this machine some may be of those that only their owner may read.
        let wrong: Vec<_> = node.said().into_iter().filter(|line| !line.contains("may not be looked at")).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
    for name in &all {
        match name.as_str() {
            // Without it no process of another user can be looked at (`__ptrace_may_access` in kernel/ptrace.c).
            "SYS_PTRACE" => {
                let node = scene.node(&without(&all, &[name]), &["-v"]);
                assert_unseen(&node, scene.pid(), "CAP_SYS_PTRACE");
            }
            // `perf_uprobe_event_init` in kernel/events/core.c asks for it since commit ba677dbe77af (Linux 6.16, 6.12.39,
            // 6.6.99, 6.1.146, 5.15.189). Before it was content with PERFMON.
            "SYS_ADMIN" => {
                let reason = "an uprobe needs root or CAP_SYS_ADMIN";
                let node = scene.node(&without(&all, &[name]), &["--mode", "filter"]);
                let entry = node.wait_for_state(scene.pid(), "refused");
                assert!(entry["message"].as_str().is_some_and(|why| why.contains(reason)), "{entry}");
                drop(node);
                // Where it is left to the agent, that is no reason not to watch.
                let node = scene.node(&without(&all, &[name]), &["--mode", "auto"]);
                let report = proven(&node, scene.pid());
                assert!(report.observed.probes.is_empty());
                assert!(report.observed.modes.no_probes.is_some_and(|why| why.contains(reason)));
            }
            // SYS_ADMIN has these two in it (`bpf_capable` and `perfmon_capable` in include/linux/capability.h); where the
            // kernel does not ask for SYS_ADMIN, or a cluster does not give it, they are needed by themselves, and seccomp
            // profiles look for their names.
            "BPF" | "PERFMON" => {
                let refused = scene.command(&without(&all, &[name, "SYS_ADMIN"]), &["--mode", "filter"]).output();
                let refused = refused.expect("setpriv runs");
                let said = String::from_utf8_lossy(&refused.stderr);
                assert!(!refused.status.success(), "{said}");
                let what = if name == "BPF" { "failed to create map" } else { "BPF_PROG_LOAD" };
                assert!(
                    said.contains("need root, or CAP_BPF and CAP_PERFMON") && said.contains(what),
                    "{name}: {said}"
                );
            }
            _ => panic!("what is {name} needed for?"),
        }
    }
}

#[test]
fn without_probes_one_capability_is_enough() {
    let rendered = Rendered::of("overlays/census");
    let capabilities = rendered.capabilities();
    assert_eq!(capabilities, ["SYS_PTRACE"]);
    let mode = rendered.agent()["args"].as_array().and_then(|arguments| arguments.last()?.as_str()).expect("arguments");
    let scene = Scene::new();
    let node = scene.node(&capabilities, &[mode]);
    let report = proven(&node, scene.pid());
    assert!(report.observed.probes.is_empty());
    assert_eq!(report.observed.modes.no_probes, None, "it was not asked for any");
}

#[test]
fn an_executable_that_only_its_owner_may_read_is_not_passed_over_in_silence() {
    let all = Rendered::of(BASE).capabilities();
    let scene = Scene::new();
    let program = &scene.leaking.program;
    std::os::unix::fs::chown(program, Some(SOMEBODY), Some(SOMEBODY)).expect("we are root");
    std::fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o500)).expect("we are root");
    let node = scene.node(&all, &["-v", "--mode", "census"]);
    assert_unseen(&node, scene.pid(), "CAP_DAC_READ_SEARCH");
    drop(node);
    let more: Vec<_> = all.into_iter().chain(["DAC_READ_SEARCH".to_owned()]).collect();
    scene.node(&more, &["--mode", "census"]).wait_for_state(scene.pid(), "watched");
}
