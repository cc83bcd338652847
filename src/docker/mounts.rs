//! Mounts for Docker's containers, counted by the kernel: the n-th of a mount id is published at its own path.
//!
//! Docker may mount more than once under one id (`docker cp` does, beside the container that runs), and takes each back
//! alone. All users of an id are shown the path of its first mount, which goes last.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Plugin;
use super::name::{MountId, Name};
use super::places::if_there;
use crate::client::{self, Connection, How, capability};
use crate::csi::proto::volume_usage::Unit;
use crate::csi::proto::{NodeGetVolumeStatsRequest, Volume};
use crate::volume::{Bytes, VolumeId};

/// Where a volume is published, as far as it is not only staged.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    /// For Docker: the id, the number, the path, in the order of the first two.
    dockers: Vec<(String, u32, PathBuf)>,
    /// For others, such as a person.
    others: Vec<PathBuf>,
}

impl Plugin {
    /// Mounts the volume for this id once more, and gives where.
    pub(super) async fn mount(&self, name: Name, mount: MountId) -> Result<PathBuf> {
        let node = Connection::to(&self.node).await?;
        let _turn = self.turns.take(&name).await;
        let (id, volume) = self.find(&node, &name).await?;
        let how = self.how(&volume)?;
        let mounted = self.mounted(&node, &id).await?;
        let number = mounted
            .of(&mount)
            .last()
            .map_or(1, |(_, number, _)| number + 1);
        let place = self.place_of(&id).join(mount.as_str());
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&place)
            .with_context(|| format!("making {}", place.display()))?;
        let path = place.join(number.to_string());
        self.staging
            .mount(&node, &id, capability(false, String::new()), &path, how)
            .await?;
        empty(&path)?;
        tracing::info!(volume.id = %id, name = name.as_str(), mount.id = mount.as_str(), number, "volume mounted");
        Ok(mounted
            .of(&mount)
            .next()
            .map_or(path, |(_, _, first)| first.clone()))
    }

    /// How the volume is mounted: with the key, if it is encrypted.
    fn how(&self, volume: &Volume) -> Result<How> {
        if !volume.volume_context.contains_key("encryption") {
            return Ok(How::default());
        }
        let missing = "it is encrypted: start `orlop docker` with --encryption-key-file FILE";
        How::with_key_in(self.key_file.as_deref().context(missing)?)
    }

    /// Takes one mount of this id back. Where there is none, all are taken back.
    pub(super) async fn unmount(&self, name: Name, mount: MountId) -> Result<()> {
        let node = Connection::to(&self.node).await?;
        let _turn = self.turns.take(&name).await;
        let id = self.find(&node, &name).await?.0;
        let mounted = self.mounted(&node, &id).await?;
        if let Some((_, number, path)) = mounted.of(&mount).last() {
            self.staging.unmount(&node, &id, path).await?;
            tracing::info!(volume.id = %id, name = name.as_str(), mount.id = mount.as_str(), number, "volume unmounted");
        }
        let place = self.place_of(&id);
        remove_empty(&place.join(mount.as_str()))?;
        remove_empty(&place)
    }

    /// Where the volume is mounted for Docker, or nothing.
    pub(super) async fn path(&self, name: Name) -> Result<String> {
        let node = Connection::to(&self.node).await?;
        let id = self.find(&node, &name).await?.0;
        Ok(self.mounted(&node, &id).await?.mountpoint())
    }

    /// Where the volume is published now.
    pub(super) async fn mounted(&self, node: &Connection, id: &VolumeId) -> Result<Mounted> {
        let place = self.place_of(id);
        let mut mounted = Mounted::default();
        for path in client::mounts(node, id).await? {
            match numbered(&place, &path) {
                Some((mount, number)) => mounted.dockers.push((mount, number, path)),
                None if self.staging.holds(&path) => {}
                None => mounted.others.push(path),
            }
        }
        mounted.dockers.sort_unstable();
        Ok(mounted)
    }

    /// What the volume holds, as far as something counts it alone.
    pub(super) async fn used(
        &self,
        node: &Connection,
        id: &VolumeId,
        path: &Path,
        size: Bytes,
    ) -> Result<Option<Bytes>> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: id.to_string(),
            volume_path: path.to_string_lossy().into_owned(),
            ..NodeGetVolumeStatsRequest::default()
        };
        // It may have been unmounted meanwhile.
        let Some(stats) = if_there(node.node().node_get_volume_stats(request).await)? else {
            return Ok(None);
        };
        let bytes = stats
            .usage
            .iter()
            .find(|usage| usage.unit() == Unit::Bytes)
            // Where nothing limits a tree, the figures are those of the filesystem that it shares.
            .filter(|usage| usage.total.unsigned_abs() <= size.0);
        Ok(bytes.map(|usage| Bytes(usage.used.unsigned_abs())))
    }

    fn place_of(&self, id: &VolumeId) -> PathBuf {
        self.directory.join(id.pool.as_str()).join(id.name.as_str())
    }
}

impl Mounted {
    fn of(&self, mount: &MountId) -> impl DoubleEndedIterator<Item = &(String, u32, PathBuf)> {
        self.dockers
            .iter()
            .filter(move |(id, _, _)| id == mount.as_str())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dockers.is_empty() && self.others.is_empty()
    }

    /// The mount ids, each once.
    pub(super) fn ids(&self) -> Vec<&str> {
        let mut ids: Vec<_> = self.dockers.iter().map(|(id, _, _)| id.as_str()).collect();
        ids.dedup();
        ids
    }

    /// Who has the volume of this name and id, and how it is freed.
    pub(super) fn told(&self, name: &str, id: &VolumeId) -> String {
        let by_id = || {
            let path = self.first_path().unwrap_or(Path::new("")).display();
            format!(
                "mounts {}: remove their containers, which `docker ps --all --filter volume={name}` lists; of a mount \
                 without one, say `orlop volume unmount {id} {path}`",
                self.ids().join(", ")
            )
        };
        match self.others.first() {
            Some(place) if self.dockers.is_empty() => format!(
                "somebody who mounted it at {0}: `orlop volume unmount {id} {0}` frees it",
                place.display()
            ),
            _ => by_id(),
        }
    }

    /// Where Docker finds it.
    pub(super) fn first_path(&self) -> Option<&Path> {
        self.dockers.first().map(|(_, _, path)| path.as_path())
    }

    /// The same as Docker writes it: empty while it is not mounted.
    pub(super) fn mountpoint(&self) -> String {
        self.first_path()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// The mount id and the number, if the path is one of ours in `place`.
fn numbered(place: &Path, path: &Path) -> Option<(String, u32)> {
    let rest = path.strip_prefix(place).ok()?.to_str()?;
    let (mount, number) = rest.split_once('/')?;
    Some((mount.to_owned(), number.parse().ok()?))
}

/// Takes ext4's own directory out of a volume that has nothing else: Docker fills only an empty one from the image, and
/// databases begin only in an empty one. A check of the filesystem that needs the directory makes it again.
fn empty(volume: &Path) -> Result<()> {
    let names = fs::read_dir(volume)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    if names == ["lost+found"] {
        remove_empty(&volume.join("lost+found"))?;
    }
    Ok(())
}

/// Removes a directory, if nothing is in it.
fn remove_empty(directory: &Path) -> Result<()> {
    match fs::remove_dir(directory) {
        Err(error)
            if ![ErrorKind::NotFound, ErrorKind::DirectoryNotEmpty].contains(&error.kind()) =>
        {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}
