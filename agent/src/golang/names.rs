//! What a function's name and file tell: its package, and whether it is the runtime's plumbing.

use super::Frame;

/// The import path of a function's package: `net/http` of `net/http.(*conn).serve`.
pub fn package(function: &str) -> &str {
    // Type arguments may hold slashes and dots of other packages.
    let plain = function.split('[').next().unwrap_or(function);
    let after_slash = plain.rfind('/').map_or(0, |slash| slash + 1);
    match plain[after_slash..].find('.') {
        Some(dot) => &plain[..after_slash + dot],
        None => plain,
    }
}

impl Frame {
    /// Whether this frame belongs to the machinery of waiting: packages `runtime`, `sync`, `internal/...` and what is
    /// below them, `iter`, and functions of other packages that are written in package runtime (`time.Sleep` is).
    pub fn is_plumbing(&self) -> bool {
        let package = package(&self.function);
        let root = package.split('/').next().unwrap_or(package);
        matches!(root, "runtime" | "sync" | "internal")
            || package == "iter"
            || self.file.contains("/src/runtime/")
            || self.file.starts_with("runtime/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_go_names() {
        for (function, expected) in [
            ("main.main", "main"),
            ("net/http.(*conn).serve", "net/http"),
            ("github.com/a/b.c/d.F", "github.com/a/b.c/d"),
            ("main.Map[github.com/x/y.T]", "main"),
            ("gopkg.in/yaml%2ev3.Parse", "gopkg.in/yaml%2ev3"),
            ("_rt0_amd64_linux", "_rt0_amd64_linux"),
            ("", ""),
        ] {
            assert_eq!(package(function), expected, "{function}");
        }
    }

    #[test]
    fn plumbing_is_told_by_package_or_file() {
        let frame = |function: &str, file: &str| Frame {
            function: function.into(),
            file: file.into(),
            line: 1,
            inlined: false,
        };
        assert!(frame("runtime.gopark", "/go/src/runtime/proc.go").is_plumbing());
        assert!(frame("sync.(*Mutex).Lock", "/go/src/sync/mutex.go").is_plumbing());
        assert!(frame("internal/poll.(*FD).Read", "/go/src/internal/poll/fd_unix.go").is_plumbing());
        assert!(frame("time.Sleep", "/go/src/runtime/time.go").is_plumbing());
        assert!(frame("time.Sleep", "runtime/time.go").is_plumbing());
        assert!(frame("iter.Pull[go.shape.int].func1.1", "/go/src/iter/iter.go").is_plumbing());
        assert!(!frame("net.(*conn).Read", "/go/src/net/net.go").is_plumbing());
        assert!(!frame("main.wait", "/src/main.go").is_plumbing());
        assert!(!frame("synchro.Wait", "/src/synchro/wait.go").is_plumbing());
    }
}
