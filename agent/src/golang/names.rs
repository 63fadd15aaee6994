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

/// First elements of the standard library's import paths, Go 1.19 to 1.27 (`go list std`), and of what the compiler makes.
const STANDARD: [&str; 57] = [
    "archive",
    "arena",
    "bufio",
    "builtin",
    "bytes",
    "cmd",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "simd",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "unique",
    "unsafe",
    "vendor",
    "weak",
    "uuid",
    "type:",
    "go:",
];

/// Whether a function is of the standard library.
pub fn is_standard(function: &str) -> bool {
    let package = package(function);
    STANDARD.contains(&package.split('/').next().unwrap_or(package))
}

/// Whether a function is of the main package, or of another of the module that contains it.
pub fn is_of_module(function: &str, module: Option<&str>) -> bool {
    let package = package(function);
    let below =
        |module: &str| package.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    package == "main" || module.is_some_and(below)
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
    fn own_functions_are_told_from_those_of_libraries() {
        assert!(is_standard("net/http.(*conn).serve") && is_standard("sync.(*WaitGroup).Go.func1"));
        assert!(!is_standard("main.main") && !is_standard("github.com/net/http.F") && !is_standard("netlink.F"));
        let module = Some("example.com/cart");
        assert!(is_of_module("example.com/cart/store.(*DB).get", module) && is_of_module("main.main", None));
        assert!(
            !is_of_module("example.com/cartography.F", module) && !is_of_module("google.golang.org/grpc.F", module)
        );
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
