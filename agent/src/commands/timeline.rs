//! `parkwarden timeline`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use parkwarden::capture;
use parkwarden::exit::Exit;
use parkwarden::record::{History, Reader, RecordedProcess, Selection};
use parkwarden::timeline::{self, Timeline, compare};

use super::{output, print_json};

/// Arguments of `timeline`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 done; 1 the recording cannot be read, or holds no such process; 2 wrong usage.")]
pub struct TimelineArgs {
    /// The recording, written by `watch --record`.
    #[arg(long, value_name = "FILE", required_unless_present = "capture")]
    pub record: Option<PathBuf>,

    /// A file of `watch --save` instead: a trace for ui.perfetto.dev of what each goroutine did, whatever --format says.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "pid", "exe", "pod", "since", "until", "compare"])]
    pub capture: Option<PathBuf>,

    /// The last process that had this pid.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Every process of this executable: its path, or the end of it.
    #[arg(long, value_name = "NAME")]
    pub exe: Option<String>,

    /// Every process of this pod: its name, namespace/name, or its uid.
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,

    /// From then on: 2026-11-23T02:41:00Z, 2026-11-23 (its first moment, UTC), or a time before now such as 2h.
    #[arg(long, value_name = "TIME", value_parser = wall_clock_ns)]
    pub since: Option<u64>,

    /// Until then, in the same forms.
    #[arg(long, value_name = "TIME", value_parser = wall_clock_ns)]
    pub until: Option<u64>,

    /// How to print it: html is one self-contained page, perfetto a trace for ui.perfetto.dev.
    #[arg(long, value_enum, default_value_t = TimelineFormat::Text)]
    pub format: TimelineFormat,

    /// Write to FILE instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Compare with an earlier time in the same recording (then with --compare-until or --compare-pid), or in another.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub compare: Option<Option<PathBuf>>,

    /// The earlier process.
    #[arg(long, value_name = "PID", requires = "compare")]
    pub compare_pid: Option<u32>,

    /// From when on the earlier time is.
    #[arg(long, value_name = "TIME", requires = "compare", value_parser = wall_clock_ns)]
    pub compare_since: Option<u64>,

    /// Until when the earlier time is.
    #[arg(long, value_name = "TIME", requires = "compare", value_parser = wall_clock_ns)]
    pub compare_until: Option<u64>,
}

/// How to print a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimelineFormat {
    /// For people, in a browser.
    Html,
    /// For programs.
    Json,
    /// For ui.perfetto.dev.
    Perfetto,
    /// For a terminal or a ticket.
    Text,
}

impl TimelineArgs {
    /// The processes meant.
    fn selection(&self) -> Selection {
        Selection { pid: self.pid, exe: self.exe.clone(), pod: self.pod.clone(), since: self.since, until: self.until }
    }

    /// What is wrong with a time that ends before it begins.
    fn backwards(&self) -> Option<String> {
        let spans = [("", self.since, self.until), ("compare-", self.compare_since, self.compare_until)]
            .map(|(name, a, b)| (name, a.zip(b)));
        let (name, _) = spans.into_iter().find(|(_, span)| span.is_some_and(|(since, until)| until < since))?;
        Some(format!(
            "--{name}until is before --{name}since: times such as 2h are before now, so from two hours ago until one hour ago is \
             --{name}since 2h --{name}until 1h"
        ))
    }

    /// The processes they are compared with: the same ones unless another pid is given.
    fn compared(&self) -> Selection {
        // Another recording has its own times, and the same process may be in both.
        let pid = self.compare_pid.or(self.pid);
        Selection { pid, since: self.compare_since, until: self.compare_until, ..self.selection() }
    }

    /// Whether it is compared with nothing but itself.
    fn compares_itself(&self) -> bool {
        self.compare == Some(None)
            && self.compare_pid.is_none()
            && self.compare_since.is_none()
            && self.compare_until.is_none()
    }
}

