//! What ZFS tells of the datasets beneath a pool's own, and the names that they have.
//!
//! ```text
//! <dataset>/m-<volume>                a volume that is being made
//! <dataset>/e-<volume>                what the encrypted dataset of that volume takes the place of; empty
//! <dataset>/v-<volume>                a volume, with `dev.orlop:volume`
//! <dataset>/v-<volume>@s-<snapshot>   a snapshot, with `dev.orlop:snapshot`
//! <dataset>/v-<volume>@c-<time>       what a clone was made from; goes with the clone
//! <dataset>/v-<volume>@d-<time>       a deleted snapshot that something was restored from; goes with that
//! <dataset>/r-<volume>.<time>         a deleted volume of which there are snapshots still
//! ```
//!
//! A record counts only where it was set: one that came with `zfs receive`, or that a dataset has from the one above it, is
//! that of another.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};

use super::names::{self, Names, RECORD, SNAPSHOT_RECORD};
use super::{LIMIT, Zfs};
use crate::host::command::Command;
use crate::volume::{
    self, Bytes, Error, Record, SnapshotName, SnapshotRecord, VolumeName, VolumeRecord,
};

/// The properties that are asked for.
const PROPERTIES: &str =
    "type,origin,createtxg,refquota,volsize,defer_destroy,dev.orlop:volume,dev.orlop:snapshot";

/// What is told of each, in its order.
pub(super) const COLUMNS: &str = "name,property,value,source";

/// Where a property is from that was set where it is.
const LOCAL: &str = "local";

/// All that is there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) volumes: BTreeMap<VolumeName, Kept>,
    pub(super) snapshots: BTreeMap<SnapshotName, Taken>,
    /// Deleted volumes, by the names of their datasets.
    pub(super) retired: Vec<String>,
    /// Datasets that an earlier process did not finish, and snapshots of it that are of no use.
    pub(super) half_made: Vec<String>,
    /// Volumes of which there still is the dataset that gives way to an encrypted one.
    pub(super) replaced: Vec<VolumeName>,
    /// What is ours by its name and has no record that can be read, by what it is called: `v-<volume>`, `s-<snapshot>`.
    unreadable: BTreeMap<String, Unreadable>,
    /// When each snapshot of ours was taken, in the pool's own count.
    pub(super) taken_at: BTreeMap<String, u64>,
}

/// A volume.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) record: VolumeRecord,
    /// The snapshot that it was cloned from, by the name that it has in ZFS.
    pub(super) origin: Option<String>,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) record: SnapshotRecord,
    /// The dataset that it is of, which may be retired.
    pub(super) dataset: String,
}

/// A property of a dataset, as `zfs get -Hp` tells it.
#[derive(Clone, Copy)]
pub(super) struct Property<'a> {
    of: &'a str,
    name: &'a str,
    pub(super) value: Option<&'a str>,
    source: &'a str,
}

/// What has no record that can be read.
#[derive(Debug)]
struct Unreadable {
    /// Its name in ZFS.
    name: String,
    reason: String,
}

impl Zfs {
    /// Lists everything anew.
    pub(super) fn list(&self) -> Result<()> {
        let _alone = self.turn.write();
        let kinds = "filesystem,volume,snapshot";
        let command = Command::query("zfs")
            .args(["get", "-Hp", "-r", "-t", kinds, "-o", COLUMNS, PROPERTIES])
            .arg(&self.names.home)
            .limit(LIMIT);
        let listing = Listing::read(&self.names, &self.host.tools.run(&command)?);
        *self.known_mut() = listing;
        Ok(())
    }

    /// Refuses to say anything of what has a record that can not be read; somebody may have mended it since.
    pub(super) fn refuse_unreadable(&self, called: &str) -> volume::Result<()> {
        if !self.known().unreadable.contains_key(called) {
            return Ok(());
        }
        self.list()?;
        match self.known().unreadable.get(called) {
            None => Ok(()),
            Some(unreadable) => Err(Error::Host(anyhow!("{}", unreadable.told()))),
        }
    }

    /// What is ours by its name and has no record that can be read: what it is called, and what to do.
    pub(super) fn all_unreadable(&self) -> Vec<(String, String)> {
        let known = self.known();
        let told =
            |(called, unreadable): (&String, &Unreadable)| (called.clone(), unreadable.told());
        known.unreadable.iter().map(told).collect()
    }
}

impl Unreadable {
    fn told(&self) -> String {
        let Self { name, reason } = self;
        format!(
            "reading the record of {name}: {reason}: its data is untouched; mend it with `zfs set`, or rename or destroy it"
        )
    }
}

impl<'a> Property<'a> {
    /// Reads one of the lines that `zfs get -Hp` prints with these [`COLUMNS`].
    pub(super) fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        let (of, name, value, source) = (next()?, next()?, next()?, next()?);
        let value = Some(value).filter(|value| *value != "-");
        Some(Self {
            of,
            name,
            value,
            source,
        })
    }

    /// The one of this name among those of a dataset.
    pub(super) fn among(told: &[Self], name: &str) -> Option<Self> {
        told.iter().find(|told| told.name == name).copied()
    }

    /// What it was set to where it is.
    pub(super) fn own(self) -> Option<&'a str> {
        self.value.filter(|_| self.source == LOCAL)
    }
}

