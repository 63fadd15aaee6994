//! Targets of all kinds and rhythms, tenth of a second by tenth of a second.

use super::*;

const TICK: u64 = SECOND / 10;

/// What a target does for a while: percent of a core that it uses, and percent of a core that probes where goroutines are made
/// and end would cost, and those where they park.
#[derive(Clone, Copy)]
struct Load {
    seconds: f64,
    cpu: f64,
    births: f64,
    parks: f64,
}

const fn load(seconds: f64, cpu: f64, births: f64, parks: f64) -> Load {
    Load { seconds, cpu, births, parks }
}

struct Simulation {
    governor: Governor,
    mode: Mode,
    reading: Reading,
    moves: Vec<(u64, Mode)>,
    /// What was spent, and allowed, in all.
    spent_ns: u64,
    allowed_ns: u64,
    /// As the account of a session judges it.
    purse: Purse,
    /// Of each tick, whether it is over the budget.
    over: Vec<bool>,
    /// By mode, how long it was watched in it.
    time_ns: std::collections::BTreeMap<Mode, u64>,
}

impl Simulation {
    fn new() -> Self {
        Self::with(Mode::PROBED.to_vec(), Mode::Filter)
    }

    fn with(probed: Vec<Mode>, first: Mode) -> Self {
        let budget = Budget { of_target: Percent::new(1_000) };
        Self {
            governor: Governor::new(budget, probed, first),
            mode: first,
            reading: Reading::default(),
            moves: Vec::new(),
            spent_ns: 0,
            allowed_ns: 0,
            purse: Purse::new(budget),
            over: Vec::new(),
            time_ns: Default::default(),
        }
    }

    fn run(&mut self, load: Load) {
        for _ in 0..(load.seconds * SECOND as f64) as u64 / TICK {
            self.tick(load);
        }
    }

    fn repeat(&mut self, times: u32, rhythm: &[Load]) {
        for _ in 0..times {
            rhythm.iter().for_each(|load| self.run(*load));
        }
    }

    fn tick(&mut self, load: Load) {
        let share = |percent: f64| (TICK as f64 * percent / 100.0) as u64;
        // A mode tells of what its probes see; to stream costs a quarter more than to keep.
        let parks = if self.mode.sees_parks() { load.parks } else { 0.0 };
        let births = if self.mode.sees_births() { load.births } else { 0.0 };
        let would_ns = [share(births), share(births + parks), share(1.25 * (births + parks))];
        let spent_ns = purse_of(self.mode).map_or(0, |index| would_ns[index]);
        self.reading.time_ns += TICK;
        self.reading.cpu_ns += share(load.cpu);
        self.reading.spent_ns += spent_ns;
        for (sum, would_ns) in self.reading.would_ns.iter_mut().zip(would_ns) {
            *sum += would_ns;
        }
        let allowed_ns = self.governor.budget().allowed_ns(TICK, share(load.cpu));
        self.spent_ns += spent_ns;
        self.allowed_ns += allowed_ns;
        self.purse.flow(allowed_ns, spent_ns);
        let over = self.purse.is_empty() && spent_ns > allowed_ns;
        self.over.push(over);
        *self.time_ns.entry(self.mode).or_default() += TICK;
        if let Some(decided) = self.governor.step(self.mode, self.reading) {
            self.mode = decided.mode;
            if self.mode != Mode::Census {
                self.purse = Purse::new(self.governor.budget());
            }
            self.moves.push((self.reading.time_ns, decided.mode));
        }
    }

    fn minutes(&self) -> f64 {
        self.reading.time_ns as f64 / 60.0 / SECOND as f64
    }

    fn modes(&self) -> Vec<Mode> {
        self.moves.iter().map(|(_, mode)| *mode).collect()
    }

    /// Part of the time that it was watched where parks are seen.
    fn saw_parks(&self) -> f64 {
        let parks = self.time_ns.iter().filter(|(mode, _)| mode.sees_parks()).map(|(_, ns)| *ns).sum::<u64>();
        parks as f64 / self.reading.time_ns as f64
    }

