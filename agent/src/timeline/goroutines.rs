//! A saved watch (`watch --save`) as a trace: every goroutine is a thread with slices for what it did, and arrows lead from
//! who woke it.
//!
//! The probes tell when a goroutine is created, parks, is made runnable and exits. When the scheduler lets it run is not
//! probed, because that costs the target most: a slice "runnable or running" is both. Goroutines woken by the network
//! poller pass no probe; their parks end where the next event shows that they had been woken.

use std::io::{self, Read, Write};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use parkwarden_common::record::{Event, What};
use serde_json::json;

use super::trace::{Trace, Track};
use crate::capture::{Error, Reader};
use crate::golang::Frame;
use crate::memory::census::Census;
use crate::session::{Header, Input, Record, split_record};
use crate::symbolize::Symbols;
use crate::words::{Place, printable, start_function, wait_reason};

/// Goroutines shown; a trace with more is more than a browser holds.
const MAX_GOROUTINES: usize = 50_000;

/// Slices and arrows written.
const MAX_EVENTS: u64 = 5_000_000;

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The capture cannot be read.
    #[error(transparent)]
    Capture(#[from] Error),
    /// The trace cannot be written.
    #[error("the trace cannot be written")]
    Write(#[from] io::Error),
}

/// What a goroutine is doing, since when.
#[derive(Clone, Copy)]
struct Doing {
    since_ns: u64,
    what: DrawnState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DrawnState {
    Active,
    Parked(u8),
}

/// Where a goroutine comes from: return address of its go statement, entry of its function.
#[derive(Clone, Copy)]
struct Origin {
    creation_pc: u64,
    start_pc: u64,
}

struct Writer<W: Write> {
    trace: Trace<W>,
    header: Header,
    symbols: Symbols,
    doing: HashMap<u64, Doing>,
    origins: HashMap<u64, Origin>,
    written: u64,
    left_out: u64,
    now_ns: u64,
}

/// Goroutine tracks; the thread's number is the goroutine's id.
const PID: u64 = 1;

/// Writes the trace of a capture.
pub fn render<R: Read>(mut capture: Reader<R>, out: impl Write) -> Result<(), TraceError> {
    let Some(Input::Begin(header)) = capture.next_input()? else {
        // The reader refuses any other first input.
        return Err(Error::Magic.into());
    };
    let mut trace = Trace::new(out)?;
    trace.process(PID, &format!("{} pid {}", printable(&header.target.exe), header.target.pid))?;
    let mut writer = Writer {
        trace,
        now_ns: header.started_ns,
        header,
        symbols: Symbols::default(),
        doing: HashMap::new(),
        origins: HashMap::new(),
        written: 0,
        left_out: 0,
    };
    while let Some(input) = capture.next_input()? {
        writer.take(&input)?;
    }
    writer.finish()?;
    Ok(())
}

impl<W: Write> Writer<W> {
    fn take(&mut self, input: &Input) -> io::Result<()> {
        match input {
            Input::Events { records, .. } => {
                let mut records = records.as_slice();
                while let Some((record, rest)) = split_record(records) {
                    if let Record::Event(event) = record {
                        self.event(&event)?;
                    }
                    records = rest;
                }
            }
            Input::Symbols(resolved) => self.name(resolved),
            Input::Census(taken) => self.census(&taken.census)?,
            // What the kernel holds of parks that are not over: their beginning is exact.
            Input::Held(parks) => {
                for held in parks {
                    if self.doing.get(&held.goid).is_some_and(|doing| doing.since_ns < held.since_ns) {
                        self.end(held.goid, held.since_ns, "woken unseen")?;
                        self.begin(held.goid, DrawnState::Parked(held.wait_reason), held.since_ns);
                    }
                }
            }
            Input::Mode(entered) => {
                let name = format!("from here on in mode {}: {}", entered.mode, printable(&entered.reason));
                self.trace.instant(Track { pid: PID, tid: 0 }, &name, self.us(entered.time_ns))?;
            }
            Input::End(end) => self.now_ns = self.now_ns.max(end.time_ns),
            Input::Begin(_)
            | Input::Probes(_)
            | Input::CensusBegins
            | Input::Stacks(_)
            | Input::Cpu { .. }
            | Input::Sites(_)
            | Input::Unreached(_)
            | Input::Busy(_)
            | Input::Holdings(_)
            | Input::Incidents(_)
            | Input::Runtime(_)
            | Input::Waits(_)
            | Input::Proof(_)
            | Input::Labels(_)
            | Input::Halted(_) => {}
        }
        Ok(())
    }

    /// What a census shows is so from the census on, unless an event came later.
    fn census(&mut self, census: &Census) -> io::Result<()> {
        let at = census.started_ns;
        self.now_ns = self.now_ns.max(census.finished_ns);
        let mut seen = HashSet::with_capacity(census.goroutines.len());
        for goroutine in &census.goroutines {
            seen.insert(goroutine.goid);
            let origin = Origin { creation_pc: goroutine.creation_pc, start_pc: goroutine.start_pc };
            self.origins.entry(goroutine.goid).or_insert(origin);
            let parked = goroutine.status.is_waiting();
            let what = if parked { DrawnState::Parked(goroutine.wait_reason) } else { DrawnState::Active };
            match self.doing.get(&goroutine.goid) {
                Some(doing) if doing.what == what || doing.since_ns >= at => {}
                Some(_) => {
                    self.end(goroutine.goid, at, "woken unseen")?;
                    self.begin(goroutine.goid, what, at);
                }
                None => self.begin(goroutine.goid, what, at),
            }
        }
        if !census.truncated && census.unreadable == 0 {
            let gone = self.doing.iter().filter(|(goid, doing)| doing.since_ns < at && !seen.contains(*goid));
            for goid in gone.map(|(goid, _)| *goid).collect::<Vec<_>>() {
                self.end(goid, at, "gone")?;
            }
        }
        self.trace.counter(PID, "goroutines", self.us(at), census.goroutines.len() as f64)
    }

    fn name(&mut self, resolved: &[(u64, Arc<[Frame]>)]) {
        self.symbols.extend(resolved);
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let (goid, at) = (event.goid, event.time_ns);
        self.now_ns = self.now_ns.max(at);
        match event.what {
            What::Created { creation_pc, start_pc, parent_goid } => {
                self.origins.insert(goid, Origin { creation_pc, start_pc });
                self.end(goid, at, "")?;
                self.begin(goid, DrawnState::Active, at);
                self.arrow(parent_goid, goid, "go", at)
            }
            What::Parked { wait_reason } => {
                // Two parks in a row: it was woken in between, and no probe saw it.
                self.end(goid, at, "woken unseen")?;
                self.begin(goid, DrawnState::Parked(wait_reason), at);
                Ok(())
            }
            What::Readied { waker_goid } => {
                self.end(goid, at, "")?;
                self.begin(goid, DrawnState::Active, at);
                self.arrow(waker_goid, goid, "wake", at)
            }
            What::Waited { wait_reason, since_ns, waker_goid } => {
                // Told when it is over: until it began, the goroutine was not in it.
                self.end(goid, since_ns.min(at), "woken unseen")?;
                self.begin(goid, DrawnState::Parked(wait_reason), since_ns.min(at));
                self.end(goid, at, "")?;
                self.begin(goid, DrawnState::Active, at);
                self.arrow(waker_goid, goid, "wake", at)
            }
            What::Exited => self.end(goid, at, "woken unseen"),
        }
    }

    fn begin(&mut self, goid: u64, what: DrawnState, since_ns: u64) {
        if self.doing.len() < MAX_GOROUTINES {
            self.doing.insert(goid, Doing { since_ns, what });
        } else {
            self.left_out += 1;
        }
    }

    /// Writes what a goroutine did until now; `unseen` is how a park ended that no wake-up ended.
    fn end(&mut self, goid: u64, at: u64, unseen: &str) -> io::Result<()> {
        let Some(doing) = self.doing.remove(&goid) else { return Ok(()) };
        if self.written >= MAX_EVENTS {
            self.left_out += 1;
            return Ok(());
        }
        self.written += 1;
        let (name, args) = match doing.what {
            DrawnState::Active => ("runnable or running".to_owned(), json!({})),
            DrawnState::Parked(reason) => {
                let name = format!("parked: {}", printable(&wait_reason(&self.header.wait_reasons, reason)));
                (name, if unseen.is_empty() { json!({}) } else { json!({"end": unseen}) })
            }
        };
        let lasted = at.saturating_sub(doing.since_ns) as f64 / 1e3;
        self.trace.slice(Track { pid: PID, tid: goid }, &name, self.us(doing.since_ns), lasted, args)
    }

    fn arrow(&mut self, from: u64, to: u64, name: &str, at: u64) -> io::Result<()> {
        // 0 is the scheduler itself; an arrow begins in a slice.
        if from == 0 || !self.doing.contains_key(&from) || !self.doing.contains_key(&to) {
            return Ok(());
        }
        if self.written >= MAX_EVENTS {
            self.left_out += 1;
            return Ok(());
        }
        self.written += 1;
        let track = |goid| Track { pid: PID, tid: goid };
        self.trace.arrow(self.written, track(from), track(to), name, self.us(at))
    }

    fn finish(mut self) -> io::Result<()> {
        let open: Vec<u64> = self.doing.keys().copied().collect();
        for goid in open {
            self.end(goid, self.now_ns, "")?;
        }
        let mut named: Vec<(u64, Origin)> = self.origins.iter().map(|(goid, origin)| (*goid, *origin)).collect();
        named.sort_unstable_by_key(|(goid, _)| *goid);
        for (goid, origin) in named.into_iter().take(MAX_GOROUTINES) {
            let by = Place::of_creation(&self.symbols, origin.creation_pc)
                .map(|place| format!(", created by {place}"))
                .unwrap_or_default();
            let name = format!("{} {goid}{by}", printable(&start_function(&self.symbols, origin.start_pc)));
            self.trace.thread(Track { pid: PID, tid: goid }, &name)?;
        }
        if self.left_out > 0 {
            let text = format!("{} more than this trace holds are left out", self.left_out);
            self.trace.instant(Track { pid: PID, tid: 0 }, &text, self.us(self.now_ns))?;
        }
        self.trace.finish()
    }

    /// Microseconds since the watch began.
    fn us(&self, ns: u64) -> f64 {
        ns.saturating_sub(self.header.started_ns) as f64 / 1e3
    }
}
