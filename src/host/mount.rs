//! Mounts: what stands at one path, binding and mounting there, and taking it away again.

mod detached;
mod memory;
mod scratch;
mod table;
mod target;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FileType, OFlags, StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::FileId;
use super::gate::Gate;
use super::path::{self, Found};
use super::subvolume::is_on_btrfs;
use super::{kernel, passing};
use crate::volume::{Filesystem, MountAttributes, MountOptions};

pub use table::Entry;

/// Where kernels without the new calls prepare a bind, unless a test says otherwise.
const SCRATCH: &str = "/run/orlop/mounts";

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Nothing.
    Nothing,
    /// A directory or a file, but no mount.
    Plain {
        /// Whether it is a directory.
        directory: bool,
    },
    /// A mount; the top one where several are stacked.
    Mount(Mounted),
}

/// A mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The directory or file that is seen there: of a bind, the very one that was bound.
    pub root: FileId,
    /// The device that it leads to, where `root` is a device node; else 0.
    pub rdev: u64,
    /// Whether nothing can be written through it.
    pub read_only: bool,
}

/// Mounts and unmounts on this machine, never through a symlink; the cost of a call does not grow with the number of
/// mounts.
#[derive(Clone, Debug)]
pub struct Mounts {
    gate: Gate,
    new_calls: bool,
    scratch: PathBuf,
}

impl Mounts {
    /// With the kernel's new mount calls, and with the old ones where it lacks them.
    pub fn new(gate: Gate) -> Self {
        Self {
            gate,
            new_calls: true,
            scratch: PathBuf::from(SCRATCH),
        }
    }

    /// With the old calls alone, which prepare a bind in the directory `scratch`.
    pub fn with_old_calls(gate: Gate, scratch: PathBuf) -> Self {
        Self {
            gate,
            new_calls: false,
            scratch,
        }
    }

    /// What stands at `path`.
    ///
    /// # Errors
    /// A relative path, one with `.` or `..` in it, and one with a symlink anywhere in it, which is named.
    pub fn at(&self, path: &Path) -> Result<At> {
        let Some(file) = path::open(path, OFlags::PATH)? else {
            return Ok(At::Nothing);
        };
        describe(&file).with_context(|| format!("looking at {}", path.display()))
    }

    /// The device that the filesystem at `path` is on, if it is on one; btrfs hides its number behind one of its own.
    pub fn device_of(&self, path: &Path) -> Result<Option<u64>> {
        let asking = || format!("asking {} for its device", path.display());
        let place = path::open(path, OFlags::PATH)?.with_context(asking)?;
        let found = path::look(&place).with_context(asking)?;
        if rustix::fs::major(found.id.dev) != 0 {
            return Ok(Some(found.id.dev));
        }
        if !found.kind.is_dir() || !is_on_btrfs(&place) {
            return Ok(None);
        }
        let directory = path::open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let device = kernel::btrfs_device(&directory.with_context(asking)?).with_context(asking)?;
        Ok(Some(
            rustix::fs::stat(&device).with_context(asking)?.st_rdev,
        ))
    }

    /// Binds the directory or block device node `from` onto `target`, without the mounts beneath it.
    ///
    /// The last component of `target` is made if it is missing. A read-only bind can not be written through, not even
    /// for a moment. What is mounted beneath either of the two later is not seen in the other.
    ///
    /// # Errors
    /// A symlink in either path, a `target` that is a mount already or of the wrong kind; nothing is mounted then.
    pub fn bind(&self, from: &Path, target: &Path, attributes: MountAttributes) -> Result<()> {
        let source = path::open(from, OFlags::PATH)?
            .with_context(|| format!("{} does not exist", from.display()))?;
        self.bind_descriptor(source.as_fd(), target, attributes)
            .with_context(|| format!("binding {}", from.display()))
    }

