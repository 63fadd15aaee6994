//! Why a goroutine is stuck, in a sentence, and what to do about it, in another: from its wait, what it waits for, and
//! where it was made. Of leaks that are proven it says what cannot happen any more, of likely ones what does not happen.

pub mod io;
pub mod library;
#[cfg(test)]
mod library_tests;
pub mod primitive;
#[cfg(test)]
mod tests;
pub mod wait;

use serde::{Deserialize, Serialize};

use io::{Direction, File, Io};
use primitive::{Primitive, PrimitiveState};
use wait::Wait;

use crate::golang::Frame;

/// A cause by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Is the iterator of an `iter.Pull` that nobody asks for another value, nor stops.
    IteratorNotStopped,
    /// Waits for the network without a deadline.
    NetworkSilent,
    /// Waits for a pipe, a terminal or another file.
    FileSilent,
    /// Waits again and again, and is woken by others each time, without an end.
    WokenAgain,
    /// Keeps an HTTP client's connection for a response whose body is not closed.
    ResponseNotClosed,
    /// Keeps an HTTP client's connection.
    ClientConnection,
    /// Waits for a command's input or output.
    CommandPipe,
    /// Serves a `sql.DB` that is not closed.
    DatabaseNotClosed,
    /// Is in one system call.
    SystemCall,
    /// Is in one call into C.
    CCall,
    /// Runs without ever waiting.
    BusyLoop,
    /// Keeps a database's connection for rows that are not closed.
    RowsNotClosed,
    /// Keeps a database's connection for a transaction that is neither committed nor rolled back.
    TransactionNotEnded,
    /// Serves a library's client, consumer or watcher that is not closed.
    ClientNotClosed,
    /// Waits for the answer to a request.
    ResponseAwaited,
    /// Writes what its peer does not read, or has not made room for.
    PeerNotReading,
    /// Keeps a server's connection, and waits for what its client sends.
    ServerConnection,
    /// Shuts something down, and waits for those who still use it.
    ShutdownWaits,
    /// Wants something of which there is only so much at a time.
    PoolExhausted,
    /// Waits for a call of another goroutine to return, because both want the same.
    CallInFlight,
    /// Is one half of an `io.Pipe` and waits for the other.
    PipeOtherEnd,
    /// Waits for a host's name to be looked up.
    NameLookup,
    /// Waits for work.
    WorkerIdle,
}

/// The words of a sentence.
#[derive(Clone, Copy, Debug)]
struct Words {
    /// What the goroutine does.
    does: &'static str,
    /// What cannot happen any more, if that is proven.
    cannot: &'static str,
    /// What does not happen, if not.
    does_not: &'static str,
    /// What to do.
    remedy: &'static str,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
        let (kind, Words { does, cannot, does_not, remedy }) = match library::words(case) {
            Some(known) => known,
            None => kind(case).map(|kind| (kind, words(kind, case)))?,
        };
        let mut sentence = format!("{does} {}", if case.proven { cannot } else { does_not });
        let mut remedy = remedy.to_owned();
        if kind == CauseKind::ServerConnection {
            return Some(Self { kind, sentence, remedy });
        }
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
            "IO wait" if Io::of(case.stack).file == Some(File::Os) => Some(CauseKind::FileSilent),
            "IO wait" => Some(CauseKind::NetworkSilent),
            wait::SYSCALL => Some(CauseKind::SystemCall),
            wait::C_CALL => Some(CauseKind::CCall),
            wait::RUNNING => Some(CauseKind::BusyLoop),
            _ => None,
        };
    };
    let woken = case.loops && !case.proven;
    Some(match wait {
        Wait::Receive | Wait::Select if woken && !timer => CauseKind::WokenAgain,
        Wait::Send | Wait::Mutex | Wait::RLock | Wait::Lock if woken => CauseKind::WokenAgain,
        Wait::Send => match state {
            Some(PrimitiveState::Channel { cap: 1.., .. }) => CauseKind::SendFull,
            _ => CauseKind::SendNobodyReceives,
        },
        Wait::Receive if blocked.is_some_and(|frame| frame.function.starts_with("context.")) => {
            CauseKind::ContextNeverCancelled
        }
        Wait::Receive if timer && case.proven => CauseKind::TimerNeverFires,
        Wait::Receive | Wait::Select if timer => CauseKind::TimerLoop,
        Wait::Receive => CauseKind::ReceiveNobodySends,
        Wait::Select => CauseKind::DeadSelect,
        Wait::NilSend | Wait::NilReceive => CauseKind::NilChannel,
        Wait::EmptySelect => CauseKind::EmptySelect,
        Wait::WaitGroup => CauseKind::WaitGroupNeverDone,
        Wait::Mutex => CauseKind::MutexNeverUnlocked,
        Wait::RLock | Wait::Lock => CauseKind::RwMutexNeverUnlocked,
        Wait::Cond => CauseKind::CondNeverSignalled,
        Wait::Coroutine if is_suspended_iterator(case) => CauseKind::IteratorNotStopped,
        Wait::Coroutine => return None,
    })
}

