//! `parkwarden sched`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use parkwarden::clock::now_ns;
use parkwarden::discover::cgroup::CpuGroup;
use parkwarden::discover::halted::Halts;
use parkwarden::discover::threads;
use parkwarden::exit::Exit;
use parkwarden::golang::layout::Structs;
use parkwarden::live::Target;
use parkwarden::memory::census::Status;
use parkwarden::report::documents::SchedDocument;
use parkwarden::runtime::sched::{self, Places, Scheduler};
use parkwarden::runtime::sched_signs::{self, Seen};
use parkwarden::runtime::schedtrace;

use super::which::{WHICH, Which};
use super::{Format, Interrupts, OVERVIEW_EXIT, failed, print_json, print_signs};

/// Looks in an interval.
const LOOKS: u32 = 20;
/// What leaves time for them.
const SHORTEST: Duration = Duration::from_millis(100);
/// How long is looked when no interval is given.
const ONCE: Duration = Duration::from_secs(1);

/// Arguments of `sched`.
#[derive(Debug, Args)]
#[command(after_help = OVERVIEW_EXIT)]
#[command(group = ArgGroup::new("which").required(true).args(WHICH))]
pub struct SchedArgs {
    #[command(flatten)]
    pub which: Which,

    /// Look again and again, a line each time, until the process ends or Ctrl-C; without it, once. Twenty looks are taken in
    /// each interval (in one second without it), and signs go by all of them.
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Duration>,

    /// Every P, M and goroutine too, as GODEBUG=scheddetail=1 prints them.
    #[arg(long)]
    pub detail: bool,

    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < SHORTEST {
        Err("it is 100 ms at least: twenty looks are taken in it".to_owned())
    } else {
        Ok(interval)
    }
}

pub fn run(args: &SchedArgs) -> anyhow::Result<Exit> {
    let mut target = Target::open(args.which.pid()?)?;
    let watched = Watched::of(&target)?;
    let mut out = io::stdout().lock();
    let interrupt = Interrupts::expected()?;
    let mut told = false;
    loop {
        let looks = watched.looks(&target, args.interval.unwrap_or(ONCE), &interrupt);
        let document = match looks.and_then(|looks| watched.document(&mut target, args, looks)) {
            Ok(document) => document,
            // Lines come until it ends.
            Err(_) if told && target.process().has_exited() => return Ok(Exit::Done),
            Err(error) => return Err(error),
        };
        told = true;
        match (args.format, args.interval) {
            (Format::Json, None) => print_json(&mut out, &document)?,
            (Format::Json, Some(_)) => writeln!(out, "{}", serde_json::to_string(&document)?)?,
            (Format::Text, _) => {
                let minor = target.binary().version.minor;
                let text = if args.detail {
                    schedtrace::detail(&document.scheduler, &document.goroutines, &target.binary().wait_reasons, minor)
                } else {
                    schedtrace::line(&document.scheduler, minor)
                };
                out.write_all(text.as_bytes())?;
                match print_signs(&mut out, &document.signs, &mut target) {
                    Err(_) if target.process().has_exited() => {}
                    printed => printed?,
                }
            }
        }
        out.flush()?;
        if args.interval.is_none() || interrupt.pressed() {
            return Ok(Exit::Done);
        }
        if target.process().has_exited() {
            return Ok(Exit::Done);
        }
    }
}

/// What has to be known of a process to look at its scheduler.
struct Watched {
    structs: Structs,
    places: Places,
    group: Option<CpuGroup>,
    halts: Halts,
}

/// Looks, and for how long the group was throttled meanwhile.
struct Looks {
    looks: Vec<Scheduler>,
    throttled_ns: Option<u64>,
}

impl Watched {
    fn of(target: &Target) -> anyhow::Result<Self> {
        Ok(Self {
            structs: target.runtime_structs(),
            places: target.scheduler_places().map_err(|reason| failed(target, reason))?,
            group: CpuGroup::of(target.process()),
            halts: Halts::of(target.process()),
        })
    }

    fn looks(&self, target: &Target, time: Duration, interrupt: &Interrupts) -> anyhow::Result<Looks> {
        let throttled = || self.group.as_ref().and_then(CpuGroup::throttled_ns);
        let before = throttled();
        let mut looks = Vec::new();
        for _ in 0..LOOKS {
            if !looks.is_empty() && interrupt.wait(time / LOOKS) {
                break;
            }
            match sched::read(target.memory(), &self.structs, &self.places, now_ns()) {
                Ok(look) => looks.push(look),
                // It may have ended meanwhile; what was seen before is told.
                Err(_) if target.process().has_exited() && !looks.is_empty() => break,
                Err(error) => return Err(failed(target, error)),
            }
        }
        let throttled_ns = throttled().zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok(Looks { looks, throttled_ns })
    }

    fn by_status(&self, target: &Target) -> anyhow::Result<BTreeMap<String, u64>> {
        let listed =
            sched::list(target.memory(), &self.structs, &self.places).map_err(|error| failed(target, error))?;
        let mut by_status = BTreeMap::new();
        for goroutine in listed {
            let status = Status::from(goroutine.status as u32);
            if status != Status::Dead && status != Status::Idle {
                *by_status.entry(status.to_string()).or_default() += 1;
            }
        }
        Ok(by_status)
    }

    fn document(&self, target: &mut Target, args: &SchedArgs, looks: Looks) -> anyhow::Result<SchedDocument> {
        let goroutines = if args.detail {
            sched::list(target.memory(), &self.structs, &self.places).map_err(|error| failed(target, error))?
        } else {
            Vec::new()
        };
        let Looks { mut looks, throttled_ns } = looks;
        let in_c = looks.last().into_iter().flat_map(|look| &look.machines).filter(|m| m.in_c);
        let in_c: BTreeSet<u64> = in_c.map(|m| m.thread_id).collect();
        let events = |pid| (!in_c.is_empty()).then(|| threads::waiting_for_events(pid, &in_c));
        let in_events = target.process().by_pid(events).unwrap_or_default();
        let by_status = if args.format == Format::Json { self.by_status(target)? } else { BTreeMap::new() };
        let seen = Seen { looks: &looks, throttled_ns, in_events };
        let signs = match self.halts.now(target.process()) {
            Some(by) => vec![sched_signs::halted(by)],
            None => sched_signs::signs(&seen, &mut |pc| target.started(pc)),
        };
        let span = looks.last().zip(looks.first()).map_or(0, |(last, first)| last.read_ns - first.read_ns);
        let count = looks.len();
        let scheduler = looks.pop().context("no look was taken")?;
        Ok(SchedDocument {
            schema: 1,
            target: target.info(),
            scheduler,
            goroutines,
            by_status,
            looks: count,
            looked_seconds: span as f64 / 1e9,
            throttled_seconds: throttled_ns.map(|ns| ns as f64 / 1e9),
            signs,
        })
    }
}
