//! A pool in memory: what the driver promises must hold over any pool, not only over folders.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use orlop::host::mount::Entry;
use orlop::host::progress::Progress;
use orlop::pool::{Attached, Capacity, Fault, Origin, Pool, Usage};
use orlop::volume::{
    Access, Bytes, Class, Error, Layout, PoolName, Result, Shape, Snapshot, SnapshotName,
    SnapshotRecord, Volume, VolumeName, VolumeRecord,
};
use parking_lot::{Mutex, MutexGuard};

const SIZE: Bytes = Bytes(4 << 30);

/// What outlives a process.
#[derive(Default)]
pub(crate) struct Disk(Mutex<State>);

#[derive(Default)]
struct State {
    volumes: BTreeMap<VolumeName, (VolumeRecord, String)>,
    snapshots: BTreeMap<SnapshotName, (SnapshotRecord, String)>,
}

impl Disk {
    pub(crate) fn write(&self, volume: &VolumeName, content: &str) {
        let mut state = self.state();
        let (_, holds) = state.volumes.get_mut(volume).expect("the volume exists");
        content.clone_into(holds);
    }

    pub(crate) fn read(&self, volume: &VolumeName) -> String {
        self.state().volumes[volume].1.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn room(&self) -> Capacity {
        let sizes = self.volumes.values().map(|(record, _)| record.size);
        let promised = sizes.fold(Bytes(0), Bytes::plus);
        Capacity {
            total: SIZE,
            promised,
            available: SIZE.less(promised),
        }
    }

    fn promise(&self, more: Bytes) -> Result<()> {
        if more > self.room().available {
            return Err(Error::Full("the fake has no more room".to_owned()));
        }
        Ok(())
    }
}

/// One process's view of it.
pub(crate) struct Fake {
    pub(crate) name: PoolName,
    pub(crate) disk: Arc<Disk>,
}

impl Fake {
    fn volume(&self, name: &VolumeName, record: &VolumeRecord) -> Volume {
        Volume::new(&self.name, name, record.clone())
    }
}

fn snapshot(name: &SnapshotName, record: &SnapshotRecord) -> Snapshot {
    Snapshot::new(name, record.clone())
}

impl Pool for Fake {
    fn name(&self) -> &PoolName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn shape(&self, class: &Class, _origin: Option<&Origin>) -> Result<Shape> {
        if class.access == Access::Block || class.layout == Some(Layout::Image) {
            return Err(Error::Invalid("the fake has trees alone".to_owned()));
        }
        Ok(Shape {
            layout: Layout::Tree,
            filesystem: None,
            least: Bytes(1),
            grain: Bytes(1),
        })
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn enforces(&self) -> bool {
        true
    }

    fn capacity(&self) -> Result<Capacity> {
        Ok(self.disk.state().room())
    }

    fn find(&self, name: &VolumeName) -> Result<Option<Volume>> {
        let state = self.disk.state();
        let found = state.volumes.get(name);
        Ok(found.map(|(record, _)| self.volume(name, record)))
    }

    fn page(&self, after: Option<&VolumeName>, most: usize) -> Result<Vec<Volume>> {
        let state = self.disk.state();
        let later = state.volumes.iter().filter(|(name, _)| Some(*name) > after);
        let volumes = later.map(|(name, (record, _))| self.volume(name, record));
        Ok(volumes.take(most).collect())
    }

    fn create(
        &self,
        name: &VolumeName,
        record: VolumeRecord,
        origin: Option<&Origin>,
        _progress: &Progress,
    ) -> Result<Volume> {
        let mut state = self.disk.state();
        state.promise(record.size)?;
        let content = match origin {
            None => String::new(),
            Some(Origin::Volume(volume, _)) => state.volumes[&volume.id.name].1.clone(),
            Some(Origin::Snapshot(snapshot)) => state.snapshots[&snapshot.id.name].1.clone(),
        };
        let volume = self.volume(name, &record);
        let before = state.volumes.insert(name.clone(), (record, content));
        assert!(before.is_none(), "the driver made {name} twice");
        Ok(volume)
    }

    fn delete(&self, volume: &Volume) -> Result<()> {
        let gone = self.disk.state().volumes.remove(&volume.id.name);
        assert!(gone.is_some(), "the driver deleted {} twice", volume.id);
        Ok(())
    }

    fn grow(&self, volume: &Volume, size: Bytes, _mounted_at: Option<&Path>) -> Result<Volume> {
        let mut state = self.disk.state();
        state.promise(size.less(volume.record.size))?;
        let grown = state.volumes.get_mut(&volume.id.name);
        let (record, _) = grown.expect("the driver has looked");
        assert!(size > record.size, "the driver grew {} to less", volume.id);
        record.size = size;
        Ok(self.volume(&volume.id.name, record))
    }

    fn find_snapshot(&self, name: &SnapshotName) -> Result<Option<Snapshot>> {
        let state = self.disk.state();
        let found = state.snapshots.get(name);
        Ok(found.map(|(record, _)| snapshot(name, record)))
    }

    fn page_of_snapshots(
        &self,
        after: Option<&SnapshotName>,
        most: usize,
    ) -> Result<Vec<Snapshot>> {
        let state = self.disk.state();
        let all = state.snapshots.iter();
        let later = all.filter(|(name, _)| Some(*name) > after);
        let snapshots = later.map(|(name, (record, _))| snapshot(name, record));
        Ok(snapshots.take(most).collect())
    }

    fn snapshot(
        &self,
        volume: &Volume,
        name: &SnapshotName,
        record: SnapshotRecord,
        _mounted_at: Option<&Path>,
        _progress: &Progress,
    ) -> Result<Snapshot> {
        let mut state = self.disk.state();
        let content = state.volumes[&volume.id.name].1.clone();
        let taken = snapshot(name, &record);
        let before = state.snapshots.insert(name.clone(), (record, content));
        assert!(before.is_none(), "the driver took {name} twice");
        Ok(taken)
    }

    fn delete_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        let gone = self.disk.state().snapshots.remove(&snapshot.id.name);
        assert!(gone.is_some(), "the driver deleted {} twice", snapshot.id);
        Ok(())
    }

    fn attached(&self, _volume: &Volume) -> Result<Option<Attached>> {
        Ok(None)
    }

    fn attach(&self, _volume: &Volume) -> Result<Attached> {
        Err(Error::Unsupported("the fake mounts nothing".to_owned()))
    }

    fn detach(&self, _volume: &Volume) -> Result<()> {
        Ok(())
    }

    fn usage(&self, _volume: &Volume) -> Result<Option<Usage>> {
        Ok(None)
    }

    fn recognise(&self, _mount: &Entry) -> Option<VolumeName> {
        None
    }

    fn interrupted(&self) -> &[VolumeName] {
        &[]
    }

    fn holds(&self, _path: &Path) -> bool {
        false
    }

    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }

    fn volume_faults(&self, _volume: &Volume) -> Vec<Fault> {
        Vec::new()
    }
}
