//! The containers that tests start leave nothing behind, whatever has become of them.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden_tests::containers::{Containerd, Run, image};
use parkwarden_tests::{BuildFlags, fixture};
use serde_json::Value;
use xtask::toolchain::NEWEST;

#[test]
fn nothing_is_left_of_containers_even_if_containerd_was_killed() {
    let name = "localhost/quotes:test";
    let image = image(name, &[("/srv/quotes", &fixture("quotes", NEWEST, BuildFlags::Stripped))], &["/srv/quotes"]);
    for killed in [false, true] {
        let containerd = Containerd::start();
        containerd.import("default", &image);
        let container = containerd.run(&Run { namespace: "default", image: name, ..Run::default() });
        let _: Value = container.said();
        assert_eq!(exe(container.pid), Some("/srv/quotes".into()));
        if killed {
            kill(Pid::from_raw(containerd.pid().cast_signed()), Signal::SIGKILL).expect("killed");
        }
        let (socket, group) = (containerd.socket.clone(), containerd.group.clone());
        drop(containerd);
        assert_eq!(exe(container.pid), None, "the container runs on");
        assert!(!socket.parent().expect("a directory").exists(), "the directory is left");
        let groups = Path::new("/sys/fs/cgroup").read_dir().expect("a directory").flatten();
        let left: Vec<PathBuf> = groups.map(|hierarchy| hierarchy.path().join(group.trim_start_matches('/'))).collect();
        assert!(left.iter().all(|group| !group.exists()), "control groups are left");
    }
}

fn exe(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}
