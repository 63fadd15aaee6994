//! `parkwarden doctor`: can goroutines be watched on this host, and if not, what has to change?
//!
//! What can be tried is tried: the programs are loaded, a ring buffer made, an uprobe put on parkwarden itself. The settings
//! are read beside that to name the remedy, so an answer never rests on a version number alone.
//!
//! Deliberately absent: anything about a target (`watch` says why one cannot be watched), and changing the host.

mod costs;
mod host;

use std::fmt::Write as _;
use std::io;

use serde::{Deserialize, Serialize};

pub use host::LiveHost;

use crate::config::{Mode, ModeChoice};
use crate::probe::calibrate::{CalibrateError, Costs};
use crate::probe::{Refused, Uprobes, kernel};

/// Version of [`Report`]'s JSON.
pub const SCHEMA: u32 = 1;

/// What the checks ask of a host.
pub trait Host {
    /// A small file of procfs or sysfs.
    fn read(&self, path: &str) -> io::Result<String>;
    /// Whether there is such a file.
    fn exists(&self, path: &str) -> bool;
    /// Loads a BPF program that does nothing.
    fn load_program(&self) -> io::Result<()>;
    /// Makes a BPF ring buffer.
    fn create_ring_buffer(&self) -> io::Result<()>;
    /// How probes are attached here.
    fn uprobes(&self) -> Uprobes;
    /// Attaches a program that does nothing to an uprobe on parkwarden's own executable, with a cookie.
    fn attach(&self) -> Result<(), Refused>;
    /// Loads the programs of the modes with probes: of which of them the kernel refuses them, and why.
    fn refused_modes(&self) -> Result<Vec<(Mode, String)>, String>;
    /// What a probe hit costs.
    fn hit_costs(&self) -> Result<Costs, CalibrateError>;
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[derive(strum::Display, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Watching works, with a limit that the detail names.
    Warning,
    /// Probes cannot work.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// Which.
    pub name: String,
    /// How it ended.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it; nothing when it is as it should be.
    pub remedy: Option<String>,
}

/// All checks and what they come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether `watch` can use probes: nothing is missing. Without, it can look at memory alone, in mode census.
    pub watch_possible: bool,
    /// In which modes `watch` works here.
    pub modes: Vec<ModeChoice>,
    /// In the order in which one would fix them.
    pub checks: Vec<Check>,
    /// What a probe hit costs the program that is watched, measured here; none where probes cannot work.
    pub hit_costs: Option<Costs>,
}

/// What lets a process use probes.
const RIGHTS: &str = "run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE";
const RIGHTS_OF_OLD: &str =
    "run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and, before Linux 6.10, CAP_SYS_ADMIN";
const NOT_RIGHTS: &str = "the capabilities are there, so something else forbids it: in a container, a seccomp profile \
                          without bpf and perf_event_open, or a user namespace; else a security module";

/// `perf_uprobe_event_init` in the kernel's `kernel/events/core.c`, since commit ba677dbe77af.
const UPROBE_RIGHTS: &str = "use Linux 6.10 or newer, or add CAP_SYS_ADMIN, which an uprobe by a perf event needs since Linux \
                             6.6.99, 6.1.146 and 5.15.189 (mode census needs no uprobes); if that is not why, a seccomp \
                             profile without perf_event_open forbids it";

/// Looks at everything that watching needs.
pub fn run(host: &dyn Host) -> Report {
    let capabilities = Capabilities::of(host);
    let denied = if capabilities.may_probe() { NOT_RIGHTS } else { capabilities.rights() };
    let denied_uprobe = if capabilities.may_probe() && !capabilities.sys_admin { UPROBE_RIGHTS } else { denied };
    let attached = host.attach();
    let (programs, refused) = programs(host, denied);
    let mut checks = vec![
        kernel_check(host),
        capabilities_check(&capabilities),
        bpf(host, denied),
        ring_buffer(host, denied),
        programs,
        uprobes(host, attached.as_ref().err(), denied_uprobe),
        attach_cookies(attached.as_ref().err(), denied_uprobe),
        ptrace_scope(host, &capabilities),
        lockdown(host),
        perf_event_paranoid(host, &capabilities),
        kptr_restrict(host),
        btf(host),
    ];
    let watch_possible = checks.iter().all(|check| check.status != CheckStatus::Missing);
    let modes = if watch_possible {
        let all = [ModeChoice::Auto, ModeChoice::Trace, ModeChoice::Filter, ModeChoice::Births, ModeChoice::Census];
        all.into_iter().filter(|choice| !refused.iter().any(|mode| choice.probed() == [*mode])).collect()
    } else {
        vec![ModeChoice::Auto, ModeChoice::Census]
    };
    let hit_costs = if watch_possible { costs::measure(host, &mut checks) } else { None };
    Report { schema: SCHEMA, watch_possible, modes, checks, hit_costs }
}

/// The report as a table.
pub fn render(report: &Report) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut said: Vec<(&str, &str)> = Vec::new();
    for Check { name, status, detail, remedy } in &report.checks {
        let _ = writeln!(text, "{name:width$}  {:7}  {detail}", status);
        let Some(remedy) = remedy else { continue };
        let remedy = match said.iter().find(|(known, _)| known == remedy) {
            Some((_, first)) => format!("as for {first}"),
            None => {
                said.push((remedy, name));
                remedy.clone()
            }
        };
        let _ = writeln!(text, "{:width$}  {:7}  -> {remedy}", "", "");
    }
    if let Some(hit_costs) = &report.hit_costs {
        let _ = costs::write(&mut text, hit_costs);
    }
    if report.watch_possible {
        let modes: Vec<String> = report.modes.iter().map(ModeChoice::to_string).collect();
        let _ = writeln!(text, "\n`parkwarden watch` can use probes on this host, with --mode {}.", modes.join(", "));
    } else {
        text.push_str(
            "\n`parkwarden watch` cannot use probes on this host as it is. Without them it looks at the memory of its targets \
             alone (`--mode census`, where `auto` goes by itself), which takes CAP_SYS_PTRACE or the target's user.\n",
        );
    }
    text
}

