//! Pools whose volumes are folders: made aside and renamed into place, with the record beside the data.
//!
//! ```text
//! volumes/<name>/    volume.json, and `data/` (tree) or `image`
//! snapshots/<name>/  snapshot.json, and the same
//! making/            what is not yet; swept at start
//! trash/             what is no longer; swept at start
//! lock               held by the one process that serves the pool
//! ```

mod verbs;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::image::Images;
use super::ledger::{Ledger, Promise};
use super::shelf::Shelf;
use super::yard::{Aside, Yard};
use super::{Capacity, Origin, Usage};
use crate::host::folder::Folder;
use crate::host::progress::Progress;
use crate::host::{Host, space};
use crate::volume::{
    self, Bytes, Layout, PoolName, Record, SnapshotRecord, Volume, VolumeName, VolumeRecord,
};

/// The directory in an entry's folder that is the volume.
pub(super) const DATA: &str = "data";

/// What differs between the kinds: how a tree is made, copied, limited and counted.
pub(super) trait Trees: Send + Sync {
    /// Why limits do not hold in the pool at `root`, and what to do; nothing, if they do.
    fn obstacle(&self, root: &Folder) -> Option<String>;

    /// Mends, when the pool at `root` is opened, what earlier processes left of limits.
    fn sweep(&self, _root: &Folder) -> Result<()> {
        Ok(())
    }

    /// Makes the empty tree [`DATA`] in `entry`, and gives the project that it is counted by, if it has one.
    fn make(&self, entry: &Folder) -> Result<Option<u32>>;

    /// Makes the tree [`DATA`] in `to` as a copy of that in `from`; a snapshot's is never written again. Gives its
    /// project as [`Trees::make`] does.
    fn copy(
        &self,
        from: &Folder,
        to: &Folder,
        read_only: bool,
        progress: &Progress,
    ) -> Result<Option<u32>>;

    /// Limits the tree in `entry` to what its record says, where the kind can.
    fn limit(&self, entry: &Folder, record: &VolumeRecord) -> Result<()>;

    /// Whether the number of entries in a tree of the pool at `root` can be limited.
    fn limits_inodes(&self, _root: &Folder) -> bool {
        false
    }

    /// The limit and the use of the tree in `entry`, which has this project, where the kind keeps count.
    fn usage(&self, entry: &Folder, project: Option<u32>) -> Result<Option<Usage>>;

    /// Takes back the limit of a thrown away `entry` before it is removed: a limit without its tree would be left for
    /// ever, a tree without its limit is in the trash.
    fn release(&self, _entry: &Folder) -> Result<()> {
        Ok(())
    }

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
    /// What the loop devices of earlier processes show, by their numbers.
    found: HashMap<u32, VolumeName>,
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
        if let Some(obstacle) = trees.obstacle(&root) {
            tracing::warn!(pool = %name, %obstacle, "the sizes of trees are not enforced");
        }
        trees.sweep(&root)?;
        let [making, trash] = [root.ensure_folder("making")?, root.ensure_folder("trash")?];
        let [volumes, snapshots] = [
            root.ensure_folder("volumes")?,
            root.ensure_folder("snapshots")?,
        ];
        let yard = Yard::new(making, trash, Arc::clone(&trees));
        yard.sweep()?;
        let (images, home) = (Images::new(host.clone())?, Home::of(&volumes, host)?);
        let found = images.attached_in(&volumes)?;
        let volumes: Shelf<VolumeRecord> = Shelf::new(volumes);
        let holds_filesystem = |name: &VolumeName| {
            let found = volumes.find(name.as_str());
            found.is_ok_and(|record| record.is_some_and(|record| record.filesystem.is_some()))
        };
        Ok(Self {
            interrupted: found
                .values()
                .filter(|name| holds_filesystem(name))
                .cloned()
                .collect(),
            found,
            images,
            home,
            volumes,
            snapshots: Shelf::new(snapshots),
            ledger: Ledger::new(&name),
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
        self.ledger.reserve(size, |reserved| self.room(reserved))
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
        Volume::new(&self.name, name, record.clone())
    }

    fn entry(&self, volume: &Volume) -> Result<Folder> {
        self.volumes.entry(volume.id.name.as_str())
    }

    /// Ends the making of an entry, whose record is the last that is written.
    fn place<R: Record>(
        &self,
        aside: Aside<'_>,
        entries: &Shelf<R>,
        name: &str,
        record: R,
    ) -> Result<Arc<R>> {
        aside.folder().write_new(R::FILE, &record.to_text())?;
        let placed = aside.place(|making, aside| entries.place(making, aside, name, record))?;
        self.trees.commit(entries.folder())?;
        Ok(placed)
    }

    /// Ends an entry.
    fn discard<R: Record>(&self, entries: &Shelf<R>, name: &str) -> Result<()> {
        self.yard.end(name, |trash, thrown| {
            entries.discard(name, trash, thrown)?;
            self.trees.commit(entries.folder())
        })
    }

    /// Fills the folder of a volume that is being made, and notes the project of its tree in its record.
    fn fill(
        &self,
        entry: &Folder,
        record: &mut VolumeRecord,
        origin: Option<&Origin>,
        progress: &Progress,
    ) -> Result<()> {
        record.project = match (record.layout, origin) {
            (Layout::Tree, None) => self.trees.make(entry)?,
            (Layout::Tree, Some(origin)) => {
                self.trees
                    .copy(&self.content(origin)?, entry, false, progress)?
            }
            (Layout::Image | Layout::Device, None) => {
                return self.images.make(entry, record);
            }
            (Layout::Image | Layout::Device, Some(origin)) => {
                self.images
                    .copy(&self.content(origin)?, entry, origin.mounted_at(), progress)?;
                return self.images.adopt(entry, record);
            }
        };
        self.trees.limit(entry, record)
    }

    fn content(&self, origin: &Origin) -> Result<Folder> {
        match origin {
            Origin::Volume(volume, _) => self.entry(volume),
            Origin::Snapshot(snapshot) => self.snapshots.entry(snapshot.id.name.as_str()),
        }
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
