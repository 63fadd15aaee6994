//! The files a machine boots with: an archive in cpio's "newc" form (Documentation/driver-api/early-userspace/
//! buffer-format.rst in the kernel's sources), which the kernel unpacks into memory.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// See the module; not compressed, since unpacking is what an emulated machine is slow at.
pub struct Archive<W: Write> {
    into: W,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CONSOLE: u32 = 0o020_600;

impl<W: Write> Archive<W> {
    /// An archive with the directories `/bin`, `/go` and `/dev`, and the console in it, which a kernel without devtmpfs on
    /// boot opens for the first process.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn new(into: W) -> io::Result<Self> {
        let mut archive = Self { into, inode: 0 };
        for directory in ["bin", "go", "dev"] {
            archive.entry(directory, DIRECTORY, (0, 0), &[])?;
        }
        archive.entry("dev/console", CONSOLE, (5, 1), &[])?;
        Ok(archive)
    }

    /// Adds a file that can be executed.
    ///
    /// # Errors
    ///
    /// When the archive cannot be written.
    pub fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, PROGRAM, (0, 0), content)
    }

    /// Adds a copy of a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or the archive not be written.
    pub fn copy(&mut self, name: &str, from: &Path) -> io::Result<()> {
        self.add(name, &fs::read(from)?)
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.into.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidInput)?;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.into.write_all(header.as_bytes())?;
        self.into.write_all(name.as_bytes())?;
        self.into.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.into.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        let missing = length.next_multiple_of(4) - length;
        self.into.write_all([0; 4].get(..missing).unwrap_or_default())
    }
}