fn check(name: &str, status: CheckStatus, detail: impl Into<String>, remedy: Option<&str>) -> Check {
    Check { name: name.to_owned(), status, detail: detail.into(), remedy: remedy.map(str::to_owned) }
}

fn ok(name: &str, detail: impl Into<String>) -> Check {
    check(name, CheckStatus::Ok, detail, None)
}

/// The capabilities that count, as the process has them now.
struct Capabilities {
    known: bool,
    /// Probes are perf events here, which may take more rights.
    perf_events: bool,
    sys_admin: bool,
    bpf: bool,
    perfmon: bool,
    sys_ptrace: bool,
}

impl Capabilities {
    /// From `/proc/self/status`; the numbers are those of include/uapi/linux/capability.h.
    fn of(host: &dyn Host) -> Self {
        let status = host.read("/proc/self/status").unwrap_or_default();
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let has = |bit: u32| effective.unwrap_or(0) >> bit & 1 == 1;
        Self {
            known: effective.is_some(),
            perf_events: host.uprobes() == Uprobes::PerfEvent,
            sys_ptrace: has(19),
            sys_admin: has(21),
            perfmon: has(38),
            bpf: has(39),
        }
    }

    const fn rights(&self) -> &'static str {
        if self.perf_events { RIGHTS_OF_OLD } else { RIGHTS }
    }

    const fn may_probe(&self) -> bool {
        self.sys_admin || (self.bpf && self.perfmon)
    }
}

fn kernel_check(host: &dyn Host) -> Check {
    let release = host.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let Some(version) = kernel::parse(release) else {
        let detail = format!("Linux {release}: not a version number that is understood");
        return check("kernel", CheckStatus::Warning, detail, Some("see whether the other checks pass"));
    };
    if version >= kernel::OLDEST {
        ok("kernel", format!("Linux {release}"))
    } else {
        let detail = format!("Linux {release}, older than 5.15");
        let remedy = "use Linux 5.15 or newer: probes are configured by attach cookies, which it introduced";
        // A vendor may have brought cookies to an older kernel; the attach check decides.
        check("kernel", CheckStatus::Warning, detail, Some(remedy))
    }
}

