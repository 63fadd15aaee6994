//! Targets of all kinds, tenth of a second by tenth of a second.

use super::*;

const TICK: u64 = SECOND / 10;

/// A target: how much of a core it uses, and how many nanoseconds of each its probes would cost.
struct Simulation {
    governor: Governor,
    mode: Mode,
    reading: Reading,
    moves: Vec<(u64, Mode)>,
    /// What was spent, and allowed, in all.
    spent_ns: u64,
    allowed_ns: u64,
    longest_over: u64,
    over: u64,
}

impl Simulation {
    fn new() -> Self {
        let budget = Budget { of_target: Percent::new(1_000) };
        Self {
            governor: Governor::new(budget, vec![Mode::Filter, Mode::Trace]),
            mode: Mode::Filter,
            reading: Reading::default(),
            moves: Vec::new(),
            spent_ns: 0,
            allowed_ns: 0,
            longest_over: 0,
            over: 0,
        }
    }

    /// Runs for a while with that load: percent of a core used, and percent of a core that probes would cost.
    fn run(&mut self, seconds: u64, cpu: f64, cost: f64) {
        for _ in 0..seconds * SECOND / TICK {
            let share = |percent: f64| (TICK as f64 * percent / 100.0) as u64;
            let spent = if self.mode == Mode::Census { 0 } else { share(cost) };
            self.reading.time_ns += TICK;
            self.reading.cpu_ns += share(cpu);
            self.reading.spent_ns += spent;
            self.reading.traced_ns += spent;
            let allowed = self.governor.budget().allowed_ns(TICK, share(cpu));
            self.spent_ns += spent;
            self.allowed_ns += allowed;
            self.over = if spent > allowed { self.over + TICK } else { 0 };
            self.longest_over = self.longest_over.max(self.over);
            if let Some(decided) = self.governor.step(self.mode, self.reading) {
                self.mode = decided.mode;
                self.moves.push((self.reading.time_ns, decided.mode));
            }
        }
    }
}

#[test]
fn an_idle_target_is_traced_after_a_while_and_stays_so() {
    let mut target = Simulation::new();
    target.run(600, 2.0, 0.001);
    assert_eq!(target.moves.iter().map(|(_, mode)| *mode).collect::<Vec<_>>(), [Mode::Trace]);
}

#[test]
fn a_flood_ends_the_probes_at_once() {
    let mut target = Simulation::new();
    target.run(1, 100.0, 60.0);
    assert_eq!(target.mode, Mode::Census);
    assert!(target.moves[0].0 <= 2 * TICK, "{:?}", target.moves);
}

#[test]
fn a_little_too_much_ends_them_within_a_second() {
    let mut target = Simulation::new();
    target.run(20, 100.0, 1.2);
    assert_eq!(target.mode, Mode::Census);
    assert!(target.longest_over <= MAX_OVER + TICK, "{}", target.longest_over);
}

#[test]
fn a_flood_that_lasts_costs_no_more_than_the_budget_on_average() {
    let mut target = Simulation::new();
    target.run(600, 100.0, 60.0);
    assert!(target.spent_ns <= target.allowed_ns, "{} of {}", target.spent_ns, target.allowed_ns);
    // It does look again, now and then.
    assert!((5..=60).contains(&target.moves.len()), "{:?}", target.moves);
}

#[test]
fn between_idle_and_flood_it_goes_to_and_fro_and_never_exceeds_the_budget_for_long() {
    let mut target = Simulation::new();
    for _ in 0..20 {
        target.run(15, 0.5, 0.01);
        assert_ne!(target.mode, Mode::Census, "probes come back when it is idle: {:?}", target.moves);
        target.run(10, 150.0, 60.0);
        assert_eq!(target.mode, Mode::Census);
    }
    assert!(target.longest_over <= MAX_OVER, "{}", target.longest_over);
}

#[test]
fn fast_swings_cost_no_more_than_the_budget_on_average() {
    let mut target = Simulation::new();
    for _ in 0..100 {
        target.run(4, 0.5, 0.01);
        target.run(4, 150.0, 90.0);
    }
    assert!(target.spent_ns <= target.allowed_ns, "{} of {}", target.spent_ns, target.allowed_ns);
    assert!(target.moves.len() > 10, "it does look again, now and then: {:?}", target.moves);
}

#[test]
fn an_attempt_that_costs_nothing_is_not_given_up_for_old_debts() {
    let mut target = Simulation::new();
    target.run(5, 150.0, 300.0);
    assert_eq!(target.mode, Mode::Census);
    target.run(60, 0.5, 0.001);
    let idle: Vec<_> = target.moves.iter().skip_while(|(at, _)| *at <= 5 * SECOND).map(|(_, mode)| *mode).collect();
    assert_eq!(idle, [Mode::Filter, Mode::Trace], "{:?}", target.moves);
}

#[test]
fn near_a_border_it_stays_where_it_is() {
    for cost in [0.24, 0.26, 0.74, 0.76, 0.99] {
        let mut target = Simulation::new();
        target.run(300, 100.0, cost);
        assert!(target.moves.len() <= 1, "{cost}: {:?}", target.moves);
        assert_ne!(target.mode, Mode::Census, "{cost}");
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
    let mut governor = Governor::new(Budget { of_target: Percent::new(1_000) }, vec![Mode::Filter, Mode::Trace]);
    let reading = Reading { time_ns: 10, cpu_ns: 10, spent_ns: 10, traced_ns: 10 };
    assert_eq!(governor.step(Mode::Filter, reading), None);
    assert_eq!(governor.step(Mode::Filter, reading), None);
    assert_eq!(governor.step(Mode::Filter, Reading::default()), None);
}

#[test]
fn where_a_mode_is_not_to_be_had_it_makes_do_with_the_others() {
    let budget = Budget { of_target: Percent::new(1_000) };
    let mut target =
        Simulation { governor: Governor::new(budget, vec![Mode::Trace]), mode: Mode::Trace, ..Simulation::new() };
    target.run(60, 50.0, 20.0);
    target.run(60, 50.0, 0.001);
    target.run(60, 50.0, 0.45);
    let modes: Vec<Mode> = target.moves.iter().map(|(_, mode)| *mode).collect();
    assert!(modes.starts_with(&[Mode::Census, Mode::Trace]) && !modes.contains(&Mode::Filter), "{modes:?}");
    assert_eq!(target.mode, Mode::Trace);
}
