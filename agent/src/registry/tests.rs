//! Tests of the state machine against a model that knows the truth.

use std::collections::BTreeMap;

use parkwarden_common::record::{Event, What};
use proptest::prelude::*;

use super::{Activity, CreationSiteCount, Held, Registry};
use crate::memory::census::{Census, Goroutine, Status};

fn event(time_ns: u64, goid: u64, what: What) -> Event {
    Event { time_ns, goid, probe: 0, what }
}

fn created(time_ns: u64, goid: u64) -> Event {
    event(time_ns, goid, What::Created { parent_goid: 1, creation_pc: 0x1000, start_pc: 0x2000 })
}

fn read(goid: u64, status: Status) -> Goroutine {
    Goroutine { goid, status, wait_reason: 7, creation_pc: 0x1000, start_pc: 0x2000, ..Goroutine::default() }
}

fn census(started_ns: u64, goroutines: Vec<Goroutine>) -> Census {
    Census { started_ns, finished_ns: started_ns + 10, goroutines, ..Census::default() }
}

fn parked(time_ns: u64, goid: u64) -> Event {
    event(time_ns, goid, What::Parked { wait_reason: 7 })
}

#[test]
fn a_goroutines_life() {
    let mut registry = Registry::default();
    registry.apply(&created(10, 5));
    assert_eq!(registry.get(5).map(|g| g.state), Some(Activity::Active));
    registry.apply(&parked(20, 5));
    let goroutine = *registry.get(5).expect("known");
    assert_eq!((goroutine.state, goroutine.since_ns, goroutine.exact), (Activity::Parked(7), 20, true));
    registry.apply(&event(30, 5, What::Readied { waker_goid: 1 }));
    assert_eq!(registry.get(5).map(|g| g.state), Some(Activity::Active));
    registry.apply(&event(40, 5, What::Exited));
    assert!(registry.is_empty());
    let site = registry.sites()[goroutine.site as usize];
    assert_eq!((site.created, site.exited), (1, 1));
}

#[test]
fn who_was_there_before_is_found_and_its_age_is_a_lower_bound() {
    let mut registry = Registry::default();
    registry.census_begins();
    let change = registry.reconcile(&census(100, vec![read(5, Status::Waiting)]), false);
    assert_eq!(change.found, 1);
    let goroutine = registry.get(5).expect("found");
    assert_eq!((goroutine.state, goroutine.since_ns, goroutine.exact), (Activity::Parked(7), 100, false));
}

#[test]
fn one_that_has_told_of_its_exit_is_not_found_again_while_the_runtime_still_calls_it_running() {
    let mut registry = Registry::default();
    registry.reconcile(&census(5, vec![]), false);
    registry.apply(&created(10, 5));
    registry.apply(&event(90, 5, What::Exited));
    registry.census_begins();
    let change = registry.reconcile(&census(100, vec![read(5, Status::Running)]), false);
    assert_eq!((change.found, registry.len()), (0, 0));
    registry.census_begins();
    registry.reconcile(&census(200, vec![]), false);
    assert_eq!(registry.anomalies().vanished, 0);
}

#[test]
fn the_collectors_note_dates_an_old_park() {
    let mut registry = Registry::default();
    let old = Goroutine { wait_since_ns: Some(40), ..read(5, Status::Waiting) };
    registry.reconcile(&census(100, vec![old]), false);
    assert_eq!(registry.get(5).map(|g| g.since_ns), Some(40));
}

#[test]
fn a_network_wake_up_is_found_by_the_census() {
    let mut registry = Registry::default();
    registry.apply(&created(10, 5));
    registry.apply(&parked(20, 5));
    let change = registry.reconcile(&census(100, vec![read(5, Status::Running)]), false);
    assert_eq!(change.silent_wakeups, 1);
    assert_eq!(registry.get(5).map(|g| g.state), Some(Activity::Active));
}

