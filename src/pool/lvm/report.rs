//! What LVM's tools report, in JSON.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::tags::{self, HALF};
use crate::volume::{Bytes, Record};

/// A logical volume; its fields are all in the metadata of the volume group, so that no device is asked for them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Lv {
    /// Its name.
    #[serde(rename = "lv_name")]
    pub(super) name: String,
    /// Its size; that of a classic snapshot is that of what has changed since.
    #[serde(rename = "lv_size", deserialize_with = "bytes")]
    pub(super) size: Bytes,
    #[serde(rename = "lv_tags")]
    tags: String,
    /// The thin pool that it is in; nothing, if it is in none.
    #[serde(rename = "pool_lv")]
    pub(super) pool: String,
    /// What it is a snapshot of; nothing, if it is none.
    pub(super) origin: String,
}

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Vg {
    /// All its space.
    #[serde(rename = "vg_size", deserialize_with = "bytes")]
    pub(super) size: Bytes,
    /// What is in no logical volume.
    #[serde(rename = "vg_free", deserialize_with = "bytes")]
    pub(super) free: Bytes,
    /// What all sizes are a multiple of.
    #[serde(rename = "vg_extent_size", deserialize_with = "bytes")]
    pub(super) extent: Bytes,
    /// How many of its disks are not there.
    #[serde(rename = "vg_missing_pv_count", deserialize_with = "number")]
    pub(super) missing: u64,
}

/// A volume group with all that is in it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) group: Vg,
    pub(super) lvs: Vec<Lv>,
    /// The nodes of its disks.
    pub(super) disks: Vec<PathBuf>,
    /// What is free on each of those that may be used.
    pub(super) free: Vec<Bytes>,
}

/// A disk of a volume group.
#[derive(Deserialize)]
struct Pv {
    #[serde(rename = "pv_name")]
    node: PathBuf,
    #[serde(rename = "pv_free", deserialize_with = "bytes")]
    free: Bytes,
    /// `allocatable` or nothing.
    #[serde(rename = "pv_allocatable")]
    allocatable: String,
    /// `missing` or nothing.
    #[serde(rename = "pv_missing")]
    missing: String,
}

impl Pv {
    /// What is free on it, if it may be used.
    fn usable(&self) -> Option<Bytes> {
        (!self.allocatable.is_empty() && self.missing.is_empty()).then_some(self.free)
    }
}

/// How a thin pool was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct ThinPool {
    /// `thin-pool`, or it is none.
    pub(super) segtype: String,
    /// Whether a block is blank before a volume gets it: `zero`.
    pub(super) zero: String,
    /// What happens to a write for which there is no room: `error` or `queue`.
    #[serde(rename = "lv_when_full")]
    pub(super) when_full: String,
}

impl Report {
    /// What to ask `lvm fullreport` for: of segments, which it lists too, as little as it can tell.
    pub(super) const FIELDS: [(&str, &str); 5] = [
        ("vg", "vg_size,vg_free,vg_extent_size,vg_missing_pv_count"),
        ("lv", "lv_name,lv_size,lv_tags,pool_lv,origin"),
        ("pv", "pv_name,pv_free,pv_allocatable,pv_missing"),
        ("seg", "lv_name"),
        ("pvseg", "pv_name"),
    ];

    /// Reads its answer.
    pub(super) fn read(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Part {
            vg: Vec<Vg>,
            lv: Vec<Lv>,
            pv: Vec<Pv>,
        }
        let mut parts = parts::<Part>(text)?;
        let part = parts
            .pop()
            .and_then(|mut part| Some((part.vg.pop()?, part)));
        let (group, part) = part.context("it reports no volume group")?;
        Ok(Self {
            group,
            lvs: part.lv,
            free: part.pv.iter().filter_map(Pv::usable).collect(),
            disks: part.pv.into_iter().map(|disk| disk.node).collect(),
        })
    }
}

#[cfg(any(debug_assertions, test))]
impl Report {
    /// Whether both tell of the same group the same, in whatever order.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        let sorted = |report: &Self| {
            let mut lvs: Vec<_> = report.lvs.iter().map(Lv::sorted).collect();
            let mut free = report.free.clone();
            lvs.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            free.sort_unstable();
            (lvs, free)
        };
        self.group == other.group && sorted(self) == sorted(other)
    }
}

/// A logical volume on a disk that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Partial {
    /// Its name.
    #[serde(rename = "lv_name")]
    pub(super) name: String,
    /// What it is made of: `linear`, `raid1`.
    segtype: String,
}

