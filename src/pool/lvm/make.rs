//! How a logical volume comes to be: empty, as a copy, or as a snapshot.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::group::{Erasure, Group};
use super::tags::{self, HALF};
use super::{HELPER, Lvm, lv_of, snapshot_lv, volume_lv, wishes};
use crate::host::command::Command;
use crate::host::progress::Progress;
use crate::host::{clone, filesystem, freeze};
use crate::pool::Origin;
use crate::volume::{Bytes, Filesystem, Record, Volume, VolumeRecord};

/// How long a filesystem may stand still while LVM, which may have to wait for its lock, takes a snapshot below it.
const STANDSTILL: Duration = Duration::from_secs(10);

/// A logical volume that is being made; dropped before it is whole, it is removed.
struct Half<'a> {
    group: &'a Group,
    lv: &'a str,
    kept: bool,
}

impl Half<'_> {
    /// Makes it whole: the one step in which it begins to exist.
    fn whole(mut self) -> Result<()> {
        self.group.untag(self.lv, HALF)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.group.remove(self.lv)
        {
            tracing::error!(
                lv = self.lv,
                error = format!("{error:#}"),
                "left half-made, for the next attempt or start"
            );
        }
    }
}

impl Lvm {
    /// Makes a volume.
    pub(super) fn make(
        &self,
        lv: &str,
        record: &VolumeRecord,
        origin: Option<&Origin>,
        progress: &Progress,
    ) -> Result<()> {
        self.clear(lv)?;
        match (origin, self.config.thin_pool.is_some()) {
            (None, _) => self.make_empty(lv, record),
            (Some(origin), true) => self.make_thin_copy(lv, record, origin),
            (Some(origin), false) => self.make_full_copy(lv, record, origin, progress),
        }
    }

    fn make_empty(&self, lv: &str, record: &VolumeRecord) -> Result<()> {
        if record.filesystem.is_none() && !record.encryption {
            let create = self.creating(lv, record, false)?;
            return self.group.run(&create);
        }
        let half = self.begin(lv, &self.creating(lv, record, true)?, None)?;
        if self.config.thin_pool.is_none() {
            // A disk gives out what was left on it; this volume is new, so nobody misses it.
            let end = record.size.less(Bytes::MIB);
            for start in [Bytes(0), end] {
                let part = (start, Bytes::MIB);
                self.group.erase(lv, Erasure::Zero, Some(part))?;
            }
        }
        if let Some(wanted) = record.plain_filesystem() {
            let (device, _) = self.group.activate(lv)?;
            filesystem::make(&*self.group.host.tools, wanted, &device)?;
        }
        half.whole()
    }

    /// The `lvcreate` of an empty volume.
    fn creating(&self, lv: &str, record: &VolumeRecord, half: bool) -> Result<Command> {
        let create = tagged("lvcreate", lv, record, half)?;
        let size = format!("{}b", record.size.0);
        Ok(match &self.config.thin_pool {
            // One that is to be filled gets its device at once.
            Some(pool) => create
                .args(["--activate", if half { "y" } else { "n" }])
                .args(["--virtualsize", &size])
                .args(["--thinpool", &self.group.path(pool)]),
            None => wishes::spread(&record.wishes)?
                .tell(create)
                .args(["--wipesignatures", "y", "--zero", "y"])
                .args(["--size", &size, &self.group.name]),
        })
    }

    /// A snapshot of a thin volume or snapshot is a volume as good as any.
    fn make_thin_copy(&self, lv: &str, record: &VolumeRecord, origin: &Origin) -> Result<()> {
        let (from, grows) = (lv_of_origin(origin), record.size > origin.size());
        let freezes = match origin {
            Origin::Volume(volume, mounted_at) => to_be_frozen(volume, mounted_at.as_deref()),
            Origin::Snapshot(_) => None,
        };
        let half = grows
            || freezes.is_some()
            || record
                .plain_filesystem()
                .is_some_and(filesystem::has_identity);
        let create = tagged("lvcreate", lv, record, half)?
            .args(["--snapshot", "--setactivationskip", "n"])
            .arg(self.group.path(&from));
        if !half {
            return self.group.run(&create);
        }
        let half = self.begin(lv, &create, freezes)?;
        if grows {
            self.group.extend(lv, record.size)?;
        }
        self.adopt(lv, record)?;
        half.whole()
    }

