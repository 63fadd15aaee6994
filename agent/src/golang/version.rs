//! Go toolchain versions as binaries record them: `go1.27.3`, `go1.22.1 X:rangefunc`, `go1.24rc1`,
//! `devel go1.28-0fe3ac2 Mon …`.
//!
//! Deliberately absent: what a version implies. Layouts, wait reasons and function numbers keep their own tables.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A Go version. Compared by its numbers alone: a release candidate or experiment equals its release.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GoVersion {
    /// 1 for every Go so far.
    pub major: u32,
    /// 27 of `go1.27.3`.
    pub minor: u32,
    /// 3 of `go1.27.3`; 0 when absent.
    pub patch: u32,
    /// As recorded, experiments and build tags included.
    pub text: String,
}

impl GoVersion {
    /// Experiments it was built with or without (`GOEXPERIMENT`). Up to Go 1.25 they follow a space
    /// (`go1.25.5 X:jsonv2`), later a hyphen.
    pub fn experiments(&self) -> impl Iterator<Item = &str> {
        let list = self.text.split_once("X:").map(|(_, list)| list.split_ascii_whitespace().next().unwrap_or_default());
        // A list that is empty is one that is not understood, and has an experiment without a name.
        list.into_iter().flat_map(|list| list.split(','))
    }

    /// Reads the numbers out of `text`; `None` when it names no `go1.N`.
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.split_ascii_whitespace().find(|word| word.starts_with("go"))?;
        let mut numbers = word.strip_prefix("go")?.split('.');
        let major = leading_number(numbers.next()?)?;
        let minor = leading_number(numbers.next()?)?;
        let patch = numbers.next().and_then(leading_number).unwrap_or(0);
        Some(Self { major, minor, patch, text: text.to_owned() })
    }

    /// Whether this is `major.minor` or later.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    fn numbers(&self) -> (u32, u32, u32) {
        (self.major, self.minor, self.patch)
    }
}

/// The digits `text` starts with: `22` of `22rc1`, `28` of `28-0fe3ac2`.
fn leading_number(text: &str) -> Option<u32> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    text[..digits].parse().ok()
}

impl PartialEq for GoVersion {
    fn eq(&self, other: &Self) -> bool {
        self.numbers() == other.numbers()
    }
}

impl Eq for GoVersion {}

impl PartialOrd for GoVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for GoVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers().cmp(&other.numbers())
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_toolchains_record() {
        for (text, numbers) in [
            ("go1.27.3", (1, 27, 3)),
            ("go1.21", (1, 21, 0)),
            ("go1.22.1 X:rangefunc,arenas", (1, 22, 1)),
            ("go1.24rc1", (1, 24, 0)),
            ("devel go1.28-0fe3ac2c1 Mon Nov 3 10:00:00 2025 +0000", (1, 28, 0)),
            ("go1.19.8-custom", (1, 19, 8)),
        ] {
            let version = GoVersion::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(version.numbers(), numbers, "{text}");
            assert_eq!(version.to_string(), text);
        }
        for text in ["", "devel +3d3a0b", "go", "go1", "go1.x", "gopher", "go99999999999.1"] {
            assert!(GoVersion::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn compares_by_numbers() {
        let version = |text| GoVersion::parse(text).unwrap();
        assert!(version("go1.9") < version("go1.21.13"));
        assert!(version("go1.21.13").at_least(1, 21));
        assert!(!version("go1.21.13").at_least(1, 22));
        assert_eq!(version("go1.21.0"), version("go1.21 X:foo"));
    }
}
