use std::collections::BTreeMap;

use super::*;
use crate::probe::Uprobes;
use crate::probe::calibrate::{Prices, ProgramCosts, SiteCosts};

/// A host on which everything works, to be spoilt one thing at a time.
struct FakeHost {
    files: BTreeMap<&'static str, &'static str>,
    load_program: Option<i32>,
    create_ring_buffer: Option<i32>,
    uprobes: Uprobes,
    breakpoint: Option<i32>,
    cookie: Option<i32>,
    refused_modes: Vec<Mode>,
    hit_costs: Option<Costs>,
}

const RELEASE: &str = "/proc/sys/kernel/osrelease";
const STATUS: &str = "/proc/self/status";
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
const BTF: &str = "/sys/kernel/btf/vmlinux";

const NO_CAPABILITIES: &str = "CapEff:\t0000000000000000\n";
/// CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE.
const ENOUGH: &str = "Name:\tparkwarden\nCapEff:\t000000c000080000\nCapBnd:\t000001ffffffffff\n";

impl FakeHost {
    fn good() -> Self {
        Self {
            files: BTreeMap::from([
                (RELEASE, "6.18.44-generic\n"),
                (STATUS, ENOUGH),
                (YAMA, "1\n"),
                (LOCKDOWN, "[none] integrity confidentiality\n"),
                (PARANOID, "2\n"),
                (BTF, ""),
                ("/proc/sys/kernel/kptr_restrict", "1\n"),
                ("/proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
                ("/sys/bus/event_source/devices/uprobe/type", "9\n"),
            ]),
            load_program: None,
            create_ring_buffer: None,
            uprobes: Uprobes::PerfEvent,
            breakpoint: None,
            cookie: None,
            refused_modes: Vec::new(),
            hit_costs: Some(Costs {
                warm: Prices {
                    sites: SiteCosts { nop5: Some(300), emulated: 500, single_step: 900 },
                    filter: ProgramCosts { parked: 70, ..ProgramCosts::default() },
                    births: ProgramCosts { created: 30, ..ProgramCosts::default() },
                    ..Prices::default()
                },
                ..Costs::default()
            }),
        }
    }

    fn with(path: &'static str, content: &'static str) -> Self {
        let mut host = Self::good();
        host.files.insert(path, content);
        host
    }

    fn without(path: &str) -> Self {
        let mut host = Self::good();
        host.files.remove(path);
        host
    }
}

fn answer(errno: Option<i32>) -> io::Result<()> {
    errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}

impl Host for FakeHost {
    fn read(&self, path: &str) -> io::Result<String> {
        self.files.get(path).map(|&text| text.to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }
    fn load_program(&self) -> io::Result<()> {
        answer(self.load_program)
    }
    fn create_ring_buffer(&self) -> io::Result<()> {
        answer(self.create_ring_buffer)
    }
    fn uprobes(&self) -> Uprobes {
        self.uprobes
    }
    fn attach(&self) -> Result<(), Refused> {
        answer(self.breakpoint).map_err(|source| Refused::Breakpoint { spot: 0, source })?;
        answer(self.cookie).map_err(|source| Refused::Program { spot: 0, source })
    }
    fn refused_modes(&self) -> Result<Vec<(Mode, String)>, String> {
        self.load_program().map_err(|error| error.to_string())?;
        Ok(self.refused_modes.iter().map(|mode| (*mode, format!("the verifier refuses {mode:?}"))).collect())
    }
    fn hit_costs(&self) -> Result<Costs, CalibrateError> {
        self.hit_costs.ok_or_else(|| CalibrateError::Own(io::Error::from_raw_os_error(libc::EPERM)))
    }
}

#[test]
fn what_a_hit_costs_is_shown_where_probes_work() {
    let report = run(&FakeHost::good());
    let table = render(&report);
    let line = table.lines().find(|line| line.starts_with("filter, emulated")).expect("a line");
    assert_eq!(line.split_whitespace().skip(2).collect::<Vec<_>>(), ["500", "500", "570", "500", "500"]);
    let births = table.lines().find(|line| line.starts_with("births, emulated")).expect("a line");
    assert_eq!(births.split_whitespace().skip(2).collect::<Vec<_>>(), ["500", "530", "-", "-", "500"]);
    assert_eq!(run(&FakeHost { breakpoint: Some(libc::EPERM), ..FakeHost::good() }).hit_costs, None);
    only(
        &FakeHost { hit_costs: None, ..FakeHost::good() },
        "hit costs",
        CheckStatus::Warning,
        "not measured",
        "--mode",
    );
}

/// Asserts that exactly one check is not ok, with that status and with words of its detail and remedy.
fn only(host: &FakeHost, name: &str, status: CheckStatus, detail: &str, remedy: &str) {
    bad(host, &[(name, status, detail, remedy)]);
}

/// Asserts that exactly those checks are not ok.
fn bad(host: &FakeHost, expected: &[(&str, CheckStatus, &str, &str)]) {
    let report = run(host);
    let bad: Vec<&Check> = report.checks.iter().filter(|check| check.status != CheckStatus::Ok).collect();
    let names: Vec<&str> = bad.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, expected.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), "{bad:#?}");
    for (check, (_, status, detail, remedy)) in bad.iter().zip(expected) {
        assert_eq!(check.status, *status, "{check:#?}");
        assert!(check.detail.contains(detail), "{}", check.detail);
        assert!(check.remedy.as_deref().is_some_and(|text| text.contains(remedy)), "{:?}", check.remedy);
    }
    assert_eq!(report.watch_possible, expected.iter().all(|(_, status, ..)| *status != CheckStatus::Missing));
}