pub fn run(args: &TimelineArgs) -> anyhow::Result<Exit> {
    if let Some(wrong) = args.backwards() {
        eprintln!("parkwarden: {wrong}");
        return Ok(Exit::Usage);
    }
    if args.compares_itself() {
        eprintln!(
            "parkwarden: --compare without a file compares two times or two processes of one recording: add --compare-until TIME, \
             --compare-since TIME or --compare-pid PID"
        );
        return Ok(Exit::Usage);
    }
    if let Some(path) = &args.capture {
        return trace(path, args);
    }
    // clap sees to it that there is a recording or a capture.
    let record = args.record.as_deref().unwrap_or(Path::new(""));
    let reader = Reader::open(record)?;
    let entries = reader.entries()?;
    let selection = args.selection();
    let wants_list = matches!(args.format, TimelineFormat::Text | TimelineFormat::Json) || entries.len() > 1;
    if !selection.names_any() && args.compare.is_none() && wants_list {
        return list(&entries, record, args);
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
        return compare(&earlier, &chosen, args);
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

/// What each goroutine of a capture did.
fn trace(path: &Path, args: &TimelineArgs) -> anyhow::Result<Exit> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open the capture file {}", path.display()))?;
    let wrong = || format!("{} gives no trace", path.display());
    let capture = capture::Reader::new(io::BufReader::new(file)).with_context(wrong)?;
    timeline::goroutines::render(capture, output(args.output.as_deref())?).with_context(wrong)?;
    Ok(Exit::Done)
}

/// What a recording holds.
fn list(entries: &[RecordedProcess], record: &Path, args: &TimelineArgs) -> anyhow::Result<Exit> {
    let mut out = output(args.output.as_deref())?;
    match args.format {
        TimelineFormat::Text => write!(out, "{}", timeline::render_list(entries))?,
        TimelineFormat::Json => print_json(&mut out, &timeline::Listing::of(entries))?,
        TimelineFormat::Html | TimelineFormat::Perfetto => {
            anyhow::bail!("{} holds {} processes: name one with --pid, --exe or --pod", record.display(), entries.len())
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// How the histories of two times differ.
fn compare(earlier: &[History], later: &[History], args: &TimelineArgs) -> anyhow::Result<Exit> {
    let comparison = compare::compare(earlier, later);
    let mut out = output(args.output.as_deref())?;
    match args.format {
        TimelineFormat::Text => write!(out, "{}", compare::render(&comparison))?,
        TimelineFormat::Json => print_json(&mut out, &comparison)?,
        TimelineFormat::Html | TimelineFormat::Perfetto => anyhow::bail!("a comparison is text or json"),
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// The histories of the processes that a selection means.
fn histories(
    reader: &Reader,
    entries: &[RecordedProcess],
    selection: &Selection,
    path: &Path,
) -> anyhow::Result<Vec<History>> {
    let chosen = selection.of(entries);
    if chosen.is_empty() {
        anyhow::bail!(
            "{} holds no such process at that time: `parkwarden timeline --record {0}` lists what it holds",
            path.display()
        );
    }
    let read = |entry: &&RecordedProcess| reader.history(entry, selection.since, selection.until);
    Ok(chosen.iter().map(read).collect::<Result<_, _>>()?)
}

/// A point in time, as nanoseconds since the Unix epoch.
fn wall_clock_ns(text: &str) -> Result<u64, String> {
    let at = match humantime::parse_duration(text) {
        Ok(ago) => SystemTime::now().checked_sub(ago),
        Err(_) => {
            humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z"))).ok()
        }
    };
    at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .ok_or_else(|| {
            "times are written as 2026-11-23T02:41:00Z, \"2026-11-23 02:41:00\" or 2026-11-23, all in UTC, or as a time before now: \
             90s, 30m, 2h, 1day, \"1h 30m\""
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_before_now() {
        assert_eq!(wall_clock_ns("1970-01-01T00:00:07Z"), Ok(7_000_000_000));
        assert_eq!(wall_clock_ns("1970-01-01 00:01:00"), Ok(60_000_000_000));
        assert!(wall_clock_ns("2h").expect("a time") < wall_clock_ns("1h").expect("a time"));
        assert_eq!(wall_clock_ns("1970-01-02"), Ok(86_400_000_000_000));
        for said in ["2026-11-23T02:41:00Z", "2026-11-23 02:41:00", "2026-11-23", "90s", "30m", "2h", "1day", "1h 30m"]
        {
            assert!(wall_clock_ns(said).is_ok(), "{said}");
            assert!(wall_clock_ns("soon").expect_err("no time").contains(said), "{said}");
        }
        assert!(wall_clock_ns("2026-13-01").is_err() && wall_clock_ns("T").is_err());
        assert!(wall_clock_ns("yesterday").is_err() && wall_clock_ns("1960-01-01T00:00:00Z").is_err());
    }
}