    /// A thick volume shares nothing: a copy is read from a classic snapshot, and written.
    fn make_full_copy(
        &self,
        lv: &str,
        record: &VolumeRecord,
        origin: &Origin,
        progress: &Progress,
    ) -> Result<()> {
        let half = self.begin(lv, &self.creating(lv, record, true)?, None)?;
        let more = record.size.less(origin.size());
        if more > Bytes(0) {
            let part = (origin.size(), more);
            self.group.erase(lv, Erasure::Zero, Some(part))?;
        }
        match origin {
            Origin::Snapshot(snapshot) => {
                self.copy(&snapshot_lv(&snapshot.id.name), lv, origin.size(), progress)?;
            }
            Origin::Volume(volume, mounted_at) => {
                let helper = lv_of(HELPER, &lv[2..]);
                self.clear(&helper)?;
                let freezes = to_be_frozen(volume, mounted_at.as_deref());
                let snapshot = self
                    .snapshotting(&helper, &volume_lv(volume))
                    .args(["--addtag", HALF]);
                let helping = self.begin(&helper, &snapshot, freezes)?;
                self.copy(&helper, lv, origin.size(), progress)?;
                drop(helping);
            }
        }
        self.adopt(lv, record)?;
        half.whole()
    }

    fn copy(&self, from: &str, to: &str, size: Bytes, progress: &Progress) -> Result<()> {
        let open = |lv: &str, write: bool| {
            let (device, _) = self.group.activate(lv)?;
            let opened = File::options().read(true).write(write).open(&device);
            opened.with_context(|| format!("opening {}", device.display()))
        };
        let (source, target) = (open(from, false)?, open(to, true)?);
        progress.expect(size);
        clone::copy_device(&self.group.host.gate, &source, &target, size, progress).with_context(
            || {
                format!(
                    "copying {} to {}",
                    self.group.path(from),
                    self.group.path(to)
                )
            },
        )
    }

    /// Gives a copied filesystem an identity with which it can be mounted beside its source.
    fn adopt(&self, lv: &str, record: &VolumeRecord) -> Result<()> {
        match record.plain_filesystem() {
            Some(found) if filesystem::has_identity(found) => {
                let (device, _) = self.group.activate(lv)?;
                filesystem::renew_identity(&self.group.host.gate, found, &device)
            }
            _ => Ok(()),
        }
    }

    /// Takes a snapshot of a volume, whose filesystem may be mounted there.
    pub(super) fn take<R: Record>(
        &self,
        lv: &str,
        of: &Volume,
        mounted_at: Option<&Path>,
        record: &R,
    ) -> Result<()> {
        self.clear(lv)?;
        let tags = tags::of(record)?;
        let create = self.snapshotting(lv, &volume_lv(of));
        let create = tags
            .iter()
            .fold(create, |create, tag| create.args(["--addtag", tag]));
        match to_be_frozen(of, mounted_at) {
            None => self.group.run(&create),
            freezes => {
                let half = self.begin(lv, &create.args(["--addtag", HALF]), freezes)?;
                half.whole()
            }
        }
    }

    fn snapshotting(&self, lv: &str, of: &str) -> Command {
        let create = Group::command("lvcreate")
            .args(["--snapshot", "--name", lv])
            .arg(self.group.path(of));
        if self.config.thin_pool.is_some() {
            return create;
        }
        let percent = self.config.snapshot_percent;
        create.args(["--extents", &format!("{percent}%ORIGIN")])
    }

    /// Removes what an attempt in this process left half-made under this name.
    fn clear(&self, lv: &str) -> Result<()> {
        match self.group.find(lv)? {
            Some(found) if self.has(&found) && self.is_half(&found) => self.group.remove(lv),
            _ => Ok(()),
        }
    }

    /// Makes what is not whole yet, below a filesystem that stands still meanwhile.
    fn begin<'a>(
        &'a self,
        lv: &'a str,
        create: &Command,
        freezes: Option<&Path>,
    ) -> Result<Half<'a>> {
        let gate = &self.group.host.gate;
        freeze::below(gate, freezes, STANDSTILL, || self.group.run(create))?;
        Ok(Half {
            group: &self.group,
            lv,
            kept: false,
        })
    }
}

/// Where the filesystem of a volume is to be frozen while a snapshot is taken below it.
fn to_be_frozen<'a>(volume: &Volume, mounted_at: Option<&'a Path>) -> Option<&'a Path> {
    mounted_at.filter(|_| needs_our_freeze(&volume.record))
}

/// Whether the device mapper, which freezes the filesystem on a device by itself, does not find that of such a volume: it
/// does not look through dm-crypt, and btrfs keeps to itself on which devices it is.
pub(super) fn needs_our_freeze(record: &VolumeRecord) -> bool {
    match record.filesystem {
        None => false,
        Some(filesystem) => record.encryption || filesystem == Filesystem::Btrfs,
    }
}

fn lv_of_origin(origin: &Origin) -> String {
    match origin {
        Origin::Volume(volume, _) => volume_lv(volume),
        Origin::Snapshot(snapshot) => snapshot_lv(&snapshot.id.name),
    }
}

fn tagged<R: Record>(tool: &str, lv: &str, record: &R, half: bool) -> Result<Command> {
    let tags = tags::of(record)?;
    let mark = half.then(|| HALF.to_owned());
    let command = Group::command(tool).args(["--name", lv]);
    Ok(tags
        .iter()
        .chain(&mark)
        .fold(command, |command, tag| command.args(["--addtag", tag])))
}
