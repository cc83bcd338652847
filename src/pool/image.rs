//! Volumes that are one file each: a filesystem in it whose size holds everywhere, or a raw block device.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use super::Device;
use crate::host::clone::clone_file;
use crate::host::folder::Folder;
use crate::host::freeze;
use crate::host::loop_device::LoopDevice;
use crate::host::mount::Entry;
use crate::host::progress::Progress;
use crate::host::{FileId, Host, filesystem};
use crate::volume::{Access, Bytes, VolumeName, VolumeRecord};

/// The file in an entry's folder.
pub(super) const FILE: &str = "image";

/// The images of one pool.
pub(super) struct Images {
    host: Host,
    /// Which loop device shows which image, to be asked first and checked with the kernel at each use.
    attached: Mutex<HashMap<FileId, u32>>,
}

impl Images {
    /// Looks once which loop devices are there.
    pub(super) fn new(host: Host) -> Result<Self> {
        let attached = host.loops.all()?;
        Ok(Self {
            host,
            attached: Mutex::new(attached),
        })
    }

    /// Makes an empty image with the record's filesystem in it.
    pub(super) fn make(&self, entry: &Folder, record: &VolumeRecord) -> Result<()> {
        let image = entry.make_file(FILE)?;
        self.extend(&image, record.size)?;
        if let Some(wanted) = record.plain_filesystem() {
            filesystem::make(&*self.host.tools, wanted, &entry.path().join(FILE))?;
        }
        self.sync(&image)
    }

    /// Gives `to` the image in `from`, under a freeze of the filesystem in it where that is mounted.
    pub(super) fn copy(
        &self,
        from: &Folder,
        to: &Folder,
        mounted_at: Option<&Path>,
        progress: &Progress,
    ) -> Result<()> {
        let source = from.file(FILE, false)?.with_context(|| lost(from, FILE))?;
        let allocated = source.metadata().context("looking at an image")?.blocks() * 512;
        progress.expect(Bytes(allocated));
        let image = to.make_file(FILE)?;
        let gate = &self.host.gate;
        freeze::below(gate, mounted_at, freeze::LIMIT, || {
            clone_file(gate, &source, &image, progress)
        })?;
        self.sync(&image)
    }

    /// Makes a copied image a volume of its own: its size, and an identity with which it can be mounted beside its source.
    pub(super) fn adopt(&self, entry: &Folder, record: &VolumeRecord) -> Result<()> {
        let image = entry.file(FILE, true)?.with_context(|| lost(entry, FILE))?;
        if let Some(found) = record.plain_filesystem() {
            filesystem::renew_identity(&self.host.gate, found, &entry.path().join(FILE))?;
        }
        self.extend(&image, record.size)?;
        self.sync(&image)
    }

    /// Makes the image larger, and its loop device with it.
    pub(super) fn grow(&self, entry: &Folder, size: Bytes) -> Result<()> {
        let image = entry.file(FILE, true)?.with_context(|| lost(entry, FILE))?;
        self.extend(&image, size)?;
        self.sync(&image)?;
        match self.find(&image)? {
            Some(device) => self.host.loops.grow(&device),
            None => Ok(()),
        }
    }

    /// The loop device that shows the image, if one does.
    pub(super) fn attached(&self, entry: &Folder) -> Result<Option<Device>> {
        let image = entry
            .file(FILE, false)?
            .with_context(|| lost(entry, FILE))?;
        Ok(self.find(&image)?.map(device))
    }

    /// The loop device that shows the image, attached if none does. One with a filesystem in it goes away by itself
    /// with its last mount; that of a block volume, which nobody may have open for a while, when it is detached.
    pub(super) fn attach(&self, entry: &Folder, access: Access) -> Result<Device> {
        let image = entry.file(FILE, true)?.with_context(|| lost(entry, FILE))?;
        if let Some(found) = self.find(&image)? {
            return Ok(device(found));
        }
        let attached = self
            .host
            .loops
            .attach(&image, false, access == Access::Mount)?;
        self.attached
            .lock()
            .insert(FileId::of(&image)?, attached.number);
        Ok(device(attached))
    }

    /// Takes the loop device back; none is fine.
    pub(super) fn detach(&self, entry: &Folder) -> Result<()> {
        let image = entry
            .file(FILE, false)?
            .with_context(|| lost(entry, FILE))?;
        let id = FileId::of(&image)?;
        if self.find(&image)?.is_some() {
            self.host.loops.detach(id)?;
        }
        self.attached.lock().remove(&id);
        Ok(())
    }

    /// The volumes in the folder `volumes` whose images are attached, by the number of the loop device.
    ///
    /// An image is known by the file itself: of a device that was attached in a container that is gone the kernel
    /// tells a path that leads nowhere.
    pub(super) fn attached_in(&self, volumes: &Folder) -> Result<HashMap<u32, VolumeName>> {
        if self.attached.lock().is_empty() {
            return Ok(HashMap::new());
        }
        let shown = |name: String| {
            let image = volumes.folder(&name).ok()??.file(FILE, false).ok()??;
            let number = *self.attached.lock().get(&FileId::of(&image).ok()?)?;
            Some((number, name.parse().ok()?))
        };
        Ok(volumes.names()?.into_iter().filter_map(shown).collect())
    }

    fn find(&self, image: &File) -> Result<Option<LoopDevice>> {
        let id = FileId::of(image)?;
        let Some(number) = self.attached.lock().get(&id).copied() else {
            return Ok(None);
        };
        self.host.loops.holding(number, id)
    }

    /// Makes the image this large. One that is larger stays: a growth that was cut off before it was recorded left it
    /// so, and its filesystem may have filled it since.
    fn extend(&self, image: &File, size: Bytes) -> Result<()> {
        if image.metadata().context("looking at an image")?.len() >= size.0 {
            return Ok(());
        }
        self.host.gate.pass(format_args!("truncate to {size}"))?;
        rustix::fs::ftruncate(image, size.0)
            .with_context(|| format!("making the image {size} large"))
    }

    fn sync(&self, image: &File) -> Result<()> {
        self.host.gate.pass("fsync the image")?;
        rustix::fs::fsync(image).context("making the image durable")
    }
}

fn device(attached: LoopDevice) -> Device {
    Device {
        path: attached.path.clone(),
        rdev: attached.rdev,
        open: Some(attached.into_file()),
    }
}

/// What to say of an entry whose data is gone.
pub(super) fn lost(entry: &Folder, what: &str) -> String {
    format!(
        "{} has lost its {what}: bring it back from a copy, or remove the folder",
        entry.path().display()
    )
}

/// The number of the loop device that is seen through this mount, if one is.
pub(super) fn loop_of(mount: &Entry) -> Option<u32> {
    // A device node that was bound is a file of its own in a devtmpfs; a filesystem names its device.
    let node = if mount.filesystem == "devtmpfs" {
        mount.root.as_path()
    } else {
        Path::new(&mount.source)
    };
    let name = node.file_name()?.to_str()?;
    name.strip_prefix("loop")?.parse().ok()
}
