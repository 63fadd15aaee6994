//! What `prove` prints, as a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::behind::Behind;
use super::{Pause, Program};
use crate::cause::primitive::Primitive;
use crate::cause::wait::Wait;
use crate::cause::{Case, Cause, Handler};
use crate::detect::Verdict;
use crate::discover::info::TargetInfo;
use crate::golang::Frame;
use crate::memory::census::Status;
use crate::memory::kinds::HeapKind;
use crate::reach::holders;
use crate::reach::objects::Precision;
use crate::reach::{Alike, Leaked, Proof};
use crate::symbolize::Symbolizer;
use crate::words::numbers::bytes;
use crate::words::{Named, Place, heap};

/// Version of the JSON document.
pub const SCHEMA: u32 = 1;

/// Goroutines of a group described one by one.
const MAX_EXAMPLES: usize = 8;
/// What is shown of goroutines that only timers wake.
const ONLY_ITS_TIMER: &str =
    "only its timer wakes it: nothing but its own stack leads to any other case, so that none can ever happen";
/// Ids of a group's goroutines that are told.
const MAX_GOIDS: usize = 1_000_000;

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProofReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program.
    pub target: TargetInfo,
    /// Whether this is of a saved image.
    pub from_image: bool,
    /// How long the target was stopped.
    pub pause: Pause,
    /// How many goroutines there are.
    pub goroutines: Counts,
    /// How pointers were told from other words.
    pub precision: Precision,
    /// Bytes of heap whose objects can hold pointers.
    pub scannable_bytes: u64,
    /// Spans of the heap.
    pub spans: u64,
    /// Why the heap was not copied while the process ran, if that was asked for.
    #[serde(default)]
    pub untracked: Option<String>,
    /// The leaks, the largest first; `groups` in JSON, as other documents have it.
    #[serde(rename = "groups", alias = "leaks")]
    pub leaks: Vec<ProofGroup>,
    /// Those who wait for what the leaked ones hold. Anybody may unlock a lock, so they are `stuck`, not proven.
    #[serde(default)]
    pub held_up: Vec<ProofGroup>,
    /// What only timers wake: nothing else can ever happen there, but it runs now and then.
    #[serde(default)]
    pub timer_loops: Vec<ProofGroup>,
}

/// How many goroutines there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counts {
    /// Alive.
    pub live: u64,
    /// Waiting in a way that can be a leak.
    pub candidates: u64,
    /// Waiting so, but somebody is waking them, or what they wait for was not found.
    pub undecided: u64,
    /// Proven to be leaked.
    pub proven: u64,
    /// Waiting for a lock that shares a small allocation with another value, and not proven only because that may be in use.
    #[serde(default)]
    pub sharing: u64,
}

/// Leaked goroutines that one `go` statement made and that are stuck at the same place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProofGroup {
    /// `proven`; `stuck` of who waits for those; `timed` of what only timers wake, which may end at the next time: whether it loops takes a watch to tell.
    pub verdict: String,
    /// How many.
    pub count: u64,
    /// The runtime's words for why they wait.
    pub wait_reason: String,
    /// What they do.
    pub wait: Wait,
    /// The `go` statement.
    pub created_by: Option<Place>,
    /// The function it started.
    pub start_function: String,
    /// First frame outside runtime, sync and internal packages.
    pub blocked_at: Option<Place>,
    /// The innermost frame of the main module, else the first outside the standard library.
    #[serde(default)]
    pub in_program: Option<Place>,
    /// Innermost first.
    pub stack: Vec<Frame>,
    /// Why, and what to do.
    pub cause: Option<Cause>,
    /// Sentences with numbers.
    pub evidence: Vec<String>,
    /// Bytes of their stacks.
    #[serde(default)]
    pub stack_bytes: u64,
    /// Bytes of heap to which they alone lead, of all that is the program's; `None` where that was not counted.
    #[serde(default)]
    pub heap_bytes: Option<u64>,
    /// What most of that heap is, the largest first, at most five; less where it takes more to tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heap_kinds: Vec<HeapKind>,
    /// Their ids, at most a million.
    pub goids: Vec<u64>,
    /// Some of them, one by one.
    pub examples: Vec<Example>,
}

