//! Which container, pod or unit a process belongs to, by its control groups.
//!
//! The paths are the container runtimes' conventions, not an interface: what is not recognised is not guessed.

use std::fs::File;
use std::io::Read as _;

use serde::{Deserialize, Serialize};

/// Bytes read of `/proc/PID/cgroup`; a real one has some hundreds.
const MAX_CGROUP: u64 = 16 << 10;

/// What a process's control groups say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Container id, as the runtime names it.
    pub container: Option<String>,
    /// Uid of the Kubernetes pod.
    pub pod_uid: Option<String>,
    /// systemd unit, for processes in no container.
    pub unit: Option<String>,
}

/// What process `pid`'s control groups say of it; nothing when they cannot be read.
pub fn of(pid: u32) -> Identity {
    let mut cgroup = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{pid}/cgroup")) {
        // What is read until an error is enough.
        let _ = file.take(MAX_CGROUP).read_to_end(&mut cgroup);
    }
    identity(&String::from_utf8_lossy(&cgroup))
}

/// Reads the lines of `/proc/PID/cgroup`: `hierarchy:controllers:path`, several for version 1, one for version 2.
pub fn identity(cgroup: &str) -> Identity {
    let mut identity = Identity::default();
    for path in cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if let Some(uid) = pod_uid(part) {
                identity.pod_uid.get_or_insert(uid);
            }
            if let Some(id) = container_id(part) {
                // Nested containers: the innermost is the process's own, and every hierarchy says the same.
                identity.container = Some(id.to_owned());
            }
            if part.ends_with(".service") {
                identity.unit = Some(part.to_owned());
            }
        }
    }
    if identity.container.is_some() {
        identity.unit = None;
    }
    identity
}

/// `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`, or the id alone.
fn container_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    // containerd without systemd: `cri-containerd:<id>` behind the slice's name.
    let name = name.rsplit_once(':').map_or(name, |(_, id)| id);
    let id = match name.rsplit_once('-') {
        Some((runtime, id)) if RUNTIMES.contains(&runtime) => id,
        Some(_) => return None,
        None => name,
    };
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

const RUNTIMES: [&str; 4] = ["docker", "cri-containerd", "crio", "libpod"];

/// `pod<uid>` (cgroupfs driver) or `kubepods-besteffort-pod<uid>.slice` with underscores (systemd driver).
fn pod_uid(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None if name.starts_with("kubepods") => name.rsplit_once("-pod")?.1,
        None => return None,
    };
    let uid = uid.replace('_', "-");
    (uid.len() == 36 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f0c8ab9d8f7e6b5a4c3d2e1f00112233445566778899aabbccddeeff0011223";
    const UID: &str = "0d1e2f3a-4b5c-6d7e-8f90-a1b2c3d4e5f6";

    #[test]
    fn containers_of_all_known_runtimes() {
        let underscored = UID.replace('-', "_");
        for (line, pod) in [
            (format!("12:memory:/docker/{ID}"), false),
            (format!("0::/system.slice/docker-{ID}.scope"), false),
            (format!("11:cpu:/kubepods/besteffort/pod{UID}/{ID}"), true),
            (format!("11:cpu:/kubepods/pod{UID}/{ID}"), true),
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/\
                     cri-containerd-{ID}.scope"
                ),
                true,
            ),
            (format!("0::/kubepods.slice/kubepods-pod{underscored}.slice/crio-{ID}.scope"), true),
            (format!("0::/system.slice/kubepods-besteffort-pod{underscored}.slice:cri-containerd:{ID}"), false),
            (format!("0::/machine.slice/libpod-{ID}.scope/container"), false),
        ] {
            let found = identity(&line);
            assert_eq!(found.container.as_deref(), Some(ID), "{line}");
            assert_eq!(found.pod_uid.as_deref(), pod.then_some(UID), "{line}");
            assert_eq!(found.unit, None, "{line}");
        }
    }

    #[test]
    fn units_and_plain_processes() {
        let service = identity("0::/system.slice/caddy.service");
        assert_eq!((service.unit.as_deref(), service.container), (Some("caddy.service"), None));
        for line in ["0::/", "0::/user.slice/user-0.slice/session-1.scope", "", "nonsense", "1:name=systemd:"] {
            assert_eq!(identity(line), Identity::default(), "{line}");
        }
    }

    #[test]
    fn what_only_looks_like_an_id_is_none() {
        for line in [
            format!("0::/{}", &ID[1..]),
            format!("0::/{}", ID.replace('4', "g")),
            format!("0::/somebody-{ID}.scope"),
            "0::/kubepods/podx".to_owned(),
        ] {
            assert_eq!(identity(&line), Identity::default(), "{line}");
        }
    }
}
