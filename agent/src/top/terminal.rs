//! The terminal: taken for the view, and given back as it was, however that ends. And stderr, which must not write over the view.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Read as _, Stdout, Write as _, stderr, stdout};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Lines of stderr that are kept, and characters of each.
const MAX_LINES: usize = 50;
const MAX_LINE: usize = 1000;

/// How long the reader of stderr waits before it looks whether it is to end.
const READS_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Whether the terminal is taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, taken; dropping it gives it back.
#[derive(Debug)]
pub struct Screen {
    /// What is drawn on.
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes it: raw, on the other screen. A panic of this thread gives it back before it is told of.
    pub fn open() -> io::Result<Self> {
        give_back_at_panic();
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::Release);
        let taken = execute!(stdout(), EnterAlternateScreen, Hide);
        let opened = taken.and_then(|()| Ok(Self { terminal: Terminal::new(CrosstermBackend::new(stdout()))? }));
        opened.inspect_err(|_| give_back())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    if TAKEN.swap(false, Ordering::AcqRel) {
        // There is nobody left to tell.
        let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Panics of other threads are the business of those who run them; their words are in [`Stderr`].
fn give_back_at_panic() {
    let (before, viewer) = (std::panic::take_hook(), std::thread::current().id());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == viewer {
            give_back();
        }
        before(panic);
    }));
}

/// Whether there is a terminal to take.
pub fn is_there() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    io::stdin().is_terminal() && stdout().is_terminal() && !dumb
}

/// What was written to stderr.
#[derive(Debug, Default)]
struct Written {
    lines: VecDeque<String>,
    dropped: u64,
}

/// Stderr, kept off the terminal; dropping it gives it back, and writes there what was kept.
#[derive(Debug)]
pub struct Stderr {
    before: OwnedFd,
    written: Arc<Mutex<Written>>,
    ends: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Stderr {
    /// Takes it, if it is a terminal; elsewhere it is in nobody's way.
    pub fn take() -> io::Result<Option<Self>> {
        if !stderr().is_terminal() {
            return Ok(None);
        }
        let (reads, writes) = io::pipe()?;
        let before = stderr().as_fd().try_clone_to_owned()?;
        let (written, ends) = (Arc::new(Mutex::new(Written::default())), Arc::new(AtomicBool::new(false)));
        let (to, until) = (Arc::clone(&written), Arc::clone(&ends));
        let reader = std::thread::Builder::new().name("stderr".to_owned()).spawn(move || keep(reads, &to, &until))?;
        rustix::stdio::dup2_stderr(&writes)?;
        Ok(Some(Self { before, written, ends, reader: Some(reader) }))
    }

    /// The last line, without colours, nor when and where it was logged.
    pub fn last(&self) -> Option<String> {
        self.written.lock().lines.back().map(|line| message(&without_colours(line)).to_owned())
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        // It was stderr: what can go wrong is being out of memory.
        let _ = rustix::stdio::dup2_stderr(&self.before);
        self.ends.store(true, Ordering::Release);
        drop(self.reader.take().map(JoinHandle::join));
        let written = self.written.lock();
        let mut out = stderr().lock();
        if written.dropped > 0 {
            let _ = writeln!(out, "parkwarden: {} earlier lines are left out", written.dropped);
        }
        for line in &written.lines {
            let _ = writeln!(out, "{line}");
        }
    }
}

/// Keeps the last lines. Not until the pipe's end: processes that hold probes have it too, and may end later.
fn keep(mut pipe: io::PipeReader, written: &Mutex<Written>, ends: &AtomicBool) {
    let mut rest = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&READS_EVERY));
        match ready {
            Ok(0) if ends.load(Ordering::Acquire) => return,
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        let Ok(count @ 1..) = pipe.read(&mut buffer) else { return };
        rest.extend_from_slice(&buffer[..count]);
        while let Some(end) =
            rest.iter().position(|byte| *byte == b'\n').or((rest.len() > MAX_LINE).then_some(MAX_LINE))
        {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line);
            let mut written = written.lock();
            if written.lines.len() == MAX_LINES {
                written.lines.pop_front();
                written.dropped += 1;
            }
            written.lines.push_back(text.trim_end().to_owned());
        }
    }
}

/// What env_logger has behind `[time level module]`.
fn message(line: &str) -> &str {
    line.strip_prefix('[').and_then(|line| line.split_once("] ")).map_or(line, |(_, message)| message)
}

/// Without control sequences (ECMA-48: escape, bracket, parameters, a letter).
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |end| end + 1);
        text + &part[end..]
    })
}

/// Waits that long for a key or another size. A terminal that is gone is an error: crossterm would read its end again and again.
pub fn event(wait: Duration) -> io::Result<Option<Event>> {
    let (keys, wait) = (io::stdin(), Timespec::try_from(wait).map_err(io::Error::other)?);
    let mut waited = [PollFd::new(&keys, PollFlags::IN)];
    match poll(&mut waited, Some(&wait)) {
        // Another size is a signal.
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if waited[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is gone"));
    }
    Ok(if event::poll(Duration::ZERO)? { Some(event::read()?) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logged_lines_lose_their_colours_alone() {
        assert_eq!(without_colours("\u{1b}[33mWARN\u{1b}[0m  parkwarden] läuft [1]"), "WARN  parkwarden] läuft [1]");
        assert_eq!(
            (without_colours("plain"), without_colours("cut \u{1b}[3")),
            ("plain".to_owned(), "cut ".to_owned())
        );
    }

    #[test]
    fn of_stderr_the_last_lines_are_kept_and_the_others_counted() {
        assert_eq!((message("[now WARN x] [1] said"), message("plain] x")), ("[1] said", "plain] x"));
        let (reads, mut writes) = io::pipe().expect("a pipe");
        let (written, ends) = (Mutex::new(Written::default()), AtomicBool::new(false));
        for line in 0..MAX_LINES + 7 {
            writeln!(writes, "line {line}").expect("there is room");
        }
        write!(writes, "{}", "x".repeat(3 * MAX_LINE)).expect("there is room");
        drop(writes);
        keep(reads, &written, &ends);
        let written = written.into_inner();
        assert_eq!((written.lines.len(), written.dropped), (MAX_LINES, 9));
        assert_eq!(written.lines[0], "line 9");
        assert_eq!(written.lines[MAX_LINES - 1].len(), MAX_LINE + 1, "cut, not kept whole");
    }
}