#[test]
fn a_mode_whose_program_the_kernel_refuses_is_named_and_the_others_work() {
    let all = [ModeChoice::Auto, ModeChoice::Trace, ModeChoice::Filter, ModeChoice::Births, ModeChoice::Census];
    assert_eq!(run(&FakeHost::good()).modes, all);
    let host = FakeHost { refused_modes: vec![Mode::Filter], ..FakeHost::good() };
    only(&host, "programs", CheckStatus::Warning, "the verifier refuses Filter", "none needed");
    let report = run(&host);
    assert_eq!(report.modes, [ModeChoice::Auto, ModeChoice::Trace, ModeChoice::Births, ModeChoice::Census]);
    assert!(render(&report).ends_with("can use probes on this host, with --mode auto, trace, births, census.\n"));
    let nothing = run(&FakeHost { breakpoint: Some(libc::ENOSYS), ..FakeHost::good() });
    assert_eq!(nothing.modes, [ModeChoice::Auto, ModeChoice::Census]);
}

#[test]
fn rights_that_this_kernel_does_not_need_are_not_asked_for_nor_one_remedy_told_twice() {
    let host = FakeHost { uprobes: Uprobes::Multi, ..FakeHost::good() };
    assert_eq!(run(&host).checks[1].detail, "CAP_BPF CAP_PERFMON CAP_SYS_PTRACE");
    let denied = Some(libc::EPERM);
    let mut host = FakeHost { load_program: denied, create_ring_buffer: denied, ..host };
    host.files.insert(STATUS, NO_CAPABILITIES);
    let text = render(&run(&host));
    assert!(!text.contains("CAP_SYS_ADMIN"), "{text}");
    assert_eq!(text.matches(RIGHTS).count(), 1, "{text}");
    assert_eq!(text.matches("-> as for capabilities").count(), 3, "{text}");
}

#[test]
fn a_good_host() {
    let report = run(&FakeHost::good());
    assert!(report.watch_possible);
    for check in &report.checks {
        assert_eq!((check.status, &check.remedy), (CheckStatus::Ok, &None), "{check:?}");
    }
}

#[test]
fn kernel_version() {
    for release in ["5.14.0", "4.18.0-553.el8", "5.4"] {
        only(&FakeHost::with(RELEASE, release), "kernel", CheckStatus::Warning, release, "5.15");
    }
    for release in ["5.15.0-91-generic", "6.1", "7.0.0-rc1", "10.2.1"] {
        assert_eq!(run(&FakeHost::with(RELEASE, release)).checks[0].status, CheckStatus::Ok, "{release}");
    }
    for release in ["", "linux", "6", "99999999999.1"] {
        only(&FakeHost::with(RELEASE, release), "kernel", CheckStatus::Warning, "not a version", "other checks");
    }
}

