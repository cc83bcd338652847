//! Where each volume is mounted: remembered from one look at the mount table, and asked of the kernel at each use.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::{Core, encryption};
use crate::host::freeze;
use crate::host::mount::{At, Mounted};
use crate::pool::{Attached, Device, Pool};
use crate::volume::{Filesystem, Result, Volume, VolumeId};

/// The mount points that are known; which of them still are is asked of the kernel.
#[derive(Debug, Default)]
pub(super) struct Mountpoints {
    known: Mutex<HashMap<VolumeId, BTreeSet<PathBuf>>>,
    read: OnceLock<()>,
}

/// What is mounted at a path, seen from one volume.
pub(super) enum Place {
    /// Nothing is there.
    Nothing,
    /// A directory or a file that is no mount.
    Plain,
    /// This volume.
    Ours {
        /// Whether it is mounted read-only.
        read_only: bool,
    },
    /// Something else.
    Foreign,
}

impl Mountpoints {
    pub(super) fn add(&self, volume: &VolumeId, path: &Path) {
        self.known
            .lock()
            .entry(volume.clone())
            .or_default()
            .insert(path.to_owned());
    }

    pub(super) fn remove(&self, volume: &VolumeId, path: &Path) {
        let mut known = self.known.lock();
        if let Some(places) = known.get_mut(volume) {
            places.remove(path);
            if places.is_empty() {
                known.remove(volume);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.known.lock().values().map(BTreeSet::len).sum()
    }

    fn of(&self, volume: &VolumeId) -> Vec<PathBuf> {
        self.known
            .lock()
            .get(volume)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

impl Core {
    /// Brings the driver up to what the last process left: what is mounted, and how much is promised. Nobody waits for
    /// it but those who need to know.
    pub(super) fn wake(&self) {
        self.read_mounts();
        for pool in &self.pools {
            if let Err(error) = pool.capacity() {
                tracing::error!(pool = %pool.name(), %error, "the pool's capacity is not known");
            }
        }
    }

    /// Thaws what the last process may have left frozen. Before the first call is served: a filesystem that is
    /// unmounted while it is frozen stays so, out of everybody's reach, and keeps its device.
    pub(super) fn thaw_interrupted(&self) {
        for pool in &self.pools {
            for name in pool.interrupted() {
                if let Err(error) = self.thaw(&**pool, name) {
                    tracing::error!(volume = %name, %error, "may still be frozen by a snapshot that was interrupted: \
                        thaw it with fsfreeze -u");
                }
            }
        }
    }

    fn thaw(&self, pool: &dyn Pool, name: &crate::volume::VolumeName) -> Result<()> {
        let Some(volume) = pool.find(name)? else {
            return Ok(());
        };
        if let Some(place) = self.mounted(pool, &volume)?.first()
            && freeze::thaw_leftover(&self.host.gate, place)?
        {
            tracing::warn!(volume.id = %volume.id, "thawed what an interrupted snapshot left frozen");
        }
        Ok(())
    }

    /// Reads the mount table, once.
    fn read_mounts(&self) {
        self.mountpoints.read.get_or_init(|| {
            let mounts = self.host.mounts.all().unwrap_or_else(|error| {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the mount table can not be read"
                );
                Vec::new()
            });
            let beneath = |mount| encryption::seen_beneath(&mount).unwrap_or(mount);
            let mounts: Vec<_> = mounts.into_iter().map(beneath).collect();
            for (mount, pool) in mounts
                .iter()
                .flat_map(|mount| self.pools.iter().map(move |pool| (mount, pool)))
            {
                if let Some(name) = pool.recognise(mount) {
                    self.mountpoints.add(
                        &VolumeId {
                            pool: pool.name().clone(),
                            name,
                        },
                        &mount.target,
                    );
                }
            }
        });
    }

    /// Where the volume of this id is mounted now, staged or published, in the order of the paths.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn mounts_of(&self, id: &VolumeId) -> Result<Vec<PathBuf>> {
        let (pool, volume) = self.existing(id)?;
        self.mounted(pool, &volume)
    }

    /// Where the volume is mounted now: staged, published, or both.
    pub(super) fn mounted(&self, pool: &dyn Pool, volume: &Volume) -> Result<Vec<PathBuf>> {
        self.read_mounts();
        let mut places = self.mountpoints.of(&volume.id);
        if places.is_empty() {
            return Ok(places);
        }
        let attached = self.attached(pool, volume)?;
        places.retain(|path| {
            let there = matches!(self.place(attached.as_ref(), path), Ok(Place::Ours { .. }));
            if !there {
                self.mountpoints.remove(&volume.id, path);
            }
            there
        });
        Ok(places)
    }

    /// The filesystem on the volume's device, that device, and where it is mounted; nothing while it is mounted nowhere.
    pub(super) fn mounted_filesystem(
        &self,
        pool: &dyn Pool,
        volume: &Volume,
    ) -> Result<Option<(Filesystem, Device, PathBuf)>> {
        let Some(filesystem) = volume.record.filesystem else {
            return Ok(None);
        };
        let Some(place) = self.mounted(pool, volume)?.into_iter().next() else {
            return Ok(None);
        };
        Ok(match self.attached(pool, volume)? {
            Some(Attached::Device(device)) => Some((filesystem, device, place)),
            Some(Attached::Folder { .. }) | None => None,
        })
    }

    /// What is at `path`, seen from a volume that is attached like this.
    pub(super) fn place(&self, attached: Option<&Attached>, path: &Path) -> Result<Place> {
        Ok(match self.host.mounts.at(path)? {
            At::Nothing => Place::Nothing,
            At::Plain { .. } => Place::Plain,
            At::Mount(mounted) if self.shows(&mounted, path, attached)? => Place::Ours {
                read_only: mounted.read_only,
            },
            At::Mount(_) => Place::Foreign,
        })
    }

    /// Whether the mount shows the volume: its directory, its device's filesystem, or its device itself.
    fn shows(&self, mounted: &Mounted, path: &Path, attached: Option<&Attached>) -> Result<bool> {
        Ok(match attached {
            None => false,
            Some(Attached::Folder { id, .. }) => mounted.root == *id,
            Some(Attached::Device(device)) if mounted.rdev != 0 => mounted.rdev == device.rdev,
            Some(Attached::Device(device)) => {
                self.host.mounts.device_of(path)? == Some(device.rdev)
            }
        })
    }
}
