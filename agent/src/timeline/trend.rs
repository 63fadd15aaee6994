//! When a count began to grow, and how fast: the least-squares fit of a level that turns into a rising line.
//!
//! The model is `level + slope * max(0, t - onset)`. Every onset between two looks is tried in steps; sums over what
//! follows make each trial cheap. The uncertainty is the range of onsets that fit nearly as well (a likelihood profile at
//! 95 %), and at least the looks on both sides: between them nobody looked.

/// Onsets tried between two looks.
const STEPS: usize = 4;

/// A count's growth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// When it began, in the unit of the points.
    pub onset: f64,
    /// Not before.
    pub earliest: f64,
    /// Not after.
    pub latest: f64,
    /// The count until then.
    pub level: f64,
    /// Growth from then on, per unit of time.
    pub slope: f64,
    /// It grew from the first point on.
    pub from_the_first: bool,
}

/// Sums over the points from one on.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: f64,
    t: f64,
    tt: f64,
    c: f64,
    tc: f64,
}

/// The growth in `points`, times ascending, until their maximum; none when they do not grow by more than their noise.
pub fn fit(points: &[(f64, f64)]) -> Option<Fit> {
    // What comes after the highest count, a plateau or a decline, says nothing about how it rose.
    let highest = points.iter().map(|(_, count)| *count).fold(f64::MIN, f64::max);
    let end = points.iter().position(|(_, count)| *count >= highest)?;
    let points = points.get(..=end)?;
    let &(origin, _) = points.first()?;
    if points.len() < 3 {
        return two_points(points);
    }
    let relative: Vec<(f64, f64)> = points.iter().map(|(t, c)| (t - origin, *c)).collect();
    let suffixes = suffixes(&relative);
    let total = *suffixes.first()?;
    let squares: f64 = relative.iter().map(|(_, c)| c * c).sum();
    // For each onset tried: it, the residual, level and slope.
    let mut trials: Vec<(f64, f64, f64, f64)> = Vec::new();
    for (index, pair) in relative.windows(2).enumerate() {
        let [(t0, _), (t1, _)] = pair else { continue };
        let Some(after) = suffixes.get(index + 1) else { continue };
        for step in 0..STEPS {
            let onset = t0 + (t1 - t0) * step as f64 / STEPS as f64;
            trials.extend(solve(total, *after, squares, onset).map(|(rss, level, slope)| (onset, rss, level, slope)));
        }
    }
    trials.retain(|(_, _, _, slope)| *slope > 0.0);
    let best = trials.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let (onset, rss, level, slope) = *best;
    let last = relative.last()?.0;
    let n = relative.len() as f64;
    let noise = (rss / n).sqrt();
    let growth = slope * (last - onset);
    if growth < 3.0 * noise || growth < 2.0 {
        return None;
    }
    // A residual of exactly zero would leave no room for any other onset; counts are whole numbers.
    let tolerance = (rss + n / 12.0) * (1.0 + 3.84 / (n - 2.0).max(1.0));
    let plausible = || trials.iter().filter(|trial| trial.1 <= tolerance).map(|trial| trial.0);
    let before = relative.iter().map(|(t, _)| *t).take_while(|t| *t <= onset).last().unwrap_or(onset);
    let after = relative.iter().map(|(t, _)| *t).find(|t| *t >= onset && *t > before).unwrap_or(last);
    Some(Fit {
        onset: origin + onset,
        earliest: origin + plausible().fold(before, f64::min),
        latest: origin + plausible().fold(after, f64::max),
        level: median(relative.iter().filter(|(t, _)| *t < onset).map(|(_, c)| *c)).unwrap_or(level.max(0.0)),
        slope,
        from_the_first: onset <= 0.0,
    })
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// With two looks there is nothing but the line between them.
fn two_points(points: &[(f64, f64)]) -> Option<Fit> {
    let [(t0, c0), (t1, c1)] = points else { return None };
    let slope = (c1 - c0) / (t1 - t0);
    (c1 - c0 >= 2.0 && slope.is_finite()).then_some(Fit {
        onset: *t0,
        earliest: *t0,
        latest: *t1,
        level: *c0,
        slope,
        from_the_first: true,
    })
}

fn suffixes(points: &[(f64, f64)]) -> Vec<Sums> {
    let mut sums = Sums::default();
    let mut suffixes: Vec<Sums> = points
        .iter()
        .rev()
        .map(|(t, c)| {
            sums = Sums { n: sums.n + 1.0, t: sums.t + t, tt: sums.tt + t * t, c: sums.c + c, tc: sums.tc + t * c };
            sums
        })
        .collect();
    suffixes.reverse();
    suffixes
}

/// Residual, level and slope of the best fit with this onset; `after` sums the points behind it.
fn solve(total: Sums, after: Sums, squares: f64, onset: f64) -> Option<(f64, f64, f64)> {
    // x = t - onset behind the onset, 0 before.
    let sx = after.t - onset * after.n;
    let sxx = after.tt - 2.0 * onset * after.t + onset * onset * after.n;
    let sxc = after.tc - onset * after.c;
    let spread = total.n * sxx - sx * sx;
    if spread <= 0.0 {
        return None;
    }
    let slope = (total.n * sxc - sx * total.c) / spread;
    let level = (total.c - slope * sx) / total.n;
    let rss = squares - level * total.c - slope * sxc;
    Some((rss.max(0.0), level, slope))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level, then a line, with a noise that repeats.
    fn ramp(looks: usize, every: f64, onset: f64, level: f64, slope: f64, noise: f64) -> Vec<(f64, f64)> {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        (0..looks)
            .map(|look| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let wobble = ((random >> 33) as f64 / (1u64 << 31) as f64 - 0.5) * 2.0 * noise;
                let t = 1000.0 + look as f64 * every;
                (t, (level + slope * (t - 1000.0 - onset).max(0.0) + wobble).round().max(0.0))
            })
            .collect()
    }

    #[test]
    fn the_onset_of_a_clean_ramp_is_found_between_the_looks() {
        for (onset, slope) in [(100.0, 5.0), (103.0, 65.0), (204.9, 0.5), (50.0, 1000.0)] {
            let fit = fit(&ramp(100, 5.0, onset, 12.0, slope, 0.0)).expect("it grows");
            assert!((fit.onset - 1000.0 - onset).abs() <= 2.6, "{fit:?}");
            assert!(fit.earliest <= 1000.0 + onset && fit.latest >= 1000.0 + onset, "{fit:?}");
            assert!((fit.slope / slope - 1.0).abs() < 0.02, "{fit:?}");
            assert!(!fit.from_the_first);
        }
    }

    #[test]
    fn noise_widens_the_uncertainty_and_it_still_holds_the_truth() {
        let quiet = fit(&ramp(200, 5.0, 400.0, 50.0, 2.0, 0.0)).expect("it grows");
        let noisy = fit(&ramp(200, 5.0, 400.0, 50.0, 2.0, 40.0)).expect("it grows");
        assert!(noisy.latest - noisy.earliest > quiet.latest - quiet.earliest, "{quiet:?} {noisy:?}");
        assert!(noisy.earliest <= 1400.0 && noisy.latest >= 1400.0, "{noisy:?}");
        assert!((noisy.slope / 2.0 - 1.0).abs() < 0.1, "{noisy:?}");
    }

    #[test]
    fn a_gap_over_the_onset_is_part_of_the_uncertainty() {
        let mut points = ramp(100, 5.0, 250.0, 10.0, 8.0, 3.0);
        points.retain(|(t, _)| !(1200.0..1300.0).contains(t));
        let fit = fit(&points).expect("it grows");
        assert!(fit.earliest <= 1195.0 && fit.latest >= 1300.0, "{fit:?}");
        assert!((fit.onset - 1250.0).abs() < 20.0, "{fit:?}");
    }

    #[test]
    fn what_leaks_from_the_first_look_on_says_so() {
        let fit = fit(&ramp(50, 5.0, 0.0, 100.0, 3.0, 0.0)).expect("it grows");
        assert!(fit.from_the_first, "{fit:?}");
        assert!((fit.level - 100.0).abs() < 1.0, "{fit:?}");
    }

    #[test]
    fn a_plateau_afterwards_does_not_flatten_the_growth() {
        let mut points = ramp(60, 5.0, 100.0, 0.0, 10.0, 0.0);
        let top = points.last().expect("points").1;
        points.extend((60..200).map(|look| (1000.0 + look as f64 * 5.0, top)));
        let fit = fit(&points).expect("it grows");
        assert!((fit.slope - 10.0).abs() < 0.2 && (fit.onset - 1100.0).abs() < 2.6, "{fit:?}");
    }

    #[test]
    fn what_does_not_grow_has_no_onset() {
        assert_eq!(fit(&ramp(100, 5.0, 0.0, 40.0, 0.0, 10.0)), None);
        assert_eq!(fit(&ramp(100, 5.0, 0.0, 7.0, 0.0, 0.0)), None);
        assert_eq!(fit(&[]), None);
        assert_eq!(fit(&[(1.0, 9.0)]), None);
        let falling: Vec<_> = (0..50).map(|t| (f64::from(t), f64::from(100 - t))).collect();
        assert_eq!(fit(&falling), None);
    }

    #[test]
    fn two_looks_are_a_line() {
        let fit = fit(&[(10.0, 0.0), (20.0, 50.0)]).expect("it grows");
        assert_eq!((fit.earliest, fit.latest, fit.slope), (10.0, 20.0, 5.0));
    }
}
