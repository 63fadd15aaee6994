//! `parkwarden ps` on a host with Go programs, other programs, and many of both.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use parkwarden::ps::{Listing, ProcessRow};
use parkwarden_tests::agent::run;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde_json::Value;
use xtask::toolchain::NEWEST;

use crate::live::watch::EACH;

fn list() -> BTreeMap<u32, ProcessRow> {
    let output = run(["ps", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let listing: Listing = serde_json::from_slice(&output.stdout).expect("a listing");
    listing.processes.into_iter().map(|entry| (entry.pid, entry)).collect()
}

#[test]
fn go_processes_are_listed_and_others_are_not() {
    let program = fixture("leaks", NEWEST, BuildFlags::Default);
    let stripped = fixture("leaks", "1.24.11", BuildFlags::Stripped);
    let (plain, said): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let (bare, _): (_, Value) = Target::ready(&stripped, ["-n", EACH]);
    let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat runs");
    let listed = list();
    drop(cat.stdin.take());
    cat.wait().expect("it ends");

    let entry = &listed[&plain.pid()];
    assert_eq!(entry.go_version, Some(format!("go{NEWEST}")));
    assert_eq!(entry.goroutines, Some(said.num_goroutine as u64));
    assert_eq!((entry.supported, entry.stripped, &entry.reason), (true, Some(false), &None));
    assert_eq!(entry.command, format!("{} -n {EACH}", program.display()));
    assert!(entry.main_module.as_deref().is_some_and(|module| module.starts_with("example.com/leaks")));
    assert_eq!(entry.user, "root");
    assert!(entry.rss_bytes > Some(1 << 20) && entry.heap_bytes > Some(100_000), "{entry:?}");
    assert!(entry.gc_cpu_share.is_some_and(|share| (0.0..1.0).contains(&share)), "{entry:?}");
    let entry = &listed[&bare.pid()];
    assert_eq!((entry.supported, entry.stripped), (true, Some(true)), "{entry:?}");
    assert!(entry.heap_bytes > Some(100_000), "{entry:?}");
    assert!(!listed.contains_key(&cat.id()));
}

#[test]
fn a_program_whose_name_is_not_utf8_is_seen_like_any_other() {
    let copied = Copied::of("leaks");
    let program = copied.dir.path().join(OsStr::from_bytes(b"odd\xffname"));
    std::fs::rename(&copied.program, &program).expect("renamed");
    let (target, said): (_, Statement) = Target::ready(&program, ["-n", EACH]);
    let entry = &list()[&target.pid()];
    assert_eq!((entry.supported, entry.goroutines), (true, Some(said.num_goroutine as u64)), "{entry:?}");
    let pid = target.pid().to_string();
    for command in ["sched", "mem", "snapshot"] {
        let output = run([command, "--pid", &pid]);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn two_hundred_processes_are_all_listed() {
    let program = fixture("exec", NEWEST, BuildFlags::Default);
    let targets: Vec<Target> = (0..200).map(|_| Target::ready::<&str, Value>(&program, []).0).collect();
    let listed = list();
    for target in &targets {
        let entry = listed.get(&target.pid()).unwrap_or_else(|| panic!("pid {} is missing", target.pid()));
        assert!(entry.supported, "{entry:?}");
    }
}
