//! Which file it is, whatever path leads to it.

use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::{self, Statx};
use rustix::io;

/// The file or directory itself, as the kernel tells it from all others while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device number of its filesystem, as in `st_dev`.
    pub dev: u64,
    /// Its number in that filesystem.
    pub ino: u64,
}

impl FileId {
    /// The id of an open file; a descriptor that only names a path will do.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let found = fs::fstat(file)?;
        Ok(Self {
            dev: found.st_dev,
            ino: found.st_ino,
        })
    }
}

impl From<&Statx> for FileId {
    fn from(found: &Statx) -> Self {
        Self {
            dev: fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            ino: found.stx_ino,
        }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dev, ino } = *self;
        write!(f, "inode {ino} of {}:{}", fs::major(dev), fs::minor(dev))
    }
}
