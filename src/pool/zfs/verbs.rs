//! What a pool does, done with ZFS.

use std::ops::Bound;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::listing::Taken;
use super::making::Plan;
use super::names::{self, RECORD, SNAPSHOT_RECORD};
use super::wishes::Wishes;
use super::{Zfs, destroy, device, shape, snapshot};
use crate::host::command::Command;
use crate::host::mount::Entry;
use crate::host::progress::Progress;
use crate::host::{freeze, passing, space, zvol};
use crate::pool::{Attached, Capacity, Fault, Level, Origin, Pool, Stuck, Usage};
use crate::volume::{
    self, Bytes, Class, Layout, PoolName, Record, Secret, Shape, Snapshot, SnapshotName,
    SnapshotRecord, Volume, VolumeName, VolumeRecord,
};

/// How long a filesystem may stand still while its device grows.
const GROWTH_LIMIT: Duration = Duration::from_secs(30);

/// How long udev may look at a device that is to be changed.
const PASSING: Duration = Duration::from_secs(10);

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
        Ok(kept.map(|kept| self.volume(name, kept.record.clone())))
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
            .map(|(name, kept)| self.volume(name, kept.record.clone()))
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
        Ok(self.volume(name, record))
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
            self.change_when_let(&set.arg(&dataset))?;
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
        Ok(taken.map(|taken| snapshot(name, taken.record.clone())))
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
            .map(|(name, taken)| snapshot(name, taken.record.clone()))
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
        Ok(snapshot(name, record))
    }

    fn delete_snapshot(&self, snapshot: &Snapshot) -> volume::Result<()> {
        let name = &snapshot.id.name;
        let Some(taken) = self.known().snapshots.get(name).cloned() else {
            return Ok(());
        };
        let mut full = names::snapshot(&taken.dataset, name);
        if self.known().is_origin(&full) {
            // It stays for what was restored from it, but its name is free again.
            let deleted = names::deleted(&taken.dataset);
            self.change(Command::new("zfs").args(["rename", &full, &deleted]))?;
            for kept in self.known_mut().volumes.values_mut() {
                if kept.origin.as_deref() == Some(&full) {
                    kept.origin = Some(deleted.clone());
                }
            }
            full = deleted;
        }
        self.change(destroy(&full))?;
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
        let dataset = self.names.volume(name);
        if volume.record.layout != Layout::Tree {
            return Ok(device(zvol::wait_for(&self.host.gate, &dataset)?));
        }
        if let Some(tree) = self.tree(name)? {
            return Ok(tree);
        }
        let mounts = &self.host.mounts;
        mounts.mount_dataset(&dataset, &self.mount_point(name))?;
        let tree = self.tree(name)?;
        Ok(tree.with_context(|| format!("{dataset} was mounted and is not there"))?)
    }

    fn unlock(&self, volume: &Volume, key: &Secret) -> volume::Result<bool> {
        Ok(self.load_key(volume, key)?)
    }

    fn detach(&self, volume: &Volume) -> volume::Result<()> {
        let name = &volume.id.name;
        if volume.record.layout != Layout::Tree {
            return Ok(());
        }
        let path = self.mount_point(name);
        if self.tree(name)?.is_some() {
            self.host.mounts.unmount(&path)?;
        }
        self.host.mounts.remove_target(&path)?;
        if volume.record.encryption {
            self.unload_key(volume)?;
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
    /// Destroys the dataset of a volume, or keeps it under another name for what still needs it.
    pub(super) fn let_go(&self, name: &VolumeName, dataset: &str) -> anyhow::Result<()> {
        let needed = {
            let known = self.known();
            known.has_snapshots(dataset) || !known.clones_of(dataset).is_empty()
        };
        if !needed {
            return self.remove(dataset);
        }
        let retired = self.names.retired(name);
        self.change(Command::new("zfs").args(["rename", dataset, &retired]))?;
        self.known_mut().retired.push(retired);
        Ok(())
    }

    /// The volume as its record is now.
    fn changed(&self, name: &VolumeName, record: VolumeRecord) -> Volume {
        if let Some(kept) = self.known_mut().volumes.get_mut(name) {
            kept.record = record.clone();
        }
        self.volume(name, record)
    }

    /// Destroys a dataset.
    pub(super) fn remove(&self, dataset: &str) -> anyhow::Result<()> {
        self.change_when_let(&destroy(dataset))
    }

    /// Runs what changes something that may be a device. One that was just closed may be looked at by udev for a moment, who
    /// keeps it open: ZFS calls it busy until then.
    fn change_when_let(&self, command: &Command) -> anyhow::Result<()> {
        let change = || self.change(command.clone());
        passing::wait(PASSING, change, |changed| {
            changed.as_ref().is_err_and(is_busy)
        })
    }
}

/// Whether ZFS said so; its tools have one exit status for all.
fn is_busy(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("dataset is busy")
}
