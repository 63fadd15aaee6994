//! What is called a leak and what is not, over whole histories.

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A history with one look a second.
struct History {
    waiting: Vec<u64>,
    live: Vec<u64>,
    gone: Vec<u64>,
    /// When those that wait at the end were parked, in seconds.
    parked: Vec<u64>,
}

impl History {
    /// Nobody who waits ever moves again.
    fn stuck(waiting: &[u64], live: &[u64]) -> Self {
        let mut parked = Vec::new();
        for (second, count) in waiting.iter().enumerate() {
            parked.truncate(*count as usize);
            parked.resize(*count as usize, second as u64);
        }
        Self { waiting: waiting.to_vec(), live: live.to_vec(), gone: vec![0; waiting.len()], parked }
    }

    fn judge(&self) -> (Verdict, Vec<String>) {
        let series = |counts: &[u64]| {
            let mut series = Series::default();
            counts.iter().enumerate().for_each(|(second, count)| series.push(second as u64 * SECOND, *count));
            series
        };
        let (waiting, live, gone) = (series(&self.waiting), series(&self.live), series(&self.gone));
        let parked: Vec<u64> = self.parked.iter().map(|second| second * SECOND).collect();
        let suspect =
            Suspect { waiting: &waiting, live: &live, gone: &gone, parked_since: &parked, created: 0, exited: 0 };
        let looks = Looks { first_ns: 0, last_ns: (self.waiting.len() as u64 - 1) * SECOND, interval_ns: SECOND };
        judge(&suspect, looks, &Rules::default())
    }

    fn verdict(&self) -> Verdict {
        self.judge().0
    }
}

#[test]
fn a_group_that_grows_and_stays_is_likely_a_leak() {
    let history = History::stuck(&[0, 10, 20, 30, 40, 50], &[1, 11, 21, 31, 41, 51]);
    let (verdict, evidence) = history.judge();
    assert_eq!(verdict, Verdict::Likely);
    assert_eq!(
        evidence,
        [
            "Waiting here rose in 5 of 5 windows of 1.0 s, from 0 to 50 (+10/s).",
            "Of this go statement's goroutines 1 lived 5.0 s ago, 51 do now.",
            "Of the 40 that waited here 1.0 s ago, 40 have not moved since.",
        ]
    );
}

#[test]
fn too_few_windows_are_said_to_be_too_few() {
    let (verdict, evidence) = History::stuck(&[0, 10, 20], &[1, 11, 21]).judge();
    assert_eq!(verdict, Verdict::Idle);
    assert!(evidence[0].contains("takes 5 windows, and there were 2"), "{evidence:?}");
    // What does not grow needs no excuse.
    assert_eq!(History::stuck(&[10], &[10]).judge(), (Verdict::Idle, Vec::new()));
}

#[test]
fn a_slow_leak_is_found_over_longer_windows() {
    // One more every fourth look.
    let counts: Vec<u64> = (0..64).map(|look| look / 4).collect();
    assert_eq!(History::stuck(&counts, &counts).verdict(), Verdict::Likely);
}

#[test]
fn a_leak_that_began_late_in_a_long_watch_is_found() {
    let counts: Vec<u64> = (0..5000_u64).map(|look| 3 + 10 * look.saturating_sub(4994)).collect();
    assert_eq!(History::stuck(&counts, &counts).verdict(), Verdict::Likely);
}

#[test]
fn a_pool_whose_workers_fall_idle_is_not() {
    assert_eq!(History::stuck(&[0, 10, 20, 30, 40, 50], &[50; 6]).verdict(), Verdict::Idle);
}

#[test]
fn a_burst_that_ends_is_not() {
    let counts = [0, 100, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200];
    for length in 6..=counts.len() {
        assert_eq!(History::stuck(&counts[..length], &counts[..length]).verdict(), Verdict::Idle, "{length}");
    }
}

#[test]
fn a_group_that_shrinks_or_hardly_grows_is_not() {
    assert_eq!(History::stuck(&[60, 50, 40, 30, 20, 10], &[60, 50, 40, 30, 20, 10]).verdict(), Verdict::Idle);
    assert_eq!(History::stuck(&[0, 1, 2, 3, 4, 4], &[0, 1, 2, 3, 4, 4]).verdict(), Verdict::Idle);
}

#[test]
fn growing_traffic_whose_goroutines_come_and_go_is_not() {
    let mut history = History::stuck(&[10, 20, 30, 40, 50, 60], &[10, 20, 30, 40, 50, 60]);
    // All of them have been parked for less than a second, and as many have ended at each look as there were before.
    history.parked = vec![5; 60];
    history.gone = vec![0, 10, 30, 60, 100, 150];
    assert_eq!(history.verdict(), Verdict::Idle);
}

#[test]
fn goroutines_that_wake_up_again_and_again_and_never_end_are() {
    let mut history = History::stuck(&[0, 10, 20, 30, 40, 50], &[0, 10, 20, 30, 40, 50]);
    history.parked = vec![5; 50];
    let (verdict, evidence) = history.judge();
    assert_eq!(verdict, Verdict::Likely);
    assert!(evidence[2].contains("do not end: of 40 that lived 1.0 s ago, at least 40 still do"), "{evidence:?}");
}

#[test]
fn what_grows_and_falls_in_turn_is_not() {
    let wave: Vec<u64> = (0..200).map(|look| 100 + [0, 30, 60, 90, 60, 30][look % 6]).collect();
    for length in 1..=wave.len() {
        assert_eq!(History::stuck(&wave[..length], &wave[..length]).verdict(), Verdict::Idle, "{length}");
    }
}