impl Listing {
    /// Reads what `zfs get -Hp` printed. What is not ours is left out, a record that can not be read is told.
    pub(super) fn read(names: &Names, text: &str) -> Self {
        let mut listing = Self::default();
        let told: Vec<_> = text.lines().filter_map(Property::read).collect();
        for told in told.chunk_by(|one, next| one.of == next.of) {
            if let Err(error) = listing.add(names, told) {
                let (name, error) = (told[0].of, format!("{error:#}"));
                tracing::error!(name, error, "a dataset can not be read");
            }
        }
        listing
    }

    fn add(&mut self, names: &Names, told: &[Property<'_>]) -> Result<()> {
        let value = |name: &str| Property::among(told, name)?.value;
        let own = |name: &str| Property::among(told, name)?.own();
        let (name, kind) = (told[0].of, value("type").context("it has no type")?);
        if kind == "snapshot" {
            let txg = value("createtxg").unwrap_or("0").parse()?;
            self.taken_at.insert(name.to_owned(), txg);
            // One that is deferred goes by itself.
            return match value("defer_destroy") {
                Some("on") => Ok(()),
                _ => self.add_snapshot(names, name, own(SNAPSHOT_RECORD)),
            };
        }
        if names.is_retired(name) {
            self.retired.push(name.to_owned());
        } else if names.is_half(name) {
            self.half_made.push(name.to_owned());
        } else if let Some(volume) = names.replaced_of(name) {
            self.replaced.push(volume);
        } else if let Some(volume) = names.volume_of(name) {
            let origin = value("origin").map(str::to_owned);
            match volume_record(own(RECORD), value("volsize").or(value("refquota"))) {
                Ok(record) => drop(self.volumes.insert(volume, Kept { record, origin })),
                Err(error) => self.add_unreadable(names::of_volume(&volume), name, &error),
            }
        }
        Ok(())
    }

    fn add_snapshot(&mut self, names: &Names, full: &str, record: Option<&str>) -> Result<()> {
        let Some((dataset, name)) = full.split_once('@') else {
            return Ok(());
        };
        if !names.is_ours(dataset) {
            return Ok(());
        }
        if name.starts_with("c-") {
            self.half_made.push(full.to_owned());
        }
        if let (Some(name), Some(record)) = (name.strip_prefix("s-"), record) {
            let name: SnapshotName = name.parse()?;
            let dataset = dataset.to_owned();
            match SnapshotRecord::from_text(record.as_bytes()).context(SNAPSHOT_RECORD) {
                Ok(record) => drop(self.snapshots.insert(name, Taken { record, dataset })),
                Err(error) => self.add_unreadable(names::of_snapshot(&name), full, &error),
            }
        }
        Ok(())
    }

    fn add_unreadable(&mut self, called: String, name: &str, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        tracing::error!(name, error = reason, "a record can not be read");
        let name = name.to_owned();
        self.unreadable.insert(called, Unreadable { name, reason });
    }

    /// Whether there is a snapshot of this dataset.
    pub(super) fn has_snapshots(&self, dataset: &str) -> bool {
        let unreadable = self.unreadable.values();
        let mut unreadable = unreadable.filter_map(|one| Some(one.name.split_once('@')?.0));
        let mut snapshots = self.snapshots.values();
        snapshots.any(|taken| taken.dataset == dataset) || unreadable.any(|of| of == dataset)
    }

    /// The volumes that were cloned from snapshots of this dataset; the one from its last snapshot first.
    pub(super) fn clones_of(&self, dataset: &str) -> Vec<&VolumeName> {
        let is_of = |origin: &str| origin.split_once('@').is_some_and(|(of, _)| of == dataset);
        let mut clones: Vec<_> = self
            .volumes
            .iter()
            .filter_map(|(name, kept)| Some((name, kept.origin.as_deref().filter(|of| is_of(of))?)))
            .collect();
        clones.sort_by_key(|(_, origin)| std::cmp::Reverse(self.taken_at.get(*origin)));
        clones.into_iter().map(|(name, _)| name).collect()
    }

    /// Whether something was cloned from this snapshot.
    pub(super) fn is_origin(&self, snapshot: &str) -> bool {
        self.volumes
            .values()
            .any(|kept| kept.origin.as_deref() == Some(snapshot))
    }
}

fn volume_record(text: Option<&str>, size: Option<&str>) -> Result<VolumeRecord> {
    let text = text.with_context(|| format!("it has no {RECORD} that was set on it"))?;
    let mut record = VolumeRecord::from_text(text.as_bytes()).context(RECORD)?;
    record.size = Bytes(size.context("it has no size")?.parse()?);
    Ok(record)
}
