//! Volumes staged and published on this node, and taken back: each call as often as it comes, with one mount at the most.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Core;
use super::locks::{Hold, Key};
use super::mountpoints::Place;
use crate::host::mount::At;
use crate::host::{block_device, filesystem};
use crate::pool::{Attached, Device, Pool};
use crate::volume::{
    Access, Capability, CapacityRange, Error, Filesystem, Layout, MountOptions, Result, Use,
    Volume, VolumeId, VolumeName, VolumeSpec,
};

/// How long what a killed process left behind may keep a device.
const UNCLAIMED_LIMIT: Duration = Duration::from_secs(5);

/// A volume that is to be prepared at a path (CSI 1.13, `NodeStageVolume`).
#[derive(Clone, Debug)]
pub struct StageSpec {
    /// Which volume.
    pub volume: VolumeId,
    /// As what.
    pub capability: Capability,
    /// Where; of no use for a block volume.
    pub staging: PathBuf,
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
    /// Confirms that the volume, mounted at `path`, has the size that it was grown to (CSI 1.13, `NodeExpandVolume`).
    ///
    /// # Errors
    /// `NotFound` when it is not there; `OutOfRange` when `ControllerExpandVolume` was not called first.
    pub fn confirm_size(&self, id: &VolumeId, path: &Path, range: CapacityRange) -> Result<Volume> {
        let volume = self.at(id, path)?;
        let has = volume.record.size;
        if range.required.is_some_and(|required| required > has) {
            return Err(Error::OutOfRange(format!(
                "volume {id} has {has}: grow it by ControllerExpandVolume first"
            )));
        }
        self.fill_device(self.existing(id)?.0, &volume)?;
        Ok(volume)
    }

    /// Prepares the volume: its device, and its filesystem or directory at the staging path.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for another access type or filesystem than it has; `InUse` when something else is mounted
    /// there.
    pub fn stage(&self, spec: &StageSpec) -> Result<()> {
        let (pool, volume) = self.existing(&spec.volume)?;
        agree(&spec.capability, &volume)?;
        match spec.capability.access {
            Access::Block => pool.attach(&volume).map(drop),
            Access::Mount => self.show(pool, &volume, &spec.staging, &spec.capability.options),
        }
    }

    /// Mounts the volume itself at `path`, unless it is there already.
    fn show(
        &self,
        pool: &dyn Pool,
        volume: &Volume,
        path: &Path,
        options: &MountOptions,
    ) -> Result<()> {
        self.refuse_own(path)?;
        match self.place(pool.attached(volume)?.as_ref(), path)? {
            Place::Ours { read_only } if read_only == options.attributes.read_only => return Ok(()),
            Place::Ours { .. } => return Err(other_way(volume, path)),
            Place::Foreign => return Err(foreign(path)),
            Place::Plain | Place::Nothing => {}
        }
        match pool.attach(volume)? {
            Attached::Folder { path: from, .. } => {
                if let Some((option, _)) = options.filesystem.first() {
                    return Err(Error::Invalid(format!(
                        "mount option {option:?}: a tree has no filesystem of its own; leave it out, or use `layout: image`"
                    )));
                }
                self.host.mounts.bind(&from, path, options.attributes)?;
            }
            Attached::Device(device) => {
                let at_rest = self.mounted(pool, volume)?.is_empty();
                self.mount(volume, &device, at_rest, path, options)?;
            }
        }
        self.mountpoints.add(&volume.id, path);
        Ok(())
    }

