//! What the fuzzer of `agent/fuzz` begins from: `cargo xtask fuzz` runs this with the directory to write to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use parkwarden::golang::binary::GoBinary;
use parkwarden::golang::pclntab::locate;
use parkwarden::golang::sites::{BinaryFunctions, Functions as _};
use parkwarden_tests::fixture::fixtures_dir;
use xtask::command::say;

/// Taken from the fixtures; each is a whole program, so a few show the fuzzer all there is.
const MAX_SEEDS: usize = 6;

fn main() -> anyhow::Result<()> {
    let corpus = std::env::args_os().nth(1).context("the argument is the directory of the corpus")?;
    seed(Path::new(&corpus))
}

fn seed(corpus: &Path) -> anyhow::Result<()> {
    let write = |target: &str, name: &str, bytes: &[u8]| -> anyhow::Result<()> {
        let directory = corpus.join(target);
        fs::create_dir_all(&directory)?;
        Ok(fs::write(directory.join(name), bytes)?)
    };
    write("capture", "golden", &fs::read(xtask::root().join("tests/golden/leaks.capture"))?)?;
    // One record of each kind: parked, exited, readied, created.
    let record = |kind: u8, len: usize| {
        let mut bytes = vec![0; len];
        (bytes[0], bytes[8], bytes[18]) = (1, 5, kind);
        bytes
    };
    write("events", "each", &[record(4, 24), record(2, 24), record(3, 32), record(1, 48)].concat())?;

    let mut programs: Vec<PathBuf> = fs::read_dir(fixtures_dir())
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()).collect())
        .unwrap_or_default();
    programs.sort_by_key(|path| (fs::metadata(path).map_or(u64::MAX, |metadata| metadata.len()), path.clone()));
    let mut seeds = 0;
    for path in programs {
        let bytes = fs::read(&path)?;
        let source: &[u8] = &bytes;
        let Ok(binary) = GoBinary::parse(&source) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write("binary", &name, &bytes)?;
        write("dwarf", &name, &bytes)?;
        if let Some(place) = locate::locate(&source, &binary.elf, None, None)
            && let Ok(table) = locate::read(&source, &binary.elf, place)
        {
            let minor = u8::try_from(binary.version.minor.saturating_sub(18)).unwrap_or(0);
            write("pclntab", &name, &[&[minor], table.as_slice()].concat())?;
        }
        let functions = BinaryFunctions::new(&binary, &source);
        for function in ["runtime.gopark", "runtime.ready", "runtime.goexit1", "runtime.newproc.func1"] {
            if let Some(code) = functions.find(function).and_then(|range| functions.code(&range)) {
                write("sites", &format!("{name}-{function}"), &[&[0, 18], code.as_slice()].concat())?;
            }
        }
        seeds += 1;
        if seeds == MAX_SEEDS {
            break;
        }
    }
    if seeds == 0 {
        say("no fixture has been built yet, so there are no programs to begin from: `cargo xtask test` builds them");
    }
    Ok(())
}
