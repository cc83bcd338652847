//! Staging: the volume itself, mounted where its consumers' mounts are made from.

use std::path::Path;
use std::time::Duration;

use super::{StageSpec, agree, foreign, other_way};
use crate::driver::Core;
use crate::driver::mountpoints::Place;
use crate::host::{block_device, filesystem};
use crate::pool::{Attached, Device, Pool};
use crate::volume::{Access, CapacityRange, Error, MountOptions, Result, Secret, Volume, VolumeId};

/// How long what a killed process left behind may keep a device.
const UNCLAIMED_LIMIT: Duration = Duration::from_secs(5);

impl Core {
    /// Prepares the volume: its device, and its filesystem or directory at the staging path.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for another access type or filesystem than it has; `InUse` when something else is mounted
    /// there.
    pub fn stage(&self, spec: &StageSpec) -> Result<()> {
        let (pool, volume) = self.existing(&spec.volume)?;
        agree(&spec.capability, &volume)?;
        match spec.capability.access {
            Access::Block => self.attach(pool, &volume, spec.key.as_ref()).map(drop),
            Access::Mount => {
                let (options, key) = (&spec.capability.options, spec.key.as_ref());
                self.show(pool, &volume, &spec.staging, options, key)
            }
        }
    }

    /// Mounts the volume itself at `path`, unless it is there already.
    pub(super) fn show(
        &self,
        pool: &dyn Pool,
        volume: &Volume,
        path: &Path,
        options: &MountOptions,
        key: Option<&Secret>,
    ) -> Result<()> {
        self.refuse_own(path)?;
        match self.place(self.attached(pool, volume)?.as_ref(), path)? {
            Place::Ours { read_only } if read_only == options.attributes.read_only => return Ok(()),
            Place::Ours { .. } => return Err(other_way(volume, path)),
            Place::Foreign => return Err(foreign(path)),
            Place::Plain | Place::Nothing => {}
        }
        match self.attach(pool, volume, key)? {
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
        let small = found.size < volume.record.usable();
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

    /// Takes the staging back. A volume that is not staged is unstaged already.
    ///
    /// # Errors
    /// `InUse` while it is published, or when something else is mounted there.
    pub fn unstage(&self, id: &VolumeId, staging: &Path) -> Result<()> {
        self.refuse_own(staging)?;
        let Some((pool, volume)) = self.find(id)? else {
            return self.gone(id, staging);
        };
        self.unshow(pool, &volume, staging)?;
        let left = self.mounted(pool, &volume)?;
        match left.first() {
            Some(place) if volume.record.access == Access::Block => Err(Error::InUse(format!(
                "volume {id} is still published at {}: unpublish it first",
                place.display()
            ))),
            Some(_) => Ok(()),
            None => self.detach(pool, &volume),
        }
    }

    /// Unmounts the volume from `path`, however often it is mounted there.
    pub(super) fn unshow(&self, pool: &dyn Pool, volume: &Volume, path: &Path) -> Result<()> {
        let attached = self.attached(pool, volume)?;
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

    /// Confirms that the volume, mounted at `path`, has the size that it was grown to (CSI 1.13, `NodeExpandVolume`).
    ///
    /// # Errors
    /// `NotFound` when it is not there; `OutOfRange` when `ControllerExpandVolume` was not called first.
    pub fn confirm_size(&self, id: &VolumeId, path: &Path, range: CapacityRange) -> Result<Volume> {
        let volume = self.at(id, path)?;
        let has = volume.record.usable();
        if range.required.is_some_and(|required| required > has) {
            return Err(Error::OutOfRange(format!(
                "volume {id} has {has}: grow it by ControllerExpandVolume first"
            )));
        }
        self.fill_device(self.existing(id)?.0, &volume)?;
        Ok(volume)
    }

    /// Grows the filesystem on a device that was grown, where it is mounted; elsewhere staging does.
    pub(in crate::driver) fn fill_device(&self, pool: &dyn Pool, volume: &Volume) -> Result<()> {
        self.grow_mapping(pool, volume)?;
        let Some((filesystem, device, place)) = self.mounted_filesystem(pool, volume)? else {
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
            &place,
        )?)
    }
}
