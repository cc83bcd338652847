//! What a pool does, done with folders.

use std::path::Path;

use anyhow::{Context, Result};

use super::{DATA, Folders};
use crate::host::FileId;
use crate::host::folder::Folder;
use crate::host::mount::Entry;
use crate::host::progress::Progress;
use crate::host::space::{self, Count};
use crate::pool::{
    Attached, Capacity, Fault, Level, Origin, Pool, Stuck, Usage, health, image,
    shape::{self, Wishes},
};
use crate::volume::{
    self, Bytes, Class, Error, Layout, PoolName, Shape, Snapshot, SnapshotName, SnapshotRecord,
    Volume, VolumeName, VolumeRecord,
};

impl Pool for Folders {
    fn name(&self) -> &PoolName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn place(&self) -> String {
        self.root.path().display().to_string()
    }

    fn enforces(&self) -> bool {
        self.trees.obstacle(&self.root).is_none()
    }

    fn shape(&self, class: &Class, origin: Option<&Origin>) -> volume::Result<Shape> {
        let shape = match origin {
            None => shape::of_empty(class, &self.name, &self.home.filesystem)?,
            Some(origin) => shape::of_copy(class, origin, &self.home.filesystem)?,
        };
        let wishes: Wishes = class.wishes.read()?;
        if wishes.max_inodes()?.is_some()
            && !self.modifiable(shape.layout).contains(&Wishes::MAX_INODES)
        {
            return Err(Error::Invalid(format!(
                "parameters: {}: only trees in a directory pool with project quotas have one: leave it out, or use such a pool",
                Wishes::MAX_INODES
            )));
        }
        if class.require_quota
            && shape.layout == Layout::Tree
            && let Some(obstacle) = self.trees.obstacle(&self.root)
        {
            return Err(Error::Invalid(format!(
                "pool {} can not enforce the size of a tree, and the class asks requireQuota: {obstacle}; or say \
                 `layout: image`, whose size is enforced everywhere, or use another pool",
                self.name
            )));
        }
        Ok(shape)
    }

    fn capacity(&self) -> volume::Result<Capacity> {
        Ok(self.room(self.ledger.reserved())?)
    }

    fn find(&self, name: &VolumeName) -> volume::Result<Option<Volume>> {
        Ok(self
            .volumes
            .find(name.as_str())?
            .map(|record| self.volume(name, &record)))
    }

    fn page(&self, after: Option<&VolumeName>, most: usize) -> volume::Result<Vec<Volume>> {
        let page = self.volumes.page(after.map(VolumeName::as_str), most)?;
        Ok(page
            .iter()
            .filter_map(|(name, record)| Some(self.volume(&name.parse().ok()?, record)))
            .collect())
    }

    fn create(
        &self,
        name: &VolumeName,
        mut record: VolumeRecord,
        origin: Option<&Origin>,
        progress: &Progress,
    ) -> volume::Result<Volume> {
        let _room = self.reserve(record.size)?;
        let aside = self.yard.begin(format!("v-{name}"))?;
        self.fill(aside.folder(), &mut record, origin, progress)?;
        let record = self.place(aside, &self.volumes, name.as_str(), record)?;
        Ok(self.volume(name, &record))
    }

    fn delete(&self, volume: &Volume) -> volume::Result<()> {
        Ok(self.discard(&self.volumes, volume.id.name.as_str())?)
    }

    fn grow(
        &self,
        volume: &Volume,
        size: Bytes,
        _mounted_at: Option<&Path>,
    ) -> volume::Result<Volume> {
        let _room = self.reserve(size.less(volume.record.size))?;
        let record = VolumeRecord {
            size,
            ..volume.record.clone()
        };
        let entry = self.entry(volume)?;
        match record.layout {
            Layout::Tree => self.trees.limit(&entry, &record)?,
            Layout::Image | Layout::Device => self.images.grow(&entry, size)?,
        }
        let record = self.volumes.rewrite(volume.id.name.as_str(), record)?;
        Ok(self.volume(&volume.id.name, &record))
    }

