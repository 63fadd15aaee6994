//! The agent with the rights that `deploy/` gives it and no others: they are enough for programs of any user, and each is
//! there for something.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use parkwarden::report::Report;
use parkwarden_tests::agent::binary;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::manifests::{BASE, Rendered, deploy};
use parkwarden_tests::node::Node;
use parkwarden_tests::target::Target;
use serde_json::{Value, json};
use xtask::{command, packages};

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
        let mut command = self.confined(capabilities);
        command.args(["agent", "--listen", "127.0.0.1:0", "--kubernetes", "off"]);
        command.args(["--exe", &self.leaking.pattern()]).args(SOON).args(arguments);
        command
    }

    /// parkwarden, as root with these capabilities and no way to get others.
    fn confined(&self, capabilities: &[String]) -> Command {
        let only = number(capabilities).iter().map(|number| format!(",+cap_{number}")).collect::<String>();
        let mut command = packages::program("setpriv").expect("installed");
        command.args(["--no-new-privs", &format!("--inh-caps=-all{only}"), &format!("--bounding-set=-all{only}")]);
        command.arg(&self.agent.program);
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
    // Kernel threads, of which kthreadd is the first, are no programs that it misses.
    assert_eq!(std::fs::read_to_string("/proc/2/comm").expect("it runs"), "kthreadd\n");
    assert!(said.iter().all(|line| !line.contains("pid 2 may not be looked at")), "{said:#?}");
    assert!(node.process(pid).is_none());
}

/// What the agent complains of, but that it finds leaks; and of other processes of this machine some may be of those that only
/// their owner may read.
fn complaints(node: &Node) -> Vec<String> {
    let expected = |line: &str| line.contains("may not be looked at") || line.contains(" goroutines made by ");
    node.said().into_iter().filter(|line| !expected(line)).collect()
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
        let wrong = complaints(&node);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
    for name in &all {
        match name.as_str() {
            // Without it no process of another user can be looked at (`__ptrace_may_access` in kernel/ptrace.c).
            "SYS_PTRACE" => {
                let node = scene.node(&without(&all, &[name]), &["-v"]);
                assert_unseen(&node, scene.pid(), "CAP_SYS_PTRACE");
            }
            "BPF" | "PERFMON" => {
                let refused = scene.command(&without(&all, &[name]), &["--mode", "filter"]).output();
                let refused = refused.expect("setpriv runs");
                let said = String::from_utf8_lossy(&refused.stderr);
                assert!(!refused.status.success(), "{said}");
                let what = if name == "BPF" { "failed to create map" } else { "BPF_PROG_LOAD" };
                assert!(
                    said.contains("need root, or CAP_BPF and CAP_PERFMON") && said.contains(what),
                    "{name}: {said}"
                );
                // Where it is left to the agent, that is no reason not to watch.
                let node = scene.node(&without(&all, &[name]), &["--mode", "auto"]);
                let report = proven(&node, scene.pid());
                assert!(report.observed.probes.is_empty());
                assert!(report.observed.modes.no_probes.is_some_and(|why| why.contains(what)));
            }
            _ => panic!("what is {name} needed for?"),
        }
    }
}

#[test]
fn where_uprobes_are_perf_events_the_overlay_for_them_is_needed_and_enough() {
    let (base, all) = (Rendered::of(BASE).capabilities(), Rendered::of("overlays/sys-admin").capabilities());
    assert_eq!(without(&all, &["SYS_ADMIN"]), base, "it adds one");
    let scene = Scene::new();
    let node = |capabilities: &[String], mode| {
        let mut command = scene.command(capabilities, &["--mode", mode]);
        Node::spawn(command.env("PARKWARDEN_UPROBES", "perf-event"))
    };
    assert_watches_and_proves(&node(&all, "filter"), scene.pid());
    // `perf_uprobe_event_init` in kernel/events/core.c asks for it since commit ba677dbe77af (Linux 6.16, 6.12.39, 6.6.99,
    // 6.1.146, 5.15.189).
    let reason = "needs root or CAP_SYS_ADMIN";
    let refusing = node(&base, "filter");
    let entry = refusing.wait_for_state(scene.pid(), "refused");
    assert!(entry["message"].as_str().is_some_and(|why| why.contains(reason)), "{entry}");
    drop(refusing);
    let report = proven(&node(&base, "auto"), scene.pid());
    assert!(report.observed.probes.is_empty());
    assert!(report.observed.modes.no_probes.is_some_and(|why| why.contains(reason)));
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
    // Nor does it ask for rights that the overlay does without.
    let said = node.said();
    let asks = |line: &String| ["BPF", "PERFMON", "probes", "kernel"].iter().any(|word| line.contains(word));
    assert!(!said.iter().any(asks), "{said:#?}");
}

