//! A terminal as people have it, for programs that want one: tmux, whose screen can be read, keys pressed and size changed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use xtask::{command, packages};

use crate::wait;

/// How long what is waited for may take. Generous: a busy machine is no failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// The shell that runs in it: what it is told goes on the screen, and it says how the terminal is before and after.
const SHELL: &str = "stty -g > before; \"$@\"; echo $? > status; stty -g > after; cat > /dev/null";

/// See the module. Dropping it ends it, and what runs in it.
#[derive(Debug)]
pub struct Terminal {
    directory: tempfile::TempDir,
}

impl Terminal {
    /// Runs a command in a terminal of so many columns and rows, in a directory of its own.
    ///
    /// # Panics
    ///
    /// When there can be none.
    pub fn run(command: &Command, (columns, rows): (u16, u16)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let terminal = Self { directory };
        packages::program("tmux").expect("installed");
        let mut tmux = terminal.tmux();
        tmux.args(["-f", "/dev/null", "new-session", "-d", "-x", &columns.to_string(), "-y", &rows.to_string()]);
        tmux.arg("-c").arg(terminal.directory.path()).args(["sh", "-c", SHELL, "sh"]);
        tmux.arg(command.get_program()).args(command.get_args());
        // Of a terminal that tests run in nothing is known there.
        command::run(tmux.env_remove("TMUX").env_remove("NO_COLOR")).expect("tmux runs");
        terminal
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.directory.path().join("socket"));
        tmux
    }

    fn ask(&self, arguments: &[&str]) -> String {
        command::output(self.tmux().args(arguments)).unwrap_or_else(|error| panic!("tmux {arguments:?}: {error:#}"))
    }

    /// Where the command runs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted; the screen.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let looked = wait::within(DEADLINE, || {
            let screen = self.screen();
            if wanted(&screen) { Ok(screen) } else { Err(screen) }
        });
        looked.unwrap_or_else(|screen| panic!("waited in vain for {what} on the screen:\n{screen}"))
    }

    /// Presses keys, in tmux's names: `Enter`, `Down`, or letters.
    pub fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// Gives it another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.ask(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Whether the other screen is shown.
    pub fn is_on_other_screen(&self) -> bool {
        self.ask(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// The pid of the command.
    ///
    /// # Panics
    ///
    /// When it is not there.
    pub fn pid(&self) -> u32 {
        let shell = self.ask(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        wait::until("the command to run", DEADLINE, || {
            let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).ok()?;
            let pid = children.split_whitespace().next()?.parse().ok()?;
            // Before it, `stty` was the shell's child.
            let is_command = std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name != "stty\n");
            is_command.then_some(pid)
        })
    }

    /// Waits for the command's end; its status, and what is on the screen then.
    ///
    /// # Panics
    ///
    /// When it does not end, or leaves the terminal other than it was.
    pub fn end(&self) -> (i32, String) {
        let read =
            |name: &str| std::fs::read_to_string(self.directory().join(name)).ok().filter(|text| !text.is_empty());
        let after = wait::within(DEADLINE, || read("after").ok_or(()));
        let after = after.unwrap_or_else(|()| panic!("it does not end:\n{}", self.screen()));
        let screen = self.screen();
        assert_eq!(Some(after), read("before"), "the terminal's modes:\n{screen}");
        assert!(!self.is_on_other_screen(), "{screen}");
        assert_eq!(
            self.ask(&["display-message", "-p", "#{cursor_flag}"]).trim(),
            "1",
            "the cursor is to be seen:\n{screen}"
        );
        (read("status").expect("a status").trim().parse().expect("a number"), screen)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = command::output(self.tmux().arg("kill-server"));
    }
}
