//! Control groups of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// One with a limit, removed when dropped. Version 1 or 2, whichever the host has.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// One with a limit in bytes.
    ///
    /// # Panics
    ///
    /// When it cannot be made: this takes root.
    pub fn of_memory(limit: u64) -> Self {
        let limit = limit.to_string();
        Self(make("memory", ("memory.limit_in_bytes", &limit), ("memory.max", &limit)))
    }

    /// One that may use so many percent of one CPU.
    ///
    /// # Panics
    ///
    /// When it cannot be made: this takes root.
    pub fn of_cpu(percent: u32) -> Self {
        const PERIOD_US: u32 = 100_000;
        let quota = (PERIOD_US / 100 * percent).to_string();
        Self(make("cpu", ("cpu.cfs_quota_us", &quota), ("cpu.max", &format!("{quota} {PERIOD_US}"))))
    }

    /// One that can be frozen.
    ///
    /// # Panics
    ///
    /// When it cannot be made: this takes root.
    pub fn of_freezer() -> Self {
        Self(make("freezer", ("freezer.state", "THAWED"), ("cgroup.freeze", "0")))
    }

    /// Stops whatever is in it, or lets it run on.
    ///
    /// # Panics
    ///
    /// When it is no group of a freezer.
    pub fn freeze(&self, frozen: bool) {
        let legacy = self.0.join("freezer.state");
        let (file, state) = if legacy.exists() {
            (legacy, if frozen { "FROZEN" } else { "THAWED" })
        } else {
            (self.0.join("cgroup.freeze"), if frozen { "1" } else { "0" })
        };
        std::fs::write(&file, state).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// A command that runs a program in it, for whoever adds arguments: a shell joins the group before it becomes the program.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", self.0.display())]);
        command.arg(program.as_ref());
        command
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // What is frozen does not end.
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A group of one controller, with a limit by the name and in the form that either version has.
fn make(controller: &str, legacy: (&str, &str), unified: (&str, &str)) -> PathBuf {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("parkwarden-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let hierarchy = Path::new("/sys/fs/cgroup").join(controller);
    let (dir, (file, limit)) = if hierarchy.is_dir() {
        (hierarchy.join(name), legacy)
    } else {
        let root = Path::new("/sys/fs/cgroup");
        // Where it is not on already.
        let _ = std::fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
        (root.join(name), unified)
    };
    std::fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}: this takes root", dir.display()));
    std::fs::write(dir.join(file), limit).expect("a limit");
    dir
}
