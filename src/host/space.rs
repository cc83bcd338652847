//! The space of a filesystem, as its own count tells it.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, StatVfs, StatVfsMountFlags};

/// Bytes or inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All that there are.
    pub total: u64,
    /// Those in use.
    pub used: u64,
    /// Those that a writer without privileges can still get.
    pub available: u64,
}

/// The bytes and the inodes of one filesystem, or of one project of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: Count,
    /// Inodes; all zero on filesystems that have no fixed number.
    pub inodes: Count,
    /// Whether nothing can be written.
    pub read_only: bool,
}

/// What a filesystem is, as far as it matters for limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4, and its elders.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// Another.
    Other,
}

/// The kind of the filesystem that an open directory is on.
pub fn kind(directory: impl AsFd) -> Kind {
    const EXT4: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    const BTRFS: i64 = 0x9123_683e;
    match rustix::fs::fstatfs(directory).map(|status| status.f_type) {
        Ok(EXT4) => Kind::Ext4,
        Ok(XFS) => Kind::Xfs,
        Ok(BTRFS) => Kind::Btrfs,
        _ => Kind::Other,
    }
}

/// The space below a directory.
pub fn of(path: &Path) -> Result<Space> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("opening {}", path.display()))?;
    of_open(&fd).with_context(|| format!("asking {} for its space", path.display()))
}

/// The space below an open directory.
pub fn of_open(directory: impl AsFd) -> Result<Space> {
    Ok(count(&rustix::fs::fstatvfs(directory)?))
}

fn count(status: &StatVfs) -> Space {
    let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
    Space {
        bytes: Count {
            total: bytes(status.f_blocks),
            used: bytes(status.f_blocks.saturating_sub(status.f_bfree)),
            available: bytes(status.f_bavail),
        },
        inodes: Count {
            total: status.f_files,
            used: status.f_files.saturating_sub(status.f_ffree),
            available: status.f_favail,
        },
        read_only: status.f_flag.contains(StatVfsMountFlags::RDONLY),
    }
}
