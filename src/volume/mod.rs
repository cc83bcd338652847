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
pub use record::{HEADER, Record, Shape, Snapshot, SnapshotRecord, Volume, VolumeRecord, overhead};
pub use secret::Secret;
pub use spec::{Access, Capability, Claim, Class, Filesystem, Layout, Source, Use, VolumeSpec};
pub use wishes::Wishes;
