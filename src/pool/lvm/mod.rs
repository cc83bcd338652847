//! LVM pools: a volume is a logical volume, in a thin pool or thick, and its record is in its tags.
//!
//! ```text
//! v-<name>             a volume
//! s-<name>             a snapshot
//! h-<name>             what a volume is copied from; ends with the copying
//! r-<name>.<number>    a volume that was deleted: it is erased, or stays below its classic snapshots
//! ```
//!
//! A command of LVM happens or does not, but for the removal of a classic snapshot (`is_half`); what needs a second one
//! has the tag `orlop-half` until its last, and is removed at the next start if that never came. The size of a volume is
//! that of its logical volume, so that it grows in one step. All other records are in tags (`tags.rs`). LVs that have none
//! are somebody else's and left alone.
//!
//! A filesystem is frozen for a snapshot by the device mapper; under the freeze of another a classic snapshot is left
//! behind broken. Only what it does not reach is frozen by us: an encrypted one, and btrfs.

mod classic;
mod group;
mod hidden;
mod make;
mod metadata;
mod raid;
mod report;
mod retire;
mod room;
mod seen;
mod spread;
mod tags;
mod thin;
mod verbs;
mod watch;
mod wishes;

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::ledger::Ledger;
use crate::config;
use crate::host::folder::Folder;
use crate::host::{Host, device_mapper};
use crate::volume::{Bytes, PoolName, Record, SnapshotName, Volume, VolumeName, VolumeRecord};
use group::Group;
use report::Lv;
use retire::Retired;
use watch::Watch;

/// How the names of logical volumes begin, by what they are.
const VOLUME: &str = "v-";
const SNAPSHOT: &str = "s-";
const HELPER: &str = "h-";

/// A pool of logical volumes.
pub(super) struct Lvm {
    name: PoolName,
    config: config::Lvm,
    group: Group,
    /// What all sizes are a multiple of.
    extent: Bytes,
    ledger: Ledger,
    retired: Arc<Retired>,
    watch: Watch,
    /// The volumes that are frozen by us and were there when it was opened.
    interrupted: Vec<VolumeName>,
    _lock: File,
}

impl Lvm {
    /// Opens the pool, and keeps it for this process.
    ///
    /// # Errors
    /// A volume group or a thin pool that is not there, or that another process keeps.
    pub(super) fn open(name: PoolName, config: &config::Lvm, host: &Host) -> Result<Self> {
        let lock = lock(config, host).with_context(|| format!("pool {name}"))?;
        let group = Group::new(host.clone(), config.volume_group.clone());
        let report = group
            .report()
            .map_err(|error| hidden::explained(&group, error))
            .with_context(|| format!("pool {name}"))?;
        if let Some(pool) = &config.thin_pool {
            prepare(&group, pool).with_context(|| format!("pool {name}"))?;
        }
        let retired = Arc::new(Retired::new(group.clone(), config.thin_pool.is_some()));
        let watch = Watch::start(&name, config, &group, &report)?;
        let mut pool = Self {
            extent: report.group.extent,
            config: config.clone(),
            ledger: Ledger::new(&name),
            _lock: lock,
            name,
            group,
            retired,
            watch,
            interrupted: Vec::new(),
        };
        pool.sweep()?;
        pool.interrupted = pool.frozen_by_us(&report.lvs);
        Ok(pool)
    }

    /// Those of the volumes that are frozen by us for a snapshot.
    fn frozen_by_us(&self, lvs: &[Lv]) -> Vec<VolumeName> {
        self.whole::<VolumeRecord>(lvs, VOLUME)
            .filter(|(_, record)| make::needs_our_freeze(record))
            .filter_map(|(name, _)| name.parse().ok())
            .collect()
    }

    /// Removes what earlier processes left half-made, and ends in the background what they left half-removed.
    fn sweep(&self) -> Result<()> {
        let report = self.group.report()?;
        let ours: Vec<_> = report.lvs.iter().filter(|lv| self.has(lv)).collect();
        for lv in ours.iter().filter(|lv| self.is_half(lv)) {
            tracing::warn!(lv = %lv.name, "removing what an earlier process left half-made");
            if let Err(error) = self.group.remove(&lv.name) {
                tracing::error!(lv = %lv.name, error = format!("{error:#}"), "it stays for now");
            }
        }
        let left = ours.iter().filter(|lv| Retired::is_one(&lv.name));
        self.retired.end_all(left.map(|lv| (*lv).clone()).collect())
    }

