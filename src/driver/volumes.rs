//! Volumes: created, cloned, restored, grown, deleted, listed and counted.

use super::Core;
use super::locks::{Guard, Hold, Key};
use super::mounts::agree;
use crate::pool::{Capacity, Origin, Pool};
use crate::volume::{
    Bytes, Capability, CapacityRange, Class, Error, Layout, PoolName, Result, Shape, Source,
    Volume, VolumeId, VolumeName, VolumeRecord, VolumeSpec, Wishes, overhead,
};

/// The size of a volume for which none is asked.
const DEFAULT_SIZE: Bytes = Bytes::GIB;

/// What to hold while a volume is created: its name, and that its source stays.
pub fn to_create(spec: &VolumeSpec) -> Vec<(Key, Hold)> {
    let own = (Key::Volume(spec.name()), Hold::Exclusive);
    let source = spec.source.as_ref().map(|source| match source {
        Source::Volume(id) => (Key::Volume(id.name.clone()), Hold::Shared),
        Source::Snapshot(id) => (Key::Snapshot(id.name.clone()), Hold::Shared),
    });
    // A clone under its source's name is refused by what is there, not by our own lock.
    let other = source.filter(|(key, _)| *key != own.0);
    std::iter::once(own).chain(other).collect()
}

/// What to hold while a volume is changed or deleted.
pub fn to_change(name: &VolumeName) -> Vec<(Key, Hold)> {
    vec![(Key::Volume(name.clone()), Hold::Exclusive)]
}

impl Core {
    /// Creates the volume, or finds the one that an earlier call created (CSI 1.13, `CreateVolume`).
    ///
    /// # Errors
    /// `Conflict` when the name is another volume's, `Full` without room, `OutOfRange` for a size that can not be,
    /// `NotFound` for a missing source, `Invalid` for what the pool never can.
    pub fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        let name = spec.name();
        if let Some((_, volume)) = self.named(&name)? {
            spec.agrees_with(&volume)?;
            return Ok(volume);
        }
        let (pool, origin, _frozen) = self.home(spec)?;
        let class = Class {
            wishes: spec.wishes(),
            ..spec.class.clone()
        };
        let shape = pool.shape(&class, origin.as_ref())?;
        refuse_fixed(pool, shape.layout, &spec.mutable)?;
        let encryption = encrypts(pool, &spec.class, shape.layout, origin.as_ref())?;
        let over = overhead(encryption, shape.layout);
        let least = origin.as_ref().map_or(Bytes(0), Origin::size);
        let default = origin
            .as_ref()
            .map_or(DEFAULT_SIZE.plus(over), Origin::size);
        let least = shape.least.plus(over).max(least);
        let size = spec.range.plus(over).pick(default, least, shape.grain)?;
        let work = self.works.begin(format!("{}/{name}", pool.name()));
        let record = VolumeRecord {
            encryption,
            ..VolumeRecord::new(spec, size, &shape)
        };
        let volume = pool.create(&name, record, origin.as_ref(), &work.progress)?;
        tracing::info!(volume.id = %volume.id, %size, "volume created");
        Ok(volume)
    }

    /// The pool for a new volume, what it is made from, and the right to freeze that.
    fn home(&self, spec: &VolumeSpec) -> Result<(&dyn Pool, Option<Origin>, Option<Guard>)> {
        let (pool, origin, frozen) = match &spec.source {
            None => return Ok((self.pool_of(&spec.class)?, None, None)),
            Some(Source::Volume(id)) => {
                let (pool, volume) = self.existing(id)?;
                let (mounted_at, frozen) = self.to_be_frozen(pool, &volume)?;
                (pool, Origin::Volume(volume, mounted_at), frozen)
            }
            Some(Source::Snapshot(id)) => {
                let (pool, snapshot) = self.existing_snapshot(id)?;
                (pool, Origin::Snapshot(snapshot), None)
            }
        };
        let asked = spec.class.pool.as_ref().unwrap_or(pool.name());
        if asked != pool.name() {
            let source = pool.name();
            return Err(Error::Invalid(format!(
                "the source is in pool {source}: use a class of that pool, not of {asked}"
            )));
        }
        Ok((pool, Some(origin), frozen))
    }

    /// Deletes the volume and its content; its snapshots stay. One that is not there is deleted already.
    ///
    /// # Errors
    /// `InUse` while it is staged or published.
    pub fn delete(&self, id: &VolumeId) -> Result<()> {
        let Some((pool, volume)) = self.find(id)? else {
            return Ok(());
        };
        if let Some(place) = self.mounted(pool, &volume)?.first() {
            return Err(Error::InUse(format!(
                "volume {id} is still mounted at {}: unpublish and unstage it first",
                place.display()
            )));
        }
        self.detach(pool, &volume)?;
        self.destroy_keys(pool, &volume)?;
        pool.delete(&volume)?;
        tracing::info!(volume.id = %id, "volume deleted");
        Ok(())
    }

    /// Makes the volume at least as large as required: its device, and its filesystem if that is mounted. One that is
    /// large enough stays as it is (CSI 1.13, `ControllerExpandVolume`).
    ///
    /// # Errors
    /// `OutOfRange` above the limit, or below what it has; `Full` without room.
    pub fn grow(&self, id: &VolumeId, range: CapacityRange) -> Result<Volume> {
        let (pool, volume) = self.existing(id)?;
        let has = volume.record.size;
        let shape = Shape {
            least: has,
            ..pool.shape(&class_of(&volume), None)?
        };
        let over = overhead(volume.record.encryption, volume.record.layout);
        let size = range.plus(over).pick(has, shape.least, shape.grain)?;
        let volume = if size > has {
            let (mounted_at, _frozen) = self.to_be_frozen(pool, &volume)?;
            pool.grow(&volume, size, mounted_at.as_deref())?
        } else {
            volume
        };
        self.fill_device(pool, &volume)?;
        if size > has {
            tracing::info!(volume.id = %id, from = %has, to = %size, "volume grown");
        }
        Ok(volume)
    }

    /// Changes what is asked of the volume, which may be in use (CSI 1.13, `ControllerModifyVolume`). What is as asked
    /// already stays.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for what it has not, or what only a new volume can be asked.
    pub fn modify(&self, id: &VolumeId, changes: &Wishes) -> Result<Volume> {
        let (pool, volume) = self.existing(id)?;
        refuse_fixed(pool, volume.record.layout, changes)?;
        let current = volume.record.current_wishes();
        let wishes = current.with(changes);
        if wishes == current {
            return Ok(volume);
        }
        let asked = Class {
            wishes,
            ..class_of(&volume)
        };
        pool.shape(&asked, None)?;
        let volume = pool.modify(&volume, volume.record.modified.with(changes))?;
        tracing::info!(volume.id = %id, ?changes, "volume modified");
        Ok(volume)
    }

    /// The volume of this id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &VolumeId) -> Result<Volume> {
        Ok(self.existing(id)?.1)
    }

    /// Why the volume can not be used as one of these says, if it can not (CSI 1.13, `ValidateVolumeCapabilities`).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn refusal(
        &self,
        id: &VolumeId,
        capabilities: Vec<Result<Capability>>,
    ) -> Result<Option<Error>> {
        let volume = self.get(id)?;
        let refused = |capability: Result<Capability>| agree(&capability?, &volume);
        Ok(capabilities
            .into_iter()
            .find_map(|capability| refused(capability).err()))
    }

    /// At most `most` volumes in the order of their ids, those after `after`.
    pub fn list(&self, after: Option<&VolumeId>, most: usize) -> Result<Vec<Volume>> {
        self.paged(after.map(|id| &id.pool), most, |pool, same, most| {
            pool.page(after.filter(|_| same).map(|id| &id.name), most)
        })
    }

    /// Joins the pages of all pools, in the order of the pools' names, from the pool `start` on.
    pub(super) fn paged<T>(
        &self,
        start: Option<&PoolName>,
        most: usize,
        page: impl Fn(&dyn Pool, bool, usize) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let mut pools: Vec<_> = self
            .pools
            .iter()
            .filter(|pool| start.is_none_or(|start| pool.name() >= start))
            .collect();
        pools.sort_by_key(|pool| pool.name());
        let mut all = Vec::new();
        for pool in pools {
            all.extend(page(&**pool, start == Some(pool.name()), most - all.len())?);
            if all.len() == most {
                break;
            }
        }
        Ok(all)
    }

    /// The room for volumes of this class, and the least size of one.
    pub fn capacity(&self, class: &Class) -> Result<(Capacity, Shape)> {
        let pool = self.pool_of(class)?;
        let shape = pool.shape(class, None)?;
        let over = overhead(encrypts(pool, class, shape.layout, None)?, shape.layout);
        let mut capacity = pool.capacity_for(class)?;
        capacity.available = capacity.available.less(over);
        Ok((capacity, shape))
    }
}