#[test]
fn the_rights_of_the_manifest_are_enough_for_a_profile_in_the_agents_container() {
    // As `kubectl exec` runs it: beside the agent, with what that may do.
    let scene = Scene::new();
    let mut command = scene.confined(&Rendered::of(BASE).capabilities());
    let output = command.args(["snapshot", "--pid", &scene.pid().to_string(), "--format", "pprof"]).output();
    let output = output.expect("setpriv runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.get(..2), Some(&b"\x1f\x8b"[..]), "a profile is compressed");
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

/// The agent in a container, as the manifest has it, made by runc. Gone when dropped.
struct Container {
    node: Option<Node>,
    /// runc's own directory, and the container's.
    directory: tempfile::TempDir,
}

const CONTAINER: &str = "agent";

impl Container {
    /// The command that runs it: with the image's file system read-only, and the host's processes.
    fn command(directory: &Path, scene: &Scene, rendered: &Rendered, profile: &Value) -> Command {
        let bundle = directory.join("bundle");
        std::fs::create_dir_all(bundle.join("rootfs")).expect("made");
        let context = &rendered.agent()["securityContext"];
        let names: Vec<_> = rendered.capabilities().iter().map(|name| format!("CAP_{name}")).collect();
        let program = Path::new("/parkwarden").join(scene.agent.program.file_name().expect("a name"));
        let mut arguments = vec![program.to_str().expect("UTF-8").to_owned()];
        arguments
            .extend(["agent", "--listen", "127.0.0.1:0", "--kubernetes", "off", "--mode", "trace"].map(str::to_owned));
        arguments.extend(SOON.map(str::to_owned));
        arguments.extend([
            "--exe".to_owned(),
            scene.leaking.pattern(),
            "--record".to_owned(),
            "/run/recording.db".to_owned(),
        ]);
        let file_system =
            |kind: &str, destination: &str| json!({ "destination": destination, "type": kind, "source": kind });
        let bind = |source: &Path, destination: &str| json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", "ro"] });
        let mut mounts = vec![
            file_system("proc", "/proc"),
            file_system("tmpfs", "/run"),
            bind(Path::new("/sys"), "/sys"),
            bind(scene.agent.dir.path(), "/parkwarden"),
        ];
        // The binary under test is not static, as the image's is.
        let libraries = ["/usr", "/lib", "/lib64"].map(Path::new).into_iter().filter(|path| path.exists());
        mounts.extend(
            libraries.map(|path| bind(&path.canonicalize().expect("it exists"), path.to_str().expect("UTF-8"))),
        );
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": context["runAsUser"], "gid": 0 },
                "args": arguments,
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": { "bounding": names, "effective": names, "permitted": names, "inheritable": names },
            },
            "root": { "path": "rootfs", "readonly": context["readOnlyRootFilesystem"] },
            "mounts": mounts,
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "ipc" }, { "type": "uts" }],
                "cgroupsPath": format!("/parkwarden-test-{}", scene.pid()),
                "resources": { "memory": { "limit": bytes(&rendered.agent()["resources"]["limits"]["memory"]) } },
                "seccomp": profile,
            },
        });
        std::fs::write(bundle.join("config.json"), config.to_string()).expect("written");
        let mut command = runc(directory);
        command.arg("run").arg("--bundle").arg(bundle).arg(CONTAINER);
        command
    }

    fn start(scene: &Scene, rendered: &Rendered, profile: &Value) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Self::command(directory.path(), scene, rendered, profile);
        let mut container = Self { node: None, directory };
        container.node = Some(Node::spawn(&mut command));
        container
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("it was started")
    }

    /// Its process, of which runc is the parent.
    fn pid(&self) -> u32 {
        let state = command::output(runc(self.directory.path()).args(["state", CONTAINER])).expect("its state");
        let state: Value = serde_json::from_str(&state).expect("JSON");
        state["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = runc(self.directory.path()).args(["delete", "--force", CONTAINER]).output();
    }
}

