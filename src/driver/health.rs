//! Health: of volumes and of pools, asked of each pool.

use std::path::PathBuf;

use super::Core;
use crate::host::{filesystem, space};
use crate::pool::{Capacity, Fault, Level, Pool, Severity};
use crate::volume::{PoolName, Result, Volume, VolumeId};

/// A pool as people see it.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Its name in the pools file.
    pub name: PoolName,
    /// What it is: `directory`, `btrfs`.
    pub kind: &'static str,
    /// Where it is, as the pools file says it.
    pub place: String,
    /// Its room; nothing if that can not be told, which then is one of the faults.
    pub capacity: Capacity,
    /// Whether the size of a tree holds.
    pub enforces: bool,
    /// How full its parts are.
    pub levels: Vec<Level>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

impl Core {
    /// What is wrong with the volume (CSI 1.13, `ControllerGetVolumeHealth`).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn volume_health(&self, id: &VolumeId) -> Result<Vec<Fault>> {
        let (pool, volume) = self.existing(id)?;
        Ok(self.faults(pool, &volume))
    }

    /// What is wrong with the volume as a consumer has it at one of these paths (CSI 1.13, `NodeGetVolumeHealth`, which
    /// also asks after a staging that failed).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn health_at(&self, id: &VolumeId, paths: &[PathBuf]) -> Result<Vec<Fault>> {
        let (pool, volume) = self.existing(id)?;
        let mut all = self.faults(pool, &volume);
        for path in paths {
            if let Err(error) = self.at(id, path) {
                all.push(Fault::inaccessible("NotMounted", error.to_string()));
            }
        }
        Ok(all)
    }

    /// At most `most` volumes in the order of their ids, those after `after`, each with its faults.
    pub fn list_health(
        &self,
        after: Option<&VolumeId>,
        most: usize,
    ) -> Result<Vec<(Volume, Vec<Fault>)>> {
        let with_faults = |volume: Volume| {
            let faults = self
                .pool(&volume.id.pool)
                .map(|pool| self.faults(pool, &volume))
                .unwrap_or_default();
            (volume, faults)
        };
        Ok(self
            .list(after, most)?
            .into_iter()
            .map(with_faults)
            .collect())
    }

    /// The faults of a volume: its own, those of the filesystem in it, and that its pool can not be reached.
    fn faults(&self, pool: &dyn Pool, volume: &Volume) -> Vec<Fault> {
        let below = pool
            .faults()
            .into_iter()
            .filter(|fault| fault.severity > Severity::Degraded);
        let own = pool.volume_faults(volume);
        let within = self.filesystem_fault(pool, volume).unwrap_or_else(|error| {
            Some(Fault::inaccessible(
                "FilesystemUnreadable",
                error.to_string(),
            ))
        });
        below.chain(own).chain(within).collect()
    }

    /// What is wrong with the filesystem on the volume's device, where it is mounted.
    fn filesystem_fault(&self, pool: &dyn Pool, volume: &Volume) -> Result<Option<Fault>> {
        let Some((filesystem, device, place)) = self.mounted_filesystem(pool, volume)? else {
            return Ok(None);
        };
        space::of(&place)?;
        let errors = filesystem::errors(filesystem, device.rdev)?.unwrap_or(0);
        Ok((errors > 0).then(|| {
            Fault::degraded(
                "FilesystemErrors",
                format!(
                    "the {filesystem} of volume {} has met {errors} errors: look for their cause in the kernel's log, and \
                     stage it anew, which checks it",
                    volume.id
                ),
            )
        }))
    }

    /// All pools, in the order of the pools file.
    pub fn inspect(&self) -> Vec<Inspected> {
        self.pools.iter().map(|pool| inspected(&**pool)).collect()
    }

    /// The faults of all pools, each with the name of its pool in front.
    pub fn storage_health(&self) -> Vec<Fault> {
        let named = |pool: &dyn Pool| {
            let name = pool.name().clone();
            let name_it = move |fault: Fault| Fault {
                message: format!("pool {name}: {}", fault.message),
                ..fault
            };
            pool.faults().into_iter().map(name_it)
        };
        self.pools.iter().flat_map(|pool| named(&**pool)).collect()
    }
}

pub(super) fn inspected(pool: &dyn Pool) -> Inspected {
    let mut faults = pool.faults();
    let capacity = pool.capacity().unwrap_or_else(|error| {
        faults.push(Fault::inaccessible("CapacityUnknown", error.to_string()));
        Capacity::default()
    });
    Inspected {
        name: pool.name().clone(),
        kind: pool.kind(),
        place: pool.place(),
        capacity,
        enforces: pool.enforces(),
        levels: pool.levels(),
        faults,
    }
}