impl Partial {
    /// What to ask `lvs` for.
    pub(super) const FIELDS: &str = "lv_name,segtype";
    /// Of which.
    pub(super) const SELECTION: &str = "lv_health_status=partial";

    /// Whether other disks may have all that is in it.
    pub(super) fn is_redundant(&self) -> bool {
        self.segtype.starts_with("raid") && self.segtype != "raid0"
    }
}

impl ThinPool {
    /// What to ask `lvs` for.
    pub(super) const FIELDS: &str = "segtype,zero,lv_when_full";

    /// Reads its answer; nothing, if there is none.
    pub(super) fn read(text: &str) -> Result<Option<Self>> {
        Ok(lvs(text)?.into_iter().next())
    }
}

impl Lv {
    /// One that was read from the metadata.
    pub(super) fn new(name: &str, size: Bytes, tags: &[&str], pool: &str, origin: &str) -> Self {
        Self {
            name: name.to_owned(),
            size,
            tags: tags.join(","),
            pool: pool.to_owned(),
            origin: origin.to_owned(),
        }
    }

    /// Whether it is being made.
    pub(super) fn is_half(&self) -> bool {
        self.tags().any(|tag| tag == HALF)
    }

    /// Whether it was made by us.
    pub(super) fn is_ours(&self) -> bool {
        tags::has_record(self.tags())
    }

    /// Its record.
    pub(super) fn record<R: Record>(&self) -> Result<R> {
        tags::read(self.tags(), self.size)
    }

    fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.split(',')
    }

    #[cfg(any(debug_assertions, test))]
    fn sorted(&self) -> Self {
        let mut tags: Vec<_> = self.tags().collect();
        tags.sort_unstable();
        Self {
            tags: tags.join(","),
            ..self.clone()
        }
    }
}

/// Reads the answer of `lvs`.
pub(super) fn lvs<L: DeserializeOwned>(text: &str) -> Result<Vec<L>> {
    #[derive(Deserialize)]
    struct Part<L> {
        lv: Vec<L>,
    }
    let parts = parts::<Part<L>>(text)?.into_iter();
    Ok(parts.flat_map(|part| part.lv).collect())
}

/// The parts of any report.
fn parts<P: DeserializeOwned>(text: &str) -> Result<Vec<P>> {
    #[derive(Deserialize)]
    struct Whole<P> {
        report: Vec<P>,
    }
    let whole: Whole<P> = serde_json::from_str(text).context("a report of LVM")?;
    Ok(whole.report)
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    number(from).map(Bytes)
}

/// LVM writes all values as texts.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeRecord;

    const GROUP: &str = include_str!("../../../tests/fixtures/lvm-2.03.16/fullreport.json");
    const POOL: &str = include_str!("../../../tests/fixtures/lvm-2.03.16/thin-pool.json");
    const NONE: &str = include_str!("../../../tests/fixtures/lvm-2.03.16/none.json");

    #[test]
    fn logical_volumes_are_read_with_their_records() {
        let lvs = Report::read(GROUP).expect("it is a report").lvs;

        let names: Vec<_> = lvs.iter().map(|lv| lv.name.as_str()).collect();
        assert_eq!(names, ["s-first", "theirs", "thin0", "v-half", "v-one"]);
        let ours: Vec<_> = lvs.iter().map(Lv::is_ours).collect();
        assert_eq!(ours, [true, false, false, true, true]);
        assert!(lvs[3].is_half() && !lvs[4].is_half());
        let record: VolumeRecord = lvs[4].record().expect("it is whole");
        assert_eq!(record.csi_name, "Ein Käse");
        assert_eq!(record.size, Bytes::MIB.times(64));
    }

    #[test]
    fn so_are_a_group_a_thin_pool_and_nothing() {
        let report = Report::read(GROUP).expect("it is a report");
        let pool = ThinPool::read(POOL).expect("it is a report");
        let none = ThinPool::read(NONE).expect("it is a report");

        assert_eq!(report.group.extent, Bytes::MIB.times(4));
        assert_eq!(report.group.missing, 0);
        assert_eq!(report.disks.len(), 1);
        assert_eq!(report.free, [report.group.free]);
        let pool = pool.expect("it is there");
        assert_eq!((&*pool.segtype, &*pool.zero), ("thin-pool", "zero"));
        assert!(none.is_none());
    }
}