    /// Of all ten minutes those with the most time over the budget: how many seconds.
    fn worst_over(&self) -> f64 {
        let window = usize::try_from(600 * SECOND / TICK).expect("a few thousand");
        let (mut over, mut worst) = (0_u32, 0);
        for (tick, is_over) in self.over.iter().enumerate() {
            let leaves = tick.checked_sub(window).is_some_and(|before| self.over[before]);
            over = over + u32::from(*is_over) - u32::from(leaves);
            worst = worst.max(over);
        }
        f64::from(worst) / 10.0
    }

    /// What holds whatever a target does: few moves, and the budget kept, on the whole and as the account tells it.
    #[track_caller]
    fn keeps_the_rules(&self) {
        let moves = self.moves.len() as f64;
        assert!(moves <= MOVES + 3.0 + self.minutes(), "{moves} in {:.0} min: {:?}", self.minutes(), self.moves);
        assert!(self.spent_ns <= self.allowed_ns + SECOND / 10, "{} of {}", self.spent_ns, self.allowed_ns);
        // The alert fires at 60 s.
        let over = self.worst_over();
        assert!(over <= 6.0, "{over} s of ten minutes over the budget: {:?}", self.moves);
    }
}

/// Prometheus with one target, as it was recorded: a scrape every 15 s, its rules in between, a block of samples now and then.
const PROMETHEUS: [Load; 5] = [
    load(0.2, 12.0, 0.02, 1.6),
    load(7.3, 0.3, 0.0, 0.03),
    load(0.1, 20.0, 0.1, 2.5),
    load(7.3, 0.3, 0.0, 0.03),
    load(0.1, 4.0, 0.0, 0.6),
];

#[test]
fn an_idle_target_is_traced_after_a_while_and_stays_so() {
    let mut target = Simulation::new();
    target.run(load(600.0, 2.0, 0.001, 0.002));
    assert_eq!(target.modes(), [Mode::Trace]);
    assert!(target.moves[0].0 <= 6 * SECOND, "{:?}", target.moves);
}

#[test]
fn a_nearly_idle_prometheus_keeps_its_probes() {
    let mut target = Simulation::new();
    target.repeat(240, &PROMETHEUS);
    target.keeps_the_rules();
    assert!(target.moves.len() <= 6, "{:?}", target.moves);
    assert!(target.saw_parks() > 0.95, "{:.2}: {:?}", target.saw_parks(), target.moves);
    assert_eq!(target.worst_over(), 0.0);
}

#[test]
fn bursts_that_the_budget_allows_on_the_whole_are_let_pass() {
    // Each costs nine tenths of what the budget allows from one to the next.
    for (every, seconds, cost) in [(10.0, 0.5, 2.0), (15.0, 1.0, 1.5), (60.0, 2.0, 2.9), (60.0, 0.3, 18.0)] {
        let mut target = Simulation::new();
        target.repeat(60, &[load(every - seconds, 0.1, 0.0, 0.0), load(seconds, 30.0, 0.1, cost - 0.1)]);
        target.keeps_the_rules();
        assert!(target.saw_parks() > 0.9, "every {every} s: {:.2}: {:?}", target.saw_parks(), target.moves);
        assert!(target.moves.len() <= 14, "every {every} s: {:?}", target.moves);
    }
}

#[test]
fn bursts_that_it_does_not_allow_are_watched_by_births_without_flapping() {
    for (every, seconds) in [(10.0, 1.0), (15.0, 1.0), (60.0, 5.0)] {
        let mut target = Simulation::new();
        let hours = 2.0;
        let times = (hours * 3600.0 / every) as u32;
        target.repeat(times, &[load(every - seconds, 0.1, 0.0, 0.0), load(seconds, 100.0, 0.1, 40.0)]);
        target.keeps_the_rules();
        let births = target.time_ns.get(&Mode::Births).copied().unwrap_or(0) as f64 / target.reading.time_ns as f64;
        assert!(births > 0.5, "every {every} s: {births:.2} of the time: {:?}", target.time_ns);
        assert!(!target.modes().contains(&Mode::Census), "every {every} s: {:?}", target.moves);
        assert!(target.moves.len() <= 75, "every {every} s: {} moves", target.moves.len());
    }
}

