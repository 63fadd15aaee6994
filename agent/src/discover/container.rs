//! Which container, pod or unit a process belongs to, by its control groups.
//!
//! The paths are the container runtimes' conventions, not an interface: what is not recognised is not guessed. A process in
//! containers within containers belongs to the innermost; its pod is the outermost, the one that this node's cluster
//! knows.

use std::fs::File;
use std::io::Read as _;

use serde::{Deserialize, Serialize};

/// Bytes read of `/proc/PID/cgroup`; a real one has some hundreds.
const MAX_CGROUP: u64 = 16 << 10;

/// What a process's control groups say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Identity {
    /// Container id, as the runtime names it.
    pub container: Option<String>,
    /// Uid of the Kubernetes pod, as its node names it: of pods that the kubelet runs by itself the API has another.
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
                // Every hierarchy says the same.
                identity.container = Some(id.to_owned());
            }
            if part.ends_with(".service") {
                // systemd puts an underscore before names that could be taken for a file of the control group.
                identity.unit = Some(part.strip_prefix('_').unwrap_or(part).to_owned());
            }
        }
    }
    if identity.container.is_some() {
        identity.unit = None;
    }
    identity
}

/// `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`, or the id alone. The monitors
/// of containers (`crio-conmon-<id>.scope`) are in none themselves.
fn container_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    // runc without systemd, told to use it: `slice:runtime:<id>` is one name.
    let name = name.rsplit_once(':').map_or(name, |(_, id)| id);
    let id = match name.rsplit_once('-') {
        Some((runtime, id)) if RUNTIMES.contains(&runtime) => id,
        Some(_) => return None,
        None => name,
    };
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// `libpod-payload` is what podman's containers are in within a unit that runs podman.
const RUNTIMES: [&str; 6] = ["docker", "cri-containerd", "crio", "libpod", "libpod-payload", "nerdctl"];

