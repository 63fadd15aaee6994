//! The executables of this host, each understood once however many processes run it.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::discover::process::Process;
use crate::golang::binary::{GoBinary, Refusal};
use crate::golang::buildinfo::BuildInfo;
use crate::golang::elf::{Elf, ElfError};
use crate::golang::pclntab::PcLnTab;

/// Files remembered at most; then all are forgotten and those still met are read again.
const MAX_FILES: usize = 4096;

/// Go binaries kept although nobody uses them.
const MAX_RECENT: usize = 4;

/// Bytes of a file searched for Go's magic when its headers cannot be read.
const MAX_SEARCHED: u64 = 64 << 20;

/// A file: device, inode, size and time of change.
type FileId = (u64, u64, u64, i64, i64);

/// What an executable is.
#[derive(Clone, Debug)]
pub enum Executable {
    /// No Go program.
    Other,
    /// A Go program that is understood.
    Go(Arc<GoBinary>),
    /// A Go program that is not.
    Refused(Arc<Refused>),
}

/// Why a Go program is not understood, and what is known of it all the same.
#[derive(Debug)]
pub struct Refused {
    /// What its build information says.
    pub build: Option<BuildInfo>,
    /// Why.
    pub refusal: Refusal,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Binaries {
    files: Mutex<Files>,
    /// Something was read since [`Binaries::were_read`] was asked.
    read: AtomicBool,
}

#[derive(Debug, Default)]
struct Files {
    known: HashMap<FileId, KnownFile>,
    /// Go binaries met last, so that they are there for the next process that runs them.
    recent: VecDeque<Arc<GoBinary>>,
    /// Function tables, which are most of what a binary takes: copies of one program, as each container has its own, share them.
    tables: Vec<Weak<PcLnTab>>,
}

/// A Go binary is kept by those who use it, for the most part.
#[derive(Debug)]
enum KnownFile {
    Other,
    Go(Weak<GoBinary>),
    Refused(Arc<Refused>),
}

impl Binaries {
    /// What a process's executable is; `None` when it cannot be read at all.
    pub fn of(&self, process: &Process) -> Option<Executable> {
        let metadata = process.exe().metadata().ok()?;
        let id = (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
        match self.files.lock().known.get(&id) {
            Some(KnownFile::Other) => return Some(Executable::Other),
            Some(KnownFile::Refused(refused)) => return Some(Executable::Refused(Arc::clone(refused))),
            Some(KnownFile::Go(binary)) => {
                if let Some(binary) = binary.upgrade() {
                    return Some(Executable::Go(binary));
                }
            }
            None => {}
        }
        let mut executable = read(process.exe());
        if let Executable::Go(binary) = &mut executable
            && let Some(binary) = Arc::get_mut(binary)
        {
            log::debug!("{} takes {} bytes", process.exe_path().display(), binary.pclntab.memory());
            binary.pclntab = self.files.lock().shared(&binary.pclntab);
        }
        self.read.store(true, Ordering::Relaxed);
        let known = match &executable {
            Executable::Other => KnownFile::Other,
            Executable::Go(binary) => KnownFile::Go(Arc::downgrade(binary)),
            Executable::Refused(refused) => KnownFile::Refused(Arc::clone(refused)),
        };
        let mut files = self.files.lock();
        if files.known.len() >= MAX_FILES {
            files.known.clear();
        }
        files.known.insert(id, known);
        if let Executable::Go(binary) = &executable {
            files.recent.truncate(MAX_RECENT - 1);
            files.recent.push_front(Arc::clone(binary));
        }
        Some(executable)
    }

    /// Whether any had to be read since this was asked last.
    pub fn were_read(&self) -> bool {
        self.read.swap(false, Ordering::Relaxed)
    }
}

impl Files {
    /// The table with these contents that is in use already, or this one.
    fn shared(&mut self, table: &Arc<PcLnTab>) -> Arc<PcLnTab> {
        self.tables.retain(|known| known.strong_count() > 0);
        // Whole contents are compared: nobody can make a program pass for another.
        let mut known = self.tables.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|known| known == table) {
            return known;
        }
        self.tables.push(Arc::downgrade(table));
        Arc::clone(table)
    }
}

fn read(exe: &fs::File) -> Executable {
    // Most processes are not Go programs, and their headers tell. Headers that cannot be read tell nothing.
    let elf = match Elf::parse(exe) {
        Ok(elf) => elf,
        Err(ElfError::NotElf) => return Executable::Other,
        Err(_) if !has_build_info(exe) => return Executable::Other,
        Err(error) => return Executable::Refused(Arc::new(Refused { build: None, refusal: error.into() })),
    };
    match GoBinary::parse(exe) {
        Ok(binary) => Executable::Go(Arc::new(binary)),
        Err(Refusal::NotElf | Refusal::NotGo) => Executable::Other,
        Err(refusal) => Executable::Refused(Arc::new(Refused { build: BuildInfo::parse(exe, &elf).ok(), refusal })),
    }
}

/// Whether the magic of Go's build information is anywhere in the beginning of a file.
fn has_build_info(file: &fs::File) -> bool {
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < MAX_SEARCHED {
        let read = file.read_at(&mut piece, at).unwrap_or(0);
        if piece[..read].windows(MAGIC.len()).any(|window| window == MAGIC) {
            return true;
        }
        if read <= MAGIC.len() {
            return false;
        }
        // The magic can stand across two pieces.
        at += (read - MAGIC.len()) as u64;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golang::pclntab::tests::small;
    use crate::golang::version::GoVersion;

    fn table() -> PcLnTab {
        PcLnTab::new(small(), 0x1000, &GoVersion::parse("go1.22.1").expect("a version")).expect("a table")
    }

    #[test]
    fn tables_with_the_same_contents_are_kept_once_as_long_as_somebody_uses_them() {
        let mut files = Files::default();
        let [first, copy] = [table(), table()].map(Arc::new);
        let mut other = table();
        other.set_funcdata(vec![1]);
        let kept = files.shared(&first);
        assert!(Arc::ptr_eq(&files.shared(&copy), &first));
        assert!(!Arc::ptr_eq(&files.shared(&Arc::new(other)), &first));
        drop((first, kept));
        assert!(Arc::ptr_eq(&files.shared(&copy), &copy), "the first is gone");
    }
}
