//! The leaking programs that come with the Go toolchain (`src/runtime/testdata/testgoroutineleakprofile`), built with a
//! main function of ours that runs one of them, lets the runtime's own leak profile look, and then stands by.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use xtask::{command, toolchain};

/// The two programs the corpus makes: its own examples, and `goker`, bugs of well-known projects.
pub const PARTS: [&str; 2] = ["examples", "goker"];

/// One of the corpus's two programs, built.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The binary; its argument is the leaking program's name.
    pub binary: PathBuf,
    /// Names of the leaking programs.
    pub programs: Vec<String>,
}

/// Part `part` of the corpus of Go `from`, built with Go `version`.
///
/// # Panics
///
/// When it cannot be built.
pub fn corpus(part: &str, from: &str, version: &str) -> Corpus {
    try_corpus(part, from, version).unwrap_or_else(|error| panic!("the corpus of Go {from} with {version}: {error:#}"))
}

fn try_corpus(part: &str, from: &str, version: &str) -> anyhow::Result<Corpus> {
    let mut sources = toolchain::goroot(from)?.join("src/runtime/testdata/testgoroutineleakprofile");
    if part == "goker" {
        sources.push("goker");
    }
    let dir = crate::fixture::fixtures_dir().join(format!("corpus-{part}-{from}-{version}-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut programs = Vec::new();
    for entry in fs::read_dir(&sources).with_context(|| format!("no corpus at {}", sources.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.extension().is_none_or(|extension| extension != "go") || name == "main.go" {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        programs.extend(text.split("register(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        fs::write(dir.join(name), text)?;
    }
    let holder = fs::read_to_string(xtask::root().join("tests/go/corpus/main.go.txt"))?;
    fs::write(dir.join("main.go"), holder)?;
    fs::write(dir.join("go.mod"), "module corpus\n\ngo 1.21\n")?;
    let binary = dir.join("corpus");
    let mut build = toolchain::go_command(&toolchain::goroot(version)?.join("bin/go"))?;
    build.current_dir(&dir).env("CGO_ENABLED", "0");
    // Go 1.26 has the profile only as an experiment.
    if version.starts_with("1.26.") {
        build.env("GOEXPERIMENT", "goroutineleakprofile");
    }
    build.args(["build", "-buildvcs=false", "-o"]).arg(&binary).arg(".");
    command::output(&mut build)?;
    programs.sort();
    Ok(Corpus { binary, programs })
}

impl Drop for Corpus {
    fn drop(&mut self) {
        // Its directory is this test's own.
        let _ = fs::remove_dir_all(self.binary.parent().unwrap_or(Path::new("")));
    }
}
