use super::*;

fn case(wait_reason: &'static str) -> Case<'static> {
    Case { wait_reason, primitives: &[], stack: &[], creator: None, handler: None, loops: false, proven: false }
}

fn channel(cap: u64, element_size: u16) -> Primitive {
    of_state(PrimitiveState::Channel { len: 0, cap, closed: false, element_size, timer: false })
}

fn timer() -> Primitive {
    of_state(PrimitiveState::Channel { len: 0, cap: 1, closed: false, element_size: 24, timer: true })
}

fn of_state(state: PrimitiveState) -> Primitive {
    Primitive { address: 1, state, waiters: 1, waiting: vec![2], holds: None, may_hold: Vec::new() }
}

/// A stack of functions, innermost first, below the runtime's own.
fn stack(functions: &[&str]) -> Vec<Frame> {
    let frame =
        |function: &&str| Frame { function: (*function).to_owned(), file: String::new(), line: 1, inlined: false };
    ["runtime.gopark"].iter().chain(functions).map(frame).collect()
}

fn of(case: &Case<'_>) -> Cause {
    Cause::of(case).expect("a cause")
}

/// The sentence of a goroutine that waits so with this stack.
fn told(wait_reason: &'static str, functions: &[&str]) -> Cause {
    of(&Case { stack: &stack(functions), ..case(wait_reason) })
}

#[test]
fn proven_leaks_cannot_and_likely_ones_do_not() {
    let likely = of(&case("chan receive"));
    assert_eq!(likely.sentence, "receives from a channel that nobody sends to or closes");
    let proven = of(&Case { proven: true, ..case("chan receive") });
    assert_eq!(proven.sentence, "receives from a channel that nobody can send to or close any more");
}

#[test]
fn only_a_suspended_iterator_is_one() {
    let kind = |stack: &[Frame]| Cause::of(&Case { stack, ..case("coroutine") }).map(|cause| cause.kind);
    let frames = |functions: &[&str]| stack(functions).split_off(1);
    let (switch, pull) = ("runtime.coroswitch", "iter.Pull[go.shape.int].func1");
    let suspended = Some(CauseKind::IteratorNotStopped);
    assert_eq!(kind(&frames(&["runtime.corostart"])), suspended, "it has not begun");
    let body = ["main.rows.func1", pull, "runtime.corostart"];
    assert_eq!(kind(&frames(&[&[switch, "iter.Pull[go.shape.int].func1.1"], &body[..]].concat())), suspended);
    assert_eq!(
        kind(&frames(&[&[switch, "iter.Pull[go.shape.int].func2"], &body[..]].concat())),
        None,
        "it asks itself"
    );
    assert_eq!(kind(&frames(&[switch, "iter.Pull[go.shape.int].func2", "main.main"])), None);
}

#[test]
fn what_is_waited_for_decides() {
    let kind = |case: &Case<'_>| Cause::of(case).map(|cause| cause.kind);
    let timer = [timer()];
    let full = [channel(3, 8)];
    assert_eq!(kind(&Case { primitives: &timer, ..case("select") }), Some(CauseKind::TimerLoop));
    assert_eq!(
        kind(&Case { primitives: &timer, proven: true, ..case("chan receive") }),
        Some(CauseKind::TimerNeverFires)
    );
    assert_eq!(kind(&Case { primitives: &full, ..case("chan send") }), Some(CauseKind::SendFull));
    assert_eq!(kind(&case("sleep")), Some(CauseKind::TimerLoop));
    assert_eq!(kind(&case("GC worker (idle)")), None);
}

#[test]
fn a_handlers_goroutine_is_told_to_follow_the_request() {
    let cause = of(&Case { handler: Some(Handler::Done), ..case("chan send") });
    assert!(cause.sentence.ends_with("an HTTP handler started it, and it has outlived the request"));
    assert!(cause.remedy.ends_with("give it the request's context, and end with that"));
}

/// A `[]byte`, a `struct { a, b int; p *T }` and others have 24 bytes too.
#[test]
fn a_channel_of_a_timers_shape_is_no_timer() {
    let reply = [channel(1, 24)];
    for (wait_reason, proven, kind) in [
        ("chan receive", false, CauseKind::ReceiveNobodySends),
        ("chan receive", true, CauseKind::ReceiveNobodySends),
        ("select", false, CauseKind::DeadSelect),
        ("select", true, CauseKind::DeadSelect),
    ] {
        let cause = of(&Case { primitives: &reply, proven, ..case(wait_reason) });
        assert_eq!(cause.kind, kind);
        assert!(!cause.sentence.contains("timer") && !cause.remedy.contains("timer"), "{cause:?}");
    }
}

/// Whoever is woken by others is neither woken by a timer nor served by nobody.
#[test]
fn what_others_wake_is_not_denied() {
    let unbuffered = [channel(0, 16)];
    for (wait_reason, primitives, sentence) in [
        (
            "chan receive",
            &unbuffered[..],
            "receives from a channel again and again, woken by what others send or close, in a loop that does not end",
        ),
        // It ran while its channels were read.
        ("select", &[], "waits in a select again and again, woken by others, in a loop that does not end"),
        (
            "chan send",
            &unbuffered,
            "sends on a channel again and again: others receive from it, but not as much as is sent",
        ),
        ("sync.Mutex.Lock", &[], "wants a lock that changes hands, again and again: more want it than get it"),
        ("sync.RWMutex.RLock", &[], "wants a lock that changes hands, again and again: more want it than get it"),
    ] {
        let cause = of(&Case { primitives, loops: true, ..case(wait_reason) });
        assert_eq!((cause.kind, cause.sentence.as_str()), (CauseKind::WokenAgain, sentence));
    }
    let ticker = [timer()];
    let cause = of(&Case { primitives: &ticker, loops: true, ..case("chan receive") });
    assert_eq!(cause.kind, CauseKind::TimerLoop);
}

#[test]
fn a_case_that_a_select_has_is_not_asked_for() {
    let with_done = [channel(2, 8), channel(0, 0)];
    let cause = of(&Case { primitives: &with_done, ..case("select") });
    assert_eq!(
        cause.sentence,
        "waits in a select with a case for a context's Done, or another channel of struct{}, none of whose cases happens"
    );
    assert!(!cause.remedy.contains("add"), "{cause:?}");
    let with_timer = [timer(), channel(0, 0)];
    let cause = of(&Case { primitives: &with_timer, loops: true, ..case("select") });
    assert!(
        cause.sentence.ends_with("and its case for a context's Done, or another channel of struct{}, does not happen")
    );
    assert!(cause.remedy.contains("close that channel"), "{cause:?}");
    let alone = [timer()];
    let alone = of(&Case { primitives: &alone, ..case("chan receive") });
    assert!(alone.sentence.ends_with("for long, or again and again in a loop that nothing ends"), "{alone:?}");
    // A semaphore holds elements without a size too, and is no such case.
    let semaphore = [channel(4, 0)];
    assert!(of(&Case { primitives: &semaphore, ..case("select") }).remedy.contains("add one"));
}

#[test]
fn io_wait_has_a_direction_and_a_kind_of_file() {
    let read = ["internal/poll.(*pollDesc).wait", "internal/poll.(*pollDesc).waitRead", "internal/poll.(*FD).Read"];
    let write = ["internal/poll.(*pollDesc).wait", "internal/poll.(*pollDesc).waitWrite", "internal/poll.(*FD).Write"];
    let with = |inner: &[&'static str], outer: &[&'static str]| told("IO wait", &[inner, outer].concat()).sentence;
    let net = ["net.(*netFD).Read", "net.(*conn).Read", "main.serve"];
    let os = ["os.(*File).read", "os.(*File).Read", "main.copy"];
    let accept = ["internal/poll.(*pollDesc).waitRead", "internal/poll.(*FD).Accept"];
    let connect = ["internal/poll.(*pollDesc).waitWrite", "internal/poll.(*FD).WaitWrite", "net.(*netFD).connect"];
    for (inner, outer, sentence) in [
        (&read[..], &net[..], "reads from the network, and nothing comes"),
        (&read, &os, "reads from a pipe, a terminal or another file (os.File), and nothing comes"),
        (&write, &["net.(*netFD).Write"], "writes to the network, and the other side does not read"),
        (&write, &["os.(*File).Write"], "writes to a pipe, a terminal or another file (os.File) that is full"),
        (&accept, &["net.(*netFD).accept"], "waits for a connection to accept, and none comes"),
        (&connect, &["net.(*netFD).dial"], "connects to another side that does not answer"),
        (
            &read,
            &["github.com/x/tun.(*Device).Read"],
            "reads from the network, a pipe or another file, and nothing comes",
        ),
        (&[], &[], "waits for the network, a pipe or another file, and nothing comes"),
    ] {
        assert_eq!(with(inner, outer), sentence);
    }
    assert_eq!(told("IO wait", &[&read[..], &os].concat()).kind, CauseKind::FileSilent);
    assert_eq!(told("IO wait", &[&read[..], &net].concat()).kind, CauseKind::NetworkSilent);
}

const POLL_WRITE: [&str; 2] = ["internal/poll.(*pollDesc).waitWrite", "internal/poll.(*FD).Write"];

/// What merely passes by the same functions waits for something else.
#[test]
fn what_waits_elsewhere_is_not_the_librarys() {
    // The writer that the program gave the command.
    let writer = told("chan send", &["main.(*lines).Write", "io.Copy", "os/exec.(*Cmd).writerDescriptor.func1"]);
    assert_eq!(writer.kind, CauseKind::SendNobodyReceives);
    let network = ["net.(*netFD).Write", "io.Copy", "os/exec.(*Cmd).writerDescriptor.func1"];
    let network = told("IO wait", &[&POLL_WRITE[..], &network].concat());
    assert_eq!(network.sentence, "writes to the network, and the other side does not read");
    // A request's body that the program makes.
    let body = told("select", &["main.(*source).Read", "io.Copy", "net/http.(*persistConn).writeLoop"]);
    assert_eq!(body.kind, CauseKind::DeadSelect);
    let other = told("select", &["context.(*cancelCtx).propagateCanceller"]);
    assert_eq!(other.kind, CauseKind::DeadSelect);
    // What runs within a sync.Once waits for something of its own.
    let within =
        told("sync.Mutex.Lock", &["sync.(*Mutex).Lock", "main.load", "sync.(*Once).doSlow", "sync.(*Once).Do"]);
    assert_eq!(within.kind, CauseKind::MutexNeverUnlocked);
    // A handler that reads from elsewhere.
    let upstream = ["net.(*conn).Read", "bufio.(*Reader).fill", "bufio.(*Reader).Peek", "main.proxy"];
    let upstream = [&["internal/poll.(*pollDesc).waitRead"], &upstream[..], &["net/http.(*conn).serve"]].concat();
    assert!(told("IO wait", &upstream).sentence.starts_with("reads from the network, and nothing comes"));
}

/// A connection that waits for its client serves no request, and has no handler.
#[test]
fn a_servers_connection_is_no_request() {
    let read = ["internal/poll.(*pollDesc).waitRead", "net.(*netFD).Read", "net/http.(*connReader).Read"];
    let idle = [&read[..], &["bufio.(*Reader).Peek", "net/http.(*conn).serve"]].concat();
    let watch = [&read[..2], &["net/http.(*connReader).backgroundRead"]].concat();
    for stack in [stack(&idle), stack(&watch)] {
        let cause = of(&Case { stack: &stack, handler: Some(Handler::Serving), ..case("IO wait") });
        assert_eq!(cause.kind, CauseKind::ServerConnection);
        assert!(!cause.sentence.contains("given up") && !cause.remedy.contains("give it the request's"), "{cause:?}");
    }
}
