//! `parkwarden top`, and `watch` on a terminal: what people see and press there, and how the terminal is afterwards.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parkwarden::report::Report;
use parkwarden::top::terminal::Screen;
use parkwarden_tests::agent::binary;
use parkwarden_tests::copied::Copied;
use parkwarden_tests::target::{DEADLINE, Target};
use parkwarden_tests::terminal::Terminal;
use parkwarden_tests::wait;
use serde_json::Value;

/// How people most often have it.
const SMALL: (u16, u16) = (80, 24);

/// A leak is called one within seconds.
const SOON: [&str; 4] = ["--interval", "500ms", "--threshold", "100ms"];

/// A program that leaks all the time, in one place, and can be proven to.
fn leaking() -> (Copied, Target) {
    let copied = Copied::of("piling");
    let (target, _): (_, Value) = Target::ready(&copied.program, ["only-orphans"]);
    (copied, target)
}

fn top(copied: &Copied) -> Command {
    let mut command = Command::new(binary());
    command.arg("top").args(SOON).args(["--exe", &copied.pattern(), "--filter"]).arg(copied.dir.path());
    command
}

/// The lines of a screen that tell of a pid.
fn row(screen: &str, pid: u32) -> String {
    let is = |line: &&str| line.split_whitespace().next() == Some(pid.to_string().as_str());
    screen.lines().find(is).unwrap_or_default().to_owned()
}

#[test]
fn a_leak_is_seen_to_begin_and_opened_down_to_its_stack() {
    let (copied, target) = leaking();
    let terminal = Terminal::run(&top(&copied), SMALL);
    let pid = target.pid();
    let leaks = |screen: &str| ["likely", "proven"].iter().any(|verdict| row(screen, pid).contains(verdict));
    let screen = terminal.wait_for("a leak in the table", leaks);
    assert!(terminal.is_on_other_screen() && row(&screen, pid).contains("piling"), "{screen}");

    terminal.press(&["Enter"]);
    terminal.wait_for("its groups", |screen| {
        screen.contains(&format!("(pid {pid})")) && screen.lines().any(|line| line.contains("main.orphan"))
    });
    terminal.press(&["Enter"]);
    let screen = terminal.wait_for("a stack", |screen| screen.contains("runtime.gopark"));
    assert!(screen.contains("cause") && screen.contains("remedy") && screen.contains("evidence"), "{screen}");

    terminal.press(&["p"]);
    terminal.wait_for("a question", |screen| screen.contains("Stop pid"));
    terminal.press(&["y"]);
    let proves = |screen: &str| screen.contains("stopped ") || screen.contains("was not ");
    terminal.wait_for("a proof, or why there is none", proves);

    terminal.press(&["Escape"]);
    terminal.wait_for("the stack again", |screen| screen.contains("runtime.gopark"));
    terminal.press(&["s"]);
    let screen = terminal.wait_for("a file", |screen| screen.contains("saved as "));
    let name = screen.lines().find_map(|line| line.strip_prefix("saved as ")).expect("a name").trim();
    let file = terminal.directory().join(name);
    let report: Report = serde_json::from_slice(&std::fs::read(&file).expect("it is there")).expect("a report");
    assert_eq!((report.target.pid, file.metadata().expect("there").permissions().mode() & 0o777), (pid, 0o600));

    terminal.resize(200, 50);
    terminal.press(&["Escape"]);
    terminal.wait_for("a column that needs room", |screen| screen.contains("MADE BY"));
    terminal.press(&["q"]);
    let (status, screen) = terminal.end();
    assert_eq!(status, 0, "{screen}");
    assert!(!screen.contains("MADE BY"), "nothing of it is left:\n{screen}");
    assert!(!screen.contains("behave like a leak"), "what was seen is not told again:\n{screen}");
    assert!(target.exit().success(), "the target ran on");
}

