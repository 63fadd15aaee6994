//! Goroutines that a library of Go's own started, or that wait inside one: what that wait means for the program is known, and what
//! it has to do. A row says only what is certain of everybody who waits there.

use super::io::{Direction, File, Io};
use super::{Case, CauseKind, Words};

/// A wait inside a library.
pub(super) struct LibraryWait {
    /// The runtime's words for it.
    wait_reason: &'static str,
    /// In IO wait, what for.
    io: Option<(Direction, File)>,
    /// Functions, by how their names begin: in IO wait one of them is on the stack, else it is the innermost that is no plumbing.
    within: &'static [&'static str],
    kind: CauseKind,
    words: Words,
}

/// What reads and writes an HTTP/1 client's connection, of any version and Transport.
const READ_LOOP: &[&str] = &["net/http.(*persistConn).readLoop"];
const WRITE_LOOP: &[&str] = &["net/http.(*persistConn).writeLoop"];
/// An HTTP/2 client's, until Go 1.26, since, and as a module.
const READ_LOOP_2: &[&str] = &[
    "net/http.(*http2clientConnReadLoop).run",
    "net/http/internal/http2.(*clientConnReadLoop).run",
    "golang.org/x/net/http2.(*clientConnReadLoop).run",
];

const NETWORK_READ: Option<(Direction, File)> = Some((Direction::Read, File::Network));

const SHARE_CLIENT: &str = "share one http.Client, and with it its Transport, among all requests, or call CloseIdleConnections; \
                            set http.Client.Timeout";

pub(super) const KNOWN: [LibraryWait; 10] = [
    LibraryWait {
        wait_reason: "select",
        io: None,
        within: READ_LOOP,
        kind: CauseKind::ResponseNotClosed,
        words: Words {
            does: "keeps an HTTP client's connection for a response body",
            cannot: "that nobody can close or read any more",
            does_not: "that is not closed, nor read to its end",
            remedy: "close every response's body, on every path (defer response.Body.Close())",
        },
    },
    LibraryWait {
        wait_reason: "select",
        io: None,
        within: WRITE_LOOP,
        kind: CauseKind::ClientConnection,
        words: Words {
            does: "is the writing half of an HTTP client's connection",
            cannot: "that nobody can use or close any more",
            does_not: "that is kept: by a response body that is not closed, or idle by a Transport made for each request \
                       (its other half, readLoop, tells which)",
            remedy: "close every response's body, and share one http.Client, and with it its Transport, among all requests",
        },
    },
    LibraryWait {
        wait_reason: "IO wait",
        io: NETWORK_READ,
        within: READ_LOOP,
        kind: CauseKind::ClientConnection,
        words: Words {
            does: "keeps an HTTP client's connection",
            cannot: "that is idle or waits for an answer, as those of a Transport made for each request do",
            does_not: "that is idle or waits for an answer, as those of a Transport made for each request do",
            remedy: SHARE_CLIENT,
        },
    },
    LibraryWait {
        wait_reason: "IO wait",
        io: NETWORK_READ,
        within: READ_LOOP_2,
        kind: CauseKind::ClientConnection,
        words: Words {
            does: "keeps an HTTP/2 client's connection",
            cannot: "on which nothing comes, as on those of a Transport made for each request",
            does_not: "on which nothing comes, as on those of a Transport made for each request",
            remedy: SHARE_CLIENT,
        },
    },
    LibraryWait {
        wait_reason: "chan receive",
        io: None,
        within: &["os/exec.(*Cmd).awaitGoroutines", "os/exec.(*Cmd).Wait"],
        kind: CauseKind::CommandPipe,
        words: Words {
            does: "waits until the output (or input) of a command that has ended is copied:",
            cannot: "a child of the command may still hold the pipe open",
            does_not: "a child of the command may still hold the pipe open",
            remedy: "set exec.Cmd.WaitDelay, or give the command files (os.File) for its input and output, which nothing has to copy",
        },
    },
    LibraryWait {
        wait_reason: "IO wait",
        io: Some((Direction::Read, File::Os)),
        within: &["os/exec.(*Cmd).writerDescriptor"],
        kind: CauseKind::CommandPipe,
        words: Words {
            does: "reads the output of a command from a pipe",
            cannot: "that the command, or a child of it, still holds open",
            does_not: "that the command, or a child of it, still holds open",
            remedy: "set exec.Cmd.WaitDelay, and end commands in time (exec.CommandContext), with all their children",
        },
    },
    LibraryWait {
        wait_reason: "IO wait",
        io: Some((Direction::Write, File::Os)),
        within: &["os/exec.(*Cmd).childStdin", "os/exec.(*Cmd).stdin"],
        kind: CauseKind::CommandPipe,
        words: Words {
            does: "writes the input of a command to a pipe",
            cannot: "that is full, and that the command, or a child of it, still holds open",
            does_not: "that is full, and that the command, or a child of it, still holds open",
            remedy: "set exec.Cmd.WaitDelay, and end commands in time (exec.CommandContext), with all their children",
        },
    },
    LibraryWait {
        wait_reason: "select",
        io: None,
        within: &["os/exec.(*Cmd).watchCtx", "os/exec.(*Cmd).Start"],
        kind: CauseKind::CommandPipe,
        words: Words {
            does: "watches over the context of a command",
            cannot: "that nobody can wait for or cancel any more",
            does_not: "that has not ended, or whose Wait is not called",
            remedy: "call Wait for every command that was started, and cancel its context on every path (defer cancel())",
        },
    },
    LibraryWait {
        wait_reason: "select",
        io: None,
        within: &["context.(*cancelCtx).propagateCancel", "context.propagateCancel"],
        kind: CauseKind::ContextNeverCancelled,
        words: Words {
            does: "waits for the end of a context whose type is not package context's, or of its child context",
            cannot: "whose cancel function nobody can call any more",
            does_not: "whose cancel function is not called",
            remedy: "call the cancel function of every context on every path (defer cancel()), of context.AfterFunc the stop function",
        },
    },
    LibraryWait {
        wait_reason: "select",
        io: None,
        within: &["database/sql.(*DB).connectionOpener"],
        kind: CauseKind::DatabaseNotClosed,
        words: Words {
            does: "opens connections for a database/sql.DB",
            cannot: "that nobody can close any more",
            does_not: "that is not closed",
            remedy: "open a database once and share the sql.DB, or close each (defer db.Close())",
        },
    },
];

/// What is known of a wait inside a library.
pub(super) fn words(case: &Case<'_>) -> Option<(CauseKind, Words)> {
    let io = Io::of(case.stack);
    let innermost = case.stack.iter().find(|frame| !frame.is_plumbing())?;
    let found = KNOWN.iter().find(|known| {
        let within = |function: &str| known.within.iter().any(|start| is_of(function, start));
        known.wait_reason == case.wait_reason
            && match known.io {
                None => within(&innermost.function),
                Some((direction, file)) => {
                    (io.direction, io.file) == (Some(direction), Some(file))
                        && case.stack.iter().any(|frame| within(&frame.function))
                }
            }
    })?;
    Some((found.kind, found.words))
}

/// Whether a function is this one or a closure of it.
fn is_of(function: &str, of: &str) -> bool {
    function.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
