//! The names of a pool's things in ZFS, and the properties that hold their records.

use jiff::Timestamp;

use crate::volume::{SnapshotName, VolumeName};

/// What makes a dataset a volume: its record, as JSON in one line.
pub(super) const RECORD: &str = "dev.orlop:volume";

/// What makes a ZFS snapshot one of ours.
pub(super) const SNAPSHOT_RECORD: &str = "dev.orlop:snapshot";

/// Names beneath one dataset.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The pool's own dataset.
    pub(super) home: String,
}

impl Names {
    /// The dataset of a volume.
    pub(super) fn volume(&self, name: &VolumeName) -> String {
        format!("{}/{}", self.home, of_volume(name))
    }

    /// The name that the dataset of a volume has while it is made.
    pub(super) fn half(&self, name: &VolumeName) -> String {
        format!("{}/m-{name}", self.home)
    }

    /// The name that the dataset of a volume has once its encrypted one is to take its place.
    pub(super) fn replaced(&self, name: &VolumeName) -> String {
        format!("{}/e-{name}", self.home)
    }

    /// The name for a volume that is deleted while there are snapshots of it.
    pub(super) fn retired(&self, name: &VolumeName) -> String {
        format!("{}/r-{name}.{}", self.home, now())
    }

    /// The volume whose dataset this is.
    pub(super) fn volume_of(&self, dataset: &str) -> Option<VolumeName> {
        self.below(dataset)?.strip_prefix("v-")?.parse().ok()
    }

    /// The volume of which this is the dataset that gives way to its encrypted one.
    pub(super) fn replaced_of(&self, dataset: &str) -> Option<VolumeName> {
        self.below(dataset)?.strip_prefix("e-")?.parse().ok()
    }

    /// Whether this is a dataset that is being made.
    pub(super) fn is_half(&self, dataset: &str) -> bool {
        self.below(dataset)
            .is_some_and(|name| name.starts_with("m-"))
    }

    /// Whether this is the dataset of a deleted volume.
    pub(super) fn is_retired(&self, dataset: &str) -> bool {
        self.below(dataset)
            .is_some_and(|name| name.starts_with("r-"))
    }

    /// Whether this is a dataset that we made.
    pub(super) fn is_ours(&self, dataset: &str) -> bool {
        self.is_retired(dataset)
            || self.volume_of(dataset).is_some()
            || self.replaced_of(dataset).is_some()
    }

    /// The zpool.
    pub(super) fn zpool(&self) -> &str {
        self.home.split('/').next().unwrap_or(&self.home)
    }

    fn below<'a>(&self, dataset: &'a str) -> Option<&'a str> {
        dataset.strip_prefix(&self.home)?.strip_prefix('/')
    }
}

/// What the dataset of a volume is called.
pub(super) fn of_volume(name: &VolumeName) -> String {
    format!("v-{name}")
}

/// What a snapshot of ours is called, of whatever dataset it is.
pub(super) fn of_snapshot(name: &SnapshotName) -> String {
    format!("s-{name}")
}

/// A snapshot of ours.
pub(super) fn snapshot(dataset: &str, name: &SnapshotName) -> String {
    format!("{dataset}@{}", of_snapshot(name))
}

/// What a clone is made from.
pub(super) fn for_clone(dataset: &str) -> String {
    format!("{dataset}@c-{}", now())
}

/// A deleted snapshot that something was restored from.
pub(super) fn deleted(dataset: &str) -> String {
    format!("{dataset}@d-{}", now())
}

/// Nanoseconds, which no two steps of one process share.
fn now() -> i128 {
    Timestamp::now().as_nanosecond()
}
