//! Pools whose volumes are folders: made aside and renamed into place, with the record beside the data.
//!
//! ```text
//! volumes/<name>/    volume.json, and `data/` (tree) or `image`
//! snapshots/<name>/  snapshot.json, and the same
//! making/            what is not yet; swept at start
//! trash/             what is no longer; swept at start
//! lock               held by the one process that serves the pool
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::image::{self, Images};
use super::ledger::{Ledger, Promise};
use super::shelf::Shelf;
use super::yard::Yard;
use super::{Attached, Capacity, Fault, Origin, Pool, Usage, health, shape};
use crate::host::folder::Folder;
use crate::host::mount::Entry;
use crate::host::progress::Progress;
use crate::host::{FileId, Host, space};
use crate::volume::{
    self, Bytes, Class, Error, Layout, PoolName, Record, Shape, Snapshot, SnapshotId, SnapshotName,
    SnapshotRecord, Volume, VolumeId, VolumeName, VolumeRecord,
};

/// The directory in an entry's folder that is the volume.
pub(super) const DATA: &str = "data";

/// What differs between the kinds: how a tree is made, copied, limited and counted.
pub(super) trait Trees: Send + Sync {
    /// Makes the empty tree [`DATA`] in `entry`.
    fn make(&self, entry: &Folder) -> Result<()>;

    /// Makes the tree [`DATA`] in `to` as a copy of that in `from`; a snapshot's is never written again.
    fn copy(&self, from: &Folder, to: &Folder, read_only: bool, progress: &Progress) -> Result<()>;

    /// Limits the tree in `entry` to this size, where the kind can.
    fn limit(&self, entry: &Folder, size: Bytes) -> Result<()>;

    /// The limit and the use of the tree in `entry`, where the kind keeps count.
    fn usage(&self, entry: &Folder) -> Result<Option<Usage>>;

    /// Whether [`Trees::limit`] really holds.
    fn enforces(&self) -> bool;

    /// Makes what was renamed into, out of or within `folder` durable.
    fn commit(&self, folder: &Folder) -> Result<()>;
}

/// A pool of folders.
pub(super) struct Folders {
    name: PoolName,
    kind: &'static str,
    trees: Arc<dyn Trees>,
    images: Images,
    root: Folder,
    home: Home,
    yard: Arc<Yard>,
    volumes: Shelf<VolumeRecord>,
    snapshots: Shelf<SnapshotRecord>,
    ledger: Ledger,
    interrupted: Vec<VolumeName>,
    _lock: File,
}

/// Where the pool's volumes are, as the mount table tells it.
struct Home {
    filesystem: String,
    dev: u64,
    volumes: PathBuf,
}

impl Folders {
    /// Opens the pool in the directory `path`, which must exist, and keeps it for this process.
    pub(super) fn open(
        name: PoolName,
        kind: &'static str,
        path: &Path,
        trees: Arc<dyn Trees>,
        host: &Host,
    ) -> Result<Self> {
        // Resolved once: the kernel tells mounts and loop devices by resolved paths.
        let root = path.canonicalize().map_err(anyhow::Error::from);
        let root = root
            .and_then(|path| Folder::open(&path, host.gate.clone()))
            .with_context(|| {
                format!(
                    "pool {name}: make {}, or mount the disk that holds it",
                    path.display()
                )
            })?;
        let lock = root.lock("lock").with_context(|| format!("pool {name}"))?;
        let [making, trash] = [root.ensure_folder("making")?, root.ensure_folder("trash")?];
        let [volumes, snapshots] = [
            root.ensure_folder("volumes")?,
            root.ensure_folder("snapshots")?,
        ];
        let yard = Yard::new(making, trash);
        yard.sweep()?;
        let (images, home) = (Images::new(host.clone())?, Home::of(&volumes, host)?);
        let attached = images.attached_in(volumes.path());
        let volumes: Shelf<VolumeRecord> = Shelf::new(volumes);
        let holds_filesystem = |name: &VolumeName| {
            let found = volumes.find(name.as_str());
            found.is_ok_and(|record| record.is_some_and(|record| record.filesystem.is_some()))
        };
        Ok(Self {
            interrupted: attached.into_iter().filter(holds_filesystem).collect(),
            images,
            home,
            volumes,
            snapshots: Shelf::new(snapshots),
            ledger: Ledger::default(),
            _lock: lock,
            name,
            kind,
            trees,
            root,
            yard,
        })
    }

