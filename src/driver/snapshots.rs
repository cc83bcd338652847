//! Snapshots: taken, deleted and listed.

use std::path::PathBuf;

use super::Core;
use super::locks::{Guard, Hold, Key};
use crate::pool::Pool;
use crate::volume::{
    Error, Layout, Result, Snapshot, SnapshotId, SnapshotName, SnapshotRecord, Volume, VolumeId,
};

/// What a caller asks for when it takes a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotSpec {
    /// The name that the caller gave, at most 128 bytes.
    pub csi_name: String,
    /// The volume to take it of.
    pub volume: VolumeId,
}

/// Which snapshots are wanted: all that there are, or one, or those of one volume; `Some(None)` is one that can not be.
#[derive(Clone, Debug, Default)]
pub struct Only {
    /// This one.
    pub snapshot: Option<Option<SnapshotId>>,
    /// Those of this volume.
    pub volume: Option<Option<VolumeId>>,
}

impl Only {
    fn wants(&self, snapshot: &Snapshot) -> bool {
        let of_volume = |id: &Option<VolumeId>| id.as_ref() == Some(&snapshot.record.volume);
        let this = |id: &Option<SnapshotId>| id.as_ref() == Some(&snapshot.id);
        self.volume.as_ref().is_none_or(of_volume) && self.snapshot.as_ref().is_none_or(this)
    }
}

/// What to hold while a snapshot is deleted.
pub fn to_delete(id: &SnapshotId) -> Vec<(Key, Hold)> {
    vec![(Key::Snapshot(id.name.clone()), Hold::Exclusive)]
}

impl SnapshotSpec {
    /// What to hold while it is taken: its name, and that the volume stays.
    pub fn keys(&self) -> Vec<(Key, Hold)> {
        vec![
            (
                Key::Snapshot(SnapshotName::from_csi(&self.csi_name)),
                Hold::Exclusive,
            ),
            (Key::Volume(self.volume.name.clone()), Hold::Shared),
        ]
    }
}

impl Core {
    /// Takes the snapshot, or finds the one that an earlier call took (CSI 1.13, `CreateSnapshot`).
    ///
    /// # Errors
    /// `Conflict` when the name is another snapshot's, `NotFound` without the volume.
    pub fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        let name = SnapshotName::from_csi(&spec.csi_name);
        if let Some((_, snapshot)) = self.named_snapshot(&name)? {
            let record = &snapshot.record;
            if record.volume == spec.volume && record.csi_name == spec.csi_name {
                return Ok(snapshot);
            }
            let (id, of) = (&snapshot.id, &record.volume);
            return Err(Error::Conflict(format!(
                "snapshot {id} exists already, of volume {of}: take another name"
            )));
        }
        let (pool, volume) = self.existing(&spec.volume)?;
        let (mounted_at, _frozen) = self.to_be_frozen(pool, &volume)?;
        let record = SnapshotRecord::new(&spec.csi_name, &volume);
        let work = self.works.begin(format!("{}@{name}", volume.id));
        let mounted_at = mounted_at.as_deref();
        let snapshot = pool.snapshot(&volume, &name, record, mounted_at, &work.progress)?;
        tracing::info!(snapshot.id = %snapshot.id, "snapshot taken");
        Ok(snapshot)
    }

    /// Where the filesystem on the volume's device is mounted, and the right to freeze it there.
    pub(super) fn to_be_frozen(
        &self,
        pool: &dyn Pool,
        volume: &Volume,
    ) -> Result<(Option<PathBuf>, Option<Guard>)> {
        if volume.record.layout == Layout::Tree || volume.record.filesystem.is_none() {
            return Ok((None, None));
        }
        let place = self.mounted(pool, volume)?.into_iter().next();
        let guard = self
            .freezes
            .take(vec![(Key::Freeze(volume.id.name.clone()), Hold::Exclusive)])?;
        Ok((place, Some(guard)))
    }

    /// Deletes the snapshot. One that is not there is deleted already.
    pub fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        match self.find_snapshot(id)? {
            None => Ok(()),
            Some((pool, snapshot)) => {
                pool.delete_snapshot(&snapshot)?;
                tracing::info!(snapshot.id = %id, "snapshot deleted");
                Ok(())
            }
        }
    }

    /// The snapshot of this id, with its pool.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn existing_snapshot(&self, id: &SnapshotId) -> Result<(&dyn Pool, Snapshot)> {
        self.find_snapshot(id)?
            .ok_or_else(|| Error::NotFound(format!("snapshot {id}")))
    }

    fn find_snapshot(&self, id: &SnapshotId) -> Result<Option<(&dyn Pool, Snapshot)>> {
        let Some(pool) = self.pool(&id.volume.pool) else {
            return Ok(None);
        };
        let found = pool.find_snapshot(&id.name)?;
        Ok(found
            .filter(|snapshot| snapshot.id == *id)
            .map(|snapshot| (pool, snapshot)))
    }

    /// The snapshot of this name in whichever pool: names are given once per node.
    fn named_snapshot(&self, name: &SnapshotName) -> Result<Option<(&dyn Pool, Snapshot)>> {
        for pool in &self.pools {
            if let Some(snapshot) = pool.find_snapshot(name)? {
                return Ok(Some((&**pool, snapshot)));
            }
        }
        Ok(None)
    }

    /// At most `most` of the wanted snapshots in the order of pool and name, those after `after`.
    pub fn list_snapshots(
        &self,
        after: Option<&SnapshotId>,
        most: usize,
        only: &Only,
    ) -> Result<Vec<Snapshot>> {
        if let Some(id) = &only.snapshot {
            let found = id
                .as_ref()
                .map_or(Ok(None), |id| self.find_snapshot(id))?
                .map(|(_, snapshot)| snapshot);
            return Ok(found
                .into_iter()
                .filter(|snapshot| only.wants(snapshot))
                .collect());
        }
        self.paged(after.map(|id| &id.volume.pool), most, |pool, same, most| {
            let mut after = after.filter(|_| same).map(|id| id.name.clone());
            let mut found = Vec::new();
            loop {
                let page = pool.page_of_snapshots(after.as_ref(), most)?;
                let last = page.last().map(|snapshot| snapshot.id.name.clone());
                found.extend(page.into_iter().filter(|snapshot| only.wants(snapshot)));
                if found.len() >= most || last.is_none() {
                    found.truncate(most);
                    return Ok(found);
                }
                after = last;
            }
        })
    }
}
