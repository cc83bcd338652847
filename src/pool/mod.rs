//! Where volumes live: one storage technology each, behind one blocking trait.
//!
//! To add a kind: implement [`Pool`], give it a variant in `config::Kind` and an arm in [`open`].

mod absent;
mod btrfs;
mod directory;
mod folders;
mod health;
mod image;
mod ledger;
mod lvm;
mod shape;
mod shelf;
mod state;
mod yard;
mod zfs;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use absent::Absent;
use anyhow::anyhow;
use btrfs::Subvolumes;
use directory::Directories;
use folders::Folders;
use lvm::Lvm;
use zfs::Zfs;

use crate::config;
use crate::host::mount::Entry;
use crate::host::progress::Progress;
use crate::host::{FileId, Host};
use crate::volume::{
    Bytes, Class, Layout, PoolName, Result, Secret, Shape, Snapshot, SnapshotName, SnapshotRecord,
    Volume, VolumeName, VolumeRecord, Wishes,
};

pub use state::{Capacity, Fault, Level, Severity, Stuck, Usage};

/// A pool: volumes and snapshots of one storage technology.
///
/// Its caller (the driver) holds the lock of every volume and snapshot that a call names, and has looked whether it is
/// there: no method needs to be idempotent, and each leaves either all or nothing visible, whenever it is cut off.
pub trait Pool: Send + Sync {
    /// Its name in the pools file.
    fn name(&self) -> &PoolName;

    /// What it is, for people: `directory`, `btrfs`.
    fn kind(&self) -> &'static str;

    /// Where it is, for people: the directory of the pools file.
    fn place(&self) -> String;

    /// Whether the size of a volume of the layout `tree` holds.
    fn enforces(&self) -> bool;

    /// Whether trees can be encrypted, which only the storage itself could do.
    fn encrypts_trees(&self) -> bool {
        false
    }

    /// The form of a new volume of this class, or of one made from `origin`, which must then be of its form.
    ///
    /// # Errors
    /// `Invalid`, when it never can hold such a volume.
    fn shape(&self, class: &Class, origin: Option<&Origin>) -> Result<Shape>;

    /// How much room there is.
    fn capacity(&self) -> Result<Capacity>;

    /// How much room there is for volumes of this class: of what is kept twice there can be only half as much.
    fn capacity_for(&self, _class: &Class) -> Result<Capacity> {
        self.capacity()
    }

    /// The volume of this name.
    fn find(&self, name: &VolumeName) -> Result<Option<Volume>>;

    /// At most `most` volumes in the order of their names, those after `after`.
    fn page(&self, after: Option<&VolumeName>, most: usize) -> Result<Vec<Volume>>;

    /// Makes a volume, empty or with the content of `origin`; what is copied for that is told to `progress`.
    ///
    /// # Errors
    /// `Full` without the room for it.
    fn create(
        &self,
        name: &VolumeName,
        record: VolumeRecord,
        origin: Option<&Origin>,
        progress: &Progress,
    ) -> Result<Volume>;

    /// Removes a volume and all that it holds; its snapshots stay.
    fn delete(&self, volume: &Volume) -> Result<()>;

    /// Makes a volume larger, its device included; a filesystem in it is grown by the driver. `mounted_at` is where that is
    /// mounted, if it is, for a pool whose devices must not change below one that is written.
    ///
    /// # Errors
    /// `Full` without the room for it.
    fn grow(&self, volume: &Volume, size: Bytes, mounted_at: Option<&Path>) -> Result<Volume>;

