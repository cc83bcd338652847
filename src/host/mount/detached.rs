//! The new mount calls: a mount is made whole where nobody sees it, and then put in its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use linux_raw_sys::general::{MS_PRIVATE, mount_attr};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::host::kernel;
use crate::volume::{AccessTime, Filesystem, MountAttributes, MountOptions};

/// A bind of `from` that nobody sees yet; nothing if the kernel has not got these calls.
pub(super) fn clone(from: BorrowedFd<'_>, attributes: MountAttributes) -> Result<Option<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = match open_tree(from, "", flags) {
        Ok(tree) => tree,
        Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
        Err(errno) => return Err(errno).context("cloning the mount (open_tree)"),
    };
    match kernel::mount_setattr(&tree, &change(attributes)) {
        Ok(()) => Ok(Some(tree)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(None),
        Err(error) => Err(error).context("setting the attributes of the mount (mount_setattr)"),
    }
}

/// The filesystem on `device`, mounted where nobody sees it yet; nothing if the kernel has not got these calls.
pub(super) fn filesystem(
    device: &Path,
    filesystem: Filesystem,
    options: &MountOptions,
) -> Result<Option<OwnedFd>> {
    let context = match fsopen(filesystem.name(), FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(context) => context,
        Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
        Err(Errno::NODEV) => {
            return Err(Errno::NODEV).with_context(|| format!("this kernel has no {filesystem}"));
        }
        Err(errno) => return Err(errno).context("fsopen"),
    };
    configure(&context, device, options).with_context(|| said_by(&context))?;
    let tree = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        flags(options.attributes),
    )?;
    Ok(Some(tree))
}

/// Puts a mount in its place.
pub(super) fn attach(tree: &OwnedFd, on: &OwnedFd) -> Result<()> {
    let by_descriptor =
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree.as_fd(), "", on.as_fd(), "", by_descriptor).context("move_mount")
}

fn configure(context: &OwnedFd, device: &Path, options: &MountOptions) -> Result<()> {
    fsconfig_set_string(context, "source", device)?;
    if options.attributes.read_only {
        fsconfig_set_flag(context, "ro")?;
    }
    for (key, value) in &options.filesystem {
        match value {
            Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(context, key.as_str()),
        }
        .with_context(|| format!("option {key}"))?;
    }
    Ok(fsconfig_create(context)?)
}

/// What the filesystem said about it, a message for each read.
fn said_by(context: &OwnedFd) -> String {
    let mut buffer = [0; 1024];
    let mut said = Vec::new();
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..length]);
        // The first two characters say how grave it is.
        said.push(message.get(2..).unwrap_or(&message).trim().to_owned());
    }
    if said.is_empty() {
        "the kernel refused (see its log)".to_owned()
    } else {
        said.join("; ")
    }
}

/// Adds to what the source of a bind has: what its owner forbade stays forbidden.
fn change(attributes: MountAttributes) -> mount_attr {
    let clear = match attributes.access_time {
        Some(_) => MountAttrFlags::MOUNT_ATTR__ATIME,
        None => MountAttrFlags::empty(),
    };
    mount_attr {
        attr_set: flags(attributes).bits().into(),
        attr_clr: clear.bits().into(),
        // A member of its source's peer group would show there what a pod mounts beneath it, and would make every
        // mount near the source dearer with each volume.
        propagation: MS_PRIVATE.into(),
        userns_fd: 0,
    }
}

fn flags(attributes: MountAttributes) -> MountAttrFlags {
    let access_time = match attributes.access_time {
        Some(AccessTime::Never) => MountAttrFlags::MOUNT_ATTR_NOATIME,
        Some(AccessTime::Strict) => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
        Some(AccessTime::Relative) | None => MountAttrFlags::MOUNT_ATTR_RELATIME,
    };
    [
        (attributes.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (attributes.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (attributes.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (attributes.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (attributes.nodiratime, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .fold(access_time, MountAttrFlags::union)
}
