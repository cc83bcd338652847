//! How volumes are made: under another name, which the last step turns into the volume's.
//!
//! `zfs create` and `zfs clone` make a dataset first and set its properties afterwards, so that a power cut in between
//! leaves one that nothing tells apart from somebody else's, but for its name. To rename it is one step.

use std::path::Path;

use anyhow::{Context, Result};

use super::Zfs;
use super::ending::destroy;
use super::listing::Kept;
use super::names::{RECORD, for_clone, snapshot};
use super::wishes::Wishes;
use crate::host::command::Command;
use crate::host::{filesystem, freeze, zvol};
use crate::pool::Origin;
use crate::volume::{Bytes, Filesystem, Layout, Record, VolumeName, VolumeRecord};

/// What a new volume is made of.
pub(super) struct Plan<'a> {
    pub(super) name: &'a VolumeName,
    pub(super) record: &'a VolumeRecord,
    pub(super) wishes: &'a Wishes,
}

impl Zfs {
    /// Makes an empty volume.
    pub(super) fn make(&self, plan: &Plan<'_>) -> Result<Kept> {
        let mut create = Command::new("zfs").arg("create");
        if plan.record.layout == Layout::Device {
            create = create.args(["-V", &plan.record.size.0.to_string()]);
            if !plan.wishes.reserves() {
                create = create.arg("-s");
            }
        }
        self.make_by(plan, set(create, &plan.properties(false)), |half| {
            let Some(wanted) = plan.record.plain_filesystem() else {
                return Ok(());
            };
            let device = zvol::wait_for(&self.host.gate, half)?;
            filesystem::make(&*self.host.tools, wanted, &device.path)
        })?;
        Ok(plan.done(None))
    }

    /// Makes a volume with the content of `origin`.
    pub(super) fn make_from(&self, plan: &Plan<'_>, origin: &Origin) -> Result<Kept> {
        let (from, of_volume) = match origin {
            Origin::Snapshot(one) => {
                let known = self.known();
                let taken = known.snapshots.get(&one.id.name);
                let taken = taken.with_context(|| format!("snapshot {} is gone", one.id))?;
                (snapshot(&taken.dataset, &one.id.name), None)
            }
            Origin::Volume(volume, mounted_at) => {
                let from = for_clone(&self.names.volume(&volume.id.name));
                self.take(&from, &[], mounted_at.as_deref())?;
                (from, Some(()))
            }
        };
        let made = self.clone_from(plan, &from, origin.size());
        // As soon as the clone is gone, or if it never came to be, it goes by itself.
        let released = of_volume.map_or(Ok(()), |()| self.change(destroy(&from)));
        made?;
        released?;
        Ok(plan.done(Some(from)))
    }

    fn clone_from(&self, plan: &Plan<'_>, from: &str, size: Bytes) -> Result<()> {
        let record = plan.record;
        let mut properties = plan.properties(true);
        if record.layout == Layout::Device && record.size > size {
            properties.push(format!("volsize={}", record.size.0));
        }
        let clone = set(Command::new("zfs").arg("clone"), &properties);
        self.make_by(plan, clone.arg(from), |half| {
            match record.plain_filesystem() {
                Some(kind @ Filesystem::Btrfs) => {
                    let device = zvol::wait_for(&self.host.gate, half)?;
                    filesystem::renew_identity(&self.host.gate, kind, &device.path)
                }
                _ => Ok(()),
            }
        })
    }

    /// Makes a dataset by this command, fills it, and makes it the volume; or takes it away.
    pub(super) fn make_by(
        &self,
        plan: &Plan<'_>,
        command: Command,
        fill: impl FnOnce(&str) -> Result<()>,
    ) -> Result<()> {
        let (half, whole) = (self.names.half(plan.name), self.names.volume(plan.name));
        // Nobody else makes a volume of this name now: it is of an attempt that failed twice.
        if self.known().half_made.contains(&half) {
            self.change(destroy(&half))?;
            self.known_mut().half_made.retain(|name| *name != half);
        }
        self.change(command.arg(&half))?;
        let finished = fill(&half)
            .and_then(|()| self.change(Command::new("zfs").args(["rename", &half, &whole])));
        if finished.is_err()
            && let Err(error) = self.change(destroy(&half))
        {
            let error = format!("{error:#}");
            tracing::warn!(
                dataset = half,
                error,
                "half-made, goes when the node starts again"
            );
        }
        finished
    }

    /// Takes a snapshot of ZFS, under a freeze of the foreign filesystem on a device where that is mounted.
    pub(super) fn take(
        &self,
        name: &str,
        properties: &[String],
        mounted_at: Option<&Path>,
    ) -> Result<()> {
        let take = set(Command::new("zfs").arg("snapshot"), properties);
        freeze::below(&self.host.gate, mounted_at, freeze::LIMIT, || {
            self.change(take.arg(name))
        })
    }
}

impl Plan<'_> {
    /// Its properties, by one of which it is a volume: of a clone those that differ from what it is cloned from.
    pub(super) fn properties(&self, clone: bool) -> Vec<String> {
        let mut properties = self.wishes.properties(clone);
        let size = self.record.size.0;
        if self.record.layout == Layout::Tree {
            properties.extend([
                "mountpoint=legacy".to_owned(),
                "acltype=posixacl".to_owned(),
                "xattr=sa".to_owned(),
                format!("refquota={size}"),
            ]);
            if self.wishes.reserves() {
                properties.push(format!("refreservation={size}"));
            }
        }
        properties.push(format!("{RECORD}={}", self.record.to_line()));
        properties
    }

    fn done(&self, origin: Option<String>) -> Kept {
        let record = self.record.clone();
        Kept { record, origin }
    }
}

/// Adds `-o property=value` for each.
pub(super) fn set(command: Command, properties: &[String]) -> Command {
    properties
        .iter()
        .fold(command, |command, property| command.arg("-o").arg(property))
}