#[test]
fn events_newer_than_the_census_win() {
    let mut registry = Registry::default();
    registry.apply(&created(10, 5));
    registry.apply(&parked(105, 5));
    registry.reconcile(&census(100, vec![read(5, Status::Running)]), false);
    assert_eq!(registry.get(5).map(|g| (g.state, g.since_ns)), Some((Activity::Parked(7), 105)));
}

#[test]
fn one_that_exits_during_the_census_stays_gone() {
    let mut registry = Registry::default();
    registry.apply(&created(10, 5));
    registry.census_begins();
    registry.apply(&event(101, 5, What::Exited));
    registry.reconcile(&census(100, vec![read(5, Status::Running)]), false);
    assert!(registry.get(5).is_none());
}

#[test]
fn one_that_is_gone_without_an_event_is_removed_and_counted() {
    let mut registry = Registry::default();
    registry.apply(&created(10, 5));
    let change = registry.reconcile(&census(100, vec![]), false);
    assert_eq!(change.vanished, 1);
    assert!(registry.is_empty());
}

#[test]
fn a_census_that_missed_some_removes_nobody() {
    let mut registry = Registry::default();
    registry.apply(&created(10, 5));
    registry.reconcile(&Census { unreadable: 1, ..census(100, vec![]) }, false);
    assert_eq!(registry.len(), 1);
}

#[test]
fn after_a_loss_a_park_counts_from_the_census() {
    let mut registry = Registry::default();
    registry.apply(&created(10, 5));
    registry.apply(&parked(20, 5));
    registry.reconcile(&census(100, vec![read(5, Status::Waiting)]), true);
    assert_eq!(registry.get(5).map(|g| (g.since_ns, g.exact)), Some((100, false)));
}

#[test]
fn the_limit_holds_and_is_counted() {
    let mut registry = Registry::new(2);
    for goid in 1..=5 {
        registry.apply(&created(goid, goid));
    }
    assert_eq!((registry.len(), registry.anomalies().registry_full), (2, 3));
}

#[test]
fn a_million_goroutines_take_bounded_memory() {
    const MILLION: u64 = 1_000_000;
    const LIMIT: usize = 150_000_000;
    assert!(size_of::<(u64, super::Goroutine)>() <= 64);
    let mut registry = Registry::default();
    let mut most = 0;
    for goid in 1..=MILLION {
        let before = registry.memory();
        registry.apply(&created(goid, goid));
        registry.apply(&parked(goid, goid));
        // While a table grows there are two.
        let after = registry.memory();
        most = most.max(if after == before { after } else { before + after });
    }
    assert_eq!(registry.len() as u64, MILLION);
    assert!(most <= LIMIT, "{most} bytes");
}

fn held(goid: u64, since_ns: u64) -> Held {
    Held { goid, since_ns, wait_reason: 7 }
}

#[test]
fn a_park_that_the_kernel_holds_is_exact_and_newer_events_win() {
    let mut registry = Registry::default();
    registry.expect_strangers(true);
    registry.reconcile(&census(100, vec![read(5, Status::Waiting), read(6, Status::Running)]), false);
    // Seen parked by the census; parked before it began.
    registry.hold(&held(5, 90));
    assert_eq!(registry.get(5).map(|g| (g.since_ns, g.exact)), Some((90, true)));
    // Seen running: the kernel has not been told of the wake-up.
    registry.hold(&held(6, 90));
    assert_eq!(registry.get(6).map(|g| g.state), Some(Activity::Active));
    // Met for the first time.
    registry.hold(&held(7, 110));
    assert_eq!(registry.get(7).map(|g| (g.state, g.since_ns)), Some((Activity::Parked(7), 110)));
    // Its last wait ended, and then it parked again; the end is told afterwards.
    registry.hold(&held(5, 200));
    registry.apply(&event(150, 5, What::Waited { wait_reason: 7, since_ns: 90, waker_goid: 1 }));
    assert_eq!(registry.get(5).map(|g| (g.state, g.since_ns)), Some((Activity::Parked(7), 200)));
    registry.apply(&event(250, 5, What::Waited { wait_reason: 7, since_ns: 200, waker_goid: 1 }));
    assert_eq!(registry.get(5).map(|g| g.state), Some(Activity::Active));
    assert_eq!(registry.anomalies().unknown_goroutine, 0);
}