    /// Mounts the filesystem of a device; one that is not `at_rest` is mounted elsewhere too, and must not be checked.
    fn mount(
        &self,
        volume: &Volume,
        device: &Device,
        at_rest: bool,
        path: &Path,
        options: &MountOptions,
    ) -> Result<()> {
        let recorded = volume.record.filesystem.ok_or_else(|| {
            Error::Invalid(format!(
                "volume {} is a block device: publish it as one",
                volume.id
            ))
        })?;
        let tools = &*self.host.tools;
        let found =
            filesystem::probe_at(&device.path)?.filter(|found| found.filesystem == recorded);
        let found = found.ok_or_else(|| {
            Error::Host(anyhow::anyhow!(
                "{} does not hold the {recorded} that volume {} was made with; it was left untouched: restore a \
                 snapshot, or repair it by hand",
                device.path.display(),
                volume.id
            ))
        })?;
        if at_rest {
            block_device::wait_until_unclaimed(&device.path, UNCLAIMED_LIMIT)?;
        }
        let small = found.size < volume.record.size;
        if at_rest && !(small && filesystem::grow_at_rest(tools, recorded, &device.path)?) {
            filesystem::check(tools, recorded, &device.path)?;
        }
        self.host
            .mounts
            .mount(&device.path, recorded, path, options)?;
        if at_rest && small && !options.attributes.read_only {
            filesystem::grow(tools, recorded, &device.path, path)?;
        }
        Ok(())
    }

    /// Grows the filesystem on a device that was grown, where it is mounted; elsewhere staging does.
    pub(super) fn fill_device(&self, pool: &dyn Pool, volume: &Volume) -> Result<()> {
        let Some(filesystem) = volume.record.filesystem else {
            return Ok(());
        };
        let places = self.mounted(pool, volume)?;
        let (Some(place), Some(Attached::Device(device))) =
            (places.first(), pool.attached(volume)?)
        else {
            return Ok(());
        };
        if !filesystem::can_grow_mounted(filesystem) {
            tracing::warn!(volume.id = %volume.id, "the filesystem grows at the next staging: while it is mounted only \
                CAP_SYS_RESOURCE could, which this process lacks");
            return Ok(());
        }
        Ok(filesystem::grow(
            &*self.host.tools,
            filesystem,
            &device.path,
            place,
        )?)
    }

    /// Takes the staging back. A volume that is not staged is unstaged already.
    ///
    /// # Errors
    /// `InUse` while it is published, or when something else is mounted there.
    pub fn unstage(&self, id: &VolumeId, staging: &Path) -> Result<()> {
        self.refuse_own(staging)?;
        let Some(volume) = self.find(id)? else {
            return self.gone(id, staging);
        };
        let pool = self.existing(id)?.0;
        self.unshow(pool, &volume, staging)?;
        let left = self.mounted(pool, &volume)?;
        match left.first() {
            Some(place) if volume.record.access == Access::Block => Err(Error::InUse(format!(
                "volume {id} is still published at {}: unpublish it first",
                place.display()
            ))),
            Some(_) => Ok(()),
            None => pool.detach(&volume),
        }
    }

    /// Unmounts the volume from `path`, however often it is mounted there.
    fn unshow(&self, pool: &dyn Pool, volume: &Volume, path: &Path) -> Result<()> {
        let attached = pool.attached(volume)?;
        loop {
            match self.place(attached.as_ref(), path)? {
                Place::Ours { .. } => self.host.mounts.unmount(path)?,
                Place::Foreign => return Err(foreign(path)),
                Place::Plain | Place::Nothing => {
                    self.mountpoints.remove(&volume.id, path);
                    return Ok(());
                }
            }
        }
    }

