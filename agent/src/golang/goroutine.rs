//! Which goroutines belong to the runtime rather than to the program.

/// Whether a goroutine that starts in `start_function` is the runtime's own, as `runtime.isSystemGoroutine` says of
/// Go 1.18 to 1.27, with one difference: the goroutines that run finalizers and cleanups count as the runtime's even
/// while they run the program's code, because the program did not start them.
pub fn is_system_goroutine(start_function: &str) -> bool {
    // Started for the program: its main function, the bodies of `iter.Pull`, and asynchronous events of wasm.
    const OF_THE_PROGRAM: [&str; 3] = ["runtime.main", "runtime.corostart", "runtime.handleAsyncEvent"];
    start_function.starts_with("runtime.") && !OF_THE_PROGRAM.contains(&start_function)
}

/// Whether the goroutines that function `creator` makes serve HTTP: those of HTTP/1 connections, and those of HTTP/2 and
/// gRPC requests.
pub fn is_http_server(creator: &str) -> bool {
    creator == "net/http.(*Server).Serve"
        || ["net/http.(*http2serverConn)", "golang.org/x/net/http2.(*serverConn)", "google.golang.org/grpc.(*Server)"]
            .iter()
            .any(|server| creator.starts_with(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_runtime_says() {
        for name in ["runtime.gcBgMarkWorker", "runtime.bgsweep", "runtime.forcegchelper", "runtime.runfinq"] {
            assert!(is_system_goroutine(name), "{name}");
        }
        for name in ["runtime.main", "runtime.corostart", "main.main.func1", "runtime/trace.Start.func1", ""] {
            assert!(!is_system_goroutine(name), "{name}");
        }
    }
}
