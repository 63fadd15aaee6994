//! Why a goroutine is stuck, in a sentence, and what to do about it, in another: from its wait, what it waits for, and
//! where it was made. Of leaks that are proven it says what cannot happen any more, of likely ones what does not happen.

pub mod primitive;
pub mod wait;

use serde::{Deserialize, Serialize};

use primitive::{Primitive, State};
use wait::Wait;

use crate::golang::Frame;

/// A cause by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum CauseKind {
    /// Sends on a channel nobody receives from.
    SendNobodyReceives,
    /// Sends on a full channel nobody receives from.
    SendFull,
    /// Receives or ranges on a channel nobody sends to or closes.
    ReceiveNobodySends,
    /// Waits for the end of a context nobody cancels.
    ContextNeverCancelled,
    /// Waits for a timer that was stopped or a ticker nobody holds.
    TimerNeverFires,
    /// Waits for a timer or ticker, or sleeps, again and again in a loop that nothing ends.
    TimerLoop,
    /// Sends or receives on a nil channel.
    NilChannel,
    /// Runs a `select` without cases.
    EmptySelect,
    /// Runs a `select` none of whose cases happens.
    DeadSelect,
    /// Waits for a counter that does not reach zero.
    WaitGroupNeverDone,
    /// Wants a mutex that its holder does not release.
    MutexNeverUnlocked,
    /// Wants a read-write mutex that its holder does not release.
    RwMutexNeverUnlocked,
    /// Waits for a condition nobody signals.
    CondNeverSignalled,
    /// Waits for the network without a deadline.
    NetworkSilent,
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

/// A goroutine that serves an HTTP connection, and made others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handler {
    /// It may still serve the request.
    Serving,
    /// It has ended, or waits for another request.
    Done,
}

/// What is known of goroutines that are stuck in the same way.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The runtime's words for why they wait.
    pub wait_reason: &'a str,
    /// What one of them waits for, as far as it was read.
    pub primitives: &'a [Primitive],
    /// Where they wait, innermost first.
    pub stack: &'a [Frame],
    /// The function whose `go` statement made them.
    pub creator: Option<&'a str>,
    /// Whether an HTTP handler made them.
    pub handler: Option<Handler>,
    /// Whether they wake up now and then.
    pub loops: bool,
    /// Whether nothing can ever wake them.
    pub proven: bool,
}

impl Cause {
    /// The cause, where there is a name for it.
    pub fn of(case: &Case<'_>) -> Option<Self> {
        let kind = kind(case)?;
        let (does, cannot, does_not, remedy) = words(kind, case);
        let mut sentence = format!("{does} {}", if case.proven { cannot } else { does_not });
        let mut remedy = remedy.to_owned();
        if serves_http(case) {
            sentence.push_str("; it serves an HTTP request that its client may long have given up");
        } else if let Some(handler) = case.handler {
            sentence.push_str(match handler {
                Handler::Serving => "; an HTTP handler started it",
                Handler::Done => "; an HTTP handler started it, and it has outlived the request",
            });
            remedy.push_str("; give it the request's context, and end with that");
        }
        Some(Self { kind, sentence, remedy })
    }
}

fn serves_http(case: &Case<'_>) -> bool {
    let serve = "net/http.(*conn).serve";
    case.creator.is_some_and(|function| function.starts_with(serve))
        || case.stack.iter().any(|frame| frame.function.starts_with(serve))
}

fn kind(case: &Case<'_>) -> Option<CauseKind> {
    let blocked = case.stack.iter().find(|frame| !frame.is_plumbing());
    let state = case.primitives.first().map(|primitive| primitive.state);
    let timer = case.primitives.iter().any(|primitive| primitive.state.is_timer());
    let Some(wait) = Wait::of(case.wait_reason, case.stack) else {
        return match case.wait_reason {
            "sleep" => Some(CauseKind::TimerLoop),
            "IO wait" => Some(CauseKind::NetworkSilent),
            _ => None,
        };
    };
    Some(match wait {
        Wait::Send => match state {
            Some(State::Channel { cap: 1.., .. }) => CauseKind::SendFull,
            _ => CauseKind::SendNobodyReceives,
        },
        Wait::Receive if blocked.is_some_and(|frame| frame.function.starts_with("context.")) => {
            CauseKind::ContextNeverCancelled
        }
        Wait::Receive if timer && case.proven => CauseKind::TimerNeverFires,
        Wait::Receive | Wait::Select if timer || case.loops => CauseKind::TimerLoop,
        Wait::Receive => CauseKind::ReceiveNobodySends,
        Wait::Select => CauseKind::DeadSelect,
        Wait::NilSend | Wait::NilReceive => CauseKind::NilChannel,
        Wait::EmptySelect => CauseKind::EmptySelect,
        Wait::WaitGroup => CauseKind::WaitGroupNeverDone,
        Wait::Mutex => CauseKind::MutexNeverUnlocked,
        Wait::RLock | Wait::Lock => CauseKind::RwMutexNeverUnlocked,
        Wait::Cond => CauseKind::CondNeverSignalled,
    })
}