fn capabilities_check(capabilities: &Capabilities) -> Check {
    if !capabilities.known {
        let detail = "/proc/self/status does not show the capabilities";
        return check("capabilities", CheckStatus::Warning, detail, Some("mount /proc"));
    }
    let mut list = vec![
        ("CAP_BPF", capabilities.bpf),
        ("CAP_PERFMON", capabilities.perfmon),
        ("CAP_SYS_PTRACE", capabilities.sys_ptrace),
    ];
    // Where it is not needed, nobody is told to have it.
    if capabilities.sys_admin || capabilities.perf_events {
        list.push(("CAP_SYS_ADMIN", capabilities.sys_admin));
    }
    let names = |wanted: bool| list.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect::<Vec<_>>();
    let detail = match (names(true).join(" "), names(false).join(" ")) {
        (has, lacks) if lacks.is_empty() => has,
        (has, lacks) if has.is_empty() => format!("without {lacks}"),
        (has, lacks) => format!("{has}; without {lacks}"),
    };
    if !capabilities.may_probe() {
        check("capabilities", CheckStatus::Missing, detail, Some(capabilities.rights()))
    } else if !capabilities.sys_ptrace {
        let remedy = "add CAP_SYS_PTRACE: without it only processes of this user can be read";
        check("capabilities", CheckStatus::Warning, detail, Some(remedy))
    } else {
        ok("capabilities", detail)
    }
}

/// The remedy for a system call that failed, where the error number tells it.
fn remedy_of<'a>(error: &io::Error, denied: &'a str, unsupported: &'a str) -> &'a str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => denied,
        _ => unsupported,
    }
}

fn bpf(host: &dyn Host, denied: &str) -> Check {
    let unprivileged = match host.read("/proc/sys/kernel/unprivileged_bpf_disabled") {
        Ok(value) => format!("unprivileged_bpf_disabled is {}", value.trim()),
        Err(_) => "no unprivileged_bpf_disabled".to_owned(),
    };
    match host.load_program() {
        Ok(()) => ok("bpf", format!("a program loads ({unprivileged})")),
        Err(error) => {
            let remedy = remedy_of(&error, denied, "use a kernel built with CONFIG_BPF_SYSCALL and CONFIG_BPF_EVENTS");
            check("bpf", CheckStatus::Missing, format!("loading a program: {error} ({unprivileged})"), Some(remedy))
        }
    }
}

fn ring_buffer(host: &dyn Host, denied: &str) -> Check {
    match host.create_ring_buffer() {
        Ok(()) => ok("ring buffer", "can be created"),
        Err(error) => {
            let remedy = remedy_of(&error, denied, "use Linux 5.8 or newer, which introduced the BPF ring buffer");
            check("ring buffer", CheckStatus::Missing, format!("creating one: {error}"), Some(remedy))
        }
    }
}

/// The programs that targets get, and the modes whose program the kernel refuses.
fn programs(host: &dyn Host, denied: &str) -> (Check, Vec<Mode>) {
    const NAME: &str = "programs";
    match host.refused_modes() {
        Ok(refused) if refused.is_empty() => (ok(NAME, "all load"), Vec::new()),
        Ok(refused) => {
            let reasons: Vec<&str> = refused.iter().map(|(_, reason)| reason.as_str()).collect();
            let remedy = "none needed: auto uses the others; please report the kernel's version";
            let check = check(NAME, CheckStatus::Warning, reasons.join("; "), Some(remedy));
            (check, refused.into_iter().map(|(mode, _)| mode).collect())
        }
        Err(reason) => {
            let remedy = if host.load_program().is_err() { denied } else { "please report the kernel's version" };
            (check(NAME, CheckStatus::Missing, reason, Some(remedy)), Mode::PROBED.to_vec())
        }
    }
}

fn uprobes(host: &dyn Host, refused: Option<&Refused>, denied: &str) -> Check {
    const NAME: &str = "uprobes";
    let path = crate::probe::check::UPROBE_TYPE;
    let by = match host.uprobes() {
        Uprobes::Multi => "a link",
        Uprobes::PerfEvent => "a perf event",
    };
    if host.uprobes() == Uprobes::PerfEvent
        && let Err(error) = host.read(path)
    {
        let remedy = "mount sysfs on /sys, and use a kernel built with CONFIG_UPROBE_EVENTS";
        return check(NAME, CheckStatus::Missing, format!("{path}: {error}"), Some(remedy));
    }
    match refused {
        Some(Refused::Breakpoint { source, .. }) => {
            let remedy = remedy_of(source, denied, "use a kernel built with CONFIG_UPROBE_EVENTS");
            check(NAME, CheckStatus::Missing, format!("opening one on parkwarden itself: {source}"), Some(remedy))
        }
        Some(Refused::Keeper(source)) => {
            let remedy = "raise the limit of processes (pids.max, ulimit -u), or allow clone and close_range";
            check(NAME, CheckStatus::Missing, format!("making the process that holds them: {source}"), Some(remedy))
        }
        None | Some(Refused::Program { .. }) => ok(NAME, format!("one opens on parkwarden's own executable, by {by}")),
    }
}

