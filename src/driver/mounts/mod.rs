//! Volumes staged and published on this node, and taken back: each call as often as it comes, with one mount at the most.

mod publish;
mod stage;

use std::path::{Path, PathBuf};

use super::Core;
use super::locks::{Hold, Key};
use crate::host::mount::At;
use crate::volume::{
    Access, Capability, Error, Filesystem, Layout, Result, Secret, Use, Volume, VolumeId,
    VolumeName, VolumeSpec,
};

/// A volume that is to be prepared at a path (CSI 1.13, `NodeStageVolume`).
#[derive(Clone, Debug)]
pub struct StageSpec {
    /// Which volume.
    pub volume: VolumeId,
    /// As what.
    pub capability: Capability,
    /// Where; of no use for a block volume.
    pub staging: PathBuf,
    /// The key of an encrypted volume.
    pub key: Option<Secret>,
}

/// A volume that is to be shown to a consumer (CSI 1.13, `NodePublishVolume`).
#[derive(Clone, Debug)]
pub struct PublishSpec {
    /// Which volume.
    pub volume: VolumeId,
    /// As what.
    pub capability: Capability,
    /// Where it was staged.
    pub staging: PathBuf,
    /// Where the consumer will find it.
    pub target: PathBuf,
}

/// An inline volume that lives as long as its one consumer.
#[derive(Clone, Debug)]
pub struct EphemeralSpec {
    /// What to create.
    pub volume: VolumeSpec,
    /// As what.
    pub capability: Capability,
    /// Where the consumer will find it.
    pub target: PathBuf,
    /// The key of an encrypted volume.
    pub key: Option<Secret>,
}

/// What to hold while a volume is staged or unstaged, or created for one consumer: no two of these at once.
pub fn to_stage(name: &VolumeName, volume: Hold, path: &Path) -> Vec<(Key, Hold)> {
    vec![
        (Key::Volume(name.clone()), volume),
        (Key::Mounts(name.clone()), Hold::Exclusive),
        (Key::Path(path.to_owned()), Hold::Exclusive),
    ]
}

/// What to hold while a volume is published or unpublished: two consumers can come at once, but not to one path, and
/// where there may be only one, none beside it.
pub fn to_publish(name: &VolumeName, usage: Option<Use>, path: &Path) -> Vec<(Key, Hold)> {
    let mounts = if usage == Some(Use::OneWriter) {
        Hold::Exclusive
    } else {
        Hold::Shared
    };
    vec![
        (Key::Volume(name.clone()), Hold::Shared),
        (Key::Mounts(name.clone()), mounts),
        (Key::Path(path.to_owned()), Hold::Exclusive),
    ]
}

/// What to hold while the filesystem of a volume is made to fill its device.
pub fn to_expand(name: &VolumeName) -> Vec<(Key, Hold)> {
    vec![
        (Key::Volume(name.clone()), Hold::Shared),
        (Key::Mounts(name.clone()), Hold::Exclusive),
    ]
}

impl Core {
    /// Creates an inline volume and shows it to its consumer. One that can not be shown is not kept: nobody need ask
    /// to have it unpublished.
    pub fn publish_ephemeral(&self, spec: &EphemeralSpec) -> Result<()> {
        self.refuse_own(&spec.target)?;
        let known = self.named(&spec.volume.name())?.is_some();
        let volume = self.create(&spec.volume)?;
        let pool = self.existing(&volume.id)?.0;
        let shown = self.show(
            pool,
            &volume,
            &spec.target,
            &spec.capability.options,
            spec.key.as_ref(),
        );
        if shown.is_err()
            && !known
            && let Err(error) = self.delete(&volume.id)
        {
            tracing::error!(volume.id = %volume.id, %error, "an inline volume without a consumer stays behind");
        }
        shown
    }

    /// Takes an inline volume from its consumer, and deletes it.
    pub fn unpublish_ephemeral(&self, name: &VolumeName, target: &Path) -> Result<()> {
        self.refuse_own(target)?;
        match self.named(name)? {
            Some((pool, volume)) if volume.record.ephemeral => {
                self.unshow(pool, &volume, target)?;
                self.host.mounts.remove_target(target)?;
                self.delete(&volume.id)
            }
            _ => self.gone(name, target),
        }
    }

    /// Answers for a volume that does not exist: fine if nothing is mounted there, and the target is removed.
    fn gone(&self, what: &dyn std::fmt::Display, path: &Path) -> Result<()> {
        match self.host.mounts.at(path)? {
            At::Mount(_) => Err(Error::NotFound(format!(
                "volume {what} (and what is mounted at {} was left)",
                path.display()
            ))),
            At::Plain { .. } | At::Nothing => Ok(self.host.mounts.remove_target(path)?),
        }
    }

    /// No consumer's path may lie in a pool, where it would become part of other volumes, or above, where it would hide
    /// the pool.
    fn refuse_own(&self, path: &Path) -> Result<()> {
        match self.pools.iter().find(|pool| pool.holds(path)) {
            None => Ok(()),
            Some(pool) => Err(Error::Invalid(format!(
                "{} lies in pool {} or above it: choose a path outside",
                path.display(),
                pool.name()
            ))),
        }
    }
}

/// Whether a volume can be used as `capability` says.
///
/// # Errors
/// `Invalid`, saying what the volume is.
pub(super) fn agree(capability: &Capability, volume: &Volume) -> Result<()> {
    let (id, record) = (&volume.id, &volume.record);
    if capability.access != record.access {
        let is = if record.access == Access::Block {
            "a block device"
        } else {
            "a directory"
        };
        return Err(Error::Invalid(format!(
            "volume {id} is {is}: use it as that"
        )));
    }
    match (capability.filesystem, record.filesystem) {
        (Some(asked), Some(is)) if record.layout != Layout::Tree && asked != is => {
            Err(Error::Invalid(format!(
                "volume {id} holds {}, not {}",
                Filesystem::name(is),
                Filesystem::name(asked)
            )))
        }
        _ => Ok(()),
    }
}

fn foreign(path: &Path) -> Error {
    Error::InUse(format!(
        "something else is mounted at {}: it was left alone; unmount it, or choose another path",
        path.display()
    ))
}

fn other_way(volume: &Volume, path: &Path) -> Error {
    let at = path.display();
    Error::Conflict(format!(
        "volume {} is at {at} already, but read-only there and not here, or the reverse",
        volume.id
    ))
}