#[test]
fn capabilities_decide_what_may_be_probed_and_read() {
    // CAP_SYS_ADMIN and CAP_SYS_PTRACE stand in for the newer ones.
    assert!(run(&FakeHost::with(STATUS, "CapEff:\t0000000000280000\n")).watch_possible);
    // CAP_BPF without CAP_PERFMON, CAP_SYS_PTRACE present.
    let host = FakeHost::with(STATUS, "CapEff:\t0000008000080000\n");
    let report = run(&host);
    assert!(!report.watch_possible);
    assert_eq!(report.checks[1].detail, "CAP_BPF CAP_SYS_PTRACE; without CAP_PERFMON CAP_SYS_ADMIN");
    // Enough to probe, but other users' processes cannot be read; Yama would say no to this user's too.
    let mut host = FakeHost::with(STATUS, "CapEff:\t000000c000000000\n");
    host.files.insert(YAMA, "0\n");
    only(&host, "capabilities", CheckStatus::Warning, "without CAP_SYS_PTRACE", "CAP_SYS_PTRACE");
    let host = FakeHost { files: BTreeMap::from([(STATUS, "Name:\tx\n")]), ..FakeHost::good() };
    assert_eq!(run(&host).checks[1].status, CheckStatus::Warning);
}

#[test]
fn system_calls_that_are_denied_ask_for_what_is_not_there() {
    for errno in [libc::EPERM, libc::EACCES] {
        let error = Some(errno);
        let reason = io::Error::from_raw_os_error(errno).to_string();
        let missing = |host: FakeHost, name| only(&host, name, CheckStatus::Missing, &reason, "seccomp");
        missing(FakeHost { create_ring_buffer: error, ..FakeHost::good() }, "ring buffer");
        missing(FakeHost { cookie: error, ..FakeHost::good() }, "attach cookies");
        for remedy in ["seccomp", "CAP_SYS_ADMIN"] {
            let host = FakeHost { breakpoint: error, ..FakeHost::good() };
            bad(
                &host,
                &[("uprobes", CheckStatus::Missing, &reason, remedy), ("attach cookies", CheckStatus::Warning, "", "")],
            );
        }
        let host = FakeHost { load_program: error, ..FakeHost::good() };
        bad(
            &host,
            &[
                ("bpf", CheckStatus::Missing, &reason, "seccomp"),
                ("programs", CheckStatus::Missing, &reason, "seccomp"),
            ],
        );
        let host = FakeHost { load_program: error, ..FakeHost::with(STATUS, NO_CAPABILITIES) };
        let checks = run(&host).checks;
        let bpf = checks.iter().find(|check| check.name == "bpf").expect("the check");
        assert_eq!(bpf.remedy.as_deref(), Some(RIGHTS_OF_OLD));
    }
}

#[test]
fn system_calls_that_the_kernel_does_not_know_ask_for_another_kernel() {
    let missing = |host: FakeHost, name, remedy| only(&host, name, CheckStatus::Missing, "os error", remedy);
    let no_call = Some(libc::ENOSYS);
    let invalid = Some(libc::EINVAL);
    let host = FakeHost { load_program: no_call, ..FakeHost::good() };
    let reason = "os error";
    bad(
        &host,
        &[("bpf", CheckStatus::Missing, reason, "CONFIG_BPF_SYSCALL"), ("programs", CheckStatus::Missing, reason, "")],
    );
    missing(FakeHost { create_ring_buffer: invalid, ..FakeHost::good() }, "ring buffer", "5.8");
    let host = FakeHost { breakpoint: no_call, ..FakeHost::good() };
    let uprobes = ("uprobes", CheckStatus::Missing, reason, "CONFIG_UPROBE_EVENTS");
    bad(&host, &[uprobes, ("attach cookies", CheckStatus::Warning, "not tried", "uprobes")]);
    missing(FakeHost { cookie: invalid, ..FakeHost::good() }, "attach cookies", "5.15");
    let host = FakeHost::without("/sys/bus/event_source/devices/uprobe/type");
    only(&host, "uprobes", CheckStatus::Missing, "/sys/bus/event_source", "sysfs");
}