#[test]
fn a_process_that_ends_goes_and_a_signal_ends_the_view() {
    let (copied, target) = leaking();
    let terminal = Terminal::run(&top(&copied), SMALL);
    let pid = target.pid();
    terminal.wait_for("the process", |screen| !row(screen, pid).is_empty());
    terminal.press(&["Enter"]);
    terminal.wait_for("its page", |screen| screen.contains(&format!("(pid {pid})")));
    assert!(target.exit().success());
    terminal.wait_for("its end", |screen| screen.contains("the process has ended"));

    kill(Pid::from_raw(terminal.pid().cast_signed()), Signal::SIGTERM).expect("it runs");
    let (status, screen) = terminal.end();
    assert_eq!(status, 0, "{screen}");
}

#[test]
fn without_its_terminal_it_ends() {
    let (copied, target) = leaking();
    let top = top(&copied);
    // The second does not hear of it by a signal.
    for how in [&[][..], &["--ignore-signal=HUP"]] {
        let mut command = Command::new("env");
        command.args(how).arg(top.get_program()).args(top.get_args());
        let terminal = Terminal::run(&command, SMALL);
        terminal.wait_for("the process", |screen| !row(screen, target.pid()).is_empty());
        let process = Path::new("/proc").join(terminal.pid().to_string());
        drop(terminal);
        wait::until(format!("the end of {how:?}"), DEADLINE, || (!process.exists()).then_some(()));
    }
    assert!(target.exit().success(), "the target ran on");
}

#[test]
fn a_watch_on_a_terminal_is_a_view_and_then_the_report() {
    let (_copied, target) = leaking();
    let pid = target.pid();
    let mut command = Command::new(binary());
    command.args(["watch", &pid.to_string(), "--for", "1h"]).args(SOON);
    let terminal = Terminal::run(&command, (100, 100));
    let leaks = |screen: &str| screen.contains("LIKELY") && screen.contains("end with the report");
    terminal.wait_for("a leak", leaks);
    terminal.press(&["q"]);
    let (status, screen) = terminal.end();
    assert_eq!(status, 0, "{screen}");
    assert!(screen.contains(&format!("parkwarden: pid {pid} ")) && screen.contains("behave like it"), "{screen}");
    assert!(target.exit().success(), "the target ran on");
}

#[test]
fn a_signal_ends_a_watch_on_a_terminal_with_its_report() {
    let (_copied, target) = leaking();
    let pid = target.pid();
    let mut command = Command::new(binary());
    command.args(["watch", &pid.to_string(), "--for", "0s"]).args(SOON);
    let terminal = Terminal::run(&command, (100, 100));
    terminal.wait_for("its page", |screen| screen.contains(&format!("(pid {pid})")) && screen.contains("watched"));
    kill(Pid::from_raw(terminal.pid().cast_signed()), Signal::SIGTERM).expect("it runs");
    let (status, screen) = terminal.end();
    assert!(status == 0 && screen.contains(&format!("parkwarden: pid {pid} ")), "{status}: {screen}");
    assert!(target.exit().success(), "the target ran on");
}

#[test]
fn without_a_terminal_there_is_no_view_and_it_is_said_what_there_is() {
    let output = parkwarden_tests::agent::run(["top"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no terminal") && said.contains("ps --format json"), "{said}");
}

/// Set where [`a_panic_gives_the_terminal_back_before_it_is_told_of`] runs this test's own program.
const CHILD: &str = "PARKWARDEN_TEST_SCREEN";

/// Panics with the terminal taken. Does nothing unless it is that process.
#[test]
fn screen_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let _screen = Screen::open().expect("there is a terminal");
    panic!("as it is to");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told_of() {
    let mut command = Command::new("env");
    command.arg(format!("{CHILD}=1")).arg(std::env::current_exe().expect("this test"));
    command.args(["--exact", "live::top::screen_process", "--nocapture"]);
    let (status, screen) = Terminal::run(&command, (200, 100)).end();
    assert_ne!(status, 0, "{screen}");
    assert!(screen.contains("as it is to"), "{screen}");
}
