//! The modes of `parkwarden watch`: each finds the same goroutines, and `auto` keeps to its budget.

use std::time::Duration;

use parkwarden::config::Mode;
use parkwarden::report::{Bound, Modes, Precision, Report};
use parkwarden::watch::replay;
use parkwarden_tests::agent::{Watch, run};
use parkwarden_tests::leaks::Statement;
use parkwarden_tests::target::Target;
use parkwarden_tests::wait::nothing_for;
use parkwarden_tests::{BuildFlags, fixture};
use serde::Deserialize;
use xtask::toolchain::{self, NEWEST};

use super::watch::{EACH, Ready, assert_as_said, bytes_at_sites};

#[derive(Debug, Deserialize)]
struct Swing {
    num_goroutine: u64,
    parks: u64,
    spawned: u64,
}

#[derive(Debug, Deserialize)]
struct Churned {
    created: u64,
    exited: u64,
}

#[test]
fn every_mode_reports_the_same_groups() {
    for version in toolchain::VERSIONS {
        let program = fixture("leaks", version, BuildFlags::Default);
        for mode in ["trace", "filter", "births", "census", "auto"] {
            let what = format!("{version} {mode}");
            let (mut target, Ready { .. }) = Target::ready(&program, ["-wait", "-n", EACH]);
            let watch = Watch::start(target.pid(), &["--mode", mode, "--threshold", "0s"]);
            let said: Statement = target.ask("go");
            let ended = watch.interrupt();
            assert_eq!(ended.code, Some(0), "{what}: {:?}", ended.errors);
            let report = ended.report();
            assert_as_said(&report, &said, &what);
            assert_eq!(report.observed.lost, parkwarden::report::Lost::default(), "{what}");
            let bounds = |report: &Report| {
                let evidence =
                    report.groups.iter().filter(|group| group.created_by.is_some()).flat_map(|g| &g.evidence);
                evidence.filter(|sentence| sentence.contains("lower bound")).count()
            };
            let Precision { creations_and_exits, parked_times } = report.observed.known;
            let exact = |bound: Bound| bound == Bound::Exact;
            assert_eq!(
                (exact(creations_and_exits), exact(parked_times)),
                (mode != "census", bounds(&report) == 0),
                "{what}"
            );
            let places: Vec<&str> = report.observed.probes.iter().map(|probe| probe.function.as_str()).collect();
            match mode {
                "census" | "births" => {
                    assert!(
                        places
                            .iter()
                            .all(|place| ["runtime.newproc.func1", "runtime.newproc1", "runtime.goexit1"]
                                .contains(place)),
                        "{what}: {places:?}"
                    );
                    assert_eq!(places.len(), if mode == "births" { 2 } else { 0 }, "{what}: {places:?}");
                    assert!(bounds(&report) > 0, "{what}: a census cannot know when a goroutine parked");
                }
                // Who parked while it was watched is known to the moment.
                _ => assert_eq!(bounds(&report), 0, "{what}: {:#?}", report.groups),
            }
        }
    }
}

#[test]
fn creations_and_exits_counted_in_the_kernel_are_exact() {
    const GOROUTINES: u64 = 100_000;
    for version in ["1.21.13", NEWEST] {
        let program = fixture("churn", version, BuildFlags::Default);
        let (mut target, Ready { .. }) = Target::ready(&program, ["-n".to_owned(), GOROUTINES.to_string()]);
        let watch = Watch::start(target.pid(), &["--mode", "filter", "--interval", "100ms"]);
        let said: Churned = target.ask("go");
        let report = watch.interrupt().report();
        assert_eq!((said.created, said.exited), (GOROUTINES, GOROUTINES));
        let events = report.observed.events;
        assert_eq!(events.exited, said.exited, "{version}");
        let extra = events.created - said.created;
        assert!(extra <= report.goroutines.system, "{version}: {extra} more created than the program's");
        let hits: Vec<u64> = report.observed.probes.iter().map(|probe| probe.hits).collect();
        assert_eq!((hits[0], hits[3]), (events.created, events.exited), "{version}");
        // Short parks stay in the kernel.
        assert_eq!((events.parked, events.readied), (0, 0), "{version}");
        assert!(events.waited < hits[1] / 10, "{version}: {} of {} parks were told", events.waited, hits[1]);
    }
}