/// What the goroutine does; what cannot happen any more, if that is proven; what does not happen, if not; the remedy.
fn words(kind: CauseKind, case: &Case<'_>) -> (String, &'static str, &'static str, &'static str) {
    let state = case.primitives.first().map(|primitive| primitive.state);
    let (does, cannot, does_not, remedy) = match kind {
        CauseKind::SendFull => (
            "sends on a full channel",
            "that nobody can receive from any more",
            "that nobody receives from",
            "receive until the channel is closed, or select on the send and on the context's Done",
        ),
        CauseKind::SendNobodyReceives => (
            if state.is_some() { "sends on an unbuffered channel" } else { "sends on a channel" },
            "that nobody can receive from any more",
            "that nobody receives from",
            "give the channel a buffer for every send, or select on the send and on the context's Done",
        ),
        // A context's Done is a chan struct{}, and so is most of what is only ever closed.
        CauseKind::ReceiveNobodySends if matches!(state, Some(State::Channel { element_size: 0, .. })) => (
            "receives from a channel of struct{}, as a context's Done is one,",
            "that nobody can close or send to any more",
            "that nobody closes",
            "close it on every path; if it is a context's Done, call its cancel function on every path (defer cancel())",
        ),
        CauseKind::ReceiveNobodySends => (
            "receives from a channel",
            "that nobody can send to or close any more",
            "that nobody sends to or closes",
            "close the channel when its last sender is done, on every path (defer close(ch))",
        ),
        CauseKind::ContextNeverCancelled => (
            "waits for the end of a context",
            "that nobody can cancel any more",
            "that nobody cancels",
            "call the cancel function on every path (defer cancel())",
        ),
        CauseKind::TimerNeverFires => (
            "receives from the channel of a timer or ticker",
            "that was stopped and that nobody can start again",
            "that does not fire",
            "end the goroutine when the timer is stopped: select on a done channel too",
        ),
        CauseKind::TimerLoop => (
            if case.wait_reason == "sleep" { "sleeps" } else { "waits for a timer or ticker (time.After, time.Tick)" },
            "and nothing else can end it",
            "again and again, in a loop that nothing ends",
            "end the loop when the work is over: a case for a context's Done or a done channel, and somebody who closes it",
        ),
        CauseKind::NilChannel => (
            "sends to or receives from a nil channel,",
            "which blocks for ever",
            "which blocks for ever",
            "make the channel before it is used, or leave the case out",
        ),
        CauseKind::EmptySelect => (
            "runs a select without cases,",
            "which blocks for ever",
            "which blocks for ever",
            "wait for something that ends: a context's Done, a signal",
        ),
        CauseKind::DeadSelect => (
            "waits in a select",
            "none of whose channels anybody else can reach any more",
            "none of whose cases happens",
            "add a case that somebody keeps: a context's Done, or a channel that is closed at the end",
        ),
        CauseKind::WaitGroupNeverDone => (
            "waits for a sync.WaitGroup",
            "on which nobody can call Done any more",
            "whose counter does not reach zero",
            "call Done on every path (defer wg.Done()), and Add only what will be started",
        ),
        CauseKind::MutexNeverUnlocked => (
            "wants a sync.Mutex that is locked,",
            "and whoever could unlock it is gone or stuck itself",
            "and whoever has it keeps it",
            "unlock on every path (defer mu.Unlock()), and take several locks in one order everywhere",
        ),
        CauseKind::RwMutexNeverUnlocked => (
            "wants a sync.RWMutex that is locked,",
            "and whoever could unlock it is gone or stuck itself",
            "and whoever has it keeps it",
            "unlock on every path (defer mu.Unlock()), and take several locks in one order everywhere",
        ),
        CauseKind::CondNeverSignalled => (
            "waits for a sync.Cond",
            "that nobody can signal any more",
            "that nobody signals",
            "signal or broadcast on every path, the one that shuts down too",
        ),
        CauseKind::NetworkSilent => (
            "waits for the network",
            "and nothing comes",
            "and nothing comes",
            "set a deadline (SetDeadline, http.Client.Timeout), and close connections and response bodies on every path",
        ),
    };
    (does.to_owned(), cannot, does_not, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(wait_reason: &'static str) -> Case<'static> {
        Case { wait_reason, primitives: &[], stack: &[], creator: None, handler: None, loops: false, proven: false }
    }

    fn channel(cap: u64, element_size: u16) -> Primitive {
        let state = State::Channel { len: 0, cap, closed: false, element_size };
        Primitive { address: 1, state, waiters: 1, waiting: vec![2], holds: None, may_hold: Vec::new() }
    }

    #[test]
    fn proven_leaks_cannot_and_likely_ones_do_not() {
        let likely = Cause::of(&case("chan receive")).expect("a cause");
        assert_eq!(likely.sentence, "receives from a channel that nobody sends to or closes");
        let proven = Cause::of(&Case { proven: true, ..case("chan receive") }).expect("a cause");
        assert_eq!(proven.sentence, "receives from a channel that nobody can send to or close any more");
    }

    #[test]
    fn what_is_waited_for_decides() {
        let of = |case: &Case<'_>| Cause::of(case).map(|cause| cause.kind);
        let timer = [channel(1, 24)];
        let full = [channel(3, 8)];
        assert_eq!(of(&Case { primitives: &timer, ..case("select") }), Some(CauseKind::TimerLoop));
        assert_eq!(
            of(&Case { primitives: &timer, proven: true, ..case("chan receive") }),
            Some(CauseKind::TimerNeverFires)
        );
        assert_eq!(of(&Case { primitives: &full, ..case("chan send") }), Some(CauseKind::SendFull));
        assert_eq!(of(&case("sleep")), Some(CauseKind::TimerLoop));
        assert_eq!(of(&case("GC worker (idle)")), None);
    }

    #[test]
    fn a_handlers_goroutine_is_told_to_follow_the_request() {
        let cause = Cause::of(&Case { handler: Some(Handler::Done), ..case("chan send") }).expect("a cause");
        assert!(cause.sentence.ends_with("an HTTP handler started it, and it has outlived the request"));
        assert!(cause.remedy.ends_with("give it the request's context, and end with that"));
    }
}
