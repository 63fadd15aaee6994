//! Why a goroutine is stuck, in a sentence, and what to do about it, in another: from its wait, what it waits for, and
//! where it was made.

use serde::{Deserialize, Serialize};

use super::Leaked;
use super::candidates::Wait;
use super::state::State;
use crate::golang::Frame;

/// A cause by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// Sends on a channel nobody can receive from.
    SendNobodyReceives,
    /// Sends on a full channel nobody can receive from.
    SendFull,
    /// Receives or ranges on a channel nobody can send to or close.
    ReceiveNobodySends,
    /// Waits for the end of a context nobody can cancel.
    ContextNeverCancelled,
    /// Waits for a timer that was stopped or a ticker nobody holds.
    TimerNeverFires,
    /// Sends or receives on a nil channel.
    NilChannel,
    /// Runs a `select` without cases.
    EmptySelect,
    /// Runs a `select` whose cases are all dead.
    DeadSelect,
    /// Waits for a counter that cannot reach zero.
    WaitGroupNeverDone,
    /// Wants a mutex that its holder can never release.
    MutexNeverUnlocked,
    /// Wants a read-write mutex that its holder can never release.
    RwMutexNeverUnlocked,
    /// Waits for a condition nobody can signal.
    CondNeverSignalled,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Its name.
    pub kind: CauseKind,
    /// What is wrong.
    pub sentence: String,
    /// What to do.
    pub remedy: String,
}

impl Cause {
    /// The cause of a leak with this stack, made by function `creator`.
    pub fn of(leaked: &Leaked, stack: &[Frame], creator: Option<&str>) -> Self {
        let kind = kind(leaked, stack);
        let mut sentence = sentence(kind, leaked);
        if creator.is_some_and(|function| function.starts_with("net/http.(*conn).serve"))
            || stack.iter().any(|frame| frame.function.starts_with("net/http.(*conn).serve"))
        {
            sentence.push_str("; it serves an HTTP request that its client may long have given up");
        }
        Self { kind, sentence, remedy: remedy(kind).to_owned() }
    }
}

fn kind(leaked: &Leaked, stack: &[Frame]) -> CauseKind {
    let state = leaked.primitives.first().map(|primitive| primitive.state);
    let blocked = stack.iter().find(|frame| !frame.is_plumbing());
    match leaked.wait {
        Wait::Send => match state {
            Some(State::Channel { cap: 1.., .. }) => CauseKind::SendFull,
            _ => CauseKind::SendNobodyReceives,
        },
        Wait::Receive if blocked.is_some_and(|frame| frame.function.starts_with("context.")) => {
            CauseKind::ContextNeverCancelled
        }
        // The buffer of a timer's channel holds one time.Time.
        Wait::Receive if matches!(state, Some(State::Channel { cap: 1, element_size: 24, .. })) => {
            CauseKind::TimerNeverFires
        }
        Wait::Receive => CauseKind::ReceiveNobodySends,
        Wait::Select => CauseKind::DeadSelect,
        Wait::NilSend | Wait::NilReceive => CauseKind::NilChannel,
        Wait::EmptySelect => CauseKind::EmptySelect,
        Wait::WaitGroup => CauseKind::WaitGroupNeverDone,
        Wait::Mutex => CauseKind::MutexNeverUnlocked,
        Wait::RLock | Wait::Lock => CauseKind::RwMutexNeverUnlocked,
        Wait::Cond => CauseKind::CondNeverSignalled,
    }
}

fn sentence(kind: CauseKind, leaked: &Leaked) -> String {
    let state = leaked.primitives.first().map(|primitive| primitive.state);
    match (kind, state) {
        (CauseKind::SendFull, Some(State::Channel { len, cap, .. })) => {
            format!("sends on a full channel ({len} of {cap}) that nobody can receive from any more")
        }
        (CauseKind::WaitGroupNeverDone, Some(State::WaitGroup { counter })) => {
            format!("waits for a sync.WaitGroup whose counter is {counter}, and nobody can call Done any more")
        }
        (CauseKind::DeadSelect, _) => match leaked.primitives.len() {
            1 => "waits in a select whose only channel nobody else can reach any more".to_owned(),
            count => format!("waits in a select on {count} channels, none of which anybody else can reach any more"),
        },
        (CauseKind::SendNobodyReceives | CauseKind::SendFull, _) => {
            "sends on an unbuffered channel that nobody can receive from any more".to_owned()
        }
        (CauseKind::ReceiveNobodySends, _) => {
            "receives from a channel that nobody can send to or close any more".to_owned()
        }
        (CauseKind::ContextNeverCancelled, _) => {
            "waits for the end of a context that nobody can cancel any more".to_owned()
        }
        (CauseKind::TimerNeverFires, _) => {
            "receives from the channel of a timer or ticker that was stopped and that nobody can start again".to_owned()
        }
        (CauseKind::NilChannel, _) => "sends to or receives from a nil channel, which blocks for ever".to_owned(),
        (CauseKind::EmptySelect, _) => "runs a select without cases, which blocks for ever".to_owned(),
        (CauseKind::WaitGroupNeverDone, _) => {
            "waits for a sync.WaitGroup on which nobody can call Done any more".to_owned()
        }
        (CauseKind::MutexNeverUnlocked, _) => {
            "wants a sync.Mutex that is locked, and whoever could unlock it is gone or stuck itself".to_owned()
        }
        (CauseKind::RwMutexNeverUnlocked, _) => {
            "wants a sync.RWMutex that is locked, and whoever could unlock it is gone or stuck itself".to_owned()
        }
        (CauseKind::CondNeverSignalled, _) => "waits for a sync.Cond that nobody can signal any more".to_owned(),
    }
}

const fn remedy(kind: CauseKind) -> &'static str {
    match kind {
        CauseKind::SendNobodyReceives => {
            "give the channel a buffer for every send, or select on the send and on the context's Done"
        }
        CauseKind::SendFull => "receive until the channel is closed, or select on the send and on the context's Done",
        CauseKind::ReceiveNobodySends => {
            "close the channel when its last sender is done, on every path (defer close(ch))"
        }
        CauseKind::ContextNeverCancelled => "call the cancel function on every path (defer cancel())",
        CauseKind::TimerNeverFires => "end the goroutine when the timer is stopped: select on a done channel too",
        CauseKind::NilChannel => "make the channel before it is used, or leave the case out",
        CauseKind::EmptySelect => "wait for something that ends: a context's Done, a signal",
        CauseKind::DeadSelect => {
            "add a case that somebody keeps: a context's Done, or a channel that is closed at the end"
        }
        CauseKind::WaitGroupNeverDone => "call Done on every path (defer wg.Done()), and Add only what will be started",
        CauseKind::MutexNeverUnlocked | CauseKind::RwMutexNeverUnlocked => {
            "unlock on every path (defer mu.Unlock()), and take several locks in one order everywhere"
        }
        CauseKind::CondNeverSignalled => "signal or broadcast on every path, the one that shuts down too",
    }
}