/// Whether a new volume of this class is encrypted: as what it is made from, or as the class says.
///
/// # Errors
/// `Invalid`, when it can not be what the class says.
fn encrypts(
    pool: &dyn Pool,
    class: &Class,
    layout: Layout,
    origin: Option<&Origin>,
) -> Result<bool> {
    let inherited = origin.map(Origin::is_encrypted);
    let asked = class.encryption.or(inherited).unwrap_or_default();
    if inherited.is_some_and(|is| is != asked) {
        return Err(Error::Invalid(format!(
            "parameters: encryption: what it is made from has `encryption: \"{}\"`: say the same, or leave it out",
            !asked
        )));
    }
    if asked && layout == Layout::Tree && !pool.encrypts_trees() {
        return Err(Error::Invalid(format!(
            "parameters: encryption: a tree in pool {} can not be encrypted: say `layout: image`, or `layout: device` in an LVM or \
             ZFS pool",
            pool.name()
        )));
    }
    Ok(asked)
}

/// Refuses what can not be changed of a volume of this layout once it is made.
fn refuse_fixed(pool: &dyn Pool, layout: Layout, changes: &Wishes) -> Result<()> {
    // To be asked what it can costs a pool a look at its disk.
    if changes.is_empty() {
        return Ok(());
    }
    let can = pool.modifiable(layout);
    let Some(key) = changes.keys().find(|key| !can.contains(key)) else {
        return Ok(());
    };
    let can = if can.is_empty() {
        "nothing".to_owned()
    } else {
        can.join(", ")
    };
    Err(Error::Invalid(format!(
        "mutable_parameters: {key:?}: of a volume like this in pool {} can be changed: {can}",
        pool.name()
    )))
}

/// The class that the volume itself is of.
fn class_of(volume: &Volume) -> Class {
    let record = &volume.record;
    Class {
        pool: Some(volume.id.pool.clone()),
        access: record.access,
        filesystem: record.filesystem,
        layout: Some(record.layout),
        require_quota: false,
        encryption: Some(record.encryption),
        wishes: record.current_wishes(),
    }
}
