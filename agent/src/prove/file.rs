//! Image files: what was copied of a target, and what is needed to make sense of it without the target, saved by
//! `prove --save-image` and read by `prove --image`.
//!
//! The framing is that of capture files (magic, version, frames with checksums); each frame is one [`Part`]. A file is
//! untrusted: memory grows with what was read, and everything in it is checked by whoever uses it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Pause, Program, Saved};
use crate::capture::frame::{self, FrameReader, FrameWriter};
use crate::discover::info::TargetInfo;
use crate::files;
use crate::golang::pclntab::{PcLnTab, PcLnTabError};
use crate::golang::proof_layout::ReachLayout;
use crate::golang::version::GoVersion;
use crate::memory::image::Image;
use crate::memory::stop::Thread;
use crate::reach::Variables;

const MAGIC: [u8; 8] = *b"PKWIMAG\n";
const VERSION: u32 = 5;
/// Plugins of one program.
const MAX_PLUGINS: usize = 64;
/// Bytes of one frame's memory.
const PIECE: usize = 16 << 20;
/// Bytes of all frames' memory.
const MAX_SIZE: u64 = 64 << 30;

/// Why an image cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be opened or written.
    #[error("cannot {what} {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// The file is not an image, or damaged.
    #[error("{path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: frame::Error,
    },
    /// Its parts do not make an image.
    #[error("{path} is not a whole image: {what}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// One frame.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    /// The first.
    Begin(Box<Begin>),
    /// A piece of the function tables.
    Pclntab(Vec<u8>),
    /// A piece of the function data.
    Funcdata(Vec<u8>),
    /// What follows of function tables and data is a plugin's, whose functions count from here.
    Plugin { text_start: u64 },
    /// Memory: its address, its length, and its first bytes.
    Region { address: u64, len: u64, bytes: Vec<u8> },
    /// More bytes of the region before.
    More(Vec<u8>),
    /// The last.
    End,
}

#[derive(Debug, Serialize, Deserialize)]
struct Begin {
    info: TargetInfo,
    layout: ReachLayout,
    variables: Variables,
    slide: u64,
    wait_reasons: Vec<String>,
    immutable: Vec<(u64, u64)>,
    text_start: u64,
    threads: Vec<Thread>,
    pause: Pause,
}

/// Writes an image.
pub fn write(path: &Path, saved: &Saved) -> Result<(), FileError> {
    let failed = |source| FileError::Io { what: "write", path: path.to_owned(), source };
    let file = files::create(path).map_err(failed)?;
    let mut out = FrameWriter::new(BufWriter::new(file), MAGIC, VERSION).map_err(failed)?;
    let program = &saved.program;
    let begin = Begin {
        info: program.info.clone(),
        layout: program.layout.clone(),
        variables: program.variables,
        slide: program.slide,
        wait_reasons: program.wait_reasons.clone(),
        immutable: program.immutable.clone(),
        text_start: program.pclntab.text_start(),
        threads: saved.threads.clone(),
        pause: saved.pause,
    };
    out.write(&Part::Begin(Box::new(begin))).map_err(failed)?;
    write_tables(&mut out, &program.pclntab).map_err(failed)?;
    for plugin in program.pclntab.plugins() {
        out.write(&Part::Plugin { text_start: plugin.text_start() }).map_err(failed)?;
        write_tables(&mut out, plugin).map_err(failed)?;
    }
    for (address, bytes) in saved.image.regions() {
        let (first, rest) = bytes.split_at(bytes.len().min(PIECE));
        let region = Part::Region { address, len: bytes.len() as u64, bytes: first.to_vec() };
        out.write(&region).map_err(failed)?;
        for piece in rest.chunks(PIECE) {
            out.write(&Part::More(piece.to_vec())).map_err(failed)?;
        }
    }
    out.write(&Part::End).map_err(failed)?;
    out.flush().map_err(failed)
}