#[test]
fn ptrace_scope_forbids_reading_memory() {
    assert!(run(&FakeHost::without(YAMA)).watch_possible, "kernels without Yama have no such file");
    assert!(run(&FakeHost::with(YAMA, "2\n")).watch_possible);
    only(&FakeHost::with(YAMA, "3\n"), "ptrace scope", CheckStatus::Missing, "3", "cannot be lowered");
    let mut host = FakeHost::with(YAMA, "1\n");
    host.files.insert(STATUS, "CapEff:\t000000c000000000\n");
    let report = run(&host);
    assert!(!report.watch_possible);
    let check = report.checks.iter().find(|check| check.name == "ptrace scope").expect("the check");
    assert_eq!(check.status, CheckStatus::Missing);
}

#[test]
fn settings_that_only_limit() {
    let host = FakeHost::with(LOCKDOWN, "none integrity [confidentiality]\n");
    only(&host, "lockdown", CheckStatus::Warning, "confidentiality", "lockdown=integrity");
    assert!(run(&FakeHost::with(LOCKDOWN, "none [integrity] confidentiality\n")).checks.iter().all(is_ok));
    assert!(run(&FakeHost::without(LOCKDOWN)).checks.iter().all(is_ok));
    only(&FakeHost::without(BTF), "btf", CheckStatus::Warning, BTF, "none needed");
    only(&FakeHost::without(PARANOID), "perf_event_paranoid", CheckStatus::Warning, "unknown", "CONFIG_PERF_EVENTS");
    let report = run(&FakeHost::with(STATUS, NO_CAPABILITIES));
    let check = report.checks.iter().find(|check| check.name == "perf_event_paranoid").expect("the check");
    assert_eq!((check.status, check.detail.as_str()), (CheckStatus::Warning, "2"));
}

fn is_ok(check: &Check) -> bool {
    check.status == CheckStatus::Ok
}

#[test]
fn the_table_is_aligned_and_says_what_to_do() {
    let report = Report {
        schema: SCHEMA,
        watch_possible: false,
        modes: vec![ModeChoice::Census],
        checks: vec![
            ok("kernel", "Linux 6.18"),
            check("ring buffer", CheckStatus::Missing, "creating one: no", Some("do")),
        ],
        hit_costs: None,
    };
    let expected = "\
kernel       ok       Linux 6.18
ring buffer  missing  creating one: no
                      -> do

`parkwarden watch` cannot use probes on this host as it is. Without them it looks at the memory of its targets alone (`--mode census`, where `auto` goes by itself), which takes CAP_SYS_PTRACE or the target's user.
";
    assert_eq!(render(&report), expected);
}

#[test]
fn json_names_every_status_in_lower_case() {
    let report = run(&FakeHost::without(BTF));
    let json = serde_json::to_value(&report).expect("plain data");
    assert_eq!(json["schema"], 1);
    assert_eq!(json["watch_possible"], true);
    assert_eq!(json["checks"][0]["status"], "ok");
    assert_eq!(json["checks"][11]["status"], "warning");
    assert_eq!(json["checks"][0]["remedy"], serde_json::Value::Null);
    assert_eq!(serde_json::from_value::<Report>(json).expect("its own JSON"), report);
}

/// Runs wherever the tests run: with the rights to probe everything must pass, without them the reason must be given.
#[test]
fn the_live_host_answers() {
    let report = run(&LiveHost);
    let by_name = |name: &str| report.checks.iter().find(|check| check.name == name).expect("the check");
    let may_probe = Capabilities::of(&LiveHost).may_probe() && by_name("kernel").status == CheckStatus::Ok;
    for name in ["bpf", "ring buffer", "programs", "uprobes", "attach cookies"] {
        let check = by_name(name);
        assert_eq!(check.status == CheckStatus::Ok, check.remedy.is_none(), "{check:?}");
        if may_probe {
            assert_eq!(check.status, CheckStatus::Ok, "{check:?}");
        }
    }
}