/// Whether it is an iterator that has not begun or has given a value, and not who waits for the next value of one.
fn is_suspended_iterator(case: &Case<'_>) -> bool {
    let yields = |function: &str| function.starts_with("iter.Pull") && function.ends_with("].func1.1");
    let inner = case.stack.iter().find(|frame| frame.function != "runtime.coroswitch");
    inner.is_some_and(|frame| frame.function == "runtime.corostart" || yields(&frame.function))
}

/// The words for what no library is known to do.
fn words(kind: CauseKind, case: &Case<'_>) -> Words {
    let state = case.primitives.first().map(|primitive| primitive.state);
    // A context's Done is a chan struct{}, and so is most of what is only ever closed.
    let done = case.primitives.iter().any(|primitive| primitive.state.is_done());
    let (does, cannot, does_not, remedy) = match kind {
        CauseKind::SendFull if matches!(state, Some(PrimitiveState::Channel { element_size: 0, .. })) => (
            "wants a place in a full channel of struct{}, as semaphores and locks are made of them,",
            "and nobody can give one back any more",
            "and whoever has one keeps it",
            "give the place back on every path (defer func() { <-sem }()), and bound how long it is held",
        ),
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
            if state.is_some() {
                "give the channel a buffer for every send, or select on the send and on the context's Done"
            } else {
                "receive until the channel is closed, or select on the send and on the context's Done"
            },
        ),
        CauseKind::ReceiveNobodySends if matches!(state, Some(PrimitiveState::Channel { element_size: 0, .. })) => (
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
        CauseKind::TimerLoop => return timer_loop(case, done),
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
        CauseKind::DeadSelect if done => (
            "waits in a select with a case for a context's Done, or another channel of struct{},",
            "none of whose channels anybody else can reach any more",
            "none of whose cases happens",
            "call that context's cancel function on every path (defer cancel()), or close that channel",
        ),
        CauseKind::DeadSelect => (
            "waits in a select",
            "none of whose channels anybody else can reach any more",
            "none of whose cases happens",
            "make one of its cases happen on every path, or add one that does: a context's Done, or a channel that is closed at the end",
        ),
        CauseKind::WokenAgain => return woken_again(case.wait_reason),
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
        CauseKind::SystemCall => (
            "is in one system call",
            "that does not return, and holds a thread of the process",
            "that does not return, and holds a thread of the process",
            "nothing in Go can end it: find out what the file or device waits for, and bound how many such calls there are at once",
        ),
        CauseKind::CCall => (
            "is in one call into C",
            "that does not return, and holds a thread of the process",
            "that does not return, and holds a thread of the process",
            "nothing in Go can end it: give the C code a time limit, and bound how many such calls there are at once",
        ),
        CauseKind::BusyLoop => (
            "runs all the time",
            "and keeps a processor busy",
            "and keeps a processor busy",
            "look for a loop around a select with a default, or with a case for a channel that is closed: set that channel to \
             nil, or return",
        ),
        CauseKind::IteratorNotStopped => (
            "is a suspended iter.Pull,",
            "whose next and stop nobody can call any more",
            "whose next and stop nobody calls",
            "call its stop on every path (defer stop())",
        ),
        CauseKind::NetworkSilent | CauseKind::FileSilent => return silent(Io::of(case.stack)),
        _ => unreachable!("only a library's wait is a cause of kind {kind}, and has words of its own"),
    };
    Words { does, cannot, does_not, remedy }
}

