//! `parkwarden profile` against the profiles that the program writes of itself, sample by sample, as `go tool pprof` reads both.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use parkwarden_tests::agent::run;
use parkwarden_tests::pprof::pprof;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde_json::Value;
use xtask::toolchain;

fn start(version: &str, flags: BuildFlags, arguments: &[&str]) -> Target {
    let mut command = Command::new(fixture("vitals", version, flags));
    command.args(arguments).env("GOMAXPROCS", "2");
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    target
}

/// Takes a profile of the process from outside.
fn take(target: &Target, kind: &str, file: &Path) {
    let pid = target.pid().to_string();
    let output = run(["profile", kind, "--pid", &pid, "-o", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A profile as `go tool pprof -raw` prints it: the line of sample types and the period, and the values of each stack, with its
/// label. What is nothing is left out.
#[derive(Debug, PartialEq)]
struct Profile {
    head: Vec<String>,
    samples: BTreeMap<(Vec<String>, String), Vec<i64>>,
}

fn read(file: &Path) -> Profile {
    parse(&pprof(&["-raw"], file))
}

fn parse(raw: &str) -> Profile {
    let (head, rest) = raw.split_once("Samples:\n").expect("samples");
    let (samples, rest) = rest.split_once("Locations\n").expect("locations");
    let (locations, _) = rest.split_once("Mappings").expect("mappings");
    let locations = locations_of(locations);
    let mut lines = samples.lines();
    let types = lines.next().unwrap_or_default().to_owned();
    let head = head.lines().filter(|line| line.starts_with("Period")).map(str::to_owned).chain([types]).collect();
    let mut found: BTreeMap<(Vec<String>, String), Vec<i64>> = BTreeMap::new();
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let (values, ids) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        let values: Vec<i64> = values.split_whitespace().map(|value| value.parse().expect("a number")).collect();
        let stack = ids.split_whitespace().flat_map(|id| locations[id].clone()).collect();
        let label = lines.next_if(|next| next.contains('[')).map(|label| label.trim().to_owned()).unwrap_or_default();
        if values.iter().any(|value| *value != 0) {
            let sum = found.entry((stack, label)).or_insert_with(|| vec![0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    Profile { head, samples: found }
}

/// The calls of each location, innermost first: function, file and line.
fn locations_of(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if let Some(id) = words.first().and_then(|first| first.strip_suffix(':')) {
            last = id.to_owned();
            found.entry(last.clone()).or_default();
            words.drain(..words.len().min(3));
        }
        // `main.small /a/works.go:30:0 s=0`: columns and the function's own line are not in all of them.
        if let [function, place, ..] = words[..] {
            let place = place.rsplit_once(':').map_or(place, |(place, _)| place);
            found.entry(last.clone()).or_default().push(format!("{function} {place}"));
        }
    }
    found
}

impl Profile {
    /// What differs from another one, in a form to read.
    fn differs(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for key in self.samples.keys().chain(other.samples.keys()) {
            let (ours, theirs) = (self.samples.get(key), other.samples.get(key));
            if ours != theirs {
                found.push(format!("{ours:?}, not {theirs:?}: {key:#?}"));
            }
        }
        found.truncate(4);
        if self.head != other.head {
            found.push(format!("{:?}, not {:?}", self.head, other.head));
        }
        found
    }

    /// Without what is about locks of the runtime itself.
    fn without_runtime_locks(mut self) -> Self {
        let lock = |call: &String| call.starts_with("runtime.unlock") || call.starts_with("runtime._Lost");
        self.samples.retain(|(stack, _), _| !stack.first().is_some_and(lock));
        self
    }
}

/// The profile as the program writes it, and as it is read from outside before.
fn both(target: &mut Target, kind: &str) -> (Profile, Profile) {
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    take(target, kind, &ours);
    let _: Value = target.ask(&format!("profile {kind} {}", theirs.display()));
    (read(&ours), read(&theirs))
}

#[test]
fn memory_is_told_sample_by_sample() {
    for version in toolchain::available() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            // Each object, one in 4 KiB, and as by default: the scaling is the runtime's.
            for rate in ["1", "4096", "524288"] {
                let said = format!("Go {version}, {}, rate {rate}", flags.name());
                let mut target = start(version, flags, &["-memprofilerate", rate]);
                let _: Value = target.ask("do allocate");
                let _: Value = target.ask("gc");
                let _: Value = target.ask("gc");
                for kind in ["heap", "allocs"] {
                    let (ours, theirs) = both(&mut target, kind);
                    let differs = ours.differs(&theirs);
                    assert!(differs.is_empty(), "{said}, {kind}: {}", differs.join("\n"));
                    let by = |function: &str| {
                        let stacks = ours.samples.keys().map(|(stack, _)| stack);
                        stacks.flatten().any(|call| call.starts_with(function))
                    };
                    assert!(by("main.medium ") && by("main.large "), "{said}, {kind}: {ours:#?}");
                }
            }
        }
    }
}

#[test]
fn before_the_first_collection_all_is_told() {
    for version in toolchain::available() {
        let mut target = start(version, BuildFlags::Stripped, &["-memprofilerate", "1"]);
        let _: Value = target.ask("do little");
        let (ours, theirs) = both(&mut target, "heap");
        // To write it the program allocates, from where it has allocated before too.
        assert!(!ours.samples.is_empty(), "Go {version}");
        for (stack, values) in &ours.samples {
            let theirs = theirs.samples.get(stack).unwrap_or_else(|| panic!("Go {version}: {stack:?}"));
            assert!(values.iter().zip(theirs).all(|(ours, theirs)| ours <= theirs), "Go {version}: {stack:?}");
        }
        let little =
            ours.samples.iter().find(|((_, label), _)| label == "bytes:[112]").map(|(_, values)| values.clone());
        assert_eq!(little, Some(vec![3, 336, 3, 336]), "Go {version}");
    }
}

#[test]
fn waits_are_told_sample_by_sample() {
    for version in toolchain::available() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let mut target = start(version, flags, &["-fault", "contention"]);
            for kind in ["mutex", "block"] {
                let said = format!("Go {version}, {}, {kind}", flags.name());
                let (ours, theirs) = both(&mut target, kind);
                assert_eq!(ours.head, theirs.head, "{said}");
                // The runtime's own locks (1.22 and later) are told of some time after they were waited for.
                let (ours, theirs) = (ours.without_runtime_locks(), theirs.without_runtime_locks());
                let stacks = |profile: &Profile| profile.samples.keys().cloned().collect::<Vec<_>>();
                assert_eq!(stacks(&ours), stacks(&theirs), "{said}");
                assert!(!ours.samples.is_empty(), "{said}");
                for (ours, theirs) in ours.samples.values().zip(theirs.samples.values()) {
                    assert_eq!(ours[0], theirs[0], "{said}");
                    // Ticks are made nanoseconds by a rate that each measures.
                    let apart = (ours[1] as f64 / theirs[1] as f64 - 1.0).abs();
                    assert!(apart < 0.01, "{said}: {ours:?} {theirs:?}");
                }
            }
        }
    }
}

#[test]
fn threads_are_told_by_where_they_were_made() {
    for version in toolchain::available() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let mut target = start(version, flags, &["-fault", "syscalls", "-n", "20"]);
            // The program may have made one to write the other.
            let same = wait::within(DEADLINE, || {
                let (ours, theirs) = both(&mut target, "threadcreate");
                let differs = ours.differs(&theirs);
                if differs.is_empty() { Ok(ours) } else { Err(differs) }
            });
            let ours = same.unwrap_or_else(|differs| panic!("Go {version}, {}: {}", flags.name(), differs.join("\n")));
            let threads: i64 = ours.samples.values().map(|values| values[0]).sum();
            assert!(threads > 20, "Go {version}: {threads}");
        }
    }
}