    fn modifiable(&self, layout: Layout) -> &'static [&'static str] {
        if layout == Layout::Tree && self.trees.limits_inodes(&self.root) {
            &[Wishes::MAX_INODES]
        } else {
            &[]
        }
    }

    /// The limit comes first: what the record says already is not asked for again.
    fn modify(&self, volume: &Volume, modified: volume::Wishes) -> volume::Result<Volume> {
        let record = VolumeRecord {
            modified,
            ..volume.record.clone()
        };
        self.trees.limit(&self.entry(volume)?, &record)?;
        let record = self.volumes.rewrite(volume.id.name.as_str(), record)?;
        Ok(self.volume(&volume.id.name, &record))
    }

    fn retired(&self) -> volume::Result<Vec<String>> {
        Ok(self.yard.trash()?)
    }

    fn stuck(&self) -> volume::Result<Vec<Stuck>> {
        let stuck = |name: String| Stuck {
            bytes: self.yard.size(&name).ok(),
            name,
        };
        Ok(self.yard.trash()?.into_iter().map(stuck).collect())
    }

    fn purge(&self, stuck: &str) -> volume::Result<()> {
        if self.yard.trash()?.iter().any(|name| name == stuck) {
            self.yard.remove(stuck)?;
        }
        Ok(())
    }

    fn unreadable(&self) -> volume::Result<Vec<(String, String)>> {
        let mut all = self.volumes.unreadable()?;
        all.extend(self.snapshots.unreadable()?);
        Ok(all)
    }

    fn find_snapshot(&self, name: &SnapshotName) -> volume::Result<Option<Snapshot>> {
        Ok(self
            .snapshots
            .find(name.as_str())?
            .map(|record| snapshot(name, &record)))
    }

    fn page_of_snapshots(
        &self,
        after: Option<&SnapshotName>,
        most: usize,
    ) -> volume::Result<Vec<Snapshot>> {
        let page = self.snapshots.page(after.map(SnapshotName::as_str), most)?;
        Ok(page
            .iter()
            .filter_map(|(name, record)| Some(snapshot(&name.parse().ok()?, record)))
            .collect())
    }

    fn snapshot(
        &self,
        volume: &Volume,
        name: &SnapshotName,
        mut record: SnapshotRecord,
        mounted_at: Option<&Path>,
        progress: &Progress,
    ) -> volume::Result<Snapshot> {
        let (from, aside) = (self.entry(volume)?, self.yard.begin(format!("s-{name}"))?);
        match record.layout {
            Layout::Tree => {
                record.project = self.trees.copy(&from, aside.folder(), true, progress)?;
            }
            Layout::Image | Layout::Device => {
                self.images
                    .copy(&from, aside.folder(), mounted_at, progress)?;
            }
        }
        let record = self.place(aside, &self.snapshots, name.as_str(), record)?;
        Ok(snapshot(name, &record))
    }

    fn delete_snapshot(&self, snapshot: &Snapshot) -> volume::Result<()> {
        Ok(self.discard(&self.snapshots, snapshot.id.name.as_str())?)
    }

    fn attached(&self, volume: &Volume) -> volume::Result<Option<Attached>> {
        let entry = self.entry(volume)?;
        Ok(match volume.record.layout {
            Layout::Tree => Some(tree(&entry)?),
            Layout::Image | Layout::Device => self.images.attached(&entry)?.map(Attached::Device),
        })
    }

    fn attach(&self, volume: &Volume) -> volume::Result<Attached> {
        let entry = self.entry(volume)?;
        Ok(match volume.record.layout {
            Layout::Tree => tree(&entry)?,
            Layout::Image | Layout::Device => {
                Attached::Device(self.images.attach(&entry, volume.record.access)?)
            }
        })
    }

    fn detach(&self, volume: &Volume) -> volume::Result<()> {
        match volume.record.layout {
            Layout::Tree => Ok(()),
            Layout::Image | Layout::Device => Ok(self.images.detach(&self.entry(volume)?)?),
        }
    }

    fn usage(&self, volume: &Volume) -> volume::Result<Option<Usage>> {
        Ok(match volume.record.layout {
            Layout::Tree => self
                .trees
                .usage(&self.entry(volume)?, volume.record.project)?,
            Layout::Image | Layout::Device => None,
        })
    }

    fn recognise(&self, mount: &Entry) -> Option<VolumeName> {
        if mount.dev != self.home.dev {
            return self.found.get(&image::loop_of(mount)?).cloned();
        }
        let place = mount.root.strip_prefix(&self.home.volumes).ok()?;
        let name = place.components().next()?.as_os_str().to_str()?;
        name.parse().ok()
    }

    fn interrupted(&self) -> &[VolumeName] {
        &self.interrupted
    }

    fn holds(&self, path: &Path) -> bool {
        let root = self.root.path();
        path.starts_with(root) || root.starts_with(path)
    }

    fn levels(&self) -> Vec<Level> {
        let Ok(space) = space::of_open(&self.root) else {
            return Vec::new();
        };
        let level = |part, count: Count| Level {
            part,
            used: count.used,
            total: count.total,
        };
        // btrfs has no fixed number of inodes.
        [level("bytes", space.bytes), level("inodes", space.inodes)]
            .into_iter()
            .filter(|level| level.total > 0)
            .collect()
    }

    fn faults(&self) -> Vec<Fault> {
        health::of_pool(&self.root, self.yard.trash())
    }

    fn volume_faults(&self, volume: &Volume) -> Vec<Fault> {
        let mut faults = health::of_volume(self.entry(volume), volume);
        if volume.record.project.is_some()
            && let Some(obstacle) = self.trees.obstacle(&self.root)
        {
            faults.push(health::unlimited(volume, &obstacle));
        }
        faults
    }
}

fn snapshot(name: &SnapshotName, record: &SnapshotRecord) -> Snapshot {
    Snapshot::new(name, record.clone())
}

fn tree(entry: &Folder) -> Result<Attached> {
    let data = entry
        .folder(DATA)?
        .with_context(|| image::lost(entry, DATA))?;
    Ok(Attached::Folder {
        path: data.path().to_owned(),
        id: FileId::of(&data)?,
    })
}
