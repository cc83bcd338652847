//! What a pool does, done with logical volumes.

use std::path::Path;

use super::report::{Lv, Report};
use super::spread::Spread;
use super::thin::Thin;
use super::{Lvm, Retired, SNAPSHOT, VOLUME, lv_of, snapshot_lv, volume_lv, watch, wishes};
use crate::host::device_mapper;
use crate::host::mount::Entry;
use crate::host::progress::Progress;
use crate::pool::{Attached, Capacity, Fault, Level, Origin, Pool, Stuck, Usage, shape};
use crate::volume::{
    self, Access, Bytes, Class, Error, Filesystem, Layout, PoolName, Record, Shape, Snapshot,
    SnapshotName, SnapshotRecord, Volume, VolumeName, VolumeRecord,
};

impl Pool for Lvm {
    fn name(&self) -> &PoolName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "lvm"
    }

    fn place(&self) -> String {
        self.config.place()
    }

    fn enforces(&self) -> bool {
        true
    }

    fn shape(&self, class: &Class, origin: Option<&Origin>) -> volume::Result<Shape> {
        wishes::check(&class.wishes, self.config.thin_pool.is_some())?;
        if let Some(asked) = class.layout.filter(|asked| *asked != Layout::Device) {
            return Err(Error::Invalid(format!(
                "pool {} is of devices, and has no {}: leave `layout` out",
                self.name,
                asked.name()
            )));
        }
        let filesystem = match (origin, class.access) {
            (Some(origin), _) => shape::of_origin(class, origin, "")?.1,
            (None, Access::Block) => None,
            (None, Access::Mount) => Some(class.filesystem.unwrap_or(Filesystem::Ext4)),
        };
        Ok(Shape {
            layout: Layout::Device,
            filesystem,
            least: filesystem.map_or(self.extent, |filesystem| {
                filesystem.least().max(self.extent)
            }),
            grain: self.extent,
        })
    }

    fn capacity(&self) -> volume::Result<Capacity> {
        Ok(self.room(self.ledger.reserved(), Spread::LINEAR)?)
    }

    fn capacity_for(&self, class: &Class) -> volume::Result<Capacity> {
        let spread = self.spread(&class.wishes)?;
        Ok(self.room(self.ledger.reserved(), spread)?)
    }

    fn find(&self, name: &VolumeName) -> volume::Result<Option<Volume>> {
        let Some(lv) = self.look(&lv_of(VOLUME, name.as_str()))? else {
            return Ok(None);
        };
        Ok(Some(Volume::new(&self.name, name, self.record_of(&lv)?)))
    }

    fn page(&self, after: Option<&VolumeName>, most: usize) -> volume::Result<Vec<Volume>> {
        let page = self.page_of(VOLUME, after.map(VolumeName::as_str), most)?;
        Ok(page
            .into_iter()
            .map(|(name, record)| Volume::new(&self.name, &name, record))
            .collect())
    }

    fn create(
        &self,
        name: &VolumeName,
        record: VolumeRecord,
        origin: Option<&Origin>,
        progress: &Progress,
    ) -> volume::Result<Volume> {
        let store = match origin {
            None => Bytes(0),
            Some(Origin::Volume(source, _)) => self.store(source),
            Some(Origin::Snapshot(snapshot)) => {
                self.refuse_lost(snapshot)?;
                Bytes(0)
            }
        };
        let _room = self.reserve_spread(record.size, self.spread(&record.wishes)?, store)?;
        self.make(&lv_of(VOLUME, name.as_str()), &record, origin, progress)?;
        Ok(Volume::new(&self.name, name, record))
    }

    fn delete(&self, volume: &Volume) -> volume::Result<()> {
        let lv = volume_lv(volume);
        let thin = self.config.thin_pool.is_some();
        let erased = wishes::erasure(&volume.record.wishes, thin)?.is_some();
        if erased || !thin && !self.group.snapshots_of(&lv)?.is_empty() {
            self.retired.retire(&lv, &volume.record.wishes)?;
        } else {
            self.group.remove(&lv)?;
        }
        Ok(())
    }

    fn grow(
        &self,
        volume: &Volume,
        size: Bytes,
        _mounted_at: Option<&Path>,
    ) -> volume::Result<Volume> {
        let more = size.less(volume.record.size);
        let spread = self.spread(&volume.record.wishes)?.of_growth();
        let _room = self.reserve_spread(more, spread, Bytes(0))?;
        let lv = volume_lv(volume);
        self.release_origin(&lv, volume)?;
        self.group.extend(&lv, size)?;
        let record = VolumeRecord {
            size,
            ..volume.record.clone()
        };
        Ok(Volume::new(&self.name, &volume.id.name, record))
    }

    fn retired(&self) -> volume::Result<Vec<String>> {
        let report = self.group.report()?;
        let names = report.lvs.iter().map(|lv| &lv.name);
        Ok(names
            .filter(|name| Retired::is_one(name))
            .cloned()
            .collect())
    }

    fn stuck(&self) -> volume::Result<Vec<Stuck>> {
        let stuck = self.retired.stuck();
        let report = self.group.report()?;
        let all = report.lvs.iter();
        Ok(all
            .filter(|lv| stuck.contains(&lv.name))
            .map(|lv| Stuck {
                name: lv.name.clone(),
                bytes: Some(lv.size),
            })
            .collect())
    }

    fn purge(&self, stuck: &str) -> volume::Result<()> {
        Ok(self.retired.purge(stuck)?)
    }

    fn unreadable(&self) -> volume::Result<Vec<(String, String)>> {
        let told = |lv: &Lv| {
            if !lv.is_ours() {
                return None;
            }
            let error = if lv.name.starts_with(VOLUME) {
                self.record_of::<VolumeRecord>(lv).err()?
            } else if lv.name.starts_with(SNAPSHOT) {
                self.record_of::<SnapshotRecord>(lv).err()?
            } else {
                return None;
            };
            Some((lv.name.clone(), error.to_string()))
        };
        Ok(self.group.report()?.lvs.iter().filter_map(told).collect())
    }

    fn find_snapshot(&self, name: &SnapshotName) -> volume::Result<Option<Snapshot>> {
        let Some(lv) = self.look(&snapshot_lv(name))? else {
            return Ok(None);
        };
        Ok(Some(Snapshot {
            lost: self.is_lost(&lv.name)?,
            ..Snapshot::new(name, self.record_of(&lv)?)
        }))
    }

    fn page_of_snapshots(
        &self,
        after: Option<&SnapshotName>,
        most: usize,
    ) -> volume::Result<Vec<Snapshot>> {
        let page = self.page_of(SNAPSHOT, after.map(SnapshotName::as_str), most)?;
        Ok(page
            .into_iter()
            .map(|(name, record)| {
                Ok(Snapshot {
                    lost: self.is_lost(&snapshot_lv(&name))?,
                    ..Snapshot::new(&name, record)
                })
            })
            .collect::<anyhow::Result<_>>()?)
    }

    fn snapshot(
        &self,
        volume: &Volume,
        name: &SnapshotName,
        record: SnapshotRecord,
        mounted_at: Option<&Path>,
        _progress: &Progress,
    ) -> volume::Result<Snapshot> {
        let _room = self.reserve(self.store(volume))?;
        self.take(&snapshot_lv(name), volume, mounted_at, &record)?;
        Ok(Snapshot::new(name, record))
    }

    fn delete_snapshot(&self, snapshot: &Snapshot) -> volume::Result<()> {
        let lv = snapshot_lv(&snapshot.id.name);
        if self.config.thin_pool.is_some() {
            return Ok(self.group.remove(&lv)?);
        }
        let origin = self.group.find(&lv)?.map(|found| found.origin);
        self.group.remove(&lv)?;
        Ok(self.retired.released(&origin.unwrap_or_default())?)
    }

    fn attached(&self, volume: &Volume) -> volume::Result<Option<Attached>> {
        let device = self.group.device(&volume_lv(volume))?;
        Ok(device.map(|(path, rdev)| Attached::device(path, rdev)))
    }

    fn attach(&self, volume: &Volume) -> volume::Result<Attached> {
        let (path, rdev) = self.group.activate(&volume_lv(volume))?;
        Ok(Attached::device(path, rdev))
    }

    fn detach(&self, volume: &Volume) -> volume::Result<()> {
        Ok(self.group.deactivate(&volume_lv(volume))?)
    }

    fn usage(&self, _volume: &Volume) -> volume::Result<Option<Usage>> {
        Ok(None)
    }

    fn recognise(&self, mount: &Entry) -> Option<VolumeName> {
        // A device node that was bound is a file of its own; a filesystem has the number of its device, or names it.
        let bound = mount.root.file_name().and_then(|node| node.to_str());
        let source = Path::new(&mount.source)
            .file_name()
            .and_then(|node| node.to_str());
        let named =
            |node: &str| device_mapper::name_of_node(node).unwrap_or_else(|| node.to_owned());
        let volume = |mapped: String| {
            let lv = self.group.unmapped(&mapped)?;
            lv.strip_prefix(VOLUME)?.parse().ok()
        };
        let of_filesystem = device_mapper::name_of(mount.dev).and_then(volume);
        of_filesystem
            .or_else(|| bound.map(named).and_then(volume))
            .or_else(|| source.map(named).and_then(volume))
    }

    fn interrupted(&self) -> &[VolumeName] {
        &self.interrupted
    }

    fn holds(&self, _path: &Path) -> bool {
        false
    }

    fn levels(&self) -> Vec<Level> {
        let Some(pool) = &self.config.thin_pool else {
            let whole = |report: &Report| Level {
                part: "bytes",
                used: report.group.size.less(report.group.free).0,
                total: report.group.size.0,
            };
            let report = self.group.report();
            return report.iter().map(|report| whole(report)).collect();
        };
        Thin::of(&self.group, pool)
            .map(|thin| thin.levels().to_vec())
            .unwrap_or_default()
    }

    fn faults(&self) -> Vec<Fault> {
        let mut faults = self.watch.group_faults();
        if let Some(pool) = &self.config.thin_pool {
            match Thin::of(&self.group, pool) {
                Ok(thin) => faults.extend(thin.faults(
                    &self.config.place(),
                    self.config.max_data_percent,
                    self.config.max_metadata_percent,
                )),
                Err(error) => faults.push(watch::inactive(&error)),
            }
        }
        faults.extend(self.retired.fault());
        faults
    }

    fn volume_faults(&self, volume: &Volume) -> Vec<Fault> {
        self.watch.faults_of(&self.group, &volume_lv(volume))
    }
}

impl Lvm {
    /// Its record, or what to do about one that can not be read.
    fn record_of<R: Record>(&self, lv: &Lv) -> volume::Result<R> {
        lv.record().map_err(|error| {
            let path = self.group.path(&lv.name);
            Error::Host(error.context(format!(
                "reading the record of {path}: mend its tags with `lvchange`, or remove it"
            )))
        })
    }
}