    /// Shows the staged volume to a consumer.
    ///
    /// # Errors
    /// `NotFound`; `NotStaged`; `Conflict` when it is there otherwise; `InUse` when another consumer has a volume that
    /// only one may have, or when something else is mounted there.
    pub fn publish(&self, spec: &PublishSpec) -> Result<()> {
        let (pool, volume) = self.existing(&spec.volume)?;
        agree(&spec.capability, &volume)?;
        self.refuse_own(&spec.target)?;
        let attached = pool.attached(&volume)?;
        if spec.capability.usage == Use::OneWriter {
            self.refuse_second(pool, &volume, spec)?;
        }
        let read_only = spec.capability.options.attributes.read_only;
        let from = self.staged(attached.as_ref(), &volume, spec)?;
        let there = match self.place(attached.as_ref(), &spec.target)? {
            Place::Foreign => return Err(foreign(&spec.target)),
            Place::Plain | Place::Nothing => None,
            Place::Ours { .. } if spec.capability.access == Access::Block => {
                Some(block_device::is_read_only(&from)?)
            }
            Place::Ours { read_only } => Some(read_only),
        };
        match there {
            Some(is) if is == read_only => return Ok(()),
            Some(_) => return Err(other_way(&volume, &spec.target)),
            None if spec.capability.access == Access::Block => {
                self.turn(pool, &volume, &from, read_only)?;
            }
            None => {}
        }
        self.host
            .mounts
            .bind(&from, &spec.target, spec.capability.options.attributes)?;
        self.mountpoints.add(&volume.id, &spec.target);
        Ok(())
    }

    /// What to bind for a consumer: the staging path, or the device.
    fn staged(
        &self,
        attached: Option<&Attached>,
        volume: &Volume,
        spec: &PublishSpec,
    ) -> Result<PathBuf> {
        let not_staged = || {
            let at = spec.staging.display();
            Error::NotStaged(format!(
                "volume {} is not staged at {at}: stage it first",
                volume.id
            ))
        };
        match (spec.capability.access, attached) {
            (Access::Block, Some(Attached::Device(device))) => Ok(device.path.clone()),
            (Access::Mount, Some(_)) => match self.place(attached, &spec.staging)? {
                Place::Ours { .. } => Ok(spec.staging.clone()),
                Place::Nothing | Place::Plain | Place::Foreign => Err(not_staged()),
            },
            (Access::Block | Access::Mount, _) => Err(not_staged()),
        }
    }

    /// Makes a device read-only or writable before its first consumer comes: a read-only mount of its node would not.
    fn turn(&self, pool: &dyn Pool, volume: &Volume, device: &Path, read_only: bool) -> Result<()> {
        if block_device::is_read_only(device)? == read_only {
            return Ok(());
        }
        if let Some(place) = self.mounted(pool, volume)?.first() {
            let (id, at) = (&volume.id, place.display());
            return Err(Error::InUse(format!(
                "volume {id} is published at {at}, and a device is read-only for all or none"
            )));
        }
        Ok(block_device::set_read_only(
            &self.host.gate,
            device,
            read_only,
        )?)
    }

    fn refuse_second(&self, pool: &dyn Pool, volume: &Volume, spec: &PublishSpec) -> Result<()> {
        let places = self.mounted(pool, volume)?;
        match places
            .iter()
            .find(|place| **place != spec.staging && **place != spec.target)
        {
            None => Ok(()),
            Some(place) => Err(Error::InUse(format!(
                "volume {} may have one consumer, and is published at {}: unpublish it there first",
                volume.id,
                place.display()
            ))),
        }
    }

    /// Takes the volume from a consumer, and removes the target. One that is not there is unpublished already.
    ///
    /// # Errors
    /// `InUse` when something else is mounted there, or something still has files open below it.
    pub fn unpublish(&self, id: &VolumeId, target: &Path) -> Result<()> {
        self.refuse_own(target)?;
        let Some(volume) = self.find(id)? else {
            return self.gone(id, target);
        };
        self.unshow(self.existing(id)?.0, &volume, target)?;
        Ok(self.host.mounts.remove_target(target)?)
    }

    /// Creates an inline volume and shows it to its consumer. One that can not be shown is not kept: nobody need ask
    /// to have it unpublished.
    pub fn publish_ephemeral(&self, spec: &EphemeralSpec) -> Result<()> {
        self.refuse_own(&spec.target)?;
        let known = self.named(&spec.volume.name())?.is_some();
        let volume = self.create(&spec.volume)?;
        let pool = self.existing(&volume.id)?.0;
        let shown = self.show(pool, &volume, &spec.target, &spec.capability.options);
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
        (Some(asked), Some(is)) if record.layout == Layout::Image && asked != is => {
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