#[test]
fn births_counts_creations_and_exits_exactly_and_has_no_probe_where_goroutines_park() {
    const GOROUTINES: u64 = 100_000;
    for version in toolchain::VERSIONS {
        for flags in [BuildFlags::Default, BuildFlags::Stripped] {
            let what = format!("{version} {}", flags.name());
            let program = fixture("churn", version, flags);
            let (mut target, Ready { .. }) = Target::ready(&program, ["-n".to_owned(), GOROUTINES.to_string()]);
            let watch = Watch::start(target.pid(), &["--mode", "births", "--interval", "100ms"]);
            let said: Churned = target.ask("go");
            let report = watch.interrupt().report();
            let (observed, events) = (&report.observed, report.observed.events);
            assert_eq!(events.exited, said.exited, "{what}");
            let extra = events.created - said.created;
            assert!(extra <= report.goroutines.system, "{what}: {extra} more created than the program's");
            let hits: Vec<u64> = observed.probes.iter().map(|probe| probe.hits).collect();
            assert_eq!(hits, [events.created, events.exited], "{what}");
            assert_eq!((events.parked, events.readied, events.waited), (0, 0, 0), "{what}");
            let known = Precision { creations_and_exits: Bound::Exact, parked_times: Bound::LowerBound };
            assert_eq!(observed.known, known, "{what}");
        }
    }
}

#[test]
fn either_way_of_attaching_counts_exactly_and_leaves_nothing() {
    const GOROUTINES: u64 = 20_000;
    let program = fixture("churn", NEWEST, BuildFlags::Default);
    let ways = ["multi", "perf-event"].into_iter();
    for (uprobes, mode) in ways.flat_map(|way| ["trace", "filter", "births"].map(|mode| (way, mode))) {
        let (mut target, Ready { .. }) = Target::ready(&program, ["-n".to_owned(), GOROUTINES.to_string()]);
        // What is there without probes.
        let sites = Watch::start(target.pid(), &["--mode", mode]).interrupt().report();
        let clean = bytes_at_sites(target.pid(), &sites);
        let environment = [("PARKWARDEN_UPROBES", uprobes)];
        let watch = Watch::start_in(&environment, target.pid(), &["--mode", mode, "--interval", "100ms"]);
        assert_ne!(bytes_at_sites(target.pid(), &sites), clean, "{uprobes}: no probe was attached");
        let said: Churned = target.ask("go");
        let report = watch.interrupt().report();
        assert_eq!(report.observed.events.exited, said.exited, "{uprobes} {mode}");
        let extra = report.observed.events.created - said.created;
        assert!(extra <= report.goroutines.system, "{uprobes} {mode}: {extra} more created than the program's");
        assert_eq!(bytes_at_sites(target.pid(), &sites), clean, "{uprobes} {mode}: a probe is left");
        assert!(target.exit().success(), "{uprobes} {mode}");
    }
}

#[test]
fn without_probes_a_park_is_known_from_the_first_look_on() {
    for version in toolchain::VERSIONS {
        let program = fixture("leaks", version, BuildFlags::Default);
        let (target, _): (_, Statement) = Target::ready(&program, ["-n", EACH]);
        let report = looked_at(target.pid());
        let group = report.groups.iter().find(|group| group.wait_reason == "chan send");
        let group = group.unwrap_or_else(|| panic!("{version}: nothing is parked for a second: {:#?}", report.groups));
        assert!(group.parked_seconds.min >= 1.0, "{version}: {group:#?}");
    }
}

/// A second and a bit without probes, and who has been parked for a second of it.
fn looked_at(pid: u32) -> Report {
    let pid = pid.to_string();
    let arguments = ["watch", "--pid", &pid, "--mode", "census", "--for", "1200ms", "--interval", "100ms"];
    let output = run(arguments.iter().chain(&["--threshold", "1s", "--format", "json"]));
    serde_json::from_slice(&output.stdout).expect("a report")
}

#[test]
fn without_probes_who_parks_again_and_again_is_not_taken_for_one_who_stays_parked() {
    for version in toolchain::VERSIONS {
        let program = fixture("swing", version, BuildFlags::Default);
        let (mut target, Ready { .. }) = Target::ready(&program, ["-parked", "10", "-pairs", "3"]);
        let _: Swing = target.ask("busy");
        let report = looked_at(target.pid());
        // One that always wants to run, and on a busy machine seldom may, is no matter of parks.
        let parked = report.groups.iter().filter(|group| group.wait_reason != "running");
        let own = parked.filter(|group| group.start_function.starts_with("main."));
        let own: Vec<_> = own.map(|group| (group.start_function.as_str(), group.count)).collect();
        // Most of the players wait at every look, always at the same place.
        assert_eq!(own, [("main.main.func1", 10)], "{version}: {:#?}", report.groups);
    }
}

