//! A sign that something is wrong with a runtime: which rule found it, and what it saw, in one sentence with its numbers.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sign {
    /// The rule, in one word of a fixed set.
    pub rule: String,
    /// What was seen.
    pub says: String,
    /// Goroutines that it is about, at most [`MAX_GOROUTINES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goroutines: Vec<u64>,
}

/// Goroutines named by one sign.
pub const MAX_GOROUTINES: usize = 10;

impl Sign {
    /// A sign of the rule `rule`.
    pub fn new(rule: &str, says: String) -> Self {
        Self { rule: rule.to_owned(), says, goroutines: Vec::new() }
    }

    /// The same about these goroutines.
    #[must_use]
    pub fn about(mut self, goroutines: impl IntoIterator<Item = u64>) -> Self {
        self.goroutines.extend(goroutines.into_iter().take(MAX_GOROUTINES));
        self
    }
}
