//! How volumes and snapshots end: destroyed, or kept under another name for what still needs them.

use anyhow::Result;

use super::{Zfs, names};
use crate::host::command::Command;
use crate::volume::{SnapshotName, VolumeName};

impl Zfs {
    /// Destroys the dataset of a volume, or keeps it under another name for what still needs it.
    pub(super) fn let_go(&self, name: &VolumeName, dataset: &str) -> Result<()> {
        let needed = {
            let known = self.known();
            known.has_snapshots(dataset) || !known.clones_of(dataset).is_empty()
        };
        if !needed {
            return self.change(destroy(dataset));
        }
        let retired = self.names.retired(name);
        self.change(Command::new("zfs").args(["rename", dataset, &retired]))?;
        self.known_mut().retired.push(retired);
        Ok(())
    }

    /// Destroys a snapshot of this dataset; what was restored from it stays.
    pub(super) fn let_snapshot_go(&self, dataset: &str, name: &SnapshotName) -> Result<()> {
        let mut full = names::snapshot(dataset, name);
        if self.known().is_origin(&full) {
            // It stays for what was restored from it, but its name is free again.
            let deleted = names::deleted(dataset);
            self.change(Command::new("zfs").args(["rename", &full, &deleted]))?;
            for kept in self.known_mut().volumes.values_mut() {
                if kept.origin.as_deref() == Some(&full) {
                    kept.origin = Some(deleted.clone());
                }
            }
            full = deleted;
        }
        self.change(destroy(&full))
    }

    /// Destroys deleted volumes of which there are no snapshots any more. Where volumes were cloned from one, the clone
    /// of its last state takes over what they have in common.
    pub(super) fn settle(&self) -> Result<()> {
        if self.known().retired.is_empty() {
            return Ok(());
        }
        self.list()?;
        let retired = self.known().retired.clone();
        for dataset in retired {
            let (wanted, heir) = {
                let known = self.known();
                let heir = known
                    .clones_of(&dataset)
                    .first()
                    .map(|name| self.names.volume(name));
                (known.has_snapshots(&dataset), heir)
            };
            if wanted {
                continue;
            }
            if let Some(heir) = heir {
                self.change(Command::new("zfs").args(["promote", &heir]))?;
            }
            self.change(destroy(&dataset))?;
            self.list()?;
        }
        Ok(())
    }
}

/// Removes a dataset, or a snapshot as soon as nothing depends on it.
pub(super) fn destroy(name: &str) -> Command {
    let command = Command::new("zfs").arg("destroy");
    let command = if name.contains('@') {
        command.arg("-d")
    } else {
        command
    };
    command.arg(name)
}