/// `pod<uid>` (cgroupfs driver) or `kubepods-besteffort-pod<uid>.slice` with underscores (systemd driver), with more
/// before it where the kubelet has a slice of its own.
fn pod_uid(part: &str) -> Option<String> {
    let slice = part.split_once(':').map_or(part, |(slice, _)| slice);
    let uid = match slice.strip_suffix(".slice") {
        Some(name) => {
            let (above, pod) = name.rsplit_once('-')?;
            above.split('-').any(|slice| slice == "kubepods").then_some(pod)?
        }
        None => slice,
    };
    let uid = uid.strip_prefix("pod")?.replace('_', "-");
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    // From the API a UUID; of pods that the kubelet runs from files a checksum of the file.
    let whole = match uid.len() {
        36 => uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && uid.split('-').all(hex),
        32 => hex(&uid),
        _ => false,
    };
    whole.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f0c8ab9d8f7e6b5a4c3d2e1f00112233445566778899aabbccddeeff0011223";
    const OUTER: &str = "99887766554433221100ffeeddccbbaa99887766554433221100ffeeddccbbaa";
    const UID: &str = "0d1e2f3a-4b5c-6d7e-8f90-a1b2c3d4e5f6";
    const STATIC: &str = "0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6";

    /// `{c}` is the container, `{o}` one around it, `{u}` the pod, `{_u}` as systemd writes it, `{s}` a static pod.
    fn line(pattern: &str) -> String {
        pattern
            .replace("{c}", ID)
            .replace("{o}", OUTER)
            .replace("{u}", UID)
            .replace("{_u}", &UID.replace('-', "_"))
            .replace("{s}", STATIC)
    }

    #[test]
    fn containers_of_pods() {
        for pattern in [
            // kubelet and runtime with cgroupfs, versions 1 and 2, each class of service.
            "11:cpu,cpuacct:/kubepods/pod{u}/{c}",
            "11:cpu:/kubepods/besteffort/pod{u}/{c}",
            "11:cpu:/kubepods/burstable/pod{u}/{c}",
            "0::/kubepods/burstable/pod{u}/{c}",
            "0::/kubepods/burstable/pod{u}/{c}/inside",
            // CRI-O with cgroupfs.
            "0::/kubepods/burstable/pod{u}/crio-{c}",
            // Both with systemd.
            "0::/kubepods.slice/kubepods-pod{_u}.slice/cri-containerd-{c}.scope",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_u}.slice/cri-containerd-{c}.scope",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_u}.slice/crio-{c}.scope",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_u}.slice/crio-{c}.scope/container",
            "1:name=systemd:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_u}.slice/docker-{c}.scope",
            // The kubelet has a slice of its own.
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
             kubelet-kubepods-burstable-pod{_u}.slice/cri-containerd-{c}.scope",
            "0::/kubelet/kubepods/besteffort/pod{u}/{c}",
            // A whole node in a container.
            "0::/docker/{o}/kubelet/kubepods/besteffort/pod{u}/{c}",
            "0::/system.slice/docker-{o}.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-pod{_u}.slice/cri-containerd-{c}.scope",
            // A container within a container of a pod.
            "0::/kubepods/burstable/pod{u}/{o}/docker/{c}",
            // The kubelet says systemd, containerd cgroupfs.
            "0::/system.slice/containerd.service/kubepods-burstable-pod{_u}.slice:cri-containerd:{c}",
            "11:cpu:/kubepods-besteffort-pod{_u}.slice:cri-containerd:{c}",
            // Seen from a control group namespace further in.
            "0::/../../kubepods-burstable-pod{_u}.slice/cri-containerd-{c}.scope",
            "0::/../../../burstable/pod{u}/{c}",
        ] {
            let found = identity(&line(pattern));
            assert_eq!(found.container.as_deref(), Some(ID), "{pattern}");
            assert_eq!(found.pod_uid.as_deref(), Some(UID), "{pattern}");
            assert_eq!(found.unit, None, "{pattern}");
        }
    }

    #[test]
    fn containers_of_no_pod() {
        for pattern in [
            "12:memory:/docker/{c}",
            "0::/docker/{c}",
            "0::/docker/{c}/system.slice/inside.service",
            "0::/docker/{o}/docker/{c}",
            "0::/system.slice/docker-{c}.scope",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{c}.scope",
            "0::/system.slice:cri-containerd:{c}",
            "12:pids:/system.slice/containerd.service/system.slice:cri-containerd:{c}",
            "0::/system.slice/nerdctl-{c}.scope",
            "0::/default/{c}",
            "0::/machine.slice/libpod-{c}.scope",
            "0::/machine.slice/libpod-{c}.scope/container",
            "0::/machine.slice/machine-libpod_pod_{o}.slice/libpod-{c}.scope",
            "0::/libpod_parent/libpod-{c}",
            "0::/libpod_parent/{o}/libpod-{c}",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{c}.scope/container",
            "0::/system.slice/shop.service/libpod-payload-{c}",
            // Another container of the agent's own pod, in its control group namespace: the pod's part is not shown.
            "0::/../cri-containerd-{c}.scope",
        ] {
            let found = identity(&line(pattern));
            assert_eq!(found.container.as_deref(), Some(ID), "{pattern}");
            assert_eq!(found.pod_uid, None, "{pattern}");
            assert_eq!(found.unit, None, "{pattern}");
        }
    }

    #[test]
    fn pods_that_the_kubelet_runs_by_itself() {
        for pattern in [
            "0::/kubepods/burstable/pod{s}/{c}",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{s}.slice/cri-containerd-{c}.scope",
        ] {
            let found = identity(&line(pattern));
            assert_eq!((found.container.as_deref(), found.pod_uid.as_deref()), (Some(ID), Some(STATIC)), "{pattern}");
        }
    }

    #[test]
    fn units() {
        for (pattern, unit) in [
            ("0::/system.slice/caddy.service", "caddy.service"),
            ("1:name=systemd:/system.slice/caddy.service\n0::/", "caddy.service"),
            ("0::/system.slice/system-shop.slice/shop@eu-1.service", "shop@eu-1.service"),
            ("0::/system.slice/shop.service/workers", "shop.service"),
            ("0::/system.slice/shop.service/libpod-conmon-{c}.scope", "shop.service"),
            ("0::/system.slice/docker.service", "docker.service"),
            ("0::/system.slice/_memory.service", "memory.service"),
            ("0::/system.slice/my\\x2dshop.service", "my\\x2dshop.service"),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service", "shop.service"),
            ("0::/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service"),
            ("0::/../../../../system.slice/kubelet.service", "kubelet.service"),
        ] {
            let found = identity(&line(pattern));
            assert_eq!(found.unit.as_deref(), Some(unit), "{pattern}");
            assert_eq!((found.container, found.pod_uid), (None, None), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_identity() {
        for pattern in [
            "",
            "nonsense",
            "0::/",
            "0::/../../..",
            "1:name=systemd:",
            "0::/user.slice/user-0.slice/session-1.scope",
            "0::/init.scope",
            "0::/somebody-{c}.scope",
            "0::/machine.slice/libpod-conmon-{c}.scope",
            "0::/system.slice/crio-conmon-{c}.scope",
            "0::/{c}0",
            "0::/g{c}",
            "0::/kubepods/podx",
            "0::/kubepods/pod{u}0",
            "0::/kubepods.slice/kubepods-{_u}.slice",
            "0::/app.slice/app-pod{_u}.slice",
        ] {
            assert_eq!(identity(&line(pattern)), Identity::default(), "{pattern}");
        }
        for odd in [&ID[1..], &ID.replace('4', "g")] {
            assert_eq!(identity(&format!("0::/{odd}")), Identity::default(), "{odd}");
        }
    }

    #[test]
    fn monitors_of_a_pods_containers_are_in_the_pod_alone() {
        for pattern in [
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_u}.slice/crio-conmon-{c}.scope",
            "0::/kubepods/burstable/pod{u}/crio-conmon-{c}",
        ] {
            let found = identity(&line(pattern));
            assert_eq!((found.container, found.pod_uid.as_deref()), (None, Some(UID)), "{pattern}");
        }
    }
}