/// Of what waits for a time. Who was not seen to wake up may do so in a loop all the same.
fn timer_loop(case: &Case<'_>, done: bool) -> Words {
    Words {
        does: match case.wait_reason {
            "sleep" => "sleeps",
            _ => "waits for a timer or ticker (time.After, time.Tick)",
        },
        cannot: "and nothing else can end it",
        does_not: if done {
            "for long, or again and again, and its case for a context's Done, or another channel of struct{}, does not happen"
        } else {
            "for long, or again and again in a loop that nothing ends"
        },
        remedy: if done {
            "when the work is over, call that context's cancel function (defer cancel()), or close that channel"
        } else {
            "end the loop when the work is over: a case for a context's Done or a done channel, and somebody who closes it"
        },
    }
}

/// Of what others serve now and then, so that nothing may be said of nobody. It is never proven.
fn woken_again(wait_reason: &str) -> Words {
    let (does, does_not, remedy) = match wait_reason {
        "chan receive" => (
            "receives from a channel",
            "again and again, woken by what others send or close, in a loop that does not end",
            "end the loop when what it serves is gone: unsubscribe and close the channel, or select on a done channel too",
        ),
        "select" => (
            "waits in a select",
            "again and again, woken by others, in a loop that does not end",
            "when the work is over, make the case happen that ends the loop: a context's Done, or a channel that is closed",
        ),
        "chan send" => (
            "sends on a channel",
            "again and again: others receive from it, but not as much as is sent",
            "receive faster, or bound how many send, and select on the context's Done too",
        ),
        _ => (
            "wants a lock that changes hands,",
            "again and again: more want it than get it",
            "hold it for less time, or bound how many want it",
        ),
    };
    Words { does, cannot: does_not, does_not, remedy }
}

/// Of IO wait, as far as the stack tells what for. It is never proven.
fn silent(Io { direction, file }: Io) -> Words {
    let close =
        "set a deadline (SetDeadline, http.Client.Timeout), and close connections and response bodies on every path";
    let (does, does_not, remedy) = match (file, direction) {
        (_, Some(Direction::Accept)) => {
            ("waits for a connection to accept,", "and none comes", "close the listener when it is not needed any more")
        }
        (_, Some(Direction::Connect)) => (
            "connects to another side",
            "that does not answer",
            "set a timeout (net.Dialer.Timeout), or dial with a context that has a deadline (DialContext)",
        ),
        (Some(File::Network), Some(Direction::Read)) => ("reads from the network,", "and nothing comes", close),
        (Some(File::Network), Some(Direction::Write)) => (
            "writes to the network,",
            "and the other side does not read",
            "set a deadline (SetWriteDeadline, http.Server.WriteTimeout), and close connections on every path",
        ),
        (Some(File::Network), None) => ("waits for the network", "and nothing comes", close),
        (Some(File::Os), Some(Direction::Read)) => (
            "reads from a pipe, a terminal or another file (os.File),",
            "and nothing comes",
            "close the other end on every path, also in child processes that have it; or set a deadline (SetReadDeadline)",
        ),
        (Some(File::Os), Some(Direction::Write)) => (
            "writes to a pipe, a terminal or another file (os.File)",
            "that is full",
            "read the other end until it ends, or close it; or set a deadline (SetWriteDeadline)",
        ),
        (Some(File::Os), None) => (
            "waits for a pipe, a terminal or another file (os.File)",
            "and nothing comes",
            "close the other end on every path, or set a deadline (SetDeadline)",
        ),
        (None, Some(Direction::Read)) => {
            ("reads from the network, a pipe or another file,", "and nothing comes", close)
        }
        (None, Some(Direction::Write)) => {
            ("writes to the network, a pipe or another file", "that takes nothing", close)
        }
        (None, None) => ("waits for the network, a pipe or another file,", "and nothing comes", close),
    };
    Words { does, cannot: does_not, does_not, remedy }
}