fn runc(directory: &Path) -> Command {
    let mut command = packages::program("runc").expect("installed");
    command.arg("--root").arg(directory.join("state"));
    command
}

/// A quantity of memory, such as `512Mi`.
fn bytes(quantity: &Value) -> u64 {
    let quantity = quantity.as_str().expect("a quantity");
    let (number, shift) = match (quantity.strip_suffix("Mi"), quantity.strip_suffix("Gi")) {
        (Some(number), _) => (number, 20),
        (_, Some(number)) => (number, 30),
        _ => panic!("what is {quantity}?"),
    };
    number.parse::<u64>().expect("a number") << shift
}

/// The seccomp profile that an overlay names, without some system calls.
fn profile(rendered: &Rendered, without: &[&str]) -> Value {
    let seccomp = &rendered.agent()["securityContext"]["seccompProfile"];
    assert_eq!(seccomp["type"], "Localhost");
    let file = deploy("kubernetes/overlays/seccomp").join(seccomp["localhostProfile"].as_str().expect("a file"));
    let mut profile: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("the profile")).expect("JSON");
    for rule in profile["syscalls"].as_array_mut().expect("rules") {
        rule["names"].as_array_mut().expect("names").retain(|name| !without.contains(&name.as_str().expect("a name")));
    }
    profile
}

#[test]
fn the_seccomp_profile_lets_the_agent_watch_and_prove_in_a_container() {
    let rendered = Rendered::of("overlays/seccomp");
    let scene = Scene::new();
    let container = Container::start(&scene, &rendered, &profile(&rendered, &[]));
    let agent = container.pid();
    assert_confined(agent, &rendered.capabilities());
    let status = std::fs::read_to_string(format!("/proc/{agent}/status")).expect("it runs");
    assert!(status.contains("\nSeccomp:\t2\n"), "no filter is in force");
    assert_watches_and_proves(container.node(), scene.pid());
    assert_eq!(container.node().series("parkwarden_recording_up"), [(String::new(), 1.0)]);
    let wrong = complaints(container.node());
    assert!(wrong.is_empty(), "{wrong:#?}");
    drop(container);

    // It is the profile that permits what probes need.
    let directory = tempfile::tempdir().expect("a directory");
    let mut refused = Container::command(directory.path(), &scene, &rendered, &profile(&rendered, &["bpf"]));
    let refused = refused.output().expect("runc runs");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("failed to create map"), "{said}");
    drop(Container { node: None, directory });
    // What only perf events need can be taken away where there are links.
    let container = Container::start(&scene, &rendered, &profile(&rendered, &["perf_event_open"]));
    assert_watches_and_proves(container.node(), scene.pid());
}

#[test]
fn the_seccomp_profile_takes_away_what_sys_admin_would_allow() {
    let profile = profile(&Rendered::of("overlays/seccomp"), &[]);
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().expect("rules");
    assert!(rules.iter().all(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null()));
    let allowed: Vec<_> = rules.iter().flat_map(|rule| rule["names"].as_array().expect("names")).collect();
    for name in [
        "mount",
        "umount2",
        "pivot_root",
        "move_mount",
        "open_tree",
        "fsopen",
        "setns",
        "unshare",
        "chroot",
        "kexec_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "swapon",
        "sethostname",
        "process_vm_writev",
        "open_by_handle_at",
        "fanotify_init",
        "quotactl",
        "keyctl",
        "add_key",
        "userfaultfd",
        "io_uring_setup",
    ] {
        assert!(!allowed.contains(&&json!(name)), "{name} is allowed, and not needed");
    }
}