/// One leaked goroutine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Example {
    /// Its id.
    pub goid: u64,
    /// Id of the goroutine that made it.
    pub parent_goid: u64,
    /// The runtime's own leak profile found it too, before.
    pub found_by_runtime: bool,
    /// What it waits for, and who else does.
    pub waits_for: Vec<Primitive>,
}

impl ProofReport {
    /// The report of a proof.
    pub(super) fn of(program: &Program, pause: Pause, proof: &Proof, behind: &Behind, from_image: bool) -> Self {
        let leaks = groups(program, proof, &proof.leaked, Shown::Proven);
        let mut timer_loops = groups(program, proof, &proof.timed, Shown::Timed);
        timer_loops.iter_mut().for_each(|group| group.evidence.insert(0, ONLY_ITS_TIMER.to_owned()));
        let mut held_up = groups(program, proof, &behind.waiting, Shown::HeldUp);
        for group in &mut held_up {
            group.evidence.extend(group.goids.first().map(|goid| behind.sentence(*goid)));
        }
        Self {
            schema: SCHEMA,
            target: program.info.clone(),
            from_image,
            pause,
            goroutines: Counts {
                live: proof.goroutines,
                candidates: proof.candidates,
                undecided: proof.undecided,
                proven: proof.leaked.len() as u64,
                sharing: proof.sharing,
            },
            precision: proof.precision,
            scannable_bytes: proof.scannable_bytes,
            spans: proof.spans,
            untracked: None,
            leaks,
            held_up,
            timer_loops,
        }
    }
}

/// How it is shown that goroutines can never run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// On a copy of the program as it stood still.
    Proven,
    /// By a look at the running program, behind whose back pointers may have moved.
    Running,
    /// Only of the cases that are no timers'.
    Timed,
    /// It is not: whoever it waits for can never run again.
    HeldUp,
}

/// What one `go` statement made and is stuck at the same place, the largest group first.
pub fn groups(program: &Program, proof: &Proof, stuck: &[Leaked], shown: Shown) -> Vec<ProofGroup> {
    let mut symbolizer = Symbolizer::new(Arc::clone(&program.pclntab), program.slide);
    let mut groups: BTreeMap<Alike<'_>, Vec<&Leaked>> = BTreeMap::new();
    for leaked in stuck {
        groups.entry(leaked.alike()).or_default().push(leaked);
    }
    let by_goid = stuck.iter().map(|leaked| (leaked.goroutine.goid, leaked)).collect();
    let mut leaks: Vec<ProofGroup> =
        groups.into_values().map(|group| describe(&group, program, proof, &by_goid, &mut symbolizer, shown)).collect();
    leaks.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.goids.cmp(&b.goids)));
    leaks
}

