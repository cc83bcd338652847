//! A pool that could not be opened when the process started: it is told as what it is, and nothing about its volumes is
//! claimed, while the other pools are served.

use std::path::Path;

use super::{Attached, Capacity, Fault, Origin, Pool, Usage};
use crate::config;
use crate::host::mount::Entry;
use crate::host::progress::Progress;
use crate::volume::{
    Bytes, Class, Error, PoolName, Result, Shape, Snapshot, SnapshotName, SnapshotRecord, Volume,
    VolumeName, VolumeRecord,
};

/// Whatever it is asked for is [`Error::Unreachable`].
pub(super) struct Absent {
    config: config::Pool,
    why: String,
}

impl Absent {
    pub(super) fn new(config: &config::Pool, error: &anyhow::Error) -> Self {
        Self {
            config: config.clone(),
            why: format!("it could not be opened: {error:#}"),
        }
    }

    fn unreachable<T>(&self) -> Result<T> {
        let name = &self.config.name;
        Err(Error::Unreachable(format!("pool {name}: {}", self.why)))
    }
}

impl Pool for Absent {
    fn name(&self) -> &PoolName {
        &self.config.name
    }

    fn kind(&self) -> &'static str {
        self.config.kind.name()
    }

    fn place(&self) -> String {
        self.config.kind.place()
    }

    fn enforces(&self) -> bool {
        false
    }

    fn shape(&self, _class: &Class, _origin: Option<&Origin>) -> Result<Shape> {
        self.unreachable()
    }

    fn capacity(&self) -> Result<Capacity> {
        self.unreachable()
    }

    fn find(&self, _name: &VolumeName) -> Result<Option<Volume>> {
        self.unreachable()
    }

    fn page(&self, _after: Option<&VolumeName>, _most: usize) -> Result<Vec<Volume>> {
        self.unreachable()
    }

    fn create(
        &self,
        _name: &VolumeName,
        _record: VolumeRecord,
        _origin: Option<&Origin>,
        _progress: &Progress,
    ) -> Result<Volume> {
        self.unreachable()
    }

    fn delete(&self, _volume: &Volume) -> Result<()> {
        self.unreachable()
    }

    fn grow(&self, _volume: &Volume, _size: Bytes, _mounted_at: Option<&Path>) -> Result<Volume> {
        self.unreachable()
    }

    fn find_snapshot(&self, _name: &SnapshotName) -> Result<Option<Snapshot>> {
        self.unreachable()
    }

    fn page_of_snapshots(
        &self,
        _after: Option<&SnapshotName>,
        _most: usize,
    ) -> Result<Vec<Snapshot>> {
        self.unreachable()
    }

    fn snapshot(
        &self,
        _volume: &Volume,
        _name: &SnapshotName,
        _record: SnapshotRecord,
        _mounted_at: Option<&Path>,
        _progress: &Progress,
    ) -> Result<Snapshot> {
        self.unreachable()
    }

    fn delete_snapshot(&self, _snapshot: &Snapshot) -> Result<()> {
        self.unreachable()
    }

    fn attached(&self, _volume: &Volume) -> Result<Option<Attached>> {
        self.unreachable()
    }

    fn attach(&self, _volume: &Volume) -> Result<Attached> {
        self.unreachable()
    }

    fn detach(&self, _volume: &Volume) -> Result<()> {
        self.unreachable()
    }

    fn usage(&self, _volume: &Volume) -> Result<Option<Usage>> {
        self.unreachable()
    }

    fn recognise(&self, _mount: &Entry) -> Option<VolumeName> {
        None
    }

    fn interrupted(&self) -> &[VolumeName] {
        &[]
    }

    fn holds(&self, path: &Path) -> bool {
        let directory = self.config.kind.directory();
        directory.is_some_and(|place| path.starts_with(place) || place.starts_with(path))
    }

    fn faults(&self) -> Vec<Fault> {
        vec![Fault::inaccessible("NotOpened", self.why.clone())]
    }

    fn volume_faults(&self, _volume: &Volume) -> Vec<Fault> {
        self.faults()
    }
}
