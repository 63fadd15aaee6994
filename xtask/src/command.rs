//! Running other programs: what is run is said on stderr, and a failure says what failed.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Tells the user what is being done. Results go to stdout, progress to stderr.
pub fn say(message: impl std::fmt::Display) {
    // Not `eprintln`, which libtest keeps back in tests. Nobody is left to be told when it fails.
    let _ = writeln!(std::io::stderr(), "xtask: {message}");
}

/// Runs a command with its output on our stderr, so that our stdout holds results only.
///
/// # Errors
///
/// When it cannot be started or does not succeed.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = describe(command);
    let status = command
        .stdout(std::io::stderr())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed: {status}");
    }
    Ok(())
}

/// A cargo for this workspace. What the cargo that runs xtask or the tests tells them of their own packages is kept from it:
/// build scripts that depend on it would run anew each time, and all that depends on them would be built anew.
pub fn cargo() -> Command {
    // sudo may have taken it off the PATH.
    let named = std::env::var_os("CARGO").filter(|_| find("cargo").is_none());
    let mut command = Command::new(named.unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars_os() {
        if told.iter().any(|told| name.as_encoded_bytes().starts_with(told.as_bytes())) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command and returns what it printed.
///
/// # Errors
///
/// When it cannot be started or does not succeed; the message has what it wrote to stderr.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{name}`"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("`{name}` failed: {}\n{}", output.status, reason.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a user would type it, without its environment.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Where on the PATH a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

/// A command that runs `program` as root: as it is for root, with sudo (keeping the environment) for anyone else.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--preserve-env").arg(program);
    command
}

/// The script that runs a program as root and gives the user what that wrote here; a path in the tree.
pub const AS_ROOT: &str = "xtask/as-root";

/// As [`as_root`], for a program that writes into the tree or the cache.
///
/// # Errors
///
/// When there is no cache directory.
pub fn as_root_here(program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new(crate::root().join(AS_ROOT));
    command.env("PARKWARDEN_CACHE", crate::cache_dir()?).arg(program);
    Ok(command)
}

/// Whether this process has root's user id.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Installs packages of Debian or Ubuntu that are not there yet.
///
/// # Errors
///
/// When this is no Debian or Ubuntu, or the packages cannot be had.
pub fn apt_install(packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !apt_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("install by hand (there is no apt-get here): {}", missing.join(" "));
    }
    say(format_args!("installing with apt-get: {}", missing.join(" ")));
    let install = || {
        let mut command = as_root("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        // Tests that run at the same time may each want something.
        command.args(["install", "--yes", "--quiet", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"]);
        command.args(&missing);
        command
    };
    // The package lists of a fresh machine or image are absent or stale; where they are good, spare the update.
    if run(&mut install()).is_ok() {
        return Ok(());
    }
    run(as_root("apt-get").args(["update", "--quiet"]))?;
    run(&mut install())
}

/// Installs the packages, the second of each pair, of those programs, the first, that are not on the PATH: all at once, before
/// tests that run at the same time each want one.
///
/// # Errors
///
/// When this is no Debian or Ubuntu, or the packages cannot be had.
pub fn apt_install_programs(programs: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { apt_install(&missing) }
}

/// Unpacks a package of Debian or Ubuntu below `directory`, without installing it or what it depends on.
///
/// # Errors
///
/// When this is no Debian or Ubuntu, or the package cannot be had.
pub fn apt_unpack(package: &str, directory: &Path) -> anyhow::Result<()> {
    let place = tempfile::tempdir().context("a place for the download")?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.current_dir(place.path()).args(["download", "--quiet", package]);
        command
    };
    if run(&mut download()).is_err() {
        run(as_root("apt-get").args(["update", "--quiet"]))?;
        run(&mut download())?;
    }
    for entry in std::fs::read_dir(place.path())? {
        run(Command::new("dpkg").arg("-x").arg(entry?.path()).arg(directory))?;
    }
    Ok(())
}

/// Downloads the source package of Debian or Ubuntu into `directory`: the original source and the description. That the
/// machine's configuration names binary packages alone, as is usual, does not matter, nor is it changed.
///
/// # Errors
///
/// When this is no Debian or Ubuntu, or the package cannot be had.
pub fn apt_source(package: &str, directory: &Path) -> anyhow::Result<()> {
    if find("apt-get").is_none() {
        bail!("there is no apt-get here, which gets the source package {package}");
    }
    let place = tempfile::tempdir().context("a place for lists of source packages")?;
    let (sources, lists) = (place.path().join("sources"), place.path().join("lists"));
    std::fs::create_dir(&sources)?;
    std::fs::create_dir_all(lists.join("partial"))?;
    let parts = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    for file in std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(parts) {
        let name = file.file_name().unwrap_or_default();
        let Some(form) = file.extension().and_then(OsStr::to_str) else { continue };
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if let Some(text) = of_sources(form, &text) {
            std::fs::write(sources.join(name), text)?;
        }
    }
    let apt = |subcommand: &str| {
        let mut command = Command::new("apt-get");
        command.current_dir(directory).args(["--quiet", "-o", "Dir::Etc::SourceList=/dev/null", "-o"]);
        command.arg(format!("Dir::Etc::SourceParts={}", sources.display())).arg("-o");
        command.arg(format!("Dir::State::Lists={}", lists.display())).arg("-o");
        command.arg(format!("Dir::Cache={}", place.path().display()));
        command.arg(subcommand);
        command
    };
    run(&mut apt("update"))?;
    run(apt("source").args(["--download-only", package]))
}

/// The same places as in a file of apt's, for sources instead of binaries; `form` is the file's extension.
fn of_sources(form: &str, text: &str) -> Option<String> {
    let lines: Vec<String> = match form {
        "list" => {
            let binary = text.lines().filter_map(|line| line.trim().strip_prefix("deb "));
            binary.map(|rest| format!("deb-src {rest}")).collect()
        }
        "sources" => {
            let of = |line: &str| if line.starts_with("Types:") { "Types: deb-src".into() } else { line.to_owned() };
            text.lines().map(of).collect()
        }
        _ => return None,
    };
    Some(lines.join("\n") + "\n")
}

fn apt_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    match query {
        Ok(output) => output.stdout.ends_with(b" installed"),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_where_binaries_are() {
        let list =
            "# a comment\ndeb http://mirror.test/debian stable main\ndeb-src http://mirror.test/debian stable main\n";
        assert_eq!(of_sources("list", list).as_deref(), Some("deb-src http://mirror.test/debian stable main\n"));
        let sources =
            "Types: deb deb-src\nURIs: http://mirror.test/debian\nSuites: stable\n\nTypes: deb\nURIs: file:///x\n";
        let expected =
            "Types: deb-src\nURIs: http://mirror.test/debian\nSuites: stable\n\nTypes: deb-src\nURIs: file:///x\n";
        assert_eq!(of_sources("sources", sources).as_deref(), Some(expected));
        assert_eq!(of_sources("disabled", list), None);
    }
}
