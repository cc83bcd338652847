//! What `zfs list` tells of the datasets beneath a pool's own, and the names that they have.
//!
//! ```text
//! <dataset>/v-<volume>                a volume, once `dev.orlop:volume` is set on it
//! <dataset>/v-<volume>@s-<snapshot>   a snapshot, with `dev.orlop:snapshot`
//! <dataset>/v-<volume>@c-<time>       what a clone was made from; goes with the clone
//! <dataset>/v-<volume>@d-<time>       a deleted snapshot that something was restored from; goes with that
//! <dataset>/r-<volume>.<time>         a deleted volume of which there are snapshots still
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::names::{Names, RECORD, SNAPSHOT_RECORD};
use crate::volume::{Bytes, Record, SnapshotName, SnapshotRecord, VolumeName, VolumeRecord};

/// The properties that are asked for, in their order.
pub(super) const COLUMNS: &str = "name,type,origin,createtxg,refquota,volsize,defer_destroy,dev.orlop:volume,dev.orlop:snapshot,dev.orlop:making";

/// All that is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) volumes: BTreeMap<VolumeName, Kept>,
    pub(super) snapshots: BTreeMap<SnapshotName, Taken>,
    /// Deleted volumes, by the names of their datasets.
    pub(super) retired: Vec<String>,
    /// Datasets that an earlier process did not finish, and snapshots of it that are of no use.
    pub(super) half_made: Vec<String>,
    /// When each snapshot of ours was taken, in the pool's own count.
    pub(super) taken_at: BTreeMap<String, u64>,
}

/// A volume.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) record: VolumeRecord,
    /// The snapshot that it was cloned from, by the name that it has in ZFS.
    pub(super) origin: Option<String>,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) record: SnapshotRecord,
    /// The dataset that it is of, which may be retired.
    pub(super) dataset: String,
}

impl Listing {
    /// Reads what `zfs list -Hp` printed. What is not ours is left out, a record that can not be read is told.
    pub(super) fn read(names: &Names, text: &str) -> Self {
        let mut listing = Self::default();
        for line in text.lines() {
            if let Err(error) = listing.add(names, line) {
                tracing::error!(
                    line,
                    error = format!("{error:#}"),
                    "a dataset can not be read"
                );
            }
        }
        listing
    }

    fn add(&mut self, names: &Names, line: &str) -> Result<()> {
        let mut fields = line
            .split('\t')
            .map(|field| (field != "-").then_some(field));
        let mut next = || fields.next().context("a column is missing");
        let (name, kind) = (next()?.context("no name")?, next()?.unwrap_or_default());
        let (origin, txg) = (next()?.map(str::to_owned), next()?.unwrap_or("0").parse()?);
        let [refquota, volsize, deferred] = [next()?, next()?, next()?];
        let [record, snapshot, making] = [next()?, next()?, next()?];
        if kind == "snapshot" {
            self.taken_at.insert(name.to_owned(), txg);
            // One that is deferred goes by itself.
            return match deferred {
                Some("on") => Ok(()),
                _ => self.add_snapshot(names, name, snapshot),
            };
        }
        if names.is_retired(name) {
            self.retired.push(name.to_owned());
        } else if let (Some(volume), Some(record)) = (names.volume_of(name), record) {
            let mut record = VolumeRecord::from_text(record.as_bytes()).context(RECORD)?;
            let size = volsize.or(refquota).context("it has no size")?;
            record.size = Bytes(size.parse()?);
            self.volumes.insert(volume, Kept { record, origin });
        } else if names.volume_of(name).is_some() && making.is_some() {
            self.half_made.push(name.to_owned());
        }
        Ok(())
    }

    fn add_snapshot(&mut self, names: &Names, full: &str, record: Option<&str>) -> Result<()> {
        let Some((dataset, name)) = full.split_once('@') else {
            return Ok(());
        };
        if !names.is_ours(dataset) {
            return Ok(());
        }
        if name.starts_with("c-") {
            self.half_made.push(full.to_owned());
        }
        if let (Some(name), Some(record)) = (name.strip_prefix("s-"), record) {
            let record = SnapshotRecord::from_text(record.as_bytes()).context(SNAPSHOT_RECORD)?;
            let dataset = dataset.to_owned();
            self.snapshots
                .insert(name.parse()?, Taken { record, dataset });
        }
        Ok(())
    }

    /// Whether there is a snapshot of this dataset.
    pub(super) fn has_snapshots(&self, dataset: &str) -> bool {
        self.snapshots
            .values()
            .any(|taken| taken.dataset == dataset)
    }

    /// The volumes that were cloned from snapshots of this dataset; the one from its last snapshot first.
    pub(super) fn clones_of(&self, dataset: &str) -> Vec<&VolumeName> {
        let is_of = |origin: &str| origin.split_once('@').is_some_and(|(of, _)| of == dataset);
        let mut clones: Vec<_> = self
            .volumes
            .iter()
            .filter_map(|(name, kept)| Some((name, kept.origin.as_deref().filter(|of| is_of(of))?)))
            .collect();
        clones.sort_by_key(|(_, origin)| std::cmp::Reverse(self.taken_at.get(*origin)));
        clones.into_iter().map(|(name, _)| name).collect()
    }

    /// Whether something was cloned from this snapshot.
    pub(super) fn is_origin(&self, snapshot: &str) -> bool {
        self.volumes
            .values()
            .any(|kept| kept.origin.as_deref() == Some(snapshot))
    }
}
