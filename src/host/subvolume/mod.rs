//! btrfs subvolumes: made, snapshotted and deleted by the kernel's own calls, without a process.

mod kernel;
mod quota;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatFs, fstatfs, openat, openat2, statat};
use rustix::io::Errno;

use super::gate::Gate;
pub use quota::{QuotaMode, Usage, enable_quota, quota_mode, set_limit, sweep_quotas, usage};

/// The number of the top directory of every subvolume.
const TOP_INODE: u64 = 256;

const BTRFS_MAGIC: u64 = 0x9123_683e;

/// Whether this is on a btrfs; not, if that can not be told.
pub(super) fn is_on_btrfs(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|found| is_btrfs(&found))
}

fn is_btrfs(found: &StatFs) -> bool {
    u64::try_from(found.f_type) == Ok(BTRFS_MAGIC)
}

/// Whether `directory` is the top of a subvolume.
pub fn is_subvolume(directory: BorrowedFd<'_>) -> bool {
    let top =
        statat(directory, c"", AtFlags::EMPTY_PATH).is_ok_and(|stat| stat.st_ino == TOP_INODE);
    top && is_on_btrfs(directory)
}

/// Refuses a directory that is not on btrfs.
pub fn ensure_btrfs(directory: BorrowedFd<'_>) -> Result<()> {
    let found = fstatfs(directory).context("asking for the filesystem")?;
    ensure!(is_btrfs(&found), "it is another filesystem");
    Ok(())
}

/// Makes an empty subvolume `name` in the directory `parent`.
///
/// # Errors
/// `name` is taken, or what else the kernel or the gate said. What was made is durable after a sync.
pub fn create(gate: &Gate, parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let parent = opened(parent)?;
    let args = kernel::Named::new(name)?;
    gate.pass(format_args!("create the subvolume {}", name.display()))?;
    kernel::create(parent.as_fd(), args)
        .with_context(|| format!("creating the subvolume {}", name.display()))
}

/// Makes `name` in the directory `parent` a snapshot of the subvolume `source`.
///
/// Subvolumes inside `source` are empty directories in it.
///
/// # Errors
/// `name` is taken, `source` is no subvolume, or what else the kernel or the gate said.
pub fn snapshot(
    gate: &Gate,
    source: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    read_only: bool,
) -> Result<()> {
    ensure!(is_subvolume(source), "the source is no subvolume");
    let (source, parent) = (opened(source)?, opened(parent)?);
    let args = kernel::Named::new(name)?;
    gate.pass(format_args!("take the snapshot {}", name.display()))?;
    kernel::snapshot(source.as_fd(), parent.as_fd(), args, read_only)
        .with_context(|| format!("taking the snapshot {}", name.display()))
}

/// Deletes the subvolume `name` of the directory `parent`, the subvolumes inside it first; nothing there is fine.
///
/// The space comes back in the background. The quota groups go too, or stay until [`sweep_quotas`] where the kernel
/// still counts in them.
///
/// # Errors
/// `name` is no subvolume, or what else the kernel or the gate said.
pub fn delete(gate: &Gate, parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let parent = opened(parent)?;
    let Some(doomed) = existing(parent.as_fd(), name)? else {
        return Ok(());
    };
    ensure!(
        is_subvolume(doomed.as_fd()),
        "{} is no subvolume",
        name.display()
    );
    let deleting = || format!("deleting the subvolume {}", name.display());
    let id = kernel::id(doomed.as_fd()).with_context(deleting)?;
    drop(doomed);
    let nested = nested_in(parent.as_fd(), id).with_context(deleting)?;
    for inner in nested.iter().rev() {
        gate.pass(format_args!("delete the nested subvolume {inner}"))?;
        match kernel::delete_by_id(parent.as_fd(), *inner) {
            Ok(()) | Err(Errno::NOENT) => quota::forget(gate, parent.as_fd(), *inner)?,
            Err(error) => return Err(error).with_context(deleting),
        }
    }
    gate.pass(format_args!("delete the subvolume {}", name.display()))?;
    match kernel::delete(parent.as_fd(), kernel::Named::new(name)?) {
        Ok(()) | Err(Errno::NOENT) => quota::forget(gate, parent.as_fd(), id),
        Err(error) => Err(error).with_context(deleting),
    }
}

/// All subvolumes inside the subvolume `id`, an inner one always after the one that holds it.
fn nested_in(directory: BorrowedFd<'_>, id: u64) -> Result<Vec<u64>> {
    let mut found = kernel::children(directory, id)?;
    let mut next = 0;
    while let Some(id) = found.get(next) {
        found.extend(kernel::children(directory, *id)?);
        next += 1;
    }
    Ok(found)
}

/// The directory opened anew, since the kernel's calls refuse a descriptor opened by path only.
fn opened(directory: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(directory, c".", flags, Mode::empty()).context("opening a directory")
}

fn existing(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(parent, name, flags, Mode::empty(), within) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("opening {}", name.display())),
    }
}
