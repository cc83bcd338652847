//! One node over one pool, for tests that speak to it in the driver's verbs.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, Weak};

use anyhow::{Context, Result};
use orlop::config;
use orlop::driver::leftovers::Leftover;
use orlop::driver::locks::{Hold, Key};
use orlop::driver::mounts::{EphemeralSpec, PublishSpec, StageSpec};
use orlop::driver::snapshots::{Only, SnapshotSpec};
use orlop::driver::{Core, Driver, mounts, snapshots, volumes};
use orlop::host::Host;
use orlop::host::gate::Gate;
use orlop::pool::{self, Capacity, Pool};
use orlop::volume::{self, Bytes, Snapshot, SnapshotId, Volume, VolumeId, VolumeName, VolumeSpec};
use tokio::runtime::{Builder, Runtime};

use super::form::{Form, at_least, wishes};
use super::until;

/// A driver that ends, with all that it keeps open, when it is dropped: as a process does.
pub(crate) struct Node {
    driver: Option<Driver>,
    pool: Weak<dyn Pool>,
    runtime: Runtime,
}

impl Node {
    /// What a new process does first.
    pub(crate) fn start(config: &config::Pool, gate: Gate) -> Result<Self> {
        let host = Host::new(gate);
        let opened = RefCell::new(None);
        // A tool that another test starts has the lock of the process before, until it runs.
        until(|| {
            let pool = pool::open(config, &host);
            let kept =
                |error: &anyhow::Error| format!("{error:#}").contains("another orlop process");
            let again = pool.as_ref().err().is_some_and(kept);
            *opened.borrow_mut() = Some(pool);
            !again
        });
        let pool = opened.into_inner().context("it was not even tried")??;
        Self::over(pool, host)
    }

    pub(crate) fn over(pool: Arc<dyn Pool>, host: Host) -> Result<Self> {
        let weak = Arc::downgrade(&pool);
        Ok(Self {
            driver: Some(Driver::new("node-1".to_owned(), vec![pool], host)?),
            pool: weak,
            runtime: Builder::new_current_thread().enable_all().build()?,
        })
    }

