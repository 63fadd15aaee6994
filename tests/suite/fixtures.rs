//! The Go targets themselves: what other tests compare parkwarden's answers with must be right first.

use std::collections::BTreeSet;

use parkwarden_tests::leaks::{CLASSES, Statement};
use parkwarden_tests::target::DEADLINE;
use parkwarden_tests::{BuildFlags, Target, fixture, wait};
use serde_json::{Value, json};
use xtask::toolchain;

#[test]
fn leaks_says_where_each_of_its_goroutines_is_on_every_go_version() {
    for version in toolchain::VERSIONS {
        let program = fixture("leaks", version, BuildFlags::Default);
        let (target, said) = Target::ready::<_, Statement>(&program, ["-n", "3", "-syscalls", "2"]);
        check_statement(&said, version, BuildFlags::Default);
        assert!(target.exit().success(), "Go {version}");
    }
}

#[test]
fn leaks_says_so_however_it_is_built() {
    for flags in BuildFlags::ALL.into_iter().filter(|flags| flags.runs_here()) {
        let program = fixture("leaks", toolchain::NEWEST, flags);
        let (target, said) = Target::ready::<_, Statement>(&program, ["-n", "3", "-syscalls", "2"]);
        check_statement(&said, toolchain::NEWEST, flags);
        assert!(target.exit().success(), "{}", flags.name());
    }
}

fn check_statement(said: &Statement, version: &str, flags: BuildFlags) {
    let how = format!("Go {version}, {}", flags.name());
    for class in CLASSES {
        let groups: Vec<_> = said.of_class(class).collect();
        let [group] = groups[..] else { panic!("{how}: class {class} is in {} groups", groups.len()) };
        assert_eq!(group.count, if class == "syscall" { 2 } else { 3 }, "{how}: {group:?}");
        assert!(group.created_by.is_some() && group.blocked_at.is_some(), "{how}: {group:?}");
        assert_eq!(group.wait_reason, wait_reason(class, version), "{how}: {group:?}");
    }
    let goids: BTreeSet<_> = said.classes.iter().flat_map(|group| &group.goids).collect();
    assert_eq!(goids.len(), said.num_goroutine, "{how}: a goroutine is listed twice or not at all");
    assert_eq!(said.classes.iter().map(|group| group.count).sum::<usize>(), said.num_goroutine, "{how}");
}

/// The runtime's own words for how the goroutines of a class wait.
fn wait_reason(class: &str, version: &str) -> &'static str {
    match class {
        "chan-send" | "chan-send-full" => "chan send",
        "chan-receive" | "ticker" | "time-after" | "http-handler" => "chan receive",
        "nil-chan-send" => "chan send (nil chan)",
        "nil-chan-receive" => "chan receive (nil chan)",
        "select" => "select",
        "select-empty" => "select (no cases)",
        "mutex" => "sync.Mutex.Lock",
        "rwmutex-rlock" => "sync.RWMutex.RLock",
        "rwmutex-lock" => "sync.RWMutex.Lock",
        "cond" => "sync.Cond.Wait",
        // sync.WaitGroup has a wait reason of its own since 1.24.
        "waitgroup" if version < "1.24" => "semacquire",
        "waitgroup" => "sync.WaitGroup.Wait",
        "sleep" => "sleep",
        "net-read" => "IO wait",
        "syscall" => "syscall",
        _ => panic!("no such class: {class}"),
    }
}

#[test]
fn churn_counts_its_goroutines() {
    let program = fixture("churn", toolchain::NEWEST, BuildFlags::Default);
    let (mut target, _) = Target::ready::<_, Value>(&program, ["-n", "1001", "-alive", "8"]);
    for _ in 0..2 {
        assert_eq!(target.ask::<Value>("go"), json!({"created": 1001, "exited": 1001, "num_goroutine": 1}));
    }
    assert!(target.exit().success());
}

#[test]
fn keepalive_is_served_and_counted() {
    let program = fixture("keepalive", toolchain::NEWEST, BuildFlags::Default);
    let (mut server, ready) = Target::ready::<_, Value>(&program, [""; 0]);
    let url = ready["url"].as_str().expect("the server says its URL");
    let (client, _) = Target::ready::<_, Value>(&program, ["-client", url, "-connections", "4"]);
    assert!(server.ask::<Value>("stats")["requests"].as_u64() >= Some(4));
    client.kill();
    assert!(server.exit().success());
}

#[test]
fn spin_never_rests() {
    let program = fixture("spin", toolchain::NEWEST, BuildFlags::Default);
    let (mut target, _) = Target::ready::<_, Value>(&program, [""; 0]);
    let mut counted = |before: u64| {
        wait::until("an iteration", DEADLINE, || {
            let now = target.ask::<Value>("stats")["iterations"].as_u64().expect("a number");
            (now > before).then_some(now)
        })
    };
    let first = counted(0);
    counted(first);
    assert!(target.exit().success());
}
