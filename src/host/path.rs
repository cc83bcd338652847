//! Opening a path from the root without following a symlink anywhere in it.

use std::ffi::OsStr;
use std::fs as std_fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::FileId;

/// What the kernel says of an open path.
pub(super) struct Found {
    pub(super) id: FileId,
    pub(super) kind: FileType,
    pub(super) size: u64,
    pub(super) rdev: u64,
    pub(super) mount_id: u64,
    pub(super) is_mount: bool,
}

/// Opens `path` with the given flags; nothing if there is nothing.
///
/// # Errors
/// A relative path, one with `.` or `..` in it, and one that leads through a symlink, which is named.
pub(super) fn open(path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
    let path = checked(path)?;
    let opened = rustix::fs::openat2(
        CWD,
        &path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    );
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(Errno::LOOP).with_context(|| symlink_in(&path)),
        Err(errno) => Err(errno).with_context(|| format!("opening {}", path.display())),
    }
}

/// Opens the directory that `path` is in, and gives the last component of it; nothing if there is no such directory.
pub(super) fn open_parent(path: &Path) -> Result<Option<(OwnedFd, &OsStr)>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{} is not a path beneath the root", path.display());
    };
    checked(path)?;
    Ok(open(parent, OFlags::PATH | OFlags::DIRECTORY)?.map(|parent| (parent, name)))
}

/// Opens what stands under `name` in `parent`, the top mount if there is one; `path` is for the message.
///
/// # Errors
/// A symlink.
pub(super) fn open_in(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(file) => {
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
            if kind == FileType::Symlink {
                return Err(Errno::LOOP).with_context(|| symlink_in(path));
            }
            Ok(Some(file))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("opening {}", path.display())),
    }
}

/// Asks the kernel about an open path; the cost does not grow with the number of mounts.
///
/// # Errors
/// A kernel that can not tell whether it is a mount (before Linux 5.8).
pub(super) fn look(file: impl AsFd) -> Result<Found> {
    let asked = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, asked)?;
    ensure!(
        found
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT),
        "the kernel does not say what is a mount: Linux 5.8 or newer is needed"
    );
    Ok(Found {
        id: FileId::from(&found),
        kind: FileType::from_raw_mode(found.stx_mode.into()),
        size: found.stx_size,
        rdev: rustix::fs::makedev(found.stx_rdev_major, found.stx_rdev_minor),
        mount_id: found.stx_mnt_id,
        is_mount: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

/// The path that stands for an open file in calls that take nothing else.
pub(super) fn by_descriptor(file: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn checked(path: &Path) -> Result<PathBuf> {
    // `Path::components` hides a `.` in the middle, so the bytes are asked.
    let dots = path
        .as_os_str()
        .as_bytes()
        .split(|byte| *byte == b'/')
        .any(|part| part == b"." || part == b"..");
    ensure!(
        path.is_absolute() && !dots,
        "{:?} is not an absolute path without . and ..",
        path.display().to_string()
    );
    Ok(path.components().collect())
}

/// Which component is the symlink; it may be gone by now.
fn symlink_in(path: &Path) -> String {
    let mut prefix = PathBuf::new();
    for part in path.components() {
        prefix.push(part);
        let is_symlink = std_fs::symlink_metadata(&prefix).is_ok_and(|found| found.is_symlink());
        if is_symlink && part != Component::RootDir {
            return format!(
                "{} leads through a symlink: {}",
                path.display(),
                prefix.display()
            );
        }
    }
    format!("{} leads through a symlink", path.display())
}