    /// As [`Mounts::bind`], for what the caller has open; a descriptor that only names a path will do.
    pub fn bind_descriptor(
        &self,
        from: BorrowedFd<'_>,
        target: &Path,
        attributes: MountAttributes,
    ) -> Result<()> {
        let directory = match path::look(from)?.kind {
            FileType::Directory => true,
            FileType::BlockDevice => false,
            other => bail!("what is bound must be a directory or a block device, not a {other:?}"),
        };
        if self.new_calls
            && let Some(tree) = detached::clone(from, attributes)?
        {
            return self.place(target, directory, |on| detached::attach(&tree, on));
        }
        self.place(target, directory, |on| {
            scratch::bind(
                &self.gate,
                &self.scratch,
                from,
                directory,
                attributes,
                on.as_fd(),
            )
        })
    }

    /// Mounts the filesystem on `device` at `target`, whose last component is made if it is missing.
    ///
    /// XFS is mounted whatever other filesystem has the same UUID: clones stand beside their source.
    ///
    /// # Errors
    /// As [`Mounts::bind`]; and what the kernel says of a filesystem or option that it does not take.
    pub fn mount(
        &self,
        device: &Path,
        filesystem: Filesystem,
        target: &Path,
        options: &MountOptions,
    ) -> Result<()> {
        let mut options = options.clone();
        if filesystem == Filesystem::Xfs {
            options.filesystem.push(("nouuid".to_owned(), None));
        }
        let what = || format!("mounting {filesystem} from {}", device.display());
        // A replayed log is a change to the device, even if the mount is never seen.
        self.gate.pass(what())?;
        if self.new_calls
            && let Some(tree) =
                unless_in_passing(|| detached::filesystem(device, filesystem, &options))
                    .with_context(what)?
        {
            return self
                .place(target, true, |on| detached::attach(&tree, on))
                .with_context(what);
        }
        self.place(target, true, |on| {
            unless_in_passing(|| scratch::mount(device, filesystem, &options, on.as_fd()))
        })
        .with_context(what)
    }

    /// Mounts the ZFS dataset of this name at `target`, as [`Mounts::mount`] does a device.
    pub fn mount_dataset(&self, dataset: &str, target: &Path) -> Result<()> {
        self.place(target, true, |on| {
            scratch::mount_dataset(dataset, on.as_fd())
        })
        .with_context(|| format!("mounting {dataset}"))
    }

    /// Unmounts the top mount at `path`.
    ///
    /// # Errors
    /// A path that is no mount, or a symlink; and `EBUSY` in the chain when something still uses it.
    pub fn unmount(&self, path: &Path) -> Result<()> {
        let absent = || format!("{} is not mounted", path.display());
        let (parent, name) = path::open_parent(path)?.with_context(absent)?;
        let file = path::open_in(&parent, name, path)?.with_context(absent)?;
        ensure!(path::look(&file)?.is_mount, "{}", absent());
        // An open descriptor is a use of the mount too.
        drop(file);
        self.gate
            .pass(format_args!("unmounting {}", path.display()))?;
        let below = path::by_descriptor(&parent).join(name);
        let unmount = || Ok(rustix::mount::unmount(&below, UnmountFlags::NOFOLLOW)?);
        unless_in_passing(unmount).map_err(|error| {
            let what = if is_busy(&error) {
                "is still in use: a process has a file open in it or stands in it, or something is mounted beneath"
            } else {
                "can not be unmounted"
            };
            error.context(format!("{} {what}", path.display()))
        })
    }

    /// Everything that is mounted; reads the whole table, so only for start-up and `doctor`.
    pub fn all(&self) -> Result<Vec<Entry>> {
        table::read()
    }

    /// Removes what a crash left behind of a bind with the old calls; nothing left is fine.
    pub fn sweep(&self) -> Result<()> {
        scratch::sweep(&self.gate, &self.scratch)
    }
}

fn describe(file: &OwnedFd) -> Result<At> {
    let Found {
        id,
        kind,
        rdev,
        is_mount,
        ..
    } = path::look(file)?;
    if !is_mount {
        return Ok(At::Plain {
            directory: kind == FileType::Directory,
        });
    }
    Ok(At::Mount(Mounted {
        root: id,
        rdev,
        read_only: fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY),
    }))
}

/// Tries again what is answered EBUSY, until it is so no longer in passing.
fn unless_in_passing<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    passing::wait(passing::BRIEF, attempt, |tried| {
        tried.as_ref().is_err_and(is_busy)
    })
}

fn is_busy(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Errno>() == Some(&Errno::BUSY)
}
