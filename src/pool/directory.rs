//! Directory pools: a volume is a plain host directory, limited by a project quota where its filesystem has them.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::Usage;
use super::folders::{DATA, Trees};
use super::image::lost;
use super::shape::Wishes;
use crate::host::folder::Folder;
use crate::host::progress::Progress;
use crate::host::quota::{self, Enforcement, Limit};
use crate::host::space::{self, Kind};
use crate::host::tree;
use crate::volume::{Record, SnapshotRecord, VolumeRecord};

/// Trees that are plain directories.
pub(super) struct Directories;

impl Trees for Directories {
    fn obstacle(&self, root: &Folder) -> Option<String> {
        let place = root.path().display();
        let enforcement = match quota::enforcement(root.as_fd()) {
            Ok(Enforcement::Enforced) => return None,
            Ok(enforcement) => enforcement,
            Err(error) => return Some(format!("{place} does not tell: {error:#}")),
        };
        Some(match (space::kind(root), enforcement) {
            (Kind::Ext4, Enforcement::Off) => format!(
                "the ext4 at {place} has no project quotas: unmount it, run `tune2fs -O project,quota -Q prjquota` on \
                 its device, and mount it with `-o prjquota`"
            ),
            (Kind::Ext4 | Kind::Xfs, _) => format!(
                "the filesystem at {place} is mounted without project quotas: unmount it, and mount it with `-o prjquota`"
            ),
            (Kind::Btrfs, _) => format!("{place} is on btrfs: make the pool a `btrfs` one"),
            (Kind::Other, _) => format!(
                "the filesystem at {place} has no project quotas: use XFS or ext4, mounted with `-o prjquota`"
            ),
        })
    }

    /// A limit can outlast its tree only where that was removed while the filesystem was mounted without quotas.
    fn sweep(&self, root: &Folder) -> Result<()> {
        match quota::enforcement(root.as_fd())? {
            Enforcement::Off => Ok(()),
            Enforcement::Counted | Enforcement::Enforced => quota::sweep(root.gate(), root.as_fd()),
        }
    }

    fn make(&self, entry: &Folder) -> Result<Option<u32>> {
        own(&entry.make_folder(DATA, 0o755)?)
    }

    fn copy(
        &self,
        from: &Folder,
        to: &Folder,
        _read_only: bool,
        progress: &Progress,
    ) -> Result<Option<u32>> {
        let source = from.folder(DATA)?.with_context(|| lost(from, DATA))?;
        progress.expect(tree::size(source.as_fd())?);
        let copy = to.make_folder(DATA, 0o755)?;
        let project = own(&copy)?;
        tree::copy(to.gate(), source.as_fd(), copy.as_fd(), progress)?;
        tree::sync(copy.as_fd())?;
        Ok(project)
    }

    /// A tree without a project was made when its filesystem had no quotas: nothing ever limits it.
    fn limit(&self, entry: &Folder, record: &VolumeRecord) -> Result<()> {
        let Some(project) = record.project else {
            return Ok(());
        };
        let wishes: Wishes = record.current_wishes().read()?;
        let limit = Limit {
            bytes: record.size,
            inodes: wishes.max_inodes()?,
        };
        quota::set_limit(entry.gate(), entry.as_fd(), project, Some(limit))
    }

    fn limits_inodes(&self, root: &Folder) -> bool {
        self.obstacle(root).is_none()
    }

    fn usage(&self, entry: &Folder, project: Option<u32>) -> Result<Option<Usage>> {
        let Some(project) = project else {
            return Ok(None);
        };
        if quota::enforcement(entry.as_fd())? != Enforcement::Enforced {
            return Ok(None);
        }
        let usage = quota::usage(entry.as_fd(), project)?;
        Ok(Some(Usage {
            total: usage.limit,
            used: usage.used,
            inodes: Some(usage.inodes),
        }))
    }

    fn release(&self, entry: &Folder) -> Result<()> {
        match limited(entry)? {
            Some(project) if quota::enforcement(entry.as_fd())? != Enforcement::Off => {
                quota::set_limit(entry.gate(), entry.as_fd(), project, None)
            }
            _ => Ok(()),
        }
    }

    fn commit(&self, folder: &Folder) -> Result<()> {
        folder.sync()
    }
}

/// Gives a new tree a project of its own, where limits hold; before anything is in it, for only what is made then
/// inherits it.
fn own(data: &Folder) -> Result<Option<u32>> {
    match quota::enforcement(data.as_fd())? {
        Enforcement::Enforced => quota::assign(data.gate(), data.as_fd()).map(Some),
        Enforcement::Off | Enforcement::Counted => Ok(None),
    }
}

/// The project that a discarded entry may have limited.
///
/// Of an entry that was a volume only the record is believed: who owns a directory can give it any project, and the
/// limit of that must not be taken away. What has no whole record was never a volume, and nobody could change it.
fn limited(entry: &Folder) -> Result<Option<u32>> {
    let text = entry.read(VolumeRecord::FILE)?;
    if let Some(Ok(record)) = text.map(|text| VolumeRecord::from_text(&text)) {
        return Ok(record.project);
    }
    if entry.read(SnapshotRecord::FILE)?.is_some() {
        return Ok(None);
    }
    match entry.folder(DATA)? {
        // A directory has the project of the one that it was made in until it gets its own.
        Some(data) => Ok(quota::project(data.as_fd())
            .ok()
            .filter(|id| quota::IDS.contains(id))),
        None => Ok(None),
    }
}