#[test]
fn without_events_a_goroutine_that_has_not_run_stays_in_its_park() {
    let waiting = |seq| vec![Goroutine { tracking_seq: Some(seq), ..read(5, Status::Waiting) }];
    let mut registry = Registry::default();
    registry.reconcile(&census(100, waiting(7)), true);
    registry.reconcile(&census(200, waiting(7)), true);
    assert_eq!(registry.get(5).map(|g| (g.since_ns, g.exact)), Some((100, false)));
    registry.reconcile(&census(300, waiting(8)), true);
    assert_eq!(registry.get(5).map(|g| g.since_ns), Some(300));
    // The number alone says nothing while there is none.
    registry.reconcile(&census(400, vec![read(5, Status::Waiting)]), true);
    assert_eq!(registry.get(5).map(|g| g.since_ns), Some(400));
}

#[test]
fn what_the_kernel_counts_adds_up() {
    let mut registry = Registry::default();
    registry.count(&CreationSiteCount { creation_pc: 0x1000, created: 3, exited: 1 });
    registry.count(&CreationSiteCount { creation_pc: 0x1000, created: 2, exited: 4 });
    assert_eq!(registry.counted().collect::<Vec<_>>(), [(0x1000, 5, 5)]);
    assert_eq!((registry.events().created, registry.events().exited), (5, 5));
}

/// What a goroutine of the model does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create(u64),
    Park(u64),
    Ready(u64),
    Exit(u64),
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let step = (0u8..4, 1u64..20).prop_map(|(kind, goid)| match kind {
        0 => Step::Create(goid),
        1 => Step::Park(goid),
        2 => Step::Ready(goid),
        _ => Step::Exit(goid),
    });
    prop::collection::vec((step, any::<bool>()), 0..200)
}

proptest! {
    /// Whatever events are lost, one census later the registry agrees with the truth.
    #[test]
    fn a_census_repairs_any_loss(steps in steps()) {
        let mut truth: BTreeMap<u64, bool> = BTreeMap::new();
        let mut registry = Registry::default();
        let mut now = 1;
        // The runtime uses no goid twice.
        let mut lives = [0; 20];
        let goid_of = |slot: u64, lives: &[u64; 20]| slot + 20 * lives[slot as usize];
        for (step, lost) in steps {
            now += 1;
            let step = match step {
                Step::Create(slot) => Step::Create(goid_of(slot, &lives)),
                Step::Park(slot) => Step::Park(goid_of(slot, &lives)),
                Step::Ready(slot) => Step::Ready(goid_of(slot, &lives)),
                Step::Exit(slot) => Step::Exit(goid_of(slot, &lives)),
            };
            let event = match step {
                Step::Create(goid) if !truth.contains_key(&goid) => {
                    truth.insert(goid, false);
                    created(now, goid)
                }
                Step::Park(goid) if truth.get(&goid) == Some(&false) => {
                    truth.insert(goid, true);
                    parked(now, goid)
                }
                Step::Ready(goid) if truth.get(&goid) == Some(&true) => {
                    truth.insert(goid, false);
                    event(now, goid, What::Readied { waker_goid: 0 })
                }
                Step::Exit(goid) if truth.get(&goid) == Some(&false) => {
                    truth.remove(&goid);
                    lives[(goid % 20) as usize] += 1;
                    event(now, goid, What::Exited)
                }
                _ => continue,
            };
            if !lost {
                registry.apply(&event);
            }
        }
        let goroutines = truth
            .iter()
            .map(|(goid, waits)| read(*goid, if *waits { Status::Waiting } else { Status::Runnable }))
            .collect();
        registry.census_begins();
        registry.reconcile(&census(now + 1, goroutines), true);
        let seen: BTreeMap<u64, bool> =
            registry.goroutines().map(|(goid, g)| (goid, matches!(g.state, Activity::Parked(_)))).collect();
        prop_assert_eq!(seen, truth);
    }
}