fn attach_cookies(refused: Option<&Refused>, denied: &str) -> Check {
    const NAME: &str = "attach cookies";
    match refused {
        None => ok(NAME, "a program attaches with one"),
        Some(Refused::Program { source, .. }) => {
            let remedy = remedy_of(source, denied, "use Linux 5.15 or newer, which introduced attach cookies");
            check(NAME, CheckStatus::Missing, format!("attaching with one: {source}"), Some(remedy))
        }
        Some(Refused::Breakpoint { .. } | Refused::Keeper(_)) => {
            check(NAME, CheckStatus::Warning, "not tried, for want of an uprobe", Some("see uprobes"))
        }
    }
}

fn ptrace_scope(host: &dyn Host, capabilities: &Capabilities) -> Check {
    let name = "ptrace scope";
    let value = match host.read("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(value) => value.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return ok(name, "no Yama, so not restricted"),
        Err(error) => return check(name, CheckStatus::Warning, format!("unknown: {error}"), Some("mount /proc/sys")),
    };
    let detail = format!("yama.ptrace_scope is {value}");
    match value.as_str() {
        "0" => ok(name, detail),
        "1" | "2" if capabilities.sys_ptrace => ok(name, format!("{detail}; CAP_SYS_PTRACE passes it")),
        "1" | "2" => {
            let remedy = "run as root or add CAP_SYS_PTRACE, or set kernel.yama.ptrace_scope to 0";
            check(name, CheckStatus::Missing, detail, Some(remedy))
        }
        _ => {
            let remedy = "boot with kernel.yama.ptrace_scope at 2 or less: at 3 nobody may read another process's \
                          memory, and it cannot be lowered again";
            check(name, CheckStatus::Missing, detail, Some(remedy))
        }
    }
}

fn lockdown(host: &dyn Host) -> Check {
    let Ok(modes) = host.read("/sys/kernel/security/lockdown") else {
        return ok("lockdown", "not visible: no lockdown, or securityfs is not mounted");
    };
    // All modes are listed, the one in force in brackets.
    let mode = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(mode, _)| mode);
    match mode {
        "none" | "integrity" => ok("lockdown", mode),
        _ => {
            let remedy = "if loading or attaching fails, boot with lockdown=integrity or none";
            check("lockdown", CheckStatus::Warning, mode, Some(remedy))
        }
    }
}

fn perf_event_paranoid(host: &dyn Host, capabilities: &Capabilities) -> Check {
    let name = "perf_event_paranoid";
    let detail = match host.read("/proc/sys/kernel/perf_event_paranoid") {
        Ok(value) => value.trim().to_owned(),
        Err(error) => {
            let remedy = "use a kernel built with CONFIG_PERF_EVENTS, with /proc/sys mounted";
            return check(name, CheckStatus::Warning, format!("unknown: {error}"), Some(remedy));
        }
    };
    if capabilities.perfmon || capabilities.sys_admin {
        ok(name, format!("{detail}; does not bind this process"))
    } else {
        // An uprobe needs the capability whatever this is set to.
        let remedy = "add CAP_PERFMON: an uprobe needs it at any value of this setting";
        check(name, CheckStatus::Warning, detail, Some(remedy))
    }
}

fn kptr_restrict(host: &dyn Host) -> Check {
    let value = match host.read("/proc/sys/kernel/kptr_restrict") {
        Ok(value) => value.trim().to_owned(),
        Err(error) => format!("unknown: {error}"),
    };
    ok("kptr_restrict", format!("{value}; no kernel addresses are needed"))
}

fn btf(host: &dyn Host) -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    if host.exists(path) {
        ok("btf", path)
    } else {
        let remedy = "none needed: parkwarden reads no kernel structures; CONFIG_DEBUG_INFO_BTF would provide it";
        check("btf", CheckStatus::Warning, format!("no {path}"), Some(remedy))
    }
}

#[cfg(test)]
mod tests;
