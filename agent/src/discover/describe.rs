//! What anybody can be told of a process without its binary.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use super::container::{self, Identity};
use super::process::Process;

/// Bytes of a command line that are kept.
const MAX_COMMAND: u64 = 4096;

/// See the module. What cannot be read is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Number of its user.
    pub uid: Option<u32>,
    /// Name of its user, or the number where it has none.
    pub user: String,
    /// Its command line.
    pub command: String,
    /// Container, pod or unit.
    pub identity: Identity,
}

impl Description {
    /// Of a process; none when it is gone.
    pub fn of(process: &Process) -> Option<Self> {
        process.by_pid(|pid| Some(Self::at(pid)))
    }

    /// Of whichever process has that pid, for want of anything better.
    pub fn at(pid: u32) -> Self {
        let uid = fs::metadata(format!("/proc/{pid}")).map(|metadata| metadata.uid()).ok();
        let name = |uid: u32| {
            let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| user.name)
        };
        let mut command = Vec::new();
        if let Ok(file) = fs::File::open(format!("/proc/{pid}/cmdline")) {
            // What cannot be read is left out.
            let _ = file.take(MAX_COMMAND).read_to_end(&mut command);
        }
        Self {
            uid,
            user: uid.map(name).unwrap_or_default(),
            command: String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " "),
            identity: container::of(pid),
        }
    }
}

/// Whether an executable's path, as `/proc/PID/exe` gives it, is this one or ends with it.
pub fn is_executable(path: &str, wanted: &str) -> bool {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path == wanted || path.strip_suffix(wanted).is_some_and(|before| before.ends_with('/'))
}

/// The processes that run an executable, see [`is_executable`], as far as that may be seen.
pub fn running(wanted: &str) -> std::io::Result<Vec<u32>> {
    let runs = |pid: &u32| {
        let path = fs::read_link(format!("/proc/{pid}/exe"));
        path.is_ok_and(|path| path.to_str().is_some_and(|path| is_executable(path, wanted)))
    };
    Ok(pids()?.into_iter().filter(runs).collect())
}

/// The pids of this host, without the one that asks.
pub fn pids() -> std::io::Result<Vec<u32>> {
    let mut pids: Vec<u32> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}
