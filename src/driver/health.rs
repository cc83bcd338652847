//! Health: of volumes and of pools, asked of each pool.

use std::path::PathBuf;

use super::Core;
use crate::pool::{Fault, Pool, Severity};
use crate::volume::{Result, Volume, VolumeId};

impl Core {
    /// What is wrong with the volume (CSI 1.13, `ControllerGetVolumeHealth`).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn volume_health(&self, id: &VolumeId) -> Result<Vec<Fault>> {
        let (pool, volume) = self.existing(id)?;
        Ok(faults(pool, &volume))
    }

    /// What is wrong with the volume as a consumer has it at one of these paths (CSI 1.13, `NodeGetVolumeHealth`, which
    /// also asks after a staging that failed).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn health_at(&self, id: &VolumeId, paths: &[PathBuf]) -> Result<Vec<Fault>> {
        let (pool, volume) = self.existing(id)?;
        let mut all = faults(pool, &volume);
        for path in paths {
            if let Err(error) = self.at(id, path) {
                all.push(Fault {
                    severity: Severity::Inaccessible,
                    reason: "NotMounted",
                    message: error.to_string(),
                });
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
                .map(|pool| faults(pool, &volume))
                .unwrap_or_default();
            (volume, faults)
        };
        Ok(self
            .list(after, most)?
            .into_iter()
            .map(with_faults)
            .collect())
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

/// The faults of a volume: its own, and that its pool can not be reached.
fn faults(pool: &dyn Pool, volume: &Volume) -> Vec<Fault> {
    let below = pool
        .faults()
        .into_iter()
        .filter(|fault| fault.severity > Severity::Degraded);
    below.chain(pool.volume_faults(volume)).collect()
}