    pub(crate) fn change<T: Send + 'static>(
        &self,
        keys: Vec<(Key, Hold)>,
        work: impl FnOnce(&Core) -> volume::Result<T> + Send + 'static,
    ) -> volume::Result<T> {
        self.runtime.block_on(self.driver().change(keys, work))
    }

    pub(crate) fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> volume::Result<T> + Send + 'static,
    ) -> volume::Result<T> {
        self.runtime.block_on(self.driver().look(work))
    }

    fn driver(&self) -> &Driver {
        self.driver.as_ref().expect("only dropping takes it")
    }

    pub(crate) fn create(&self, spec: &VolumeSpec) -> volume::Result<Volume> {
        let spec = spec.clone();
        self.change(volumes::to_create(&spec), move |core| core.create(&spec))
    }

    pub(crate) fn delete(&self, id: &VolumeId) -> volume::Result<()> {
        let id = id.clone();
        self.change(volumes::to_change(&id.name), move |core| core.delete(&id))
    }

    pub(crate) fn grow(&self, id: &VolumeId, size: Bytes) -> volume::Result<Volume> {
        let id = id.clone();
        self.change(volumes::to_change(&id.name), move |core| {
            core.grow(&id, at_least(size))
        })
    }

    pub(crate) fn modify(&self, id: &VolumeId, changes: &[(&str, &str)]) -> volume::Result<Volume> {
        let (id, changes) = (id.clone(), wishes(changes));
        self.change(volumes::to_change(&id.name), move |core| {
            core.modify(&id, &changes)
        })
    }

    pub(crate) fn get(&self, id: &VolumeId) -> volume::Result<Volume> {
        let id = id.clone();
        self.look(move |core| core.get(&id))
    }

    pub(crate) fn capacity(&self, form: Form) -> Capacity {
        let room = self.look(move |core| core.capacity(&form.class()));
        room.expect("the pool takes such volumes").0
    }

    /// What is left over, with what is told of it.
    pub(crate) fn leftovers(&self) -> Vec<Leftover> {
        self.look(Core::leftovers).expect("the pools can be read")
    }

    pub(crate) fn page(&self, after: Option<&VolumeId>, most: usize) -> Vec<Volume> {
        let after = after.cloned();
        self.look(move |core| core.list(after.as_ref(), most))
            .expect("the pool can be read")
    }

    pub(crate) fn volumes(&self) -> Vec<Volume> {
        self.page(None, usize::MAX)
    }

    pub(crate) fn page_of_snapshots(
        &self,
        after: Option<&SnapshotId>,
        most: usize,
    ) -> Vec<Snapshot> {
        let after = after.cloned();
        self.look(move |core| core.list_snapshots(after.as_ref(), most, &Only::default()))
            .expect("the pool can be read")
    }

    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        self.page_of_snapshots(None, usize::MAX)
    }

    pub(crate) fn snapshot(&self, name: &str, of: &VolumeId) -> volume::Result<Snapshot> {
        let spec = SnapshotSpec {
            csi_name: name.to_owned(),
            volume: of.clone(),
        };
        self.change(spec.keys(), move |core| core.snapshot(&spec))
    }

    pub(crate) fn delete_snapshot(&self, id: &SnapshotId) -> volume::Result<()> {
        let id = id.clone();
        self.change(snapshots::to_delete(&id), move |core| {
            core.delete_snapshot(&id)
        })
    }

    pub(crate) fn stage(&self, spec: &StageSpec) -> volume::Result<()> {
        let spec = spec.clone();
        let keys = mounts::to_stage(&spec.volume.name, Hold::Shared, &spec.staging);
        self.change(keys, move |core| core.stage(&spec))
    }

    pub(crate) fn unstage(&self, id: &VolumeId, staging: &Path) -> volume::Result<()> {
        let (id, staging) = (id.clone(), staging.to_owned());
        let keys = mounts::to_stage(&id.name, Hold::Shared, &staging);
        self.change(keys, move |core| core.unstage(&id, &staging))
    }

    pub(crate) fn publish(&self, spec: &PublishSpec) -> volume::Result<()> {
        let spec = spec.clone();
        let usage = Some(spec.capability.usage);
        let keys = mounts::to_publish(&spec.volume.name, usage, &spec.target);
        self.change(keys, move |core| core.publish(&spec))
    }

    pub(crate) fn unpublish(&self, id: &VolumeId, target: &Path) -> volume::Result<()> {
        let (id, target) = (id.clone(), target.to_owned());
        let keys = mounts::to_publish(&id.name, None, &target);
        self.change(keys, move |core| core.unpublish(&id, &target))
    }

    pub(crate) fn publish_ephemeral(&self, spec: &EphemeralSpec) -> volume::Result<()> {
        let spec = spec.clone();
        let keys = mounts::to_stage(&spec.volume.name(), Hold::Exclusive, &spec.target);
        self.change(keys, move |core| core.publish_ephemeral(&spec))
    }

    pub(crate) fn unpublish_ephemeral(
        &self,
        name: &VolumeName,
        target: &Path,
    ) -> volume::Result<()> {
        let (name, target) = (name.clone(), target.to_owned());
        let keys = mounts::to_stage(&name, Hold::Exclusive, &target);
        self.change(keys, move |core| core.unpublish_ephemeral(&name, &target))
    }
}

impl Drop for Node {
    /// Waits until nothing of it holds the pool any more, so that another can open it.
    fn drop(&mut self) {
        self.driver = None;
        let gone = until(|| self.pool.strong_count() == 0);
        assert!(
            gone || std::thread::panicking(),
            "something still holds the pool"
        );
    }
}
