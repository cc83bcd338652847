//! What a volume holds and has room for, without starting a process.

use std::path::{Path, PathBuf};

use super::Core;
use super::mountpoints::Place;
use crate::host::space::{self, Count, Space};
use crate::volume::{Access, Bytes, Error, Result, Volume, VolumeId};

/// The figures of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Its bytes; of a block volume only the total is known.
    pub bytes: Count,
    /// Its inodes, where the filesystem has a number of them.
    pub inodes: Option<Count>,
}

/// What one volume holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The volume.
    pub id: VolumeId,
    /// Where it is mounted.
    pub paths: Vec<PathBuf>,
    /// How much it holds, where something counts that.
    pub used: Option<Bytes>,
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
            let total = volume.record.usable().0;
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

    /// What the volumes hold and where they are mounted: at most `most` in the order of their ids, those after `after`.
    pub fn usages(&self, after: Option<&VolumeId>, most: usize) -> Result<Vec<Held>> {
        let volumes = self.list(after, most)?;
        Ok(volumes.iter().map(|volume| self.held(volume)).collect())
    }

    /// What can not be told is left out: the list is for people.
    fn held(&self, volume: &Volume) -> Held {
        let id = volume.id.clone();
        let Ok((pool, _)) = self.existing(&id) else {
            return Held {
                id,
                paths: Vec::new(),
                used: None,
            };
        };
        let paths = self.mounted(pool, volume).unwrap_or_default();
        let counted = pool.usage(volume).ok().flatten().map(|usage| usage.used);
        let of_device = || {
            volume.record.filesystem?;
            let space = space::of(paths.first()?).ok()?;
            Some(Bytes(space.bytes.used))
        };
        let used = counted.or_else(of_device);
        Held { id, paths, used }
    }

    /// The volume, if it is mounted at `path`.
    pub(crate) fn at(&self, id: &VolumeId, path: &Path) -> Result<Volume> {
        let (pool, volume) = self.existing(id)?;
        match self.place(self.attached(pool, &volume)?.as_ref(), path)? {
            Place::Ours { .. } => Ok(volume),
            Place::Nothing | Place::Plain | Place::Foreign => Err(Error::NotFound(format!(
                "volume {id} at {}",
                path.display()
            ))),
        }
    }
}