#[test]
fn what_is_not_recorded_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("profile");
    let name = file.to_str().expect("UTF-8");
    let refused = |target: &Target, kind: &str, words: &str| {
        let pid = target.pid().to_string();
        let output = run(["profile", kind, "--pid", &pid, "-o", name]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{kind}: {errors}");
        assert!(errors.contains(words), "{kind}: {errors}");
        assert!(!file.exists(), "{kind}");
    };
    for version in toolchain::available() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let target = start(version, flags, &["-memprofilerate", "0"]);
            refused(&target, "heap", "its runtime.MemProfileRate is 0");
            refused(&target, "block", "runtime.SetBlockProfileRate");
            refused(&target, "mutex", "runtime.SetMutexProfileFraction");
        }
        // Nothing in it reads a heap profile, so the linker has it keep none.
        let (target, _): (_, Value) = Target::ready(&fixture("quotes", version, BuildFlags::Stripped), [""; 0]);
        refused(&target, "heap", "importing net/http/pprof");
    }
}

#[test]
fn goroutines_are_told_as_the_program_tells_them_without_the_compilers_wrappers() {
    let dozing = |profile: &Profile| -> BTreeMap<Vec<String>, i64> {
        let samples = profile.samples.iter().map(|((stack, _), values)| (stack.clone(), values[0]));
        samples.filter(|(stack, _)| stack.iter().any(|call| call.starts_with("main.doze "))).collect()
    };
    for version in toolchain::available() {
        let mut target = start(version, BuildFlags::Stripped, &["-fault", "assorted", "-n", "3"]);
        let (ours, theirs) = both(&mut target, "goroutine");
        assert_eq!(dozing(&ours).values().sum::<i64>(), 3, "Go {version}: {ours:#?}");
        assert_eq!(dozing(&ours), dozing(&theirs), "Go {version}");
    }
}
