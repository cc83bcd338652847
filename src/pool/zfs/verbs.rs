//! What a pool does, done with ZFS.

use std::ops::Bound;
use std::path::Path;
use std::time::Duration;

use super::listing::Taken;
use super::making::Plan;
use super::names::{self, RECORD, SNAPSHOT_RECORD};
use super::wishes::Wishes;
use super::{Zfs, device, shape};
use crate::host::command::Command;
use crate::host::mount::Entry;
use crate::host::progress::Progress;
use crate::host::{freeze, space, zvol};
use crate::pool::{Attached, Capacity, Fault, Level, Origin, Pool, Stuck, Usage};
use crate::volume::{
    self, Bytes, Class, Layout, PoolName, Record, Secret, Shape, Snapshot, SnapshotName,
    SnapshotRecord, Volume, VolumeName, VolumeRecord,
};

/// How long a filesystem may stand still while its device grows.
const GROWTH_LIMIT: Duration = Duration::from_secs(30);

impl Pool for Zfs {
    fn name(&self) -> &PoolName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "zfs"
    }

    fn place(&self) -> String {
        self.names.home.clone()
    }

    fn enforces(&self) -> bool {
        true
    }

    fn encrypts_trees(&self) -> bool {
        true
    }

    fn shape(&self, class: &Class, origin: Option<&Origin>) -> volume::Result<Shape> {
        shape::of(class, origin, &self.name)
    }

    fn capacity(&self) -> volume::Result<Capacity> {
        Ok(self.room(self.ledger.reserved())?)
    }

    fn find(&self, name: &VolumeName) -> volume::Result<Option<Volume>> {
        self.refuse_unreadable(&names::of_volume(name))?;
        let known = self.known();
        let kept = known.volumes.get(name);
        Ok(kept.map(|kept| Volume::new(&self.name, name, kept.record.clone())))
    }

    fn page(&self, after: Option<&VolumeName>, most: usize) -> volume::Result<Vec<Volume>> {
        // From the start, all of it is asked for: then it is what ZFS says.
        if after.is_none() {
            self.list()?;
        }
        let known = self.known();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = known.volumes.range((start, Bound::Unbounded)).take(most);
        Ok(page
            .map(|(name, kept)| Volume::new(&self.name, name, kept.record.clone()))
            .collect())
    }

    fn create(
        &self,
        name: &VolumeName,
        record: VolumeRecord,
        origin: Option<&Origin>,
        _progress: &Progress,
    ) -> volume::Result<Volume> {
        let _room = self.reserve(record.size)?;
        let wishes = record.wishes.read()?;
        let plan = Plan {
            name,
            record: &record,
            wishes: &wishes,
        };
        let _same = self.stays(&record);
        let kept = match origin {
            None => self.make(&plan)?,
            Some(origin) => self.make_from(&plan, origin)?,
        };
        self.known_mut().volumes.insert(name.clone(), kept);
        Ok(Volume::new(&self.name, name, record))
    }

    fn delete(&self, volume: &Volume) -> volume::Result<()> {
        let name = &volume.id.name;
        let dataset = self.names.volume(name);
        self.let_go(name, &dataset)?;
        self.known_mut().volumes.remove(name);
        Ok(self.settle()?)
    }

    fn grow(
        &self,
        volume: &Volume,
        size: Bytes,
        mounted_at: Option<&Path>,
    ) -> volume::Result<Volume> {
        let _room = self.reserve(size.less(volume.record.size))?;
        let (name, layout) = (&volume.id.name, volume.record.layout);
        let size_is = |property: &str| format!("{property}={}", size.0);
        let wishes: Wishes = volume.record.current_wishes().read()?;
        let mut set = Command::new("zfs").arg("set");
        set = match layout {
            Layout::Tree if wishes.reserves() => {
                set.args([size_is("refquota"), size_is("refreservation")])
            }
            Layout::Tree => set.arg(size_is("refquota")),
            Layout::Image | Layout::Device => set.arg(size_is("volsize")),
        };
        let dataset = self.names.volume(name);
        freeze::below(&self.host.gate, mounted_at, GROWTH_LIMIT, || {
            self.change(set.arg(&dataset))?;
            // Whoever opens a zvol first after its size changed makes the kernel forget what was written to its filesystem
            // and is not on it yet.
            match layout {
                Layout::Tree => Ok(()),
                Layout::Image | Layout::Device => zvol::find(&self.host.gate, &dataset).map(drop),
            }
        })?;
        let record = VolumeRecord {
            size,
            ..volume.record.clone()
        };
        Ok(self.changed(name, record))
    }

    fn modifiable(&self, layout: Layout) -> &'static [&'static str] {
        Wishes::modifiable(layout)
    }

    fn modify(&self, volume: &Volume, modified: volume::Wishes) -> volume::Result<Volume> {
        let name = &volume.id.name;
        let wishes: Wishes = modified.read()?;
        let record = VolumeRecord {
            modified,
            ..volume.record.clone()
        };
        // All in one step of ZFS's.
        let set = Command::new("zfs").arg("set").args(wishes.properties(true));
        let set = set.arg(format!("{RECORD}={}", record.to_line()));
        self.change(set.arg(self.names.volume(name)))?;
        Ok(self.changed(name, record))
    }

    fn retired(&self) -> volume::Result<Vec<String>> {
        Ok(self.known().retired.clone())
    }

    fn stuck(&self) -> volume::Result<Vec<Stuck>> {
        let known = self.known();
        let unneeded = |name: &&String| !known.has_snapshots(name);
        let stuck = |name: &String| Stuck {
            name: name.clone(),
            bytes: None,
        };
        Ok(known.retired.iter().filter(unneeded).map(stuck).collect())
    }

    fn purge(&self, _stuck: &str) -> volume::Result<()> {
        Ok(self.settle()?)
    }

    fn unreadable(&self) -> volume::Result<Vec<(String, String)>> {
        self.list()?;
        Ok(self.all_unreadable())
    }

    fn find_snapshot(&self, name: &SnapshotName) -> volume::Result<Option<Snapshot>> {
        self.refuse_unreadable(&names::of_snapshot(name))?;
        let known = self.known();
        let taken = known.snapshots.get(name);
        Ok(taken.map(|taken| Snapshot::new(name, taken.record.clone())))
    }

    fn page_of_snapshots(
        &self,
        after: Option<&SnapshotName>,
        most: usize,
    ) -> volume::Result<Vec<Snapshot>> {
        if after.is_none() {
            self.list()?;
        }
        let known = self.known();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = known.snapshots.range((start, Bound::Unbounded)).take(most);
        Ok(page
            .map(|(name, taken)| Snapshot::new(name, taken.record.clone()))
            .collect())
    }

    fn snapshot(
        &self,
        volume: &Volume,
        name: &SnapshotName,
        record: SnapshotRecord,
        mounted_at: Option<&Path>,
        _progress: &Progress,
    ) -> volume::Result<Snapshot> {
        let dataset = self.names.volume(&volume.id.name);
        let kept = format!("{SNAPSHOT_RECORD}={}", record.to_line());
        let _same = self.stays(&volume.record);
        self.take(&names::snapshot(&dataset, name), &[kept], mounted_at)?;
        let taken = Taken {
            record: record.clone(),
            dataset,
        };
        self.known_mut().snapshots.insert(name.clone(), taken);
        Ok(Snapshot::new(name, record))
    }

    fn delete_snapshot(&self, snapshot: &Snapshot) -> volume::Result<()> {
        let name = &snapshot.id.name;
        let Some(taken) = self.known().snapshots.get(name).cloned() else {
            return Ok(());
        };
        self.let_snapshot_go(&taken.dataset, name)?;
        self.known_mut().snapshots.remove(name);
        Ok(self.settle()?)
    }

    fn attached(&self, volume: &Volume) -> volume::Result<Option<Attached>> {
        let name = &volume.id.name;
        Ok(match volume.record.layout {
            Layout::Tree => self.tree(name)?,
            Layout::Image | Layout::Device => {
                zvol::find(&self.host.gate, &self.names.volume(name))?.map(device)
            }
        })
    }

    fn attach(&self, volume: &Volume) -> volume::Result<Attached> {
        let name = &volume.id.name;
        Ok(match volume.record.layout {
            Layout::Tree => self.mount(name)?,
            Layout::Image | Layout::Device => {
                device(zvol::wait_for(&self.host.gate, &self.names.volume(name))?)
            }
        })
    }

    fn unlock(&self, volume: &Volume, key: &Secret) -> volume::Result<bool> {
        Ok(self.load_key(volume, key)?)
    }

    fn detach(&self, volume: &Volume) -> volume::Result<()> {
        if volume.record.layout == Layout::Tree {
            self.unmount(&volume.id.name)?;
            if volume.record.encryption {
                self.unload_key(volume)?;
            }
        }
        Ok(())
    }

    fn usage(&self, volume: &Volume) -> volume::Result<Option<Usage>> {
        if volume.record.layout != Layout::Tree {
            return Ok(None);
        }
        let Some(Attached::Folder { path, .. }) = self.tree(&volume.id.name)? else {
            return Ok(None);
        };
        Ok(Some(Usage {
            total: Some(volume.record.size),
            used: Bytes(space::of(&path)?.bytes.used),
            inodes: None,
        }))
    }

    fn recognise(&self, mount: &Entry) -> Option<VolumeName> {
        let own = mount.target.starts_with(self.mounts.path());
        (!own).then(|| self.shown_by(mount))?
    }

    fn interrupted(&self) -> &[VolumeName] {
        &self.interrupted
    }

    fn holds(&self, path: &Path) -> bool {
        let mounts = self.mounts.path();
        path.starts_with(mounts) || mounts.starts_with(path)
    }

    fn levels(&self) -> Vec<Level> {
        let level = |(used, free): (Bytes, Bytes)| Level {
            part: "bytes",
            used: used.0,
            total: used.plus(free).0,
        };
        self.space().map(level).into_iter().collect()
    }

    fn faults(&self) -> Vec<Fault> {
        self.status()
    }

    fn volume_faults(&self, _volume: &Volume) -> Vec<Fault> {
        // A dataset and its record are one thing: neither is there without the other.
        Vec::new()
    }
}

impl Zfs {
    /// The volume as its record is now.
    fn changed(&self, name: &VolumeName, record: VolumeRecord) -> Volume {
        if let Some(kept) = self.known_mut().volumes.get_mut(name) {
            kept.record = record.clone();
        }
        Volume::new(&self.name, name, record)
    }
}
