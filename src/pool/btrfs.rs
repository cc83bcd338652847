//! btrfs pools: a volume is a subvolume, a snapshot a read-only one, and a quota group limits each volume.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};

use super::Usage;
use super::folders::{DATA, Trees};
use super::image::lost;
use crate::host::Host;
use crate::host::folder::Folder;
use crate::host::progress::Progress;
use crate::host::subvolume::{self, QuotaMode};
use crate::volume::VolumeRecord;

/// Trees that are subvolumes.
pub(super) struct Subvolumes;

impl Subvolumes {
    /// Those below the directory `path`, whose filesystem counts from now on what each of them refers to.
    ///
    /// Not the simple quotas of kernel 6.7: they charge a clone for nothing that it shares, so that it could grow to
    /// its source's size and its own, and charge a source for what only its snapshots keep. A filesystem that counts
    /// that way already is left to.
    ///
    /// # Errors
    /// A directory that is not there or not on btrfs.
    pub(super) fn on(path: &Path, host: &Host) -> Result<Self> {
        let root = Folder::open(path, host.gate.clone())?;
        subvolume::ensure_btrfs(root.as_fd()).with_context(|| {
            format!(
                "{} is not on btrfs: make the pool a `directory`, or name another path",
                path.display()
            )
        })?;
        subvolume::enable_quota(&host.gate, root.as_fd(), QuotaMode::Full)?;
        subvolume::sweep_quotas(&host.gate, root.as_fd())?;
        Ok(Self)
    }
}

impl Trees for Subvolumes {
    fn make(&self, entry: &Folder) -> Result<Option<u32>> {
        subvolume::create(entry.gate(), entry.as_fd(), OsStr::new(DATA))?;
        data(entry)?.set_mode(0o755)?;
        Ok(None)
    }

    fn copy(
        &self,
        from: &Folder,
        to: &Folder,
        read_only: bool,
        _progress: &Progress,
    ) -> Result<Option<u32>> {
        subvolume::snapshot(
            to.gate(),
            data(from)?.as_fd(),
            to.as_fd(),
            OsStr::new(DATA),
            read_only,
        )?;
        Ok(None)
    }

    fn limit(&self, entry: &Folder, record: &VolumeRecord) -> Result<()> {
        subvolume::set_limit(entry.gate(), data(entry)?.as_fd(), record.size)
    }

    fn usage(&self, entry: &Folder, _project: Option<u32>) -> Result<Option<Usage>> {
        let usage = subvolume::usage(data(entry)?.as_fd())?;
        Ok(usage.map(|usage| Usage {
            total: usage.limit,
            used: usage.used,
            inodes: None,
        }))
    }

    fn obstacle(&self, _root: &Folder) -> Option<String> {
        None
    }

    /// A subvolume is durable with its transaction, which an fsync of a directory need not end.
    fn commit(&self, folder: &Folder) -> Result<()> {
        folder.sync_filesystem()
    }
}

fn data(entry: &Folder) -> Result<Folder> {
    entry.folder(DATA)?.with_context(|| lost(entry, DATA))
}
