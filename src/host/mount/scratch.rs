//! The old mount calls: a bind is prepared in a directory that only we can enter, so that it is whole when it is seen.

use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount,
    unmount,
};

use crate::host::gate::Gate;
use crate::volume::{AccessTime, Filesystem, MountAttributes, MountOptions};

/// The two places in the scratch directory where a bind is prepared.
const DIRECTORY: &str = "directory";
const FILE: &str = "file";

/// Binds `from` onto `on`, by way of the scratch directory.
pub(super) fn bind(
    gate: &Gate,
    scratch: &Path,
    from: BorrowedFd<'_>,
    directory: bool,
    attributes: MountAttributes,
    on: BorrowedFd<'_>,
) -> Result<()> {
    let _only_us = enter(gate, scratch)?;
    let place = prepare_place(gate, scratch, directory)?;
    let flags = inherited(from)? | flags(attributes);
    gate.pass(format_args!("preparing a bind in {}", place.display()))?;
    let bound = mount_bind(by_descriptor(from), &place)
        .and_then(|()| mount_change(&place, MountPropagationFlags::PRIVATE))
        .and_then(|()| mount_remount(&place, MountFlags::BIND | flags, c""))
        .and_then(|()| mount_bind(&place, by_descriptor(on)))
        .context("binding with the old mount calls");
    // Whether or not it went well, nothing may stay here; a crash in between is for the next one to clean up.
    let cleaned = empty(gate, &place);
    bound.and(cleaned)
}

/// Mounts a filesystem: its own flags hold from the first moment.
pub(super) fn mount(
    device: &Path,
    filesystem: Filesystem,
    options: &MountOptions,
    on: BorrowedFd<'_>,
) -> Result<()> {
    let words: Vec<String> = options
        .filesystem
        .iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        })
        .collect();
    let data = CString::new(words.join(",")).context("a NUL in a mount option")?;
    rustix::mount::mount(
        device,
        by_descriptor(on),
        filesystem.name(),
        flags(options.attributes),
        data.as_c_str(),
    )
    .with_context(|| format!("mount(2) with options {data:?} (the kernel's log says more)"))
}

/// Mounts a ZFS dataset, which must leave that to others than ZFS (`mountpoint=legacy`).
pub(super) fn mount_dataset(dataset: &str, on: BorrowedFd<'_>) -> Result<()> {
    let no_flags = MountFlags::empty();
    rustix::mount::mount(dataset, by_descriptor(on), "zfs", no_flags, None::<&CStr>)
        .context("mount(2) (the kernel's log says more)")
}

/// Removes what a crash left in the scratch directory.
pub(super) fn sweep(gate: &Gate, scratch: &Path) -> Result<()> {
    if !scratch.exists() {
        return Ok(());
    }
    let _only_us = enter(gate, scratch)?;
    [DIRECTORY, FILE]
        .map(|place| scratch.join(place))
        .iter()
        .try_for_each(|place| empty(gate, place))
}

/// Makes the directory if need be, and locks it: against other threads, and other processes on this machine.
fn enter(gate: &Gate, scratch: &Path) -> Result<File> {
    if !scratch.exists() {
        gate.pass(format_args!("making {}", scratch.display()))?;
    }
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(scratch);
    made.with_context(|| format!("making {}", scratch.display()))?;
    let entered = File::open(scratch).with_context(|| format!("opening {}", scratch.display()))?;
    flock(&entered, FlockOperation::LockExclusive)
        .with_context(|| format!("locking {}", scratch.display()))?;
    Ok(entered)
}

fn prepare_place(gate: &Gate, scratch: &Path, directory: bool) -> Result<PathBuf> {
    let place = scratch.join(if directory { DIRECTORY } else { FILE });
    empty(gate, &place)?;
    if !place.exists() {
        gate.pass(format_args!("making {}", place.display()))?;
        let made = if directory {
            fs::create_dir(&place)
        } else {
            File::create_new(&place).map(drop)
        };
        made.with_context(|| format!("making {}", place.display()))?;
    }
    Ok(place)
}

/// Unmounts whatever is mounted at a place of ours; what it was bound to stays bound.
fn empty(gate: &Gate, place: &Path) -> Result<()> {
    if !place.exists() {
        return Ok(());
    }
    loop {
        gate.pass(format_args!("clearing {}", place.display()))?;
        // Nobody else gets in here, so a use of it ends by itself: it need not be waited for.
        match unmount(place, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => {
                return Err(errno).with_context(|| format!("clearing {}", place.display()));
            }
        }
    }
}

/// What the mount of `from` forbids already; the old call would forget it.
fn inherited(from: BorrowedFd<'_>) -> Result<MountFlags> {
    let has = fstatvfs(from)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ];
    Ok(chosen(
        pairs.map(|(flag, meaning)| (has.contains(flag), meaning)),
    ))
}

fn flags(attributes: MountAttributes) -> MountFlags {
    chosen([
        (attributes.read_only, MountFlags::RDONLY),
        (attributes.nosuid, MountFlags::NOSUID),
        (attributes.nodev, MountFlags::NODEV),
        (attributes.noexec, MountFlags::NOEXEC),
        (attributes.nodiratime, MountFlags::NODIRATIME),
        (
            attributes.access_time == Some(AccessTime::Never),
            MountFlags::NOATIME,
        ),
        (
            attributes.access_time == Some(AccessTime::Relative),
            MountFlags::RELATIME,
        ),
        (
            attributes.access_time == Some(AccessTime::Strict),
            MountFlags::STRICTATIME,
        ),
    ])
}

fn chosen(pairs: impl IntoIterator<Item = (bool, MountFlags)>) -> MountFlags {
    pairs
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .fold(MountFlags::empty(), MountFlags::union)
}

fn by_descriptor(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
