//! What a caller asks for when it creates a volume, and whether a volume is the one that was asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Bytes, CapacityRange, Error, MountOptions, PoolName, Result, SnapshotId, Volume, VolumeId,
    VolumeName, Wishes,
};

/// How the bytes of a volume are laid out in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A directory (or subvolume, or dataset), bound into the pod.
    Tree,
    /// A file on a loop device: a filesystem whose size is enforced everywhere, or a raw block device.
    Image,
    /// A block device of the pool's own, with a filesystem on it or raw: a logical volume, a zvol.
    Device,
}

impl Layout {
    /// Its name, as a class writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Image => "image",
            Self::Device => "device",
        }
    }
}

/// A filesystem that we make on a device or an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// ext4, the default.
    Ext4,
    /// XFS; at least 300 MiB.
    Xfs,
    /// btrfs; at least 256 MiB, for the kernel grows none to less.
    Btrfs,
}

impl Filesystem {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// The kernel's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The least size at which it can be made and grown.
    pub const fn least(self) -> Bytes {
        match self {
            Self::Ext4 => Bytes::MIB,
            Self::Xfs => Bytes(300 << 20),
            Self::Btrfs => Bytes(256 << 20),
        }
    }

    /// Reads the kernel's name of one.
    ///
    /// # Errors
    /// `Invalid`, naming those that there are.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|known| known.name() == name)
            .ok_or_else(|| {
                Error::Invalid(format!(
                    "fsType {:?} is unknown: use ext4, xfs or btrfs",
                    name.chars().take(32).collect::<String>()
                ))
            })
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the consumer gets to see (CSI 1.13, `VolumeCapability.access_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// A directory.
    Mount,
    /// A raw block device.
    Block,
}

/// How many may use a volume, and for what (CSI 1.13, `VolumeCapability.AccessMode`, those of a single node).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Any number on this node, to write.
    Writers,
    /// One on this node, to write.
    OneWriter,
    /// Any number on this node, to read.
    Readers,
}

/// How a volume is to be used (CSI 1.13, `VolumeCapability`).
#[derive(Clone, Debug)]
pub struct Capability {
    /// Directory or block device.
    pub access: Access,
    /// The filesystem expected in it.
    pub filesystem: Option<Filesystem>,
    /// How it is mounted.
    pub options: MountOptions,
    /// By how many.
    pub usage: Use,
}

/// Where the first content of a volume comes from (CSI 1.13, `VolumeContentSource`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A clone of a volume.
    Volume(VolumeId),
    /// A restored snapshot.
    Snapshot(SnapshotId),
}

/// Whose volume it is, for the people who read lists: what the provisioner's extra metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Claim {
    /// The claim's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The claim's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The persistent volume's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
}

/// What kind of volume is asked for: all that decides where it can be and how much of it there is room for.
#[derive(Clone, Debug)]
pub struct Class {
    /// The pool that the class names; without it the only pool, or the one called `default`.
    pub pool: Option<PoolName>,
    /// Directory or block device.
    pub access: Access,
    /// The filesystem asked for.
    pub filesystem: Option<Filesystem>,
    /// The layout asked for, where the pool has a choice.
    pub layout: Option<Layout>,
    /// Whether a size that nothing enforces is refused.
    pub require_quota: bool,
    /// Whether what is stored can be read only with a key; left out, as what it is made from.
    pub encryption: Option<bool>,
    /// What it asks of the pool's kind alone.
    pub wishes: Wishes,
}

/// A volume as a caller asks for it, every part checked.
#[derive(Clone, Debug)]
pub struct VolumeSpec {
    /// The name that the caller gave, at most 128 bytes.
    pub csi_name: String,
    /// What kind of volume.
    pub class: Class,
    /// What is asked beside its class, and can be asked otherwise later; where they differ, this counts.
    pub mutable: Wishes,
    /// The sizes that will do.
    pub range: CapacityRange,
    /// Where the content comes from; nothing means an empty volume.
    pub source: Option<Source>,
    /// Whose it is.
    pub claim: Claim,
    /// Whether it lives only as long as one pod (an inline volume).
    pub ephemeral: bool,
}

impl VolumeSpec {
    /// The name of the volume, one and the same for every repetition of the call.
    pub fn name(&self) -> VolumeName {
        VolumeName::from_csi(&self.csi_name)
    }

    /// What is asked of the pool's kind alone.
    pub fn wishes(&self) -> Wishes {
        self.class.wishes.with(&self.mutable)
    }

    /// Whether `volume` is what this asks for, so that a repeated create returns it.
    ///
    /// # Errors
    /// `Conflict`, saying in what it differs.
    pub fn agrees_with(&self, volume: &Volume) -> Result<()> {
        let record = &volume.record;
        let differs = |what: &str, is: &dyn fmt::Display| {
            Err(Error::Conflict(format!(
                "volume {} exists already, but its {what} is {is}",
                volume.id
            )))
        };
        if self
            .class
            .pool
            .as_ref()
            .is_some_and(|pool| *pool != volume.id.pool)
        {
            return differs("pool", &volume.id.pool);
        }
        if record.csi_name != self.csi_name {
            return differs("CSI name", &record.csi_name);
        }
        let inherited = record.encryption && self.source.is_some();
        if record.encryption != self.class.encryption.unwrap_or(inherited) {
            return differs("encryption", &record.encryption);
        }
        if !self.range.holds(record.usable()) {
            return differs("size", &record.usable());
        }
        if record.access != self.class.access {
            return differs(
                "access type",
                &if record.access == Access::Block {
                    "block"
                } else {
                    "mount"
                },
            );
        }
        if self
            .class
            .filesystem
            .is_some_and(|asked| record.filesystem.is_some_and(|is| is != asked))
        {
            return differs(
                "filesystem",
                &record.filesystem.map_or("none", Filesystem::name),
            );
        }
        if self
            .class
            .layout
            .is_some_and(|asked| asked != record.layout)
        {
            return differs("layout", &record.layout.name());
        }
        if record.wishes != self.wishes() {
            return Err(Error::Conflict(format!(
                "volume {} exists already, made with other parameters",
                volume.id
            )));
        }
        if record.source != self.source {
            return differs(
                "source",
                &match &record.source {
                    None => "nothing: it was made empty".to_owned(),
                    Some(Source::Volume(id)) => format!("volume {id}"),
                    Some(Source::Snapshot(id)) => format!("snapshot {id}"),
                },
            );
        }
        Ok(())
    }
}
