//! `parkwarden mem` against what the program's own `runtime.ReadMemStats` and `runtime/metrics` say.

use std::process::Command;

use parkwarden_tests::agent::run;
use parkwarden_tests::control_group::ControlGroup;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde_json::Value;
use xtask::toolchain::{self, NEWEST};

fn start(version: &str, flags: BuildFlags, arguments: &[&str]) -> Target {
    let mut command = Command::new(fixture("vitals", version, flags));
    command.args(arguments).env("GOMAXPROCS", "2");
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    target
}

fn mem(target: &Target) -> Value {
    let pid = target.pid().to_string();
    let output = run(["mem", "--pid", &pid, "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What both tell of, differently: the names, with ours and theirs.
fn different(ours: &Value, theirs: &Value) -> Vec<String> {
    let ours = ours.as_object().expect("names and values");
    let differs = |(name, ours): (&String, &Value)| {
        let theirs = theirs.get(name)?;
        (ours != theirs).then(|| format!("{name}: {ours}, not {theirs}"))
    };
    ours.iter().filter_map(differs).collect()
}

#[test]
fn a_quiet_program_says_the_same_of_itself() {
    for version in toolchain::available() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let said = format!("Go {version}, {}", flags.name());
            let mut target = start(version, flags, &[]);
            for work in ["do allocate", "do finalize", "do clean"] {
                let _: Value = target.ask(work);
            }
            // The scavenger and the sweeper of the background may be at it still.
            let differing = wait::within(DEADLINE, || {
                let _: Value = target.ask("take");
                let ours = mem(&target);
                let theirs: Value = target.ask("tell");
                let stats = different(&ours["memory"]["stats"], &theirs["memory"]);
                let metrics = different(&ours["metrics"], &theirs["metrics"]);
                if stats.is_empty() && metrics.is_empty() { Ok((ours, theirs)) } else { Err([stats, metrics].concat()) }
            });
            let (ours, theirs) = differing.unwrap_or_else(|differing| panic!("{said}: {differing:#?}"));
            // Go 1.25 counts these, and does not tell them; Go 1.19 does not tell many.
            let untold = |name: &str| {
                let new = name.contains("/finalizers/") || name.contains("/cleanups/");
                version == toolchain::DEBIAN || (version.starts_with("1.25") && new)
            };
            // All names are the runtime's.
            for (ours, theirs) in
                [(&ours["memory"]["stats"], &theirs["memory"]), (&ours["metrics"], &theirs["metrics"])]
            {
                for name in ours.as_object().expect("names").keys() {
                    assert!(theirs.get(name).is_some() || untold(name), "{said}: {name}");
                }
            }
            pauses_are_the_same(&said, &ours, &theirs);
            if version >= "1.25" {
                for (name, least) in
                    [("/gc/finalizers/executed:finalizers", 30), ("/gc/cleanups/executed:cleanups", 20)]
                {
                    assert!(ours["metrics"][name].as_u64() >= Some(least), "{said}, {name}: {}", ours["metrics"]);
                }
            }
        }
    }
}

fn pauses_are_the_same(said: &str, ours: &Value, theirs: &Value) {
    let count = theirs["memory"]["NumGC"].as_u64().expect("a number");
    let pauses = ours["memory"]["pauses"].as_array().expect("a list");
    assert_eq!(pauses.len() as u64, count.min(256), "{said}");
    for (back, pause) in pauses.iter().enumerate() {
        let index = ((count + 255 - back as u64) % 256) as usize;
        assert_eq!(pause["ns"], theirs["memory"]["PauseNs"][index], "{said}, {back}");
        assert_eq!(pause["end_unix_ns"], theirs["memory"]["PauseEnd"][index], "{said}, {back}");
    }
    let histograms = ours["memory"]["stop_times"].as_object().expect("histograms");
    let cpu = theirs["metrics"]["/cpu/classes/gc/total:cpu-seconds"].as_f64();
    assert_eq!(histograms.is_empty(), cpu.is_none(), "{said}: Go 1.19 alone has other buckets, and no CPU times");
    for (name, histogram) in histograms {
        // Theirs has the durations below zero first, and those beyond all buckets last.
        let their = theirs["metrics"][name].as_array().unwrap_or_else(|| panic!("{said}: no {name}"));
        assert_eq!(histogram["counts"].as_array().expect("counts")[..], their[1..their.len() - 1], "{said}, {name}");
    }
    let ns = ours["memory"]["gc_cpu_ns"].as_f64().expect("a number");
    let cpu = cpu.unwrap_or(0.0);
    assert!((ns / 1e9 - cpu).abs() < 1e-6, "{said}: {ns} {cpu}");
}

#[test]
fn what_was_not_added_up_yet_is_counted() {
    for version in toolchain::available() {
        let mut target = start(version, BuildFlags::Stripped, &[]);
        let _: Value = target.ask("take");
        let before = mem(&target)["memory"].clone();
        let _: Value = target.ask("do little");
        let after = mem(&target)["memory"].clone();
        let number = |value: &Value| value.as_u64().expect("a number");
        let added = number(&after["stats"]["TotalAlloc"]) - number(&before["stats"]["TotalAlloc"]);
        // Three objects of 112 bytes, and none of the runtime's statistics has heard of them.
        assert!((336..4096).contains(&added), "Go {version}: {added}");
        assert!(number(&after["unflushed_bytes"]) >= 336, "Go {version}: {after}");
    }
}

#[test]
fn a_busy_program_is_told_within_bounds() {
    for version in toolchain::available() {
        let mut target = start(version, BuildFlags::Default, &["-fault", "healthy", "-n", "2"]);
        // It grows at first.
        let outside = wait::within(DEADLINE, || {
            let _: Value = target.ask("take");
            let ours = mem(&target);
            let theirs: Value = target.ask("tell");
            assert_eq!(ours["memory"]["torn"], false, "Go {version}");
            let outside = outside(&ours["memory"]["stats"], &theirs["memory"]);
            if outside.is_empty() { Ok(()) } else { Err(outside) }
        });
        assert_eq!(outside, Ok(()), "Go {version}");
    }
}

/// A second lies between the two: total memory is the same within a tenth, and what only grows has not become less.
fn outside(ours: &Value, theirs: &Value) -> Vec<String> {
    let stat = |of: &Value, name: &str| of[name].as_f64().expect("a number");
    let mut outside = Vec::new();
    for name in ["Sys", "HeapSys", "MSpanSys"] {
        let ratio = stat(ours, name) / stat(theirs, name);
        if !(0.9..1.1).contains(&ratio) {
            outside.push(format!("{name}: {ratio}"));
        }
    }
    for name in ["TotalAlloc", "Mallocs", "Frees", "NumGC", "PauseTotalNs"] {
        assert!(stat(ours, name) >= stat(theirs, name), "{name}");
    }
    assert!(stat(ours, "Alloc") <= stat(ours, "HeapInuse"), "{ours}");
    outside
}

/// What a program's signs say, by rule.
fn signs(target: &Target) -> Vec<(String, String)> {
    let document = mem(target);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    document["signs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|sign| (text(&sign["rule"]), text(&sign["says"])))
        .collect()
}

#[test]
fn each_fault_is_named_in_a_sentence() {
    type Fault = (&'static [&'static str], &'static str, &'static [&'static str]);
    let faults: [Fault; 3] = [
        (
            &["-fault", "timers", "-n", "50000"],
            "timers",
            &["50000 timers of time.AfterFunc calling main.(*session).expire wait"],
        ),
        (
            &["-fault", "fragmentation", "-n", "2000000"],
            "fragmentation",
            &["of objects lie scattered over", "are holes"],
        ),
        (&["-fault", "spiral", "-n", "64"], "memory limit", &["the memory limit is 64.0 MiB", "raise GOMEMLIMIT"]),
    ];
    for version in [toolchain::VERSIONS[0], "1.23.9", NEWEST] {
        for (arguments, rule, words) in faults {
            let target = start(version, BuildFlags::Stripped, arguments);
            let named = wait::within(DEADLINE, || {
                let signs = signs(&target);
                let says =
                    |(found, says): &(String, String)| found == rule && words.iter().all(|word| says.contains(word));
                if signs.iter().any(says) { Ok(()) } else { Err(signs) }
            });
            assert_eq!(named, Ok(()), "Go {version}, {arguments:?}");
        }
    }
}

#[test]
fn a_busy_server_that_is_healthy_shows_no_sign() {
    for version in toolchain::available() {
        let target = start(version, BuildFlags::Stripped, &["-fault", "healthy", "-n", "2"]);
        assert_eq!(signs(&target), [], "Go {version}");
    }
}

#[test]
fn a_control_group_near_its_limit_is_told() {
    let group = ControlGroup::of_memory(100 << 20);
    let mut command = group.command(fixture("vitals", NEWEST, BuildFlags::Stripped));
    command.args(["-fault", "fill", "-n", "92"]);
    let mut target = Target::spawn_command(command);
    let _: Value = target.answer();
    let signs = signs(&target);
    let says = signs.iter().find(|(rule, _)| rule == "control group").map(|(_, says)| says.as_str());
    assert!(says.is_some_and(|says| says.ends_with("of 100.0 MiB; the kernel kills at the limit")), "{signs:?}");
    target.kill();
}

#[test]
fn timers_are_told_by_what_they_call() {
    for version in toolchain::available() {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let target = start(version, flags, &["-fault", "assorted", "-n", "7"]);
            let found = wait::within(DEADLINE, || {
                let document = mem(&target);
                let groups = document["timers"]["groups"].as_array().expect("a list").clone();
                let count = |kind: &str, function: &str| {
                    let found = groups.iter().find(|group| group["kind"] == kind && group["function"] == function);
                    found.map_or(0, |group| group["count"].as_u64().expect("a number"))
                };
                let counts = [
                    count("after_func", "main.(*session).expire"),
                    count("after_func", "main.assorted.func1"),
                    count("ticker", "main.listen"),
                    count("timer", "main.expect"),
                    count("sleep", "main.doze"),
                ];
                if counts == [7, 1, 7, 7, 7] { Ok(()) } else { Err((counts, groups)) }
            });
            assert_eq!(found, Ok(()), "Go {version}, {}", flags.name());
        }
    }
}

#[test]
fn the_text_tells_what_the_processor_did_and_what_became_of_finalizers() {
    let mut target = start(NEWEST, BuildFlags::Stripped, &[]);
    for command in ["do allocate", "do finalize", "do clean", "take"] {
        let _: Value = target.ask(command);
    }
    let pid = target.pid().to_string();
    let told = wait::within(DEADLINE, || {
        let output = run(["mem", "--pid", &pid]);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let row = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let are_run = |row: Option<&str>| {
            let words: Vec<&str> = row.unwrap_or_default().split(' ').collect();
            words.len() == 4 && words[0] == words[2] && words[0] != "0"
        };
        let cpu = row("CPU").is_some_and(|row| row.contains(" % the program, "));
        if cpu && are_run(row("finalizers")) && are_run(row("cleanups")) { Ok(()) } else { Err(text) }
    });
    assert_eq!(told, Ok(()));
}
