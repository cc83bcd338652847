//! One entry of a tree, opened as what it is without waking it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, open, openat,
    openat2, statx,
};
use rustix::io::Errno;

/// How a name in a tree may be resolved: to the entry itself, in the same mount.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// An entry that stays the same whatever happens to its name.
pub(super) struct Node {
    /// Opened by path only: a device or a FIFO does not notice.
    fd: OwnedFd,
    pub(super) stat: Box<Statx>,
}

/// What a name stands for.
pub(super) enum Found {
    /// An entry of the tree.
    Node(Node),
    /// Something that is mounted there, and so is not part of the tree.
    Mount,
    /// Nothing, perhaps not any more.
    Nothing,
}

/// What tells an inode from all others, also from a later one that got its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

impl Node {
    /// Opens the entry `name` of the directory `parent`.
    pub(super) fn open(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Found> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A lookup beneath a directory that is renamed meanwhile is to be repeated, says openat2(2).
        let opened = loop {
            match openat2(parent, name, flags, Mode::empty(), WITHIN) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => break other,
            }
        };
        match opened {
            Ok(fd) => Ok(Found::Node(Self::of(fd)?)),
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(Errno::XDEV) => Ok(Found::Mount),
            Err(error) => Err(error).with_context(|| format!("opening {}", name.display())),
        }
    }

    /// The node of an open descriptor.
    pub(super) fn of(fd: OwnedFd) -> Result<Self> {
        let stat = statx(
            &fd,
            c"",
            AtFlags::EMPTY_PATH,
            StatxFlags::BASIC_STATS | StatxFlags::BTIME,
        )
        .context("looking at an entry")?;
        Ok(Self {
            fd,
            stat: Box::new(stat),
        })
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(u32::from(self.stat.stx_mode))
    }

    pub(super) fn identity(&self) -> Identity {
        let stat = &self.stat;
        Identity {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        }
    }

    /// Opens this very regular file for reading, its access time left as it is.
    pub(super) fn read(&self) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME;
        let fd = open(self.by_descriptor(), flags, Mode::empty());
        Ok(fd.context("opening a file for reading")?.into())
    }

    /// Opens this very directory for listing, its access time left as it is; nothing if it was removed.
    pub(super) fn list(&self) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
        match openat(&self.fd, c".", flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).context("opening a directory for listing"),
        }
    }

    /// A path to the entry itself, for the calls that take no descriptor of this kind.
    pub(super) fn by_descriptor(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Calls `visit` with the name and the probable kind of each entry of an open directory.
pub(super) fn each_entry(
    directory: &File,
    mut visit: impl FnMut(&OsStr, FileType) -> Result<()>,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.context("reading a directory")?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            visit(name, entry.file_type())?;
        }
    }
    Ok(())
}
