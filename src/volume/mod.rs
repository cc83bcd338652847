//! The nouns: ids, sizes, specifications, records and errors; pure, no input or output.

pub mod capacity;
pub mod error;
pub mod id;
pub mod options;
pub mod record;
pub mod secret;
pub mod spec;
pub mod wishes;

pub use capacity::{Bytes, CapacityRange};
pub use error::{Error, Result};
pub use id::{PoolName, SnapshotId, SnapshotName, VolumeId, VolumeName};
pub use options::{AccessTime, MountAttributes, MountOptions};
pub use record::{HEADER, Record, Shape, SnapshotRecord, VolumeRecord, overhead};
pub use secret::Secret;
pub use spec::{Access, Capability, Claim, Class, Filesystem, Layout, Source, Use, VolumeSpec};
pub use wishes::Wishes;

/// A volume: its id and what is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its handle on the wire.
    pub id: VolumeId,
    /// What is stored beside it.
    pub record: VolumeRecord,
}

/// A snapshot: its id and what is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its handle on the wire.
    pub id: SnapshotId,
    /// What is stored beside it.
    pub record: SnapshotRecord,
    /// Whether what it held is lost: it is there to be deleted.
    pub lost: bool,
}

impl Volume {
    /// That of this name in a pool.
    pub fn new(pool: &PoolName, name: &VolumeName, record: VolumeRecord) -> Self {
        Self {
            id: VolumeId {
                pool: pool.clone(),
                name: name.clone(),
            },
            record,
        }
    }
}

impl Snapshot {
    /// That of this name, of the volume that its record names; nothing of it is lost.
    pub fn new(name: &SnapshotName, record: SnapshotRecord) -> Self {
        Self {
            id: SnapshotId {
                volume: record.volume.clone(),
                name: name.clone(),
            },
            record,
            lost: false,
        }
    }
}