#[test]
fn auto_goes_to_and_fro_within_its_budget_and_loses_nobody() {
    // As many as `auto` follows without a pause between its moves.
    const SWINGS: usize = 2;
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("UTF-8");
    let program = fixture("swing", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, ["-parked", "1000"]);
    let watch = Watch::start(target.pid(), &["-v", "--threshold", "0s", "--interval", "1s", "--save", path]);
    for _ in 0..SWINGS {
        let _: Swing = target.ask("busy");
        watch.until(|line| line.contains("to mode Census"));
        let _: Swing = target.ask("idle");
        watch.until(|line| line.contains("to mode Filter"));
    }
    let said: Swing = target.ask("idle");
    let live = watch.interrupt();
    let report = live.report();
    let (observed, cost) = (&report.observed, &report.observed.cost);
    assert!(observed.modes.moves >= 2 * SWINGS as u64, "{:#?}", observed.modes);
    assert!(said.spawned > 1_000, "it was not busy: {said:?}");
    assert!(cost.longest_over_budget_seconds < 2.0, "{cost:#?}\n{:#?}", observed.modes);
    assert_eq!(report.goroutines.live - report.goroutines.system, said.num_goroutine);
    let parked = report.groups.iter().find(|group| group.start_function.starts_with("main.main."));
    assert_eq!(parked.map(|group| group.count), Some(1000), "{:#?}", report.groups);

    let replayed = run(["watch", "--replay", path, "--threshold", "0s", "--format", "json"]);
    assert_eq!(String::from_utf8_lossy(&replayed.stdout), live.output);
    let session = replay::replay(file.path()).expect("a whole capture");
    assert_eq!(session.registry().len() as u64, report.goroutines.live, "the registry is not what the census saw");
}

#[test]
fn auto_keeps_its_probes_beside_a_program_that_works_now_and_then() {
    // Each job costs more than the budget has room for while it runs, and less than from one to the next: some 10 ms of 15 ms.
    const JOBS: u32 = 6;
    const EVERY: Duration = Duration::from_secs(3);
    let program = fixture("swing", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, [] as [&str; 0]);
    let watch = Watch::start(target.pid(), &["--budget", "5%", "--interval", "1s"]);
    let before: Swing = target.ask("idle");
    let mut parks = before.parks;
    for _ in 0..JOBS {
        nothing_for(EVERY);
        parks = target.ask::<Swing>("job 1200").parks;
    }
    let observed = watch.interrupt().report().observed;
    let Modes { moves, history, .. } = &observed.modes;
    assert!(*moves <= 1 && observed.mode.sees_parks(), "{history:#?}");
    assert_eq!(observed.cost.over_budget_seconds, 0.0, "{:#?}", observed.cost);
    let seen: u64 = observed.probes.iter().map(|probe| probe.hits).sum();
    assert!(seen > parks - before.parks, "{seen} hits of {parks} parks: {:#?}", observed.probes);
}

#[test]
fn a_program_with_no_certain_place_for_probes_is_watched_without() {
    let program = fixture("profiled", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, [] as [&str; 0]);
    let refused = Watch::try_start(target.pid(), &["--mode", "trace"]).expect_err("its probes would miss calls");
    assert!(refused.contains("attaches nowhere it is not certain"), "{refused}");
    let watch = Watch::start(target.pid(), &["--threshold", "0s"]);
    let _: Ready = target.ask("park");
    let report = watch.interrupt().report();
    assert_eq!(report.observed.mode, Mode::Census);
    let reason = report.observed.modes.no_probes.unwrap_or_default();
    assert!(reason.contains("runtime."), "{reason}");
    let parked = report.groups.iter().find(|group| group.start_function == "main.main.func1");
    assert_eq!(parked.map(|group| group.count), Some(5), "{:#?}", report.groups);
}

#[test]
fn what_every_hit_costs_is_in_the_account() {
    let program = fixture("swing", NEWEST, BuildFlags::Default);
    let (mut target, Ready { .. }) = Target::ready(&program, [] as [&str; 0]);
    let watch = Watch::start(target.pid(), &["--mode", "filter"]);
    let deadline = std::time::Instant::now() + parkwarden_tests::target::DEADLINE;
    while target.ask::<Swing>("busy").spawned < 10_000 {
        assert!(std::time::Instant::now() < deadline, "it is not busy");
    }
    let _: Swing = target.ask("idle");
    let report = watch.interrupt().report();
    let observed = &report.observed;
    assert_eq!(observed.mode, Mode::Filter);
    let by_probe: f64 = observed.probes.iter().map(|probe| probe.target_seconds).sum();
    assert!((by_probe - observed.cost.target_seconds).abs() < 1e-3, "{observed:#?}");
    for probe in &observed.probes {
        // A mean in whole nanoseconds.
        let expected = probe.hits as f64 * f64::from(probe.hit_nanoseconds) / 1e9;
        assert!((probe.target_seconds - expected).abs() < probe.hits as f64 / 1e9 + 1e-6, "{probe:#?}");
        assert!(probe.stacks_target_seconds <= probe.target_seconds, "{probe:#?}");
        assert!(probe.hit_nanoseconds > 50, "{probe:#?}");
    }
    assert!(observed.cost.target_cpu_seconds > 0.0 && observed.cost.percent_of_target > 0.0, "{:#?}", observed.cost);
}
