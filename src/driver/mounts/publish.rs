//! Publishing: a staged volume, bound to where its consumer finds it.

use std::path::{Path, PathBuf};

use super::{PublishSpec, agree, foreign, other_way};
use crate::driver::Core;
use crate::driver::mountpoints::Place;
use crate::host::block_device;
use crate::pool::{Attached, Pool};
use crate::volume::{Access, Error, Result, Use, Volume, VolumeId};

impl Core {
    /// Shows the staged volume to a consumer.
    ///
    /// # Errors
    /// `NotFound`; `NotStaged`; `Conflict` when it is there otherwise; `InUse` when another consumer has a volume that
    /// only one may have, or when something else is mounted there.
    pub fn publish(&self, spec: &PublishSpec) -> Result<()> {
        let (pool, volume) = self.existing(&spec.volume)?;
        agree(&spec.capability, &volume)?;
        self.refuse_own(&spec.target)?;
        let attached = self.attached(pool, &volume)?;
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
        let Some((pool, volume)) = self.find(id)? else {
            return self.gone(id, target);
        };
        self.unshow(pool, &volume, target)?;
        Ok(self.host.mounts.remove_target(target)?)
    }
}