    /// Whether a logical volume is in this pool and not in another on the same volume group, and made by us.
    fn has(&self, lv: &Lv) -> bool {
        lv.pool == self.config.thin_pool.as_deref().unwrap_or_default()
            && (lv.is_ours() || lv.is_half())
    }

    /// Whether a logical volume of ours is not whole yet, or not any more.
    fn is_half(&self, lv: &Lv) -> bool {
        // Before LVM removes a classic snapshot, it makes a volume of what that had kept of its origin's blocks.
        let was_snapshot = self.config.thin_pool.is_none()
            && lv.name.starts_with(SNAPSHOT)
            && lv.origin.is_empty();
        lv.is_half() || was_snapshot
    }

    /// The logical volume of this name, if it is a whole one of the pool's.
    ///
    /// # Errors
    /// One that is not ours has the name.
    fn look(&self, name: &str) -> Result<Option<Lv>> {
        let Some(lv) = self.group.find(name)? else {
            return Ok(None);
        };
        let pool = self.config.thin_pool.as_deref().unwrap_or_default();
        if self.is_half(&lv) || (lv.pool != pool && lv.is_ours()) {
            return Ok(None);
        }
        ensure!(
            self.has(&lv),
            "{} has no record: its data is untouched; restore its tags, or rename or remove it",
            self.group.path(name)
        );
        Ok(Some(lv))
    }

    /// The whole volumes or snapshots among all logical volumes, in the order of their names.
    fn whole<'a, R: Record>(
        &'a self,
        all: &'a [Lv],
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, R)> {
        let mut lvs: Vec<_> = all
            .iter()
            .filter(|lv| self.has(lv) && !self.is_half(lv))
            .filter_map(|lv| Some((lv.name.strip_prefix(prefix)?, lv)))
            .collect();
        lvs.sort_unstable_by_key(|(name, _)| *name);
        lvs.into_iter()
            .filter_map(|(name, lv)| match lv.record::<R>() {
                Ok(record) => Some((name, record)),
                Err(error) => {
                    tracing::error!(lv = %lv.name, error = format!("{error:#}"), "left out of a list");
                    None
                }
            })
    }

    /// At most `most` whole volumes or snapshots in the order of their names, those after `after`.
    fn page_of<N: FromStr, R: Record>(
        &self,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<(N, R)>> {
        let report = self.group.report()?;
        Ok(self
            .whole(&report.lvs, prefix)
            .filter(|(name, _)| after.is_none_or(|after| *name > after))
            .filter_map(|(name, record)| Some((name.parse().ok()?, record)))
            .take(most)
            .collect())
    }
}

fn lv_of(prefix: &str, name: &str) -> String {
    format!("{prefix}{name}")
}

fn volume_lv(volume: &Volume) -> String {
    lv_of(VOLUME, volume.id.name.as_str())
}

fn snapshot_lv(name: &SnapshotName) -> String {
    lv_of(SNAPSHOT, name.as_str())
}

/// Keeps the pool by a file where LVM has its own locks: whoever works on one volume group must share that place.
fn lock(config: &config::Lvm, host: &Host) -> Result<File> {
    let run = Folder::open(Path::new("/run"), host.gate.clone())?;
    let locks = run.ensure_folder("lock")?.ensure_folder("lvm")?;
    locks.lock(&format!("orlop_{}", config.place().replace('/', "_")))
}

/// Makes sure that a thin pool is active, gives out blank blocks only, and fails a write for which there is no room.
fn prepare(group: &Group, pool: &str) -> Result<()> {
    let found = group.thin_pool(pool)?;
    let path = group.path(pool);
    ensure!(
        found.zero == "zero",
        "thin pool {path} gives out blocks with what others left in them: run `lvchange --zero y {path}`"
    );
    if found.when_full != "error" {
        let change = Group::command("lvchange").args(["--errorwhenfull", "y"]);
        group.run(&change.arg(&path))?;
    }
    if device_mapper::find(&group.mapped(pool))?.is_none() {
        let activate = Group::command("lvchange").args(["--activate", "y"]);
        if let Err(error) = group.run(&activate.arg(&path)) {
            tracing::error!(pool = %path, error = format!("{error:#}"), "the thin pool can not be activated");
        }
    }
    Ok(())
}
