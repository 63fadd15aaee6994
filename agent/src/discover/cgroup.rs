//! The control groups of a process: of memory, its limit, use, and how many processes the kernel has killed in it; of CPU, for
//! how long its quota has kept it from running; of the freezer, whether it is frozen.
//!
//! Deliberately absent: what a group of another control group namespace is called outside it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::process::Process;

/// Where the group of one controller is, of version 1 or 2.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    /// Where its hierarchy is mounted.
    mount: PathBuf,
    unified: bool,
}

impl Place {
    fn of(process: &Process, controller: &str) -> Option<Self> {
        let cgroup = process.by_pid(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok())?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::find(&cgroup, &mounts, controller).filter(|place| place.dir.is_dir())
    }

    fn find(cgroup: &str, mounts: &str, controller: &str) -> Option<Self> {
        // A host with both versions has the controller in one of them: version 1 if it is named there.
        let path = |wanted: &dyn Fn(&str) -> bool| {
            cgroup.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                parts.next().filter(|controllers| wanted(controllers))?;
                parts.next()
            })
        };
        let legacy = path(&|controllers| has(controllers, controller));
        let unified = legacy.is_none();
        let path = legacy.or_else(|| path(&str::is_empty))?;
        let (root, mount) = mounts.lines().find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, point) = (mount.next()?, mount.next()?);
            let mut file_system = file_system.split(' ');
            let kind = file_system.next()?;
            let options = file_system.nth(1).unwrap_or_default();
            let fits = if unified { kind == "cgroup2" } else { kind == "cgroup" && has(options, controller) };
            fits.then_some((root, point))
        })?;
        // A container sees a part of the hierarchy.
        let inside = if root == "/" { path } else { path.strip_prefix(root)? };
        if inside.split('/').any(|part| part == "..") {
            return None;
        }
        let mount = PathBuf::from(mount);
        Some(Self { dir: mount.join(inside.trim_start_matches('/')), mount, unified })
    }

    /// The group and those around it.
    fn groups(&self) -> impl Iterator<Item = &Path> {
        self.dir.ancestors().take_while(|dir| dir.starts_with(&self.mount))
    }
}

/// A memory control group.
#[derive(Debug)]
pub struct MemoryGroup {
    place: Place,
    /// Its count of kills, open: another group may come to have its path.
    kills: Option<File>,
}

/// Bytes read of a group's counts; there are some hundred.
const MAX_COUNTS: usize = 4096;

impl MemoryGroup {
    /// That of a process; none where there is none, or where it cannot be seen.
    pub fn of(process: &Process) -> Option<Self> {
        let place = Place::of(process, "memory")?;
        let file = if place.unified { "memory.events" } else { "memory.oom_control" };
        Some(Self { kills: File::open(place.dir.join(file)).ok(), place })
    }

    /// Processes that the kernel has killed in this group because memory ran out; none where it does not tell, and when the
    /// group is gone.
    pub fn oom_kills(&self) -> Option<u64> {
        let mut text = [0; MAX_COUNTS];
        let read = self.kills.as_ref()?.read_at(&mut text, 0).ok()?;
        value(std::str::from_utf8(&text[..read]).ok()?, "oom_kill")
    }

    /// The smallest limit of this group and those around it.
    pub fn limit_bytes(&self) -> Option<u64> {
        let file = if self.place.unified { "memory.max" } else { "memory.limit_in_bytes" };
        self.place.groups().filter_map(|dir| limit(dir, file)).min()
    }

    /// Bytes that its processes use, file cache included.
    pub fn used_bytes(&self) -> Option<u64> {
        let file = if self.place.unified { "memory.current" } else { "memory.usage_in_bytes" };
        fs::read_to_string(self.place.dir.join(file)).ok()?.trim().parse().ok()
    }
}

/// A CPU control group.
#[derive(Debug)]
pub struct CpuGroup {
    place: Place,
}

impl CpuGroup {
    /// That of a process; none where there is none, or where it cannot be seen.
    pub fn of(process: &Process) -> Option<Self> {
        Some(Self { place: Place::of(process, "cpu")? })
    }

    /// For how long quotas of this group and those around it have kept its threads from running, summed over CPUs; none where
    /// there are none.
    pub fn throttled_ns(&self) -> Option<u64> {
        let throttled = |dir: &Path| {
            let text = fs::read_to_string(dir.join("cpu.stat")).ok()?;
            value(&text, "throttled_usec").map(|us| us.saturating_mul(1000)).or_else(|| value(&text, "throttled_time"))
        };
        self.place.groups().filter_map(throttled).reduce(u64::saturating_add)
    }
}

/// The control group that a process can be frozen with.
#[derive(Debug)]
pub struct FreezerGroup {
    place: Place,
}

impl FreezerGroup {
    /// That of a process; none where there is none, or where it cannot be seen.
    pub fn of(process: &Process) -> Option<Self> {
        Some(Self { place: Place::of(process, "freezer")? })
    }

    /// Whether this group is frozen, be it with one around it.
    pub fn is_frozen(&self) -> bool {
        let read = |file: &str| fs::read_to_string(self.place.dir.join(file)).unwrap_or_default();
        if self.place.unified {
            value(&read("cgroup.events"), "frozen") == Some(1)
        } else {
            read("freezer.state").trim() == "FROZEN"
        }
    }
}

fn limit(dir: &Path, file: &str) -> Option<u64> {
    // Version 1 writes a number near 2^63 for none, version 2 a word.
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok().filter(|limit| *limit < 1 << 62)
}

fn has(options: &str, option: &str) -> bool {
    options.split(',').any(|each| each == option)
}

/// Processes that the kernel has killed on this host because memory ran out.
pub fn host_oom_kills() -> Option<u64> {
    value(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

/// The number behind a name, in lines of both.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "36 24 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                          40 24 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn dir(cgroup: &str, mounts: &str) -> Option<PathBuf> {
        Place::find(cgroup, mounts, "memory").map(|place| place.dir)
    }

    #[test]
    fn both_versions_and_both_at_once() {
        let hybrid = "4:memory:/app\n0::/app.slice\n";
        assert_eq!(dir(hybrid, HYBRID), Some("/sys/fs/cgroup/memory/app".into()));
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        assert_eq!(dir("0::/app.slice/x.service\n", unified), Some("/sys/fs/cgroup/app.slice/x.service".into()));
        assert_eq!(dir("0::/\n", unified), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn part_of_the_hierarchy() {
        let inside = "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(dir("0::/docker/abc/sub\n", inside), Some("/sys/fs/cgroup/sub".into()));
        assert_eq!(dir("0::/elsewhere\n", inside), None);
        assert_eq!(dir("0::/../other\n", HYBRID), None);
        assert_eq!(dir("", HYBRID), None);
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        assert_eq!(value("oom 3\noom_group_kill 2\noom_kill 1\n", "oom_kill"), Some(1));
        assert_eq!(value("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", "oom_kill"), Some(4));
        assert_eq!(value("oom_kill_disable 0\n", "oom_kill"), None);
    }
}
