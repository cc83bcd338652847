//! What a volume holds and has room for, without starting a process.

use std::path::Path;

use super::Core;
use super::mountpoints::Place;
use crate::host::space::{self, Count, Space};
use crate::volume::{Access, Error, Result, Volume, VolumeId};

/// The figures of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Its bytes; of a block volume only the total is known.
    pub bytes: Count,
    /// Its inodes, where the filesystem has a number of them.
    pub inodes: Option<Count>,
}

impl Core {
    /// The figures of the volume that is staged or published at `path` (CSI 1.13, `NodeGetVolumeStats`): those of its
    /// quota where it has one, else those of the filesystem that it is on, for that is what its writers meet.
    ///
    /// # Errors
    /// `NotFound` when the volume does not exist or is not there.
    pub fn stats(&self, id: &VolumeId, path: &Path) -> Result<Stats> {
        let volume = self.at(id, path)?;
        if volume.record.access == Access::Block {
            let total = volume.record.size.0;
            return Ok(Stats {
                bytes: Count {
                    total,
                    used: 0,
                    available: 0,
                },
                inodes: None,
            });
        }
        let Space { bytes, inodes, .. } = space::of(path)?;
        let quota = self.existing(id)?.0.usage(&volume)?;
        let bytes = quota.map_or(bytes, |quota| {
            let total = quota
                .total
                .map_or(bytes.total, |limit| limit.0.min(bytes.total));
            let available = total.saturating_sub(quota.used.0).min(bytes.available);
            Count {
                total,
                used: quota.used.0,
                available,
            }
        });
        let used = quota.and_then(|quota| quota.inodes);
        let inodes = used.map_or(inodes, |used| Count { used, ..inodes });
        Ok(Stats {
            bytes,
            inodes: (inodes.total > 0).then_some(inodes),
        })
    }

    /// The volume, if it is mounted at `path`.
    pub(crate) fn at(&self, id: &VolumeId, path: &Path) -> Result<Volume> {
        let (pool, volume) = self.existing(id)?;
        match self.place(pool.attached(&volume)?.as_ref(), path)? {
            Place::Ours { .. } => Ok(volume),
            Place::Nothing | Place::Plain | Place::Foreign => Err(Error::NotFound(format!(
                "volume {id} at {}",
                path.display()
            ))),
        }
    }
}
