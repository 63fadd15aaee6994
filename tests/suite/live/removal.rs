//! Whatever signals parkwarden gets, and in whichever order, nothing of its probes stays in a target: its text is compared with
//! what it was, and the kernel has nothing to say of uprobes.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use parkwarden::report::Report;
use parkwarden_tests::agent::{Watch, binary};
use parkwarden_tests::node::Node;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::{BuildFlags, fixture, wait};
use serde::Deserialize;
use xtask::toolchain::NEWEST;

use super::watch::{Ready, bytes_at_sites};

/// The second signal comes within this time after the first: removing probes takes less.
const WINDOW: Duration = Duration::from_millis(120);

/// How often each kind of ending is tried, over the whole window.
fn tries() -> u32 {
    if std::env::var_os("PARKWARDEN_LONG").is_some() { 100 } else { 6 }
}

fn delays() -> impl Iterator<Item = Duration> {
    (0..tries()).map(|nth| WINDOW * nth / tries())
}

/// Lines of the kernel's log about uprobes: it tells of those that it could not remove. Those of the processes that hold probes are ours.
fn kernel_says() -> Vec<String> {
    let output = Command::new("dmesg").output().expect("dmesg runs");
    assert!(output.status.success(), "the kernel's log cannot be read: {output:?}");
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = ["probe-keeper"];
    let of_ours = |line: &&str| line.contains("uprobe") && ours.iter().any(|name| line.contains(name));
    log.lines().filter(of_ours).map(str::to_owned).collect()
}

/// Whose turn it is: the kernel's log is one for all, and of a watch that is killed while it attaches it may have a word.
static ALONE: Mutex<()> = Mutex::new(());

/// A target, where its probe sites are, and what is there when nobody watches.
struct Watched {
    _alone: MutexGuard<'static, ()>,
    target: Target,
    sites: Report,
    clean: Vec<[u8; 5]>,
    said_before: Vec<String>,
}

impl Watched {
    fn start(program: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let program = fixture(program, NEWEST, BuildFlags::Default);
        let (target, Ready { .. }) = Target::ready(&program, [] as [&str; 0]);
        let sites = Watch::start(target.pid(), &["--mode", "filter"]).interrupt().report();
        assert_eq!(sites.observed.probes.len(), 4);
        let clean = bytes_at_sites(target.pid(), &sites);
        Self { _alone: alone, target, sites, clean, said_before: kernel_says() }
    }

    fn is_clean(&self) -> bool {
        bytes_at_sites(self.target.pid(), &self.sites) == self.clean
    }

    /// Waits until that is so, as the kernel removes probes in its own time.
    fn assert_clean(&self, what: &str) {
        self.until(true, what);
        assert_eq!(kernel_says(), self.said_before, "{what}");
    }

    fn until(&self, clean: bool, what: &str) {
        let other = if clean { "to be as it was" } else { "to change" };
        let what = format!("the target's text {other}: {what}");
        wait::until(what, DEADLINE / 6, || (self.is_clean() == clean).then_some(()));
    }
}

/// A watch in a process group of its own, which has attached.
fn watch(watched: &Watched, arguments: &[&str]) -> Watch {
    let mut command = Command::new(binary());
    command.process_group(0);
    Watch::with(command, watched.target.pid(), arguments).expect("it attaches")
}

/// Who gets the second signal.
#[derive(Clone, Copy, Debug)]
enum Killed {
    /// As `kill -9` does.
    Parkwarden,
    /// As a container's runtime does: everybody.
    All,
}

impl Killed {
    /// Sends the signal to a parkwarden that leads a process group, if it has not ended yet.
    fn by_sigkill(self, pid: u32) {
        let pid = Pid::from_raw(pid.cast_signed());
        let _ = match self {
            Self::Parkwarden => kill(pid, Signal::SIGKILL),
            Self::All => killpg(pid, Signal::SIGKILL),
        };
    }
}

#[test]
fn a_watch_that_is_told_to_end_and_killed_while_it_does() {
    let watched = Watched::start("spin");
    for mode in ["filter", "trace"] {
        for killed in [Killed::Parkwarden, Killed::All] {
            for delay in delays() {
                let what = format!("{mode}, SIGTERM, and SIGKILL of {killed:?} after {delay:?}");
                let watch = watch(&watched, &["--mode", mode]);
                assert!(!watched.is_clean(), "{what}: no probe was attached");
                watch.signal(Signal::SIGTERM);
                watch.ends_within(delay);
                killed.by_sigkill(watch.pid());
                watched.assert_clean(&what);
            }
        }
    }
    assert!(watched.target.exit().success());
}

