//! A look at all goroutines as a profile of `go tool pprof`, Pyroscope and Parca: gzip'ed `profile.proto`.
//!
//! Sample types are `goroutine/count`, as in the profiles of the runtime, and `parked/nanoseconds`: how long a goroutine has
//! certainly been parked, where the garbage collector noted it, else 0. Labels: those that the program has set, and `wait_reason`,
//! `created_by`, `state`, and `verdict` for goroutines that the runtime's own leak profile has found. What could not be read is told in comments.
//!
//! Source of the format: `proto/profile.proto` of github.com/google/pprof.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use hashbrown::HashMap;
use prost::Message;

use crate::detect::Verdict;
use crate::golang::Frame;
use crate::memory::census::Status;
use crate::snapshot::{GroupBy, Look};
use crate::symbolize::call_of;
use crate::words::{Place, printable};

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
    #[prost(int64, tag = "3")]
    num: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Builds a profile: strings, functions and locations stand in it once.
#[derive(Default)]
pub(super) struct Builder {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<u64, u64>,
}

impl Builder {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(index) = self.strings.get(text) {
            return *index;
        }
        let index = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.string(name), self.string(file));
        let next = self.functions.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            self.profile.function.push(Function { id, name, system_name: name, filename });
        }
        id
    }

    /// A profile of these sample types, each with its unit, of a program.
    pub(super) fn of(exe: &str, types: &[(&str, &str)], unix_ns: u64) -> Self {
        let mut builder = Self::default();
        // The first string is the empty one, by the format.
        builder.string("");
        for (what, unit) in types {
            let value = ValueType { r#type: builder.string(what), unit: builder.string(unit) };
            builder.profile.sample_type.push(value);
        }
        builder.profile.time_nanos = i64::try_from(unix_ns).unwrap_or(i64::MAX);
        let filename = builder.string(&printable(exe));
        builder.profile.mapping.push(Mapping {
            id: 1,
            filename,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        });
        builder
    }

    /// What a sample stands for: one in `period` of `what`.
    pub(super) fn period(&mut self, what: &str, unit: &str, period: i64) {
        self.profile.period_type = Some(ValueType { r#type: self.string(what), unit: self.string(unit) });
        self.profile.period = period;
    }

    /// Which of the sample types is shown first.
    pub(super) fn shown_first(&mut self, what: &str) {
        self.profile.default_sample_type = self.string(what);
    }

    pub(super) fn comment(&mut self, text: &str) {
        let comment = self.string(text);
        self.profile.comment.push(comment);
    }

    /// A sample at these locations, with the size of its objects as a label.
    pub(super) fn sample(&mut self, location_id: Vec<u64>, value: Vec<i64>, bytes: Option<u64>) {
        let label = bytes.map(|bytes| Label {
            key: self.string("bytes"),
            num: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..Label::default()
        });
        self.profile.sample.push(Sample { location_id, value, label: label.into_iter().collect() });
    }

    /// The profile, as the bytes of a `.pb.gz` file.
    pub(super) fn finish(self) -> std::io::Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&self.profile.encode_to_vec())?;
        gzip.finish()
    }

    /// The location of the call that returns to `return_address`, its inlined calls innermost first.
    pub(super) fn location(&mut self, return_address: u64, frames: &[Frame]) -> u64 {
        if let Some(id) = self.locations.get(&return_address) {
            return *id;
        }
        let line = frames
            .iter()
            .map(|frame| Line { function_id: self.function(&frame.function, &frame.file), line: i64::from(frame.line) })
            .collect();
        let id = self.profile.location.len() as u64 + 1;
        self.locations.insert(return_address, id);
        self.profile.location.push(Location { id, mapping_id: 1, address: call_of(return_address), line });
        id
    }

    /// Stands for the stack of goroutines in `state` that could not be read: those that run have none to read.
    fn placeholder(&mut self, state: &str) -> u64 {
        let line = vec![Line { function_id: self.function(&format!("[{state}: stack not known]"), ""), line: 0 }];
        if let Some(known) = self.profile.location.iter().find(|location| location.line == line) {
            return known.id;
        }
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location { id, mapping_id: 0, address: 0, line });
        id
    }

    fn label(&mut self, key: &str, value: &str) -> Label {
        Label { key: self.string(key), str: self.string(value), num: 0 }
    }
}

/// The profile of a look, as the bytes of a `.pb.gz` file. By creation, a sample's stack is the `go` statement alone.
pub fn encode(look: &Look, group_by: GroupBy) -> std::io::Result<Vec<u8>> {
    let types = [("goroutine", "count"), ("parked", "nanoseconds")];
    let mut builder = Builder::of(&look.target.exe, &types, look.unix_ns);
    builder.shown_first("goroutine");
    // As the runtime says it: each goroutine is one sample.
    builder.period("goroutine", "count", 1);
    for loss in losses(look) {
        builder.comment(&loss);
    }

    let location = |builder: &mut Builder, pc: u64| builder.location(pc, look.calls(pc));
    // Goroutines that differ in nothing the profile shows are one sample.
    let mut samples: HashMap<_, (i64, i64)> = HashMap::new();
    for (goroutine, stack) in look.goroutines() {
        let reason = goroutine.status.is_waiting().then_some(goroutine.wait_reason);
        let created = (group_by != GroupBy::Blocked).then_some(goroutine.creation_pc);
        let blocked = (group_by != GroupBy::Created).then_some((stack, goroutine.status, reason));
        let labels = look.labels.index(goroutine.goid);
        let (count, parked) = samples.entry((created, blocked, labels)).or_default();
        *count += 1;
        *parked = parked.saturating_add_unsigned(look.parked_ns(goroutine).unwrap_or(0));
    }
    let mut samples: Vec<_> = samples.into_iter().collect();
    samples.sort_unstable();
    for ((created, blocked, labels), (count, parked)) in samples {
        let (mut location_id, mut label) = (Vec::new(), Vec::new());
        for (key, value) in labels.into_iter().flat_map(|index| look.labels.set(index)) {
            label.push(builder.label(key, value));
        }
        if let Some((stack, status, reason)) = blocked {
            let calls = look.stack(stack).iter().filter(|pc| !look.calls(**pc).is_empty());
            location_id.extend(calls.map(|pc| location(&mut builder, *pc)));
            if location_id.is_empty() {
                // A sample without a location is shown nowhere.
                location_id.push(builder.placeholder(&status.to_string()));
            }
            label.push(builder.label("state", &status.to_string()));
            if let Some(number) = reason {
                label.push(builder.label("wait_reason", &crate::words::wait_reason(&look.wait_reasons, number)));
            }
            if status == Status::Leaked {
                label.push(builder.label("verdict", Verdict::Proven.into()));
            }
        }
        if let Some(creation_pc) = created {
            if blocked.is_none() {
                location_id.push(location(&mut builder, creation_pc));
            }
            if let Some(place) = Place::of_creation(&look.symbols, creation_pc) {
                label.push(builder.label("created_by", &place.to_string()));
            }
        }
        builder.profile.sample.push(Sample { location_id, value: vec![count, parked], label });
    }

    builder.finish()
}

/// What the profile misses, a sentence each.
fn losses(look: &Look) -> Vec<String> {
    let taken = &look.taken;
    [
        (taken.census.unreadable, "goroutines could not be read"),
        (taken.stack_moved, "goroutines moved on while their stack was read"),
        (taken.stack_cut, "stacks lack their outer part"),
        (taken.stack_unknown, "goroutines have a stack that could not be read"),
        (look.labels.unread, "goroutines have labels that could not be read"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("parkwarden: {count} {what}"))
    .collect()
}
