//! What the Go linker recorded about the build: toolchain version, main module, settings (`debug/buildinfo`).
//!
//! Deliberately absent: the list of dependencies, and the format before Go 1.18, whose strings lie behind pointers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Source;
use super::bytes::uvarint;
use super::elf::{Elf, ElfError};

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
/// The strings begin here.
const HEADER: u64 = 32;
/// The blob is aligned to this.
const ALIGN: usize = 16;
/// Says that the strings are inline.
const FLAG_INLINE: u8 = 2;
/// Longest version string accepted; a real one has some 20 bytes.
const MAX_VERSION: u64 = 4096;
/// Longest module information accepted; a program with a thousand modules has some 100 KiB.
const MAX_MODULES: u64 = 4 << 20;
/// Without a section the blob is searched in this much of each writable segment, twice what `debug/buildinfo` reads.
const SEARCH: u64 = 2 << 20;
/// More writable segments than any linker makes.
const MAX_SEARCHED: usize = 16;
/// `cmd/go` puts the module information between two such sentinels.
const SENTINEL: usize = 16;

/// Why there is no build information.
#[derive(Debug, thiserror::Error)]
pub enum BuildInfoError {
    /// No blob in the file.
    #[error("no Go build information")]
    NotGo,
    /// The blob of a Go older than 1.18.
    #[error("build information in the format of Go 1.17 or earlier")]
    Old,
    /// The blob is damaged.
    #[error("malformed Go build information: {0}")]
    Malformed(&'static str),
    /// The file around it is damaged.
    #[error(transparent)]
    Elf(#[from] ElfError),
}

/// A module and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// For example `github.com/prometheus/prometheus`.
    pub path: String,
    /// For example `v3.1.0`, or `(devel)`.
    pub version: String,
}

/// Build information of a Go program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInfo {
    /// The toolchain's version as recorded.
    pub go_version: String,
    /// Import path of the main package; absent when built outside module mode.
    pub path: Option<String>,
    /// The module that contains the main package.
    pub main: Option<Module>,
    /// Build settings: `-ldflags`, `CGO_ENABLED`, `vcs.revision` …
    pub settings: BTreeMap<String, String>,
}

impl BuildInfo {
    /// Finds and reads the blob.
    pub fn parse(source: &dyn Source, elf: &Elf) -> Result<Self, BuildInfoError> {
        let (at, end) = locate(source, elf)?;
        let mut header = [0; HEADER as usize];
        source.read_exact_at(at, &mut header).map_err(|_| BuildInfoError::Malformed("it ends early"))?;
        if header[15] & FLAG_INLINE == 0 {
            return Err(BuildInfoError::Old);
        }
        let at = at.checked_add(HEADER).ok_or(BuildInfoError::Malformed("offset out of range"))?;
        let (go_version, at) = string(source, at, end, MAX_VERSION)?;
        let (modules, _) = string(source, at, end, MAX_MODULES)?;
        let go_version =
            String::from_utf8(go_version).map_err(|_| BuildInfoError::Malformed("the version is not text"))?;
        if go_version.is_empty() {
            return Err(BuildInfoError::NotGo);
        }
        let mut info = Self { go_version, path: None, main: None, settings: BTreeMap::new() };
        let inner = modules.len().checked_sub(SENTINEL).and_then(|end| modules.get(SENTINEL..end));
        info.read_modules(&String::from_utf8_lossy(inner.unwrap_or_default()));
        Ok(info)
    }

    /// The lines of `runtime/debug.ParseBuildInfo`.
    fn read_modules(&mut self, text: &str) {
        for line in text.lines() {
            let mut columns = line.split('\t');
            match columns.next() {
                Some("path") => self.path = columns.next().map(str::to_owned),
                Some("mod") => {
                    if let Some(path) = columns.next() {
                        let version = columns.next().unwrap_or_default();
                        self.main = Some(Module { path: path.to_owned(), version: version.to_owned() });
                    }
                }
                Some("build") => {
                    if let Some((key, value)) = columns.next().and_then(|setting| setting.split_once('=')) {
                        self.settings.insert(unquote(key), unquote(value));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Keys and values with special characters are quoted as Go strings; the escapes that occur are these two.
fn unquote(text: &str) -> String {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.strip_prefix('`').and_then(|text| text.strip_suffix('`')).unwrap_or(text).to_owned(),
    }
}

/// File offset of the blob, and where its segment ends in the file.
fn locate(source: &dyn Source, elf: &Elf) -> Result<(u64, u64), BuildInfoError> {
    if let Some(section) = elf.section(".go.buildinfo") {
        let mut magic = [0; MAGIC.len()];
        if source.read_exact_at(section.offset, &mut magic).is_ok() && magic == *MAGIC {
            let end = section.offset.saturating_add(section.size).min(source.len());
            return Ok((section.offset, end));
        }
    }
    for segment in elf.segments.iter().filter(|segment| segment.write).take(MAX_SEARCHED) {
        let len = segment.filesz.min(SEARCH).min(source.len().saturating_sub(segment.offset));
        let mut data = vec![0; len as usize];
        if source.read_exact_at(segment.offset, &mut data).is_err() {
            continue;
        }
        if let Some(at) = data.chunks(ALIGN).position(|chunk| chunk.starts_with(MAGIC)) {
            let end = segment.offset.saturating_add(segment.filesz).min(source.len());
            return Ok((segment.offset + (at * ALIGN) as u64, end));
        }
    }
    Err(BuildInfoError::NotGo)
}

/// A string with its length as a varint before it; also where the next one begins.
fn string(source: &dyn Source, at: u64, end: u64, limit: u64) -> Result<(Vec<u8>, u64), BuildInfoError> {
    let short = BuildInfoError::Malformed("it ends early");
    let left = end.saturating_sub(at);
    let mut prefix = [0; 10];
    let prefix = &mut prefix[..left.min(10) as usize];
    if source.read_exact_at(at, prefix).is_err() {
        return Err(short);
    }
    let mut used = 0;
    let Some(len) = uvarint(prefix, &mut used) else { return Err(short) };
    if len > limit {
        return Err(BuildInfoError::Malformed("a string is longer than any toolchain writes"));
    }
    let start = at + used as u64;
    if len > end.saturating_sub(start) {
        return Err(short);
    }
    let mut bytes = vec![0; len as usize];
    source.read_exact_at(start, &mut bytes).map_err(|_| BuildInfoError::Malformed("it ends early"))?;
    Ok((bytes, start + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_the_go_command() {
        let mut info = BuildInfo { go_version: "go1.22.1".into(), path: None, main: None, settings: BTreeMap::new() };
        info.read_modules(
            "path\texample.com/cmd\nmod\texample.com/m\tv1.2.3\th1:x=\ndep\ta/b\tv0.1.0\th1:y=\n\
             build\t-ldflags=\"-s -w -X 'main.v=\\\"1\\\"'\"\nbuild\tCGO_ENABLED=0\nbuild\n",
        );
        assert_eq!(info.path.as_deref(), Some("example.com/cmd"));
        assert_eq!(info.main, Some(Module { path: "example.com/m".into(), version: "v1.2.3".into() }));
        assert_eq!(info.settings["-ldflags"], "-s -w -X 'main.v=\"1\"'");
        assert_eq!(info.settings["CGO_ENABLED"], "0");
        assert_eq!(info.settings.len(), 2);
    }
}
