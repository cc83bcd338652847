//! Directory pools: a volume is a plain host directory.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::Usage;
use super::folders::{DATA, Trees};
use super::image::lost;
use crate::host::folder::Folder;
use crate::host::progress::Progress;
use crate::host::tree;
use crate::volume::Bytes;

/// Trees that are plain directories.
pub(super) struct Directories;

impl Trees for Directories {
    fn make(&self, entry: &Folder) -> Result<()> {
        entry.make_folder(DATA, 0o755).map(drop)
    }

    fn copy(
        &self,
        from: &Folder,
        to: &Folder,
        _read_only: bool,
        progress: &Progress,
    ) -> Result<()> {
        let source = from.folder(DATA)?.with_context(|| lost(from, DATA))?;
        progress.expect(tree::size(source.as_fd())?);
        let copy = to.make_folder(DATA, 0o755)?;
        tree::copy(to.gate(), source.as_fd(), copy.as_fd(), progress)?;
        tree::sync(copy.as_fd())
    }

    /// Nothing yet: project quotas are not set, and [`Trees::enforces`] says so.
    fn limit(&self, _entry: &Folder, _size: Bytes) -> Result<()> {
        Ok(())
    }

    fn usage(&self, _entry: &Folder) -> Result<Option<Usage>> {
        Ok(None)
    }

    fn enforces(&self) -> bool {
        false
    }

    fn commit(&self, folder: &Folder) -> Result<()> {
        folder.sync()
    }
}
