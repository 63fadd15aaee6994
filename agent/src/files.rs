//! Files that hold what a program holds: images of its memory, and captures and recordings with its names.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Of a file that comes to be here: nobody but its owner reads it.
const PRIVATE: u32 = 0o600;

/// Opens a file to read and write, and makes it if it is not there.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(path)
}

/// Opens a file to write it anew, and makes it if it is not there. One that is there keeps its mode, as a pipe does: whoever made
/// it has chosen that.
pub fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(PRIVATE).open(path)
}

/// Makes a file to write it. Nothing that is there already is opened, links to other places included.
pub fn create_new(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(PRIVATE).open(path)
}

/// The permissions of a file, for tests.
#[cfg(test)]
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o777
}
