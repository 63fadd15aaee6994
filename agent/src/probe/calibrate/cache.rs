//! The measured costs of this boot, so that they are measured once: a file in `/run/parkwarden` for root, else in
//! `$XDG_RUNTIME_DIR/parkwarden`. Where neither can be had, or is not this user's alone, every start measures.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CalibrateError, Costs, measure};
use crate::probe::Uprobes;

/// A file that is longer was not written by parkwarden.
const MAX_FILE: u64 = 1 << 16;

/// What the numbers hold for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    boot_id: String,
    kernel: String,
    /// Of the BPF object: other programs cost other times.
    object: u32,
    /// How probes are attached.
    uprobes: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    key: Key,
    costs: Costs,
}

/// The costs on this host: those measured earlier in this boot, else measured now.
pub fn costs(uprobes: Uprobes) -> Result<Costs, CalibrateError> {
    let key = Key::here(uprobes);
    let directory = directory();
    let file = directory.as_deref().map(|directory| directory.join("calibration.json"));
    // One at a time: two that probe the same file disturb each other.
    let _lock = directory.as_deref().and_then(lock);
    if let Some(stored) = file.as_deref().and_then(read).filter(|stored| Some(&stored.key) == key.as_ref()) {
        return Ok(stored.costs);
    }
    let costs = measure(uprobes)?;
    if let (Some(file), Some(key)) = (file, key)
        && let Err(error) = write(&file, &Stored { key, costs })
    {
        log::info!("what a hit costs will be measured again at the next start: {}: {error}", file.display());
    }
    Ok(costs)
}

impl Key {
    fn here(uprobes: Uprobes) -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Some(Self {
            boot_id: read("/proc/sys/kernel/random/boot_id")?,
            kernel: read("/proc/sys/kernel/osrelease")?,
            object: crc32fast::hash(super::super::object::OBJECT),
            uprobes: uprobes.to_string(),
        })
    }
}

/// A directory that nobody else can write to.
fn directory() -> Option<PathBuf> {
    let runtime = if rustix::process::geteuid().is_root() {
        PathBuf::from("/run")
    } else {
        PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?)
    };
    let directory = runtime.join("parkwarden");
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    is_ours(&directory).then_some(directory)
}

/// Waits until nobody else measures; ends when it is dropped.
fn lock(directory: &Path) -> Option<fs::File> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .ok()?;
    file.lock().ok()?;
    Some(file)
}

fn is_ours(directory: &Path) -> bool {
    // Not followed if it is a link.
    fs::symlink_metadata(directory).is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0
    })
}

fn read(path: &Path) -> Option<Stored> {
    let mut text = String::new();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    file.take(MAX_FILE).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write(path: &Path, stored: &Stored) -> io::Result<()> {
    // Renamed when it is whole, so that nobody reads half of it.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)?;
    file.write_all(serde_json::to_string_pretty(stored)?.as_bytes())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_comes_back_and_damage_is_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("calibration.json");
        let key = || Key { boot_id: "b".to_owned(), kernel: "k".to_owned(), object: 7, uprobes: "multi".to_owned() };
        let sites = super::super::SiteCosts { nop5: Some(1), emulated: 2, single_step: 3 };
        let costs = Costs { cold: super::super::Prices { sites, ..Default::default() }, stack: 4, ..Costs::default() };
        write(&path, &Stored { key: key(), costs }).expect("written");
        let stored = read(&path).expect("there");
        assert_eq!((stored.key, stored.costs), (key(), costs));
        fs::write(&path, "{").expect("written");
        assert!(read(&path).is_none());
        assert!(read(&directory.path().join("absent")).is_none());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        assert!(is_ours(directory.path()));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("changed");
        assert!(!is_ours(directory.path()));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).expect("made");
        assert!(!is_ours(&link));
    }
}
