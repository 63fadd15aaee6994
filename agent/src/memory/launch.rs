//! Starting a program and holding it before its first instruction, until somebody watches it.
//!
//! It is traced by the thread that starts it, as far as the stop that follows its exec. When that thread ends, however it ends, the
//! kernel lets the program run on; a program that is given up before it ran is killed.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};

use super::stop::ptrace;

/// A program that was started. Dropping it ends it, if it was never let go.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    held: bool,
}

impl Launched {
    /// Starts a program; it is held.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let traced = || ptrace(libc::PTRACE_TRACEME, 0, 0);
        // SAFETY: between fork and exec it makes one system call, and allocates nothing.
        let command = unsafe { command.pre_exec(traced) };
        let launched = Self { child: command.spawn()?, held: true };
        let mut status = 0;
        // SAFETY: `status` is a valid place for the status.
        let waited = unsafe { libc::waitpid(launched.tid(), &raw mut status, libc::__WALL) };
        match waited {
            -1 => Err(io::Error::last_os_error()),
            _ if libc::WIFSTOPPED(status) => Ok(launched),
            _ => Err(io::Error::other("it ended before it ran")),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn tid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Lets it run. The thread that started it has to ask.
    pub fn let_go(&mut self) -> io::Result<()> {
        ptrace(libc::PTRACE_DETACH, self.tid(), 0)?;
        self.held = false;
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.held {
            // One that is gone cannot be killed, which is as well.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_once_it_is_let_go_and_not_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("ran");
        let touch = || {
            let mut command = Command::new("touch");
            command.arg(&file);
            Launched::start(command).expect("it starts")
        };
        drop(touch());
        assert!(!file.exists(), "given up before it ran");
        let mut launched = touch();
        assert!(!file.exists(), "it is held");
        launched.let_go().expect("it is ours");
        assert!(launched.wait().expect("it ends").success() && file.exists());
        assert!(Launched::start(Command::new(directory.path().join("none"))).is_err());
    }
}