fn write_tables(out: &mut FrameWriter<impl io::Write>, tables: &PcLnTab) -> io::Result<()> {
    let (table, funcdata) = tables.bytes();
    table.chunks(PIECE).try_for_each(|piece| out.write(&Part::Pclntab(piece.to_vec())))?;
    funcdata.chunks(PIECE).try_for_each(|piece| out.write(&Part::Funcdata(piece.to_vec())))
}

/// The function tables of one module.
#[derive(Default)]
struct Tables {
    text_start: u64,
    table: Vec<u8>,
    funcdata: Vec<u8>,
}

impl Tables {
    fn read(self, version: &GoVersion) -> Result<PcLnTab, PcLnTabError> {
        let mut read = PcLnTab::new(self.table, self.text_start, version)?;
        read.set_funcdata(self.funcdata);
        Ok(read)
    }
}

/// Reads an image.
pub fn read(path: &Path) -> Result<Saved, FileError> {
    let file = File::open(path).map_err(|source| FileError::Io { what: "read", path: path.to_owned(), source })?;
    read_from(BufReader::new(file), path)
}

fn read_from(from: impl io::Read, path: &Path) -> Result<Saved, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let malformed = |what: &str| FileError::Malformed { path: path.to_owned(), what: what.to_owned() };
    let mut frames = FrameReader::new(from, MAGIC, VERSION).map_err(failed)?;
    let mut begin: Option<Begin> = None;
    let (mut tables, mut plugins, mut image) = (Tables::default(), Vec::new(), Image::default());
    let mut region: Option<(u64, u64, Vec<u8>)> = None;
    let mut size = 0u64;
    let mut ended = false;
    while let Some(part) = frames.read::<Part>().map_err(failed)? {
        if ended || begin.is_none() != matches!(part, Part::Begin(_)) {
            return Err(malformed("a part is not in its place"));
        }
        if let Some((address, len, bytes)) = region.take_if(|_| !matches!(part, Part::More(_))) {
            if bytes.len() as u64 != len {
                return Err(malformed("a region is cut off"));
            }
            image.insert(address, bytes);
        }
        match part {
            Part::Begin(first) => {
                tables.text_start = first.text_start;
                begin = Some(*first);
            }
            Part::Plugin { .. } if plugins.len() >= MAX_PLUGINS => return Err(malformed("it has too many plugins")),
            Part::Plugin { text_start } => plugins.push(Tables { text_start, ..Tables::default() }),
            Part::Pclntab(bytes) => plugins.last_mut().unwrap_or(&mut tables).table.extend(bytes),
            Part::Funcdata(bytes) => plugins.last_mut().unwrap_or(&mut tables).funcdata.extend(bytes),
            Part::Region { address, len, bytes } => {
                size = size.saturating_add(len);
                region = Some((address, len, bytes));
            }
            Part::More(more) => match &mut region {
                Some((_, len, bytes)) if bytes.len() + more.len() <= *len as usize => bytes.extend(more),
                _ => return Err(malformed("a region is longer than it says")),
            },
            Part::End => ended = true,
        }
        if size > MAX_SIZE {
            return Err(malformed("it is larger than any image"));
        }
    }
    let begin = begin.filter(|_| ended).ok_or_else(|| malformed("its end is missing"))?;
    let version = GoVersion::parse(&begin.info.go_version).ok_or_else(|| malformed("its Go version"))?;
    let malformed_tables = |error: PcLnTabError| malformed(&error.to_string());
    let mut pclntab = tables.read(&version).map_err(malformed_tables)?;
    let plugins: Result<Vec<PcLnTab>, _> = plugins.into_iter().map(|plugin| plugin.read(&version)).collect();
    pclntab.set_plugins(plugins.map_err(malformed_tables)?);
    Ok(Saved {
        program: Program {
            info: begin.info,
            layout: begin.layout,
            variables: begin.variables,
            slide: begin.slide,
            wait_reasons: begin.wait_reasons,
            immutable: begin.immutable,
            pclntab: Arc::new(pclntab),
        },
        threads: begin.threads,
        pause: begin.pause,
        image,
    })
}
