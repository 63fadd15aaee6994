//! Memory control groups of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// One, removed when dropped. Version 1 or 2, whichever the host has.
#[derive(Debug)]
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// One with a limit in bytes.
    ///
    /// # Panics
    ///
    /// When it cannot be made: this takes root.
    pub fn new(limit: u64) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("parkwarden-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let legacy = Path::new("/sys/fs/cgroup/memory");
        let (dir, file) = if legacy.is_dir() {
            (legacy.join(name), "memory.limit_in_bytes")
        } else {
            let root = Path::new("/sys/fs/cgroup");
            // Where it is not on already.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.join(name), "memory.max")
        };
        std::fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}: this takes root", dir.display()));
        std::fs::write(dir.join(file), limit.to_string()).expect("a limit");
        Self(dir)
    }

    /// A command that runs a program in it, for whoever adds arguments: a shell joins the group before it becomes the program.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", self.0.display())]);
        command.arg(program.as_ref());
        command
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