#[derive(Debug, Deserialize)]
struct Swing {
    #[expect(dead_code, reason = "its presence is what matters")]
    spawned: u64,
}

#[test]
fn a_watch_that_is_killed_while_the_governor_removes_probes_or_attaches_others() {
    let mut watched = Watched::start("swing");
    for delay in delays() {
        for to in ["to mode Census", "to mode Filter"] {
            let what = format!("SIGKILL {delay:?} after it went {to}");
            let _: Swing = watched.target.ask("idle");
            let watch = watch(&watched, &["-v", "--interval", "1s"]);
            let _: Swing = watched.target.ask("busy");
            watch.until(|line| line.contains("to mode Census"));
            if to == "to mode Filter" {
                let _: Swing = watched.target.ask("idle");
                watch.until(|line| line.contains(to));
            }
            watch.ends_within(delay);
            killpg(Pid::from_raw(watch.pid().cast_signed()), Signal::SIGKILL).expect("it runs");
            if to == "to mode Census" {
                watched.assert_clean(&what);
            } else {
                // Killed while it attaches, see `probe::keeper`: the kernel may have a word of what never came to be.
                watched.until(true, &what);
            }
        }
    }
    assert!(watched.target.exit().success());
}

#[test]
fn a_watch_that_is_killed_while_it_attaches() {
    let watched = Watched::start("spin");
    let mut attached = 0;
    for delay in delays() {
        let pid = watched.target.pid().to_string();
        let mut parkwarden = Command::new(binary())
            .args(["watch", "--mode", "trace", "--for", "0s", "--pid", &pid])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("parkwarden runs");
        // From the first breakpoint on; when that is, differs.
        if delay > WINDOW / 2 {
            watched.until(false, "it attaches");
            attached += 1;
        } else {
            // Or after that time, whichever comes first.
            let _ = wait::within(2 * delay, || if watched.is_clean() { Err(()) } else { Ok(()) });
        }
        killpg(Pid::from_raw(parkwarden.id().cast_signed()), Signal::SIGKILL).expect("it runs");
        parkwarden.wait().expect("it can be waited for");
        watched.until(true, &format!("SIGKILL {delay:?} after its start"));
    }
    assert!(attached > 0);
    assert!(watched.target.exit().success());
}

#[test]
fn an_agent_that_is_told_to_end_and_killed_while_it_does() {
    let watched = Watched::start("spin");
    for delay in delays() {
        for killed in [Killed::Parkwarden, Killed::All] {
            let what = format!("agent, SIGTERM, and SIGKILL of {killed:?} after {delay:?}");
            let mut command = Command::new(binary());
            command.args(["agent", "--listen", "127.0.0.1:0", "--kubernetes", "off", "--exe", "**/spin*"]);
            command.args(["--mode", "filter"]).process_group(0);
            let agent = Node::spawn(&mut command);
            // Killed while it attaches the kernel may have a word of it, see `probe::keeper`.
            agent.wait_for_state(watched.target.pid(), "watched");
            assert!(!watched.is_clean(), "{what}: no probe was attached");
            agent.signal(Signal::SIGTERM);
            agent.ends_within(delay);
            killed.by_sigkill(agent.pid());
            watched.assert_clean(&what);
        }
    }
    assert!(watched.target.exit().success());
}

#[test]
fn who_kills_what_holds_the_probes_is_told_of() {
    let watched = Watched::start("spin");
    let watch = watch(&watched, &["--mode", "filter"]);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", watch.pid())).expect("it runs");
    let [keeper] = children.split_whitespace().collect::<Vec<_>>()[..] else { panic!("one child: {children}") };
    kill(Pid::from_raw(keeper.parse().expect("a pid")), Signal::SIGKILL).expect("it runs");
    watched.assert_clean("its keeper was killed");
    let ended = watch.ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.errors.iter().any(|line| line.contains("somebody killed the process")), "{ended:?}");
}

#[test]
fn doctor_leaves_nothing_of_its_own_probes() {
    let before = kernel_says();
    for uprobes in ["multi", "perf-event"] {
        for _ in 0..tries().div_ceil(4) {
            // Nobody's calibration is there: it measures.
            let mut doctor = Command::new("unshare");
            doctor.args(["--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$0\" doctor"]).arg(binary());
            let output = doctor.env("PARKWARDEN_UPROBES", uprobes).output().expect("unshare runs");
            assert!(output.status.success(), "{output:?}");
        }
    }
    assert_eq!(kernel_says(), before);
}
