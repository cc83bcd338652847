//! Trees: datasets that are mounted for us, to be bound from there.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Zfs;
use crate::host::mount::At;
use crate::pool::Attached;
use crate::volume::{Layout, VolumeName};

impl Zfs {
    /// Mounts the trees again for us that others still see: what is mounted is told by where we see it ourselves.
    pub(super) fn mount_again(&self) -> Result<()> {
        for mount in self.host.mounts.all()? {
            let Some(name) = self.shown_by(&mount) else {
                continue;
            };
            let kept = self.known().volumes.get(&name).cloned();
            let is_tree = kept.is_some_and(|kept| kept.record.layout == Layout::Tree);
            if is_tree {
                self.mount(&name)?;
            }
        }
        Ok(())
    }

    /// The tree of a volume where it is mounted for us, if it is.
    pub(super) fn tree(&self, name: &VolumeName) -> Result<Option<Attached>> {
        let path = self.mount_point(name);
        Ok(match self.host.mounts.at(&path)? {
            At::Mount(mounted) => Some(Attached::Folder {
                path,
                id: mounted.root,
            }),
            At::Nothing | At::Plain { .. } => None,
        })
    }

    /// Mounts the tree of a volume for us, if it is not yet.
    pub(super) fn mount(&self, name: &VolumeName) -> Result<Attached> {
        if let Some(tree) = self.tree(name)? {
            return Ok(tree);
        }
        let dataset = self.names.volume(name);
        let mounts = &self.host.mounts;
        mounts.mount_dataset(&dataset, &self.mount_point(name))?;
        self.tree(name)?
            .with_context(|| format!("{dataset} was mounted and is not there"))
    }

    /// Takes that back; what is not mounted is fine.
    pub(super) fn unmount(&self, name: &VolumeName) -> Result<()> {
        let path = self.mount_point(name);
        if self.tree(name)?.is_some() {
            self.host.mounts.unmount(&path)?;
        }
        self.host.mounts.remove_target(&path)
    }

    fn mount_point(&self, name: &VolumeName) -> PathBuf {
        self.mounts.path().join(name.as_str())
    }
}
