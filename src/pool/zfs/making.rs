//! How volumes are made: a dataset in one command, a device in a few, of which the last makes it a volume.

use std::path::Path;

use anyhow::{Context, Result};

use super::listing::Kept;
use super::names::{MAKING, RECORD, for_clone, snapshot};
use super::wishes::Wishes;
use super::{Zfs, destroy};
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
        let (dataset, record) = (self.names.volume(plan.name), plan.record);
        let mut create = Command::new("zfs").arg("create");
        if record.layout == Layout::Device {
            create = create.args(["-V", &record.size.0.to_string()]);
            if !plan.wishes.reserves() {
                create = create.arg("-s");
            }
        }
        create = set(create, &plan.properties(false));
        match record.plain_filesystem() {
            None => self.change(set(create, &[plan.kept()]).arg(&dataset))?,
            Some(wanted) => {
                self.change(set(create, &[MAKING.to_owned()]).arg(&dataset))?;
                self.finish(plan, |node| {
                    filesystem::make(&*self.host.tools, wanted, node)
                })?;
            }
        }
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
        let (dataset, record) = (self.names.volume(plan.name), plan.record);
        let clone = set(Command::new("zfs").arg("clone"), &plan.properties(true));
        let larger = record.layout == Layout::Device && record.size > size;
        let renewed = record
            .plain_filesystem()
            .filter(|kind| *kind == Filesystem::Btrfs);
        if !larger && renewed.is_none() {
            let clone = set(clone, &[plan.kept()]);
            return self.change(clone.args([from, &dataset]));
        }
        self.change(set(clone, &[MAKING.to_owned()]).args([from, &dataset]))?;
        self.finish(plan, |node| {
            renewed.map_or(Ok(()), |kind| {
                filesystem::renew_identity(&self.host.gate, kind, node)
            })
        })
    }

    /// Does the rest of a device that is half made, of which the last step makes it a volume; or takes it away.
    fn finish(&self, plan: &Plan<'_>, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let dataset = self.names.volume(plan.name);
        let filled = zvol::wait_for(&self.host.gate, &dataset).and_then(|node| fill(&node.path));
        let size = format!("volsize={}", plan.record.size.0);
        let finished = filled.and_then(|()| {
            self.change(
                Command::new("zfs")
                    .arg("set")
                    .args([size, plan.kept()])
                    .arg(&dataset),
            )
        });
        if finished.is_err()
            && let Err(error) = self.remove(&dataset)
        {
            tracing::warn!(
                dataset,
                error = format!("{error:#}"),
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
        let frozen = mounted_at
            .map(|at| freeze::freeze(&self.host.gate, at, freeze::LIMIT))
            .transpose()?;
        let take = set(Command::new("zfs").arg("snapshot"), properties);
        let taken = self.change(take.arg(name));
        frozen.map(freeze::Frozen::thaw).transpose()?;
        taken
    }
}

impl Plan<'_> {
    /// All properties but the record: of a clone those that differ from what it is cloned from.
    fn properties(&self, clone: bool) -> Vec<String> {
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
        } else {
            // Partitions on it are its user's, not this machine's; its snapshots are nobody's devices.
            properties.extend(["volmode=dev".to_owned(), "snapdev=hidden".to_owned()]);
        }
        properties
    }

    /// The property by which it is a volume.
    fn kept(&self) -> String {
        format!("{RECORD}={}", self.record.to_line())
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
