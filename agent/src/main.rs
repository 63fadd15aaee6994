//! The `parkwarden` command.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;

use parkwarden::agent;
use parkwarden::capture;
use parkwarden::cli::{
    AgentArgs, Cli, Command, DoctorArgs, Format, ProveArgs, PsArgs, SnapshotArgs, SnapshotFormat, TimelineArgs,
    TimelineFormat, WatchArgs,
};
use parkwarden::config::node::NodeConfig;
use parkwarden::config::{BpfLog, ProveConfig, nanoseconds};
use parkwarden::detect::Verdict;
use parkwarden::discover::confinement;
use parkwarden::discover::workload::Workload;
use parkwarden::exit::{Exit, chain};
use parkwarden::export::pprof;
use parkwarden::live::{Target, TargetError};
use parkwarden::memory::stop::StopError;
use parkwarden::prove::{self, ProveError};
use parkwarden::ps;
use parkwarden::record::{Entry, History, Reader, Selection};
use parkwarden::report::{self, Report};
use parkwarden::snapshot::{self, Look, Snapshot, diff};
use parkwarden::timeline::{self, Timeline, compare};
use parkwarden::watch::fate::Fate;
use parkwarden::watch::recording::Recordings;
use parkwarden::watch::{self, Progress, WatchError};
use parkwarden::{doctor, watch::replay};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        // kube tells of each try of what parkwarden tells of once.
        0 => "warn,kube_client=off",
        1 => "parkwarden=info,warn,kube_client=off",
        2 => "parkwarden=debug,info",
        _ => "parkwarden=trace,debug",
    };
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("PARKWARDEN_LOG", level)).init();
    let done = match &cli.command {
        Command::Watch(args) => watch(args, cli.bpf_log()),
        Command::Ps(args) => list(args),
        Command::Snapshot(args) => snapshot(args),
        Command::Prove(args) => prove(args),
        Command::Agent(args) => agent(args, cli.bpf_log()),
        Command::Timeline(args) => timeline(args),
        Command::Doctor(args) => doctor(args),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            let confined = is_denied(&error).then(|| confinement::sentence(cli.command.pid())).flatten();
            eprintln!(
                "parkwarden: {}{}",
                chain(error.as_ref()),
                confined.map_or_else(String::new, |s| format!("; {s}"))
            );
            exit_of(&error).into()
        }
    }
}

fn watch(args: &WatchArgs, bpf_log: BpfLog) -> anyhow::Result<Exit> {
    let config = args.config(bpf_log);
    let threshold_ns = nanoseconds(config.threshold);
    if let Some(path) = &args.replay {
        let report = Report::of(&replay::replay(path)?, threshold_ns, &config.rules);
        print_report(&report, args.format)?;
        return Ok(verdict(&report, args.fail_on_leak));
    }
    // clap sees to it that there is a pid or a replay.
    let pid = args.pid.unwrap_or_default();
    let live = args.format == Format::Text && io::IsTerminal::is_terminal(&io::stdout());
    let open = |path| Recordings::open(path, &config, args.record_config(), None);
    let recordings = args.record.as_deref().map(open).transpose()?;
    let mut recording = None;
    let outcome = watch::run(pid, &config, |progress| match progress {
        Progress::Opened(process) => {
            let of =
                |recordings: &Recordings| (recordings.of(Workload::of(process)), Fate::of(Arc::clone(process), None));
            recording = recordings.as_ref().map(of);
        }
        Progress::Attached if !live => {
            let how_long =
                if config.duration.is_zero() { "until it exits".to_owned() } else { format!("for {}", args.duration) };
            eprintln!("parkwarden: watching pid {pid} {how_long}; Ctrl-C ends the watch early, with its report");
        }
        Progress::Looked(session, report) => {
            if let Some((recording, fate)) = &mut recording {
                fate.looked();
                recording.looked(session, &report, fate);
            }
            if live {
                // A terminal that cannot be written to does not end the watch; printing the report will tell.
                let _ = refresh(&report);
            }
        }
        Progress::Attached => {}
    })?;
    let report = Report::of(&outcome.session, threshold_ns, &config.rules);
    if let Some((recording, fate)) = recording {
        recording.ended(&outcome.session, &report, &fate, fate.exit(&outcome.session, || false).as_ref());
    }
    if live {
        clear()?;
    }
    print_report(&report, args.format)?;
    let verdict = verdict(&report, args.fail_on_leak);
    match outcome.failure(&config) {
        // What was found until then is a finding all the same.
        Some(why) if verdict == Exit::Leak => {
            eprintln!("parkwarden: {}", chain(&why));
            Ok(verdict)
        }
        Some(why) => Err(why.into()),
        None => Ok(verdict),
    }
}