#[test]
fn a_flood_of_parks_leaves_births_and_one_of_births_nothing() {
    let mut target = Simulation::new();
    target.run(load(5.0, 100.0, 0.1, 60.0));
    assert_eq!(target.modes(), [Mode::Births]);
    assert!(target.moves[0].0 <= 2 * TICK, "{:?}", target.moves);

    let mut target = Simulation::new();
    target.run(load(5.0, 100.0, 40.0, 20.0));
    assert_eq!(target.modes(), [Mode::Census], "straight on: births would not last");
    assert!(target.moves[0].0 <= 2 * TICK, "{:?}", target.moves);
}

#[test]
fn a_flood_after_a_long_rest_ends_the_probes_soon() {
    for cpu in [0.1, 5.0, 100.0] {
        let mut target = Simulation::new();
        target.run(load(600.0, cpu, 0.0, 0.0));
        assert_eq!(target.mode, Mode::Trace);
        target.run(load(2.0, 150.0, 0.1, 60.0));
        assert_eq!(target.mode, Mode::Births, "{cpu}");
        let taken = target.moves.last().expect("one").0 - 600 * SECOND;
        assert!(taken <= 5 * TICK, "{cpu}: {taken}");
        target.keeps_the_rules();
    }
}

#[test]
fn what_a_flood_cost_is_not_held_against_a_rhythm_that_fits() {
    for (flood, every, cost) in [(30.0, 10.0, 1.5), (600.0, 10.0, 1.5), (60.0, 30.0, 4.0)] {
        let mut target = Simulation::new();
        target.run(load(flood, 150.0, 5.0, 60.0));
        target.repeat(120, &[load(every - 0.5, 0.5, 0.0, 0.0), load(0.5, 50.0, 0.1, cost)]);
        target.keeps_the_rules();
    }
}

#[test]
fn a_load_that_rises_for_good_is_followed_at_once_and_then_left_alone() {
    let mut target = Simulation::new();
    target.run(load(300.0, 20.0, 0.01, 0.05));
    assert_eq!(target.mode, Mode::Trace);
    target.run(load(60.0, 90.0, 0.3, 30.0));
    let first = target.moves.iter().find(|(at, _)| *at > 300 * SECOND).expect("it moves");
    assert!(first.0 <= 302 * SECOND && first.1 == Mode::Births, "{:?}", target.moves);
    target.run(load(3600.0, 90.0, 0.3, 30.0));
    target.keeps_the_rules();
    assert!(target.time_ns[&Mode::Births] > 3600 * SECOND * 95 / 100, "{:?}", target.time_ns);
    // The pauses grow: after half an hour it tries every quarter of an hour.
    let late = target.moves.iter().filter(|(at, _)| *at > 2100 * SECOND).count();
    assert!(late <= 6, "{:?}", target.moves);
}

#[test]
fn a_load_that_falls_for_good_gets_its_probes_back() {
    for busy in [20.0, 600.0, 7200.0] {
        let mut target = Simulation::new();
        target.run(load(busy, 150.0, 20.0, 60.0));
        assert!(!target.mode.sees_parks(), "{busy}: {:?}", target.moves);
        let fell = target.reading.time_ns;
        target.run(load(1200.0, 1.0, 0.0, 0.01));
        let back = target.moves.iter().find(|(at, mode)| *at > fell && mode.sees_parks()).expect("they come back").0;
        assert!(back - fell <= 250 * SECOND, "{busy}: after {} s", (back - fell) / SECOND);
        assert_eq!(target.mode, Mode::Trace);
        target.keeps_the_rules();
    }
}

