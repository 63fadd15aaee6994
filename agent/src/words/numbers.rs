//! Numbers, times and ends, for people.

use std::time::{Duration, SystemTime};

/// `118 400`.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// The shortest time in which there are so many, in seconds, and its unit; a day if there is none.
fn unit(per_second: f64, enough: f64) -> (f64, &'static str) {
    const DAY: (f64, &str) = (86_400.0, "day");
    let units = [(1.0, "s"), (60.0, "min"), (3600.0, "h"), DAY];
    units.into_iter().find(|(scale, _)| per_second * scale >= enough).unwrap_or(DAY)
}

/// `65/s`, `3.2/min`, `1.5/h`, `2/day`: in the largest unit that gives a number a person can picture.
pub fn rate(per_second: f64) -> String {
    let (scale, unit) = unit(per_second, 0.95);
    let value = per_second * scale;
    let value = if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    format!("{}/{unit}", value.strip_suffix(".0").unwrap_or(&value))
}

/// `+65/s`, `-1.2/min`; `+0/s` where nothing changes.
pub fn signed_rate(per_second: f64) -> String {
    // Less than one in ten days.
    const NOTHING: f64 = 1e-6;
    match per_second {
        none if none.abs() < NOTHING => "+0/s".to_owned(),
        some if some < 0.0 => format!("-{}", rate(-some)),
        some => format!("+{}", rate(some)),
    }
}

/// How precisely times are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    date: bool,
    seconds: bool,
}

impl Clock {
    /// For times between these two.
    pub fn of(from_ms: u64, to_ms: u64) -> Self {
        const DAY: u64 = 86_400_000;
        Self { date: from_ms / DAY != to_ms / DAY, seconds: to_ms.saturating_sub(from_ms) < 20 * 60_000 }
    }

    /// `02:41`, with the date and the seconds where they matter. UTC.
    pub fn time(self, ms: u64) -> String {
        let text = full(ms);
        let (date, time) = text.split_once(' ').unwrap_or(("", &text));
        let time = if self.seconds { time } else { time.get(..5).unwrap_or(time) };
        if self.date { format!("{date} {time}") } else { time.to_owned() }
    }
}

/// `2026-11-23 02:41:07`.
pub fn full(ms: u64) -> String {
    // Ten thousand years is where the format ends.
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000));
    humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").trim_end_matches('Z').to_owned()
}

/// `3 h 20 min`, `45 s`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{:.1} s", ms as f64 / 1e3),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) if minutes < 10 && !seconds.is_multiple_of(60) => format!("{minutes} min {} s", seconds % 60),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, 0) => format!("{hours} h"),
        (0, ..) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        _ => format!("{days} d {hours} h"),
    }
}

/// `512 MiB`.
pub fn bytes(count: u64) -> String {
    match count {
        0..0x40_0000 => format!("{} KiB", count >> 10),
        0x40_0000..0x1_0000_0000 => format!("{} MiB", count >> 20),
        _ => format!("{:.1} GiB", count as f64 / f64::from(1 << 30)),
    }
}

/// `60 MiB/min`: of bytes, in the unit of time that gives a number a person can picture.
pub fn rate_of_bytes(per_second: f64) -> String {
    let (scale, unit) = unit(per_second, f64::from(10 << 20));
    format!("{}/{unit}", bytes((per_second * scale) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let said: Vec<_> = [0, 999, 1000, 118_400, 1_234_567].map(number).into_iter().collect();
        assert_eq!(said, ["0", "999", "1 000", "118 400", "1 234 567"]);
    }

    #[test]
    fn rates_have_the_unit_that_fits() {
        let said: Vec<_> = [65.2, 1.0, 0.5, 0.02, 0.0005, 0.0].map(rate).into_iter().collect();
        assert_eq!(said, ["65/s", "1/s", "30/min", "1.2/min", "1.8/h", "0/day"]);
        assert_eq!([0.0, -0.0, 2.0, -0.02].map(signed_rate), ["+0/s", "+0/s", "+2/s", "-1.2/min"]);
    }

    #[test]
    fn times_are_as_precise_as_they_must_be() {
        let ms = 1_795_401_667_000;
        assert_eq!(full(ms), "2026-11-23 02:41:07");
        assert_eq!(Clock::of(ms, ms + 3_600_000).time(ms), "02:41");
        assert_eq!(Clock::of(ms, ms + 60_000).time(ms), "02:41:07");
        assert_eq!(Clock::of(ms, ms + 86_400_000).time(ms), "2026-11-23 02:41");
        full(u64::MAX);
    }

    #[test]
    fn spans() {
        let said: Vec<_> =
            [4_100, 45_000, 95_000, 720_000, 3_600_000, 12_000_000, 90_000_000].map(span).into_iter().collect();
        assert_eq!(said, ["4.1 s", "45 s", "1 min 35 s", "12 min", "1 h", "3 h 20 min", "1 d 1 h"]);
    }
}
