//! The trace event format that ui.perfetto.dev and chrome://tracing open: JSON, one event a line.
//!
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>: `M` names processes and threads, `C`
//! is a counter, `X` a slice, `i` an instant, `s` and `f` the ends of an arrow. Times are microseconds.

use std::io::{self, Write};

use serde_json::{Value, json};

/// Writes a trace.
#[derive(Debug)]
pub struct Trace<W: Write> {
    out: W,
    begun: bool,
}

/// Where an event is shown.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    /// The process.
    pub pid: u64,
    /// The thread; 0 for the process itself.
    pub tid: u64,
}

impl<W: Write> Trace<W> {
    /// Begins a trace.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        Ok(Self { out, begun: false })
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        self.out.write_all(if self.begun { b",\n" } else { b"\n" })?;
        self.begun = true;
        serde_json::to_writer(&mut self.out, event)?;
        Ok(())
    }

    /// Names a process, and says where it is among the others.
    pub fn process(&mut self, pid: u64, name: &str) -> io::Result<()> {
        self.event(&json!({"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}))
    }

    /// Names a thread.
    pub fn thread(&mut self, track: Track, name: &str) -> io::Result<()> {
        let Track { pid, tid } = track;
        self.event(&json!({"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}))
    }

    /// A counter's value from a time on.
    pub fn counter(&mut self, pid: u64, name: &str, us: f64, value: f64) -> io::Result<()> {
        self.event(&json!({"ph": "C", "pid": pid, "name": name, "ts": us, "args": {"value": value}}))
    }

    /// Something that lasted.
    pub fn slice(&mut self, track: Track, name: &str, us: f64, lasted: f64, args: Value) -> io::Result<()> {
        let Track { pid, tid } = track;
        self.event(&json!({"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": us, "dur": lasted, "args": args}))
    }

    /// Something that happened to a process.
    pub fn instant(&mut self, track: Track, name: &str, us: f64) -> io::Result<()> {
        let Track { pid, tid } = track;
        self.event(&json!({"ph": "i", "pid": pid, "tid": tid, "name": name, "ts": us, "s": "p"}))
    }

    /// An arrow from one thread to another.
    pub fn arrow(&mut self, id: u64, from: Track, to: Track, name: &str, us: f64) -> io::Result<()> {
        let end = |ph: &str, Track { pid, tid }: Track, us: f64| json!({"ph": ph, "id": id, "pid": pid, "tid": tid, "cat": "wake", "name": name, "ts": us, "bp": "e"});
        self.event(&end("s", from, us))?;
        self.event(&end("f", to, us))
    }
}
