//! A virtual machine with one kernel and the files that a test gives it: started, listened to until it ends, and gone when
//! the value is dropped.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::bail;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
use xtask::command::say;
use xtask::kernels::{self, Kernel};

/// What came of one step, as `tests/go/guest` says it.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// Of the step; `end` follows the last.
    pub name: String,
    /// How long it took in the machine.
    pub seconds: f64,
    /// What the guest could not do.
    #[serde(default)]
    pub failed: String,
    /// parkwarden's exit status, or minus the number of the signal that ended it.
    pub code: i32,
    /// What parkwarden printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// What the Go program said of itself.
    #[serde(default)]
    pub said: Value,
    /// Whatever else the step brings.
    #[serde(default)]
    pub found: Value,
}

/// See the module.
pub struct Machine {
    qemu: Child,
    lines: Receiver<String>,
    /// Everything else on the console.
    console: Vec<String>,
}

/// How long a machine may be silent while it boots, which takes seconds.
const BOOT: Duration = Duration::from_secs(240);

/// How long it may be silent then: the longest step says nothing until its end.
const SILENCE: Duration = Duration::from_secs(900);

/// How often a boot is tried. An emulated machine stands still for ever now and then while its processors come up, before
/// anything of ours runs.
const BOOTS: usize = 3;

impl Machine {
    /// Boots a kernel with an archive of files in memory; the machine, and what it says that it is.
    ///
    /// # Errors
    ///
    /// When there is no such kernel or no QEMU to be had, or it does not boot.
    pub fn boot(kernel: &Kernel, archive: &Path, interrupted: &dyn Fn() -> bool) -> anyhow::Result<(Self, Outcome)> {
        for boot in 1..=BOOTS {
            let mut machine = Self::start(kernel, archive)?;
            match machine.within(BOOT, interrupted) {
                Some(system) if system.failed.is_empty() => return Ok((machine, system)),
                Some(system) => bail!("its first process cannot work: {}", system.failed),
                None if interrupted() => break,
                None => say(format_args!("{} stood still, boot {boot}: {}", kernel.name, machine.last_words())),
            }
        }
        bail!("{} does not boot", kernel.name)
    }

    fn start(kernel: &Kernel, archive: &Path) -> anyhow::Result<Self> {
        let mut command = kernels::qemu(kernel.target)?;
        // A panic ends the machine.
        let words = format!("console={} quiet panic=-1 {}", kernels::console(kernel.target), kernel.words.join(" "));
        command.arg("-kernel").arg(kernel.fetch()?).arg("-initrd").arg(archive).args(["-append", words.trim()]);
        let mut qemu = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut output = BufReader::new(qemu.stdout.take().expect("stdout is a pipe"));
        let (sender, lines) = channel();
        // Ends with QEMU, or when nobody listens any more.
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Self { qemu, lines, console: Vec::new() })
    }

    /// What came of the next step; none when the machine has ended, or is silent.
    pub fn outcome(&mut self, interrupted: &dyn Fn() -> bool) -> Option<Outcome> {
        self.within(SILENCE, interrupted)
    }

    fn within(&mut self, time: Duration, interrupted: &dyn Fn() -> bool) -> Option<Outcome> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && !interrupted() {
            match self.lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => match line.strip_prefix("@@ ").map(decode) {
                    Some(Some(outcome)) => return Some(outcome),
                    Some(None) => self.console.push(format!("garbled: {line}")),
                    None => self.console.push(line),
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }

    /// The last lines of the console that were no outcome.
    pub fn last_words(&self) -> String {
        let from = self.console.len().saturating_sub(40);
        self.console.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn decode(line: &str) -> Option<Outcome> {
    let compressed = base64(line)?;
    let mut document = Vec::new();
    GzDecoder::new(&compressed[..]).read_to_end(&mut document).ok()?;
    serde_json::from_slice(&document).ok()
}

/// RFC 4648, with its padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter)?;
        word = word << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}
