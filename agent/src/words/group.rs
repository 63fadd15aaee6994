//! A group of goroutines as text, below its headline. Reports, proofs, snapshots and timelines each have the parts they want, in
//! the same order and form.

use std::fmt::Write;

use super::printable;
use crate::golang::Frame;

/// See the module. What is empty or `None` is not written.
#[derive(Default)]
pub(crate) struct GroupText<'a> {
    /// The `go` statement, see [`super::creator`].
    pub(crate) created_by: Option<String>,
    /// Who ran it, a line each.
    pub(crate) started_by: Vec<String>,
    /// Labels of its goroutines, a line each.
    pub(crate) labels: Vec<String>,
    /// The function it started.
    pub(crate) runs: Option<&'a str>,
    /// See [`super::blocker`].
    pub(crate) blocked_at: Option<String>,
    /// Where that is in the program's own code, if it is elsewhere.
    pub(crate) in_program: Option<String>,
    /// Since when it grows.
    pub(crate) onset: Option<String>,
    /// Why they are stuck.
    pub(crate) cause: Option<&'a str>,
    /// What to do about it.
    pub(crate) remedy: Option<&'a str>,
    /// Sentences.
    pub(crate) evidence: &'a [String],
    /// Ids of some, and whether there are more.
    pub(crate) goids: Option<(&'a [u64], bool)>,
    /// Innermost first.
    pub(crate) stack: &'a [Frame],
    /// Frames of it that are written; it is said how many others there are.
    pub(crate) frames: usize,
}

impl GroupText<'_> {
    pub(crate) fn write(&self, out: &mut String) -> std::fmt::Result {
        let mut line = |label: &str, text: &str| writeln!(out, "  {label:<11} {text}");
        self.created_by.as_deref().map_or(Ok(()), |text| line("created by", &printable(text)))?;
        for (index, text) in self.started_by.iter().enumerate() {
            line(if index == 0 { "started by" } else { "" }, &printable(text))?;
        }
        self.labels.iter().try_for_each(|text| line("label", text))?;
        let texts = [
            ("runs", self.runs),
            ("blocked at", self.blocked_at.as_deref()),
            ("in", self.in_program.as_deref()),
            ("onset", self.onset.as_deref()),
            ("cause", self.cause),
            ("remedy", self.remedy),
        ];
        for (label, text) in texts {
            text.map_or(Ok(()), |text| line(label, &printable(text)))?;
        }
        self.evidence.iter().try_for_each(|sentence| line("evidence", &printable(sentence)))?;
        if let Some((goids, more)) = self.goids {
            let ids: Vec<String> = goids.iter().map(u64::to_string).collect();
            line("goroutines", &format!("{}{}", ids.join(", "), if more { ", …" } else { "" }))?;
        }
        for (index, frame) in self.stack.iter().take(self.frames).enumerate() {
            let inlined = if frame.inlined { " (inlined)" } else { "" };
            let (function, file) = (printable(&frame.function), printable(&frame.file));
            let label = if index == 0 { "stack" } else { "" };
            line(label, &format!("{function}{inlined} {file}:{}", frame.line))?;
        }
        match self.stack.len().saturating_sub(self.frames) {
            0 => Ok(()),
            more => line("", &format!("… {more} more frames")),
        }
    }
}