fn describe(
    group: &[&Leaked],
    program: &Program,
    proof: &Proof,
    by_goid: &HashMap<u64, &Leaked>,
    symbolizer: &mut Symbolizer,
    shown: Shown,
) -> ProofGroup {
    let first = group[0];
    let g = &first.goroutine;
    let Named { stack, created_by, start_function } = Named::of(symbolizer, g, &first.stack);
    let wait_reason = crate::words::wait_reason(&program.wait_reasons, g.wait_reason);
    let cause = Cause::of(&Case {
        wait_reason: &wait_reason,
        primitives: &first.primitives,
        stack: &stack,
        creator: created_by.as_ref().map(|place| place.function.as_str()),
        // Whether the request has ended would take the handler's stack.
        handler: group
            .iter()
            .any(|leaked| proof.http_connections.contains(&leaked.goroutine.parent_goid))
            .then_some(Handler::Serving),
        loops: shown == Shown::Timed,
        proven: shown == Shown::Proven,
    });
    let own = proof.held.as_ref().filter(|_| shown == Shown::Proven).and_then(|held| held.own.get(&g.goid));
    let by_runtime = group.iter().filter(|leaked| leaked.goroutine.status == Status::Leaked).count();
    ProofGroup {
        verdict: match shown {
            Shown::Proven | Shown::Running => Verdict::Proven.into(),
            Shown::Timed => "timed",
            Shown::HeldUp => Verdict::Stuck.into(),
        }
        .to_owned(),
        count: group.len() as u64,
        wait_reason,
        wait: first.wait,
        created_by,
        start_function,
        blocked_at: Place::of_blocking(&stack),
        in_program: Place::of_program(&stack, program.info.module.as_deref()),
        cause,
        evidence: match shown {
            Shown::Proven => evidence(group, proof, by_goid, by_runtime),
            // Who holds what may have changed meanwhile.
            Shown::Running | Shown::Timed | Shown::HeldUp => first.primitives.iter().map(ToString::to_string).collect(),
        },
        stack_bytes: group.iter().map(|leaked| leaked.goroutine.stack_bytes()).sum(),
        heap_bytes: own.map(|own| own.bytes),
        heap_kinds: own.map_or_else(Vec::new, |own| own.kinds.clone()),
        goids: group.iter().map(|leaked| leaked.goroutine.goid).take(MAX_GOIDS).collect(),
        examples: group
            .iter()
            .take(MAX_EXAMPLES)
            .map(|leaked| Example {
                goid: leaked.goroutine.goid,
                parent_goid: leaked.goroutine.parent_goid,
                found_by_runtime: leaked.goroutine.status == Status::Leaked,
                waits_for: leaked.primitives.clone(),
            })
            .collect(),
        stack,
    }
}

/// What a group keeps of the program's memory, in words.
fn kept(group: &[&Leaked], proof: &Proof) -> Option<String> {
    let held = proof.held.as_ref()?;
    let own = held.own.get(&group[0].goroutine.goid)?;
    let stacks = bytes(group.iter().map(|leaked| leaked.goroutine.stack_bytes()).sum());
    let shared = match held.shared {
        0 => String::new(),
        shared => format!("; {} more are shared among leaks", bytes(shared)),
    };
    let kinds = heap::kinds(own.bytes, &own.kinds).map_or_else(String::new, |kinds| format!(": {kinds}"));
    Some(format!("they alone keep {stacks} of stacks and {} of heap{kinds}{shared}", bytes(own.bytes)))
}

fn evidence(group: &[&Leaked], proof: &Proof, by_goid: &HashMap<u64, &Leaked>, by_runtime: usize) -> Vec<String> {
    let first = group[0];
    let mut evidence = Vec::new();
    if first.wait.is_forever() {
        evidence.push("nothing in Go can ever wake it".to_owned());
    } else {
        evidence.push(format!(
            "nothing that can still run leads to what it waits for ({} goroutines and all variables were followed)",
            proof.goroutines - proof.leaked.len() as u64
        ));
    }
    for primitive in &first.primitives {
        evidence.push(primitive.to_string());
    }
    evidence.extend(holders::sentence(first, by_goid));
    evidence.extend(kept(group, proof));
    let precision = &proof.precision;
    if precision.conservative_objects + precision.conservative_frames > 0 {
        evidence.push(format!(
            "{} of {} objects and {} of {} stack frames were scanned word by word, so that more may be leaked than is proven",
            precision.conservative_objects,
            precision.conservative_objects + precision.exact_objects,
            precision.conservative_frames,
            precision.conservative_frames + precision.exact_frames,
        ));
    }
    if by_runtime > 0 {
        evidence.push(format!("the runtime's own leak profile has found {by_runtime} of them too"));
    }
    evidence
}