fn verdict(report: &Report, fail_on_leak: bool) -> Exit {
    let leak = report.groups.iter().any(|group| group.verdict > Verdict::Idle);
    if leak && fail_on_leak { Exit::Leak } else { Exit::Done }
}

fn list(args: &PsArgs) -> anyhow::Result<Exit> {
    let listing = ps::list().context("the processes of this host cannot be listed")?;
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => write!(out, "{}", ps::render(&listing))?,
        Format::Json => print_json(&mut out, &listing)?,
    }
    Ok(Exit::Done)
}

fn snapshot(args: &SnapshotArgs) -> anyhow::Result<Exit> {
    let earlier = args.diff.as_deref().map(diff::read).transpose()?;
    let mut target = Target::open(args.pid)?;
    let look = Look::at(&mut target)?;
    let mut out = output(args.output.as_deref())?;
    let snapshot = || Snapshot::of(&look, args.group_by.into());
    match (args.format, earlier) {
        (SnapshotFormat::Text, None) => write!(out, "{}", snapshot::render(&snapshot()))?,
        (SnapshotFormat::Text, Some(earlier)) => write!(out, "{}", diff::render(&diff::diff(&earlier, &snapshot())))?,
        (SnapshotFormat::Json, None) => print_json(&mut out, &snapshot())?,
        (SnapshotFormat::Json, Some(earlier)) => print_json(&mut out, &diff::diff(&earlier, &snapshot()))?,
        (SnapshotFormat::Pprof, None) => out.write_all(&pprof::encode(&look, args.group_by.into())?)?,
        (SnapshotFormat::Pprof, Some(_)) => {
            anyhow::bail!("a comparison is text or json; `go tool pprof -base` compares profiles")
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn prove(args: &ProveArgs) -> anyhow::Result<Exit> {
    let report = match &args.image {
        Some(path) => prove::from_image(path)?,
        // clap sees to it that there is a pid or an image.
        None => prove::live(
            args.pid.unwrap_or_default(),
            &ProveConfig { max_pause: args.max_pause.into() },
            args.save_image.as_deref(),
        )?,
    };
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => write!(out, "{}", prove::render(&report))?,
        Format::Json => print_json(&mut out, &report)?,
    }
    Ok(if args.fail_on_leak && report.goroutines.proven > 0 { Exit::Leak } else { Exit::Done })
}

fn agent(args: &AgentArgs, bpf_log: BpfLog) -> anyhow::Result<Exit> {
    let file = args.config.as_deref();
    if args.print_config {
        write!(io::stdout().lock(), "{}", NodeConfig::load(&args.settings, file)?.to_toml())?;
        return Ok(Exit::Done);
    }
    let left = agent::run(&args.settings, file, bpf_log)?;
    if left > 0 {
        // Their probes go with this process.
        eprintln!("parkwarden: {left} processes were not let go of in time; the kernel does it now");
    }
    Ok(Exit::Done)
}

fn timeline(args: &TimelineArgs) -> anyhow::Result<Exit> {
    if let Some(path) = &args.capture {
        let file =
            std::fs::File::open(path).with_context(|| format!("cannot open the capture file {}", path.display()))?;
        let wrong = || format!("{} gives no trace", path.display());
        let capture = capture::Reader::new(io::BufReader::new(file)).with_context(wrong)?;
        timeline::goroutines::render(capture, output(args.output.as_deref())?).with_context(wrong)?;
        return Ok(Exit::Done);
    }
    // clap sees to it that there is a recording or a capture.
    let record = args.record.as_deref().unwrap_or(std::path::Path::new(""));
    let reader = Reader::open(record)?;
    let entries = reader.entries()?;
    let selection = args.selection();
    let wants_list = matches!(args.format, TimelineFormat::Text | TimelineFormat::Json) || entries.len() > 1;
    if !selection.names_any() && args.compare.is_none() && wants_list {
        let mut out = output(args.output.as_deref())?;
        match args.format {
            TimelineFormat::Text => write!(out, "{}", timeline::render_list(&entries))?,
            TimelineFormat::Json => print_json(&mut out, &timeline::Listing::of(&entries))?,
            TimelineFormat::Html | TimelineFormat::Perfetto => {
                anyhow::bail!(
                    "{} holds {} processes: name one with --pid, --exe or --pod",
                    record.display(),
                    entries.len()
                )
            }
        }
        out.flush()?;
        return Ok(Exit::Done);
    }
    let chosen = histories(&reader, &entries, &selection, record)?;
    if let Some(other) = &args.compare {
        let compared = args.compared();
        let earlier = match other {
            Some(path) => {
                let reader = Reader::open(path)?;
                histories(&reader, &reader.entries()?, &compared, path)?
            }
            None => histories(&reader, &entries, &compared, record)?,
        };
        let comparison = compare::compare(&earlier, &chosen);
        let mut out = output(args.output.as_deref())?;
        match args.format {
            TimelineFormat::Text => write!(out, "{}", compare::render(&comparison))?,
            TimelineFormat::Json => print_json(&mut out, &comparison)?,
            TimelineFormat::Html | TimelineFormat::Perfetto => anyhow::bail!("a comparison is text or json"),
        }
        out.flush()?;
        return Ok(Exit::Done);
    }
    let timeline = Timeline::of(chosen);
    let mut out = output(args.output.as_deref())?;
    match args.format {
        TimelineFormat::Text => write!(out, "{}", timeline::render_text(&timeline))?,
        TimelineFormat::Html => write!(out, "{}", timeline::render_html(&timeline))?,
        TimelineFormat::Json => print_json(&mut out, &timeline)?,
        TimelineFormat::Perfetto => timeline::render_perfetto(&timeline, &mut out)?,
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// The histories of the processes that a selection means.
fn histories(
    reader: &Reader,
    entries: &[Entry],
    selection: &Selection,
    path: &std::path::Path,
) -> anyhow::Result<Vec<History>> {
    let chosen = selection.of(entries);
    if chosen.is_empty() {
        anyhow::bail!(
            "{} holds no such process at that time: `parkwarden timeline --record {0}` lists what it holds",
            path.display()
        );
    }
    let read = |entry: &&Entry| reader.history(entry, selection.since, selection.until);
    Ok(chosen.iter().map(read).collect::<Result<_, _>>()?)
}

/// Where a result goes.
fn output(path: Option<&std::path::Path>) -> anyhow::Result<Box<dyn io::Write>> {
    Ok(match path {
        Some(path) => {
            let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Box::new(io::BufWriter::new(file))
        }
        None => Box::new(io::BufWriter::new(io::stdout().lock())),
    })
}

fn doctor(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let report = doctor::run(&doctor::LiveHost);
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => write!(out, "{}", doctor::render(&report))?,
        Format::Json => print_json(&mut out, &report)?,
    }
    Ok(if report.watch_possible { Exit::Done } else { Exit::Failed })
}

fn print_report(report: &Report, format: Format) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Text => write!(out, "{}", report::render(report))?,
        Format::Json => print_json(&mut out, report)?,
    }
    Ok(())
}

fn print_json(out: &mut impl io::Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

fn refresh(report: &Report) -> io::Result<()> {
    clear()?;
    let mut out = io::stdout().lock();
    write!(out, "{}\n(Ctrl-C ends the watch with a summary.)\n", report::render(report))?;
    out.flush()
}

/// Clears the terminal (ECMA-48: cursor to the first cell, erase the display).
fn clear() -> io::Result<()> {
    write!(io::stdout().lock(), "\x1b[H\x1b[2J")
}

fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<WatchError>() {
        Some(error) if error.is_about_the_target() => Exit::Unwatchable,
        None if error.is::<TargetError>() => Exit::Unwatchable,
        None if error.downcast_ref::<ProveError>().is_some_and(ProveError::is_about_the_target) => Exit::Unwatchable,
        _ => Exit::Failed,
    }
}

/// Whether the kernel refused something for which a security module can be why.
fn is_denied(error: &anyhow::Error) -> bool {
    match (error.downcast_ref::<WatchError>(), error.downcast_ref::<ProveError>()) {
        (Some(error), _) => error.is_denied(),
        (_, Some(ProveError::Target(error))) => error.is_denied(),
        (_, Some(ProveError::Stop { source, .. })) => matches!(source, StopError::Denied),
        _ => error.downcast_ref::<TargetError>().is_some_and(TargetError::is_denied),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
            || cause
                .downcast_ref::<serde_json::Error>()
                .is_some_and(|e| e.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
    })
}