    /// Keeps room for this much more while it is made.
    fn reserve(&self, size: Bytes) -> volume::Result<Promise<'_>> {
        self.ledger.reserve(size, |reserved| self.room(reserved)).map_err(|room| match room {
            Ok(Capacity { total, promised, available }) => Error::Full(format!(
                "pool {} has room for {available} (of {total}, {promised} are promised to volumes), not for {size}",
                self.name
            )),
            Err(error) => error.into(),
        })
    }

    fn room(&self, reserved: Bytes) -> Result<Capacity> {
        let bytes = space::of_open(&self.root)
            .with_context(|| format!("asking {} for its space", self.root.path().display()))?
            .bytes;
        let (total, free) = (Bytes(bytes.total), Bytes(bytes.available));
        let promised = self.volumes.promised()?.plus(reserved);
        Ok(Capacity {
            total,
            promised,
            available: total.less(promised).min(free.less(reserved)),
        })
    }

    fn volume(&self, name: &VolumeName, record: &VolumeRecord) -> Volume {
        Volume {
            id: VolumeId {
                pool: self.name.clone(),
                name: name.clone(),
            },
            record: record.clone(),
        }
    }

    fn entry(&self, volume: &Volume) -> Result<Folder> {
        self.volumes.entry(volume.id.name.as_str())
    }

    /// Fills the folder of a volume that is being made.
    fn fill(
        &self,
        entry: &Folder,
        record: &VolumeRecord,
        origin: Option<&Origin>,
        progress: &Progress,
    ) -> Result<()> {
        match (record.layout, origin) {
            (Layout::Tree, None) => self.trees.make(entry)?,
            (Layout::Tree, Some(origin)) => {
                self.trees
                    .copy(&self.content(origin)?, entry, false, progress)?;
            }
            (Layout::Image, None) => self.images.make(entry, record)?,
            (Layout::Image, Some(origin)) => {
                self.images
                    .copy(&self.content(origin)?, entry, origin.mounted_at(), progress)?;
                self.images.adopt(entry, record)?;
            }
        }
        match record.layout {
            Layout::Tree => self.trees.limit(entry, record.size),
            Layout::Image => Ok(()),
        }
    }

    fn content(&self, origin: &Origin) -> Result<Folder> {
        match origin {
            Origin::Volume(volume, _) => self.entry(volume),
            Origin::Snapshot(snapshot) => self.snapshots.entry(snapshot.id.name.as_str()),
        }
    }
}

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
        self.trees.enforces()
    }

    fn shape(&self, class: &Class, origin: Option<&Origin>) -> volume::Result<Shape> {
        let shape = match origin {
            None => shape::of_empty(class, &self.name, &self.home.filesystem)?,
            Some(origin) => shape::of_copy(class, origin, &self.home.filesystem)?,
        };
        if class.require_quota && shape.layout == Layout::Tree && !self.trees.enforces() {
            return Err(Error::Invalid(format!(
                "pool {} can not enforce the size of a tree, and the class asks requireQuota: say `layout: image`, \
                 whose size is enforced everywhere, or use another pool",
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
        record: VolumeRecord,
        origin: Option<&Origin>,
        progress: &Progress,
    ) -> volume::Result<Volume> {
        let _room = self.reserve(record.size)?;
        let aside = self.yard.begin(format!("v-{name}"))?;
        self.fill(aside.folder(), &record, origin, progress)?;
        aside
            .folder()
            .write_new(VolumeRecord::FILE, &record.to_text())?;
        let record = aside
            .place(|making, aside| self.volumes.place(making, aside, name.as_str(), record))?;
        self.trees.commit(self.volumes.folder())?;
        Ok(self.volume(name, &record))
    }

    fn delete(&self, volume: &Volume) -> volume::Result<()> {
        let name = volume.id.name.as_str();
        Ok(self.yard.end(name, |trash, thrown| {
            self.volumes.discard(name, trash, thrown)?;
            self.trees.commit(self.volumes.folder())
        })?)
    }

    fn grow(&self, volume: &Volume, size: Bytes) -> volume::Result<Volume> {
        let _room = self.reserve(size.less(volume.record.size))?;
        let entry = self.entry(volume)?;
        match volume.record.layout {
            Layout::Tree => self.trees.limit(&entry, size)?,
            Layout::Image => self.images.grow(&entry, size)?,
        }
        let record = VolumeRecord {
            size,
            ..volume.record.clone()
        };
        let record = self.volumes.rewrite(volume.id.name.as_str(), record)?;
        Ok(self.volume(&volume.id.name, &record))
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
        record: SnapshotRecord,
        mounted_at: Option<&Path>,
        progress: &Progress,
    ) -> volume::Result<Snapshot> {
        let (from, aside) = (self.entry(volume)?, self.yard.begin(format!("s-{name}"))?);
        aside
            .folder()
            .write_new(SnapshotRecord::FILE, &record.to_text())?;
        match record.layout {
            Layout::Tree => self.trees.copy(&from, aside.folder(), true, progress)?,
            Layout::Image => self
                .images
                .copy(&from, aside.folder(), mounted_at, progress)?,
        }
        let record = aside
            .place(|making, aside| self.snapshots.place(making, aside, name.as_str(), record))?;
        self.trees.commit(self.snapshots.folder())?;
        Ok(snapshot(name, &record))
    }

    fn delete_snapshot(&self, snapshot: &Snapshot) -> volume::Result<()> {
        let name = snapshot.id.name.as_str();
        Ok(self.yard.end(name, |trash, thrown| {
            self.snapshots.discard(name, trash, thrown)?;
            self.trees.commit(self.snapshots.folder())
        })?)
    }

    fn attached(&self, volume: &Volume) -> volume::Result<Option<Attached>> {
        let entry = self.entry(volume)?;
        Ok(match volume.record.layout {
            Layout::Tree => Some(tree(&entry)?),
            Layout::Image => self.images.attached(&entry)?.map(Attached::Device),
        })
    }

    fn attach(&self, volume: &Volume) -> volume::Result<Attached> {
        let entry = self.entry(volume)?;
        Ok(match volume.record.layout {
            Layout::Tree => tree(&entry)?,
            Layout::Image => Attached::Device(self.images.attach(&entry, volume.record.access)?),
        })
    }

    fn detach(&self, volume: &Volume) -> volume::Result<()> {
        match volume.record.layout {
            Layout::Tree => Ok(()),
            Layout::Image => Ok(self.images.detach(&self.entry(volume)?)?),
        }
    }

    fn usage(&self, volume: &Volume) -> volume::Result<Option<Usage>> {
        Ok(match volume.record.layout {
            Layout::Tree => self.trees.usage(&self.entry(volume)?)?,
            Layout::Image => None,
        })
    }

    fn recognise(&self, mount: &Entry) -> Option<VolumeName> {
        let place = if mount.dev == self.home.dev {
            mount.root.strip_prefix(&self.home.volumes).ok()?.to_owned()
        } else {
            self.images
                .shown_by(mount)?
                .strip_prefix(self.volumes.folder().path())
                .ok()?
                .to_owned()
        };
        place
            .components()
            .next()?
            .as_os_str()
            .to_str()?
            .parse()
            .ok()
    }

    fn interrupted(&self) -> &[VolumeName] {
        &self.interrupted
    }

    fn holds(&self, path: &Path) -> bool {
        let root = self.root.path();
        path.starts_with(root) || root.starts_with(path)
    }

    fn faults(&self) -> Vec<Fault> {
        health::of_pool(&self.root, self.yard.trash())
    }

    fn volume_faults(&self, volume: &Volume) -> Vec<Fault> {
        health::of_volume(self.entry(volume), volume)
    }
}

impl Home {
    /// Finds the mount that `volumes` is on: the last one whose mount point leads there.
    fn of(volumes: &Folder, host: &Host) -> Result<Self> {
        let path = volumes.path();
        let mounts = host.mounts.all()?;
        let leads = mounts
            .iter()
            .filter_map(|mount| Some((mount, path.strip_prefix(&mount.target).ok()?)));
        let (mount, rest) = leads
            .max_by_key(|(mount, _)| mount.target.components().count())
            .with_context(|| {
                format!(
                    "{} is on no mount that this process can see",
                    path.display()
                )
            })?;
        Ok(Self {
            filesystem: mount.filesystem.clone(),
            dev: mount.dev,
            volumes: mount.root.join(rest),
        })
    }
}

fn snapshot(name: &SnapshotName, record: &SnapshotRecord) -> Snapshot {
    Snapshot {
        id: SnapshotId {
            volume: record.volume.clone(),
            name: name.clone(),
        },
        record: record.clone(),
    }
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
