//! What is mounted on: made if it is missing, checked, and removed again.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Mounts;
use crate::host::path;

/// Looking whether a target is free and mounting on it is one step for all threads of this process, so that two
/// volumes can not end up one above the other.
static PLACING: Mutex<()> = Mutex::new(());

impl Mounts {
    /// Removes a target that is no mount: an empty directory or an empty file; one that is missing is fine.
    ///
    /// # Errors
    /// A mount, a symlink, and anything with content: nothing is removed then.
    pub fn remove_target(&self, path: &Path) -> Result<()> {
        let Some((parent, name)) = path::open_parent(path)? else {
            return Ok(());
        };
        let Some(file) = path::open_in(&parent, name, path)? else {
            return Ok(());
        };
        let found = path::look(&file)?;
        let shown = path.display();
        let has_content = || format!("{shown} has content: it is not removed, look whose it is");
        ensure!(!found.is_mount, "{shown} is still mounted");
        let flags = match found.kind {
            FileType::Directory => AtFlags::REMOVEDIR,
            FileType::RegularFile if found.size == 0 => AtFlags::empty(),
            _ => bail!(has_content()),
        };
        self.gate.pass(format_args!("removing {shown}"))?;
        match rustix::fs::unlinkat(&parent, name, flags) {
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY) => Err(Errno::NOTEMPTY).with_context(has_content),
            done => done.with_context(|| format!("removing {shown}")),
        }
    }

    /// Has `attach` mount something on `target`, once that is there, of the right kind and no mount.
    pub(super) fn place(
        &self,
        target: &Path,
        directory: bool,
        attach: impl FnOnce(&OwnedFd) -> Result<()>,
    ) -> Result<()> {
        let shown = target.display();
        let (parent, name) = path::open_parent(target)?
            .with_context(|| format!("the directory that {shown} is to be in does not exist"))?;
        let _placing = PLACING.lock();
        let on = match path::open_in(&parent, name, target)? {
            Some(on) => on,
            None => self.make_target(&parent, name, target, directory)?,
        };
        let found = path::look(&on)?;
        ensure!(!found.is_mount, "{shown} is a mount already");
        ensure!(
            (found.kind == FileType::Directory) == directory,
            "{shown} is {} a directory",
            if directory { "not" } else { "unexpectedly" }
        );
        self.gate.pass(format_args!("mounting on {shown}"))?;
        attach(&on).with_context(|| format!("mounting on {shown}"))
    }

    fn make_target(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        target: &Path,
        directory: bool,
    ) -> Result<OwnedFd> {
        let making = || format!("making {}", target.display());
        self.gate.pass(making())?;
        if directory {
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o750)).with_context(making)?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o640))
                .with_context(making)?;
        }
        path::open_in(parent, name, target)?.with_context(making)
    }
}
