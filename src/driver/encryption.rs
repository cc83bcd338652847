//! Encrypted volumes: the mapping between the device of a volume and whoever uses it. Trees are encrypted by their pool.
//!
//! A volume is encrypted when it is first staged, for only then there is a key. Whatever is cut off before its header says
//! that it is whole is done again from the start: until then nobody had it.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;
use sha2::{Digest, Sha256};

use super::Core;
use crate::host::encryption::{self, Label};
use crate::host::mount::Entry;
use crate::host::{device_mapper, filesystem};
use crate::names::ENCRYPTION_KEY;
use crate::pool::{Attached, Device, Pool};
use crate::volume::{Error, Layout, Result, Secret, Volume, VolumeId};

/// How the names of our mappings begin.
const PREFIX: &str = "orlop-";

impl Core {
    /// What the volume can be reached by now, without changing anything: of an encrypted one its mapping.
    pub(super) fn attached(&self, pool: &dyn Pool, volume: &Volume) -> Result<Option<Attached>> {
        match pool.attached(volume)? {
            Some(Attached::Device(device)) if volume.record.encryption => {
                Ok(self.mapping(volume, &device)?.map(Attached::Device))
            }
            attached => Ok(attached),
        }
    }

    /// Makes the volume reachable. An encrypted one is opened, and encrypted first if it is new.
    ///
    /// # Errors
    /// `Invalid` without its key, or with another; then nothing is changed.
    pub(super) fn attach(
        &self,
        pool: &dyn Pool,
        volume: &Volume,
        key: Option<&Secret>,
    ) -> Result<Attached> {
        if !volume.record.encryption {
            return pool.attach(volume);
        }
        let is_tree = volume.record.layout == Layout::Tree;
        if let Some(open) = self.attached(pool, volume)?
            && (is_tree || self.is_whole(pool, volume)?)
        {
            return Ok(open);
        }
        let key = key.ok_or_else(|| {
            Error::Invalid(format!(
                "volume {} is encrypted, and no secret came with the call: give the class a node-stage secret with the key \
                 {ENCRYPTION_KEY}",
                volume.id
            ))
        })?;
        if is_tree {
            if !pool.unlock(volume, key)? {
                return Err(not_the_key(volume));
            }
            return pool.attach(volume);
        }
        let opened = self.open(pool, volume, key);
        if opened.is_err()
            && let Err(error) = self.detach(pool, volume)
        {
            tracing::warn!(volume.id = %volume.id, %error, "its device stays attached");
        }
        opened.map(Attached::Device)
    }

    /// Takes back what [`Core::attach`] did.
    pub(super) fn detach(&self, pool: &dyn Pool, volume: &Volume) -> Result<()> {
        if has_mapping(volume) {
            encryption::close(&self.host, &name_of(&volume.id))?;
        }
        pool.detach(volume)
    }

    /// Destroys the keys in the header of a volume that is to be deleted.
    pub(super) fn destroy_keys(&self, pool: &dyn Pool, volume: &Volume) -> Result<()> {
        if !has_mapping(volume) {
            return Ok(());
        }
        let Attached::Device(device) = pool.attach(volume)? else {
            return Ok(());
        };
        encryption::erase(&self.host, &device.path)?;
        drop(device);
        pool.detach(volume)
    }

    /// Makes the mapping of a volume that was grown as large as that.
    pub(super) fn grow_mapping(&self, pool: &dyn Pool, volume: &Volume) -> Result<()> {
        match self.attached(pool, volume)? {
            Some(Attached::Device(device)) if volume.record.encryption => Ok(encryption::grow(
                &self.host,
                &device.path,
                &name_of(&volume.id),
                volume.record.usable(),
            )?),
            _ => Ok(()),
        }
    }

    fn mapping(&self, volume: &Volume, device: &Device) -> Result<Option<Device>> {
        let name = name_of(&volume.id);
        let Some(rdev) = device_mapper::find(&name)? else {
            return Ok(None);
        };
        let (below, number) = encryption::beneath(rdev)?;
        if number != device.rdev {
            return Err(Error::Host(anyhow::anyhow!(
                "the mapping {name} of volume {} is of {below}, not of {}: close it with `cryptsetup close {name}`",
                volume.id,
                device.path.display()
            )));
        }
        let path = device_mapper::node(&self.host.gate, &name, rdev)?;
        Ok(Some(Device {
            path,
            rdev,
            open: None,
        }))
    }