#[test]
fn a_little_too_much_is_noticed_within_its_minute() {
    let mut target = Simulation::new();
    target.run(load(300.0, 100.0, 0.02, 1.2));
    assert!(target.moves.iter().any(|(at, mode)| *at < 60 * SECOND && *mode == Mode::Births), "{:?}", target.moves);
    target.keeps_the_rules();
}

#[test]
fn a_flood_that_lasts_costs_no_more_than_the_budget_on_average() {
    let mut target = Simulation::new();
    target.run(load(3600.0, 100.0, 30.0, 30.0));
    target.keeps_the_rules();
    assert!(target.spent_ns <= target.allowed_ns / 4, "{} of {}", target.spent_ns, target.allowed_ns);
    // It does look again, now and then.
    assert!((6..=60).contains(&target.moves.len()), "{:?}", target.moves);
}

#[test]
fn between_idle_and_flood_moves_are_counted_out() {
    for seconds in [4.0, 15.0, 60.0, 240.0] {
        let mut target = Simulation::new();
        let times = (7200.0 / (2.0 * seconds)) as u32;
        target.repeat(times, &[load(seconds, 0.5, 0.0, 0.01), load(seconds, 150.0, 5.0, 60.0)]);
        target.keeps_the_rules();
        assert!(target.moves.len() > 10, "it does look again, now and then: {:?}", target.moves);
    }
}

#[test]
fn it_follows_the_first_changes_at_once() {
    let mut target = Simulation::new();
    for _ in 0..2 {
        target.run(load(10.0, 150.0, 20.0, 60.0));
        assert_eq!(target.mode, Mode::Census, "{:?}", target.moves);
        target.run(load(10.0, 0.5, 0.0, 0.01));
        assert!(target.mode.sees_parks(), "{:?}", target.moves);
    }
}

#[test]
fn near_a_border_it_stays_where_it_is() {
    for cost in [0.39, 0.41, 0.5, 0.76, 0.79, 0.98] {
        let mut target = Simulation::new();
        target.run(load(1200.0, 100.0, 0.0, cost));
        assert!(target.moves.len() <= 1, "{cost}: {:?}", target.moves);
        assert!(target.mode.sees_parks(), "{cost}");
    }
}

#[test]
fn the_budget_is_a_share_of_what_the_target_uses_between_two_bounds() {
    let budget = Budget { of_target: Percent::new(1_000) };
    assert_eq!(budget.allowed_ns(1_000_000, 1_000_000), 10_000);
    assert_eq!(budget.allowed_ns(1_000_000, 0), 1_000);
    assert_eq!(budget.allowed_ns(1_000_000, 64_000_000), 50_000);
    assert_eq!(Budget { of_target: Percent::new(100_000) }.allowed_ns(1_000_000, 1_000_000), 50_000);
    assert_eq!(Budget { of_target: Percent::new(0) }.allowed_ns(1_000_000, 1_000_000), 0);
}

#[test]
fn time_that_stands_still_or_goes_back_is_no_harm() {
    let budget = Budget { of_target: Percent::new(1_000) };
    let mut governor = Governor::new(budget, Mode::PROBED.to_vec(), Mode::Filter);
    let reading = Reading { time_ns: 10, cpu_ns: 10, spent_ns: 10, would_ns: [10; 3] };
    assert_eq!(governor.step(Mode::Filter, reading), None);
    assert_eq!(governor.step(Mode::Filter, reading), None);
    assert_eq!(governor.step(Mode::Filter, Reading::default()), None);
}

#[test]
fn where_modes_are_not_to_be_had_it_makes_do_with_the_others() {
    let mut target = Simulation::with(vec![Mode::Trace], Mode::Trace);
    target.run(load(60.0, 50.0, 0.0, 20.0));
    target.run(load(300.0, 50.0, 0.0, 0.001));
    let modes = target.modes();
    assert!(modes.starts_with(&[Mode::Census, Mode::Trace]), "{modes:?}");
    assert!(!modes.contains(&Mode::Filter) && !modes.contains(&Mode::Births), "{modes:?}");
    assert_eq!(target.mode, Mode::Trace);
}