    /// The keys of the wishes that can be changed of a volume of this layout.
    fn modifiable(&self, _layout: Layout) -> &'static [&'static str] {
        &[]
    }

    /// Grants wishes out of [`Pool::modifiable`], whose values [`Pool::shape`] takes, and remembers them as all that was
    /// modified.
    fn modify(&self, volume: &Volume, _modified: Wishes) -> Result<Volume> {
        Err(anyhow!("nothing of {} can be modified", volume.id).into())
    }

    /// The names of what was deleted and is not gone yet: it is being removed, something still needs it, or it could not
    /// be removed.
    fn retired(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Those of [`Pool::retired`] that nothing needs and that are still there. It can take long: it counts what they hold.
    fn stuck(&self) -> Result<Vec<Stuck>> {
        Ok(Vec::new())
    }

    /// Tries again to remove one of [`Pool::stuck`]; a name that is none is left alone, and fine.
    fn purge(&self, _stuck: &str) -> Result<()> {
        Ok(())
    }

    /// What is called like a volume or a snapshot of ours, and has no record that can be read: its name, and why not
    /// with what to do. No list shows it, and its data is there.
    fn unreadable(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    /// The snapshot of this name.
    fn find_snapshot(&self, name: &SnapshotName) -> Result<Option<Snapshot>>;

    /// At most `most` snapshots in the order of their names, those after `after`.
    fn page_of_snapshots(&self, after: Option<&SnapshotName>, most: usize)
    -> Result<Vec<Snapshot>>;

    /// Takes a snapshot. `mounted_at` is where the filesystem on the volume's device is mounted, if it is: a pool whose
    /// storage does not do so by itself freezes it meanwhile. What is copied is told to `progress`.
    fn snapshot(
        &self,
        volume: &Volume,
        name: &SnapshotName,
        record: SnapshotRecord,
        mounted_at: Option<&Path>,
        progress: &Progress,
    ) -> Result<Snapshot>;

    /// Removes a snapshot.
    fn delete_snapshot(&self, snapshot: &Snapshot) -> Result<()>;

    /// What the volume can be reached by now, without changing anything.
    fn attached(&self, volume: &Volume) -> Result<Option<Attached>>;

    /// Makes the volume reachable: a folder always is, an image gets its loop device.
    fn attach(&self, volume: &Volume) -> Result<Attached>;

    /// Lets an encrypted tree be attached, and encrypts it first if nobody had it yet; false, and nothing is changed, if
    /// this is not its key. Where [`Pool::encrypts_trees`], and only there; [`Pool::detach`] takes it back.
    fn unlock(&self, volume: &Volume, _key: &Secret) -> Result<bool> {
        Err(anyhow!(
            "{} is a tree, which pool {} can not encrypt",
            volume.id,
            self.name()
        )
        .into())
    }

    /// Takes back what [`Pool::attach`] did; a volume that is not attached is fine.
    fn detach(&self, volume: &Volume) -> Result<()>;

    /// What the volume may use and does, where the pool knows better than the filesystem that it is on.
    fn usage(&self, volume: &Volume) -> Result<Option<Usage>>;

    /// The volume that this mount shows, if it is one of the pool's; asked at start-up.
    fn recognise(&self, mount: &Entry) -> Option<VolumeName>;

    /// The volumes whose filesystem a copy may have left frozen when an earlier process ended: those that were attached
    /// when the pool was opened. What was being made tells less: it is swept before anything is thawed.
    fn interrupted(&self) -> &[VolumeName];

    /// Whether `path` lies in the pool's own place or above it, where no consumer's path may be.
    fn holds(&self, path: &Path) -> bool;

    /// How full each of its parts is that can run full by itself; one that does not answer now is left out.
    fn levels(&self) -> Vec<Level> {
        Vec::new()
    }

    /// What is wrong with the pool as a whole, nothing if it is well. Cheap.
    fn faults(&self) -> Vec<Fault>;

    /// What is wrong with this volume, nothing if it is well.
    fn volume_faults(&self, volume: &Volume) -> Vec<Fault>;
}

/// Where the first content of a volume comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A clone of a volume, and where its filesystem is mounted, if it is on a device and mounted.
    Volume(Volume, Option<PathBuf>),
    /// A restored snapshot.
    Snapshot(Snapshot),
}

impl Origin {
    /// The least size of a volume made from it.
    pub fn size(&self) -> Bytes {
        match self {
            Self::Volume(volume, _) => volume.record.size,
            Self::Snapshot(snapshot) => snapshot.record.size,
        }
    }

    /// Whether it is encrypted, and so must be what is made from it.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Self::Volume(volume, _) => volume.record.encryption,
            Self::Snapshot(snapshot) => snapshot.record.encryption,
        }
    }

    /// Where its filesystem is mounted, if it is on a device and mounted.
    fn mounted_at(&self) -> Option<&Path> {
        match self {
            Self::Volume(_, mounted_at) => mounted_at.as_deref(),
            Self::Snapshot(_) => None,
        }
    }
}

/// How a volume can be reached.
#[derive(Debug)]
pub enum Attached {
    /// A directory to bind.
    Folder {
        /// Where it is.
        path: PathBuf,
        /// The directory itself.
        id: FileId,
    },
    /// A block device.
    Device(Device),
}

impl Attached {
    /// A device that stays by itself.
    fn device(path: PathBuf, rdev: u64) -> Self {
        let open = None;
        Self::Device(Device { path, rdev, open })
    }
}

/// A block device that is a volume.
#[derive(Debug)]
pub struct Device {
    /// Its node, such as `/dev/loop3`.
    pub path: PathBuf,
    /// Its number.
    pub rdev: u64,
    /// Keeps it from going away before it is mounted.
    pub open: Option<File>,
}

/// Opens a pool, and keeps it for this process.
///
/// # Errors
/// A place that is not there or does not suit the kind, or that another process keeps.
pub fn open(config: &config::Pool, host: &Host) -> anyhow::Result<Arc<dyn Pool>> {
    let name = config.name.clone();
    Ok(match &config.kind {
        config::Kind::Directory(place) => Arc::new(Folders::open(
            name,
            "directory",
            &place.path,
            Arc::new(Directories),
            host,
        )?),
        config::Kind::Btrfs(place) => {
            let subvolumes = Arc::new(Subvolumes::on(&place.path, host)?);
            Arc::new(Folders::open(name, "btrfs", &place.path, subvolumes, host)?)
        }
        config::Kind::Zfs(place) => Arc::new(Zfs::open(&name, &place.dataset, host)?),
        config::Kind::Lvm(lvm) => Arc::new(Lvm::open(name, lvm, host)?),
    })
}

/// A pool that [`open`] could not open: it is told as a fault, and all that is asked of it is `Unreachable`, so that the
/// others can be served meanwhile.
pub fn absent(config: &config::Pool, error: &anyhow::Error) -> Arc<dyn Pool> {
    Arc::new(Absent::new(config, error))
}