    fn is_whole(&self, pool: &dyn Pool, volume: &Volume) -> Result<bool> {
        let Some(Attached::Device(device)) = pool.attached(volume)? else {
            return Ok(false);
        };
        let label = encryption::label(&self.host, &device.path)?;
        Ok(label.is_some_and(|label| label == whole(volume)))
    }

    fn open(&self, pool: &dyn Pool, volume: &Volume, key: &Secret) -> Result<Device> {
        let (host, name) = (&self.host, name_of(&volume.id));
        // One that is open now was left by a process that did not end what it had begun.
        encryption::close(host, &name)?;
        let Attached::Device(device) = pool.attach(volume)? else {
            return Err(anyhow::anyhow!("volume {} has no device to encrypt", volume.id).into());
        };
        let label = encryption::label(host, &device.path)?;
        let ours = |label: &Label| label.owner == name;
        let copied =
            |label: &Label| volume.record.source.is_some() && label.owner.starts_with(PREFIX);
        let known = match &label {
            Some(label) => ours(label) || copied(label),
            None => encryption::may_be_formatted(&device.path)?,
        };
        if !known {
            let at = device.path.display();
            return Err(Error::Host(anyhow::anyhow!(
                "{at} is neither blank nor has it the header that volume {} was encrypted with; it was left untouched: \
                 restore a snapshot, or repair it by hand",
                volume.id
            )));
        }
        let new = label.as_ref().is_none_or(|label| !label.whole);
        if new {
            encryption::format(host, &device.path, &name, key)?;
        }
        if !encryption::open(host, &device.path, &name, key)? {
            return Err(not_the_key(volume));
        }
        let mapping = self
            .mapping(volume, &device)?
            .with_context(|| format!("the mapping {name} was opened and is not there"))?;
        if label != Some(whole(volume)) {
            self.finish(volume, &mapping, new)?;
            encryption::set_label(host, &device.path, &whole(volume))?;
        }
        Ok(mapping)
    }

    /// Fills a mapping that is new, or makes one that was copied a volume of its own; again, if it was cut off.
    fn finish(&self, volume: &Volume, mapping: &Device, new: bool) -> Result<()> {
        let Some(filesystem) = volume.record.filesystem else {
            return Ok(());
        };
        if new {
            filesystem::make_anew(&*self.host.tools, filesystem, &mapping.path)?;
        } else {
            filesystem::renew_identity(&self.host.gate, filesystem, &mapping.path)?;
        }
        let syncing = || format!("making {} durable", mapping.path.display());
        self.host
            .gate
            .pass(syncing())
            .map_err(anyhow::Error::from)?;
        let file = File::open(&mapping.path).with_context(syncing)?;
        Ok(rustix::fs::fsync(&file).with_context(syncing)?)
    }
}

/// The mount as it would be if the device beneath its mapping were mounted; nothing if it is of no mapping of ours.
pub(super) fn seen_beneath(mount: &Entry) -> Option<Entry> {
    let bound = mount.filesystem == "devtmpfs";
    let node = if bound {
        mount.root.clone()
    } else {
        PathBuf::from(&mount.source)
    };
    let node = node.file_name()?.to_str()?;
    let name = device_mapper::name_of_node(node).unwrap_or_else(|| node.to_owned());
    if !name.starts_with(PREFIX) {
        return None;
    }
    let (below, dev) = encryption::beneath(device_mapper::find(&name).ok()??).ok()?;
    let source = OsString::from(format!("/dev/{below}"));
    let seen = mount.clone();
    Some(if bound {
        Entry {
            root: PathBuf::from(format!("/{below}")),
            ..seen
        }
    } else {
        Entry {
            dev,
            source,
            ..seen
        }
    })
}

/// Whether there is a mapping between the device of the volume and its consumers.
fn has_mapping(volume: &Volume) -> bool {
    volume.record.encryption && volume.record.layout != Layout::Tree
}

fn not_the_key(volume: &Volume) -> Error {
    Error::Invalid(format!(
        "the key does not open volume {}: give as {ENCRYPTION_KEY} in the node-stage secret of its class the one that it was \
         encrypted with",
        volume.id
    ))
}

/// The name of a volume's mapping, which is also the owner in its header: an id itself can be too long for both.
fn name_of(id: &VolumeId) -> String {
    let digest = Sha256::digest(id.to_string());
    let hex = digest.iter().take(16).map(|byte| format!("{byte:02x}"));
    PREFIX.to_owned() + &hex.collect::<String>()
}

fn whole(volume: &Volume) -> Label {
    Label {
        owner: name_of(&volume.id),
        whole: true,
    }
}
