//! What LVM's tools report, in JSON.

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

/// A thing that LVM reports.
pub(super) trait Row: DeserializeOwned {
    /// The fields to ask for.
    const FIELDS: &str;
}

impl Row for Lv {
    const FIELDS: &str = "lv_name,lv_size,lv_tags,pool_lv,origin";
}

impl Row for Vg {
    const FIELDS: &str = "vg_size,vg_free,vg_extent_size,vg_missing_pv_count";
}

impl Row for ThinPool {
    const FIELDS: &str = "segtype,zero,lv_when_full";
}

/// The rows of a report of `lvs` or `vgs`.
pub(super) fn rows<R: Row>(text: &str) -> Result<Vec<R>> {
    #[derive(Deserialize)]
    struct Whole<R> {
        report: Vec<Part<R>>,
    }
    #[derive(Deserialize)]
    struct Part<R> {
        #[serde(alias = "vg")]
        lv: Vec<R>,
    }
    let whole: Whole<R> = serde_json::from_str(text).context("a report of LVM")?;
    Ok(whole.report.into_iter().flat_map(|part| part.lv).collect())
}

impl Lv {
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

    const LVS: &str = include_str!("../../../tests/fixtures/lvm-2.03.16/lvs.json");
    const VGS: &str = include_str!("../../../tests/fixtures/lvm-2.03.16/vgs.json");
    const POOL: &str = include_str!("../../../tests/fixtures/lvm-2.03.16/thin-pool.json");
    const NONE: &str = include_str!("../../../tests/fixtures/lvm-2.03.16/none.json");

    #[test]
    fn logical_volumes_are_read_with_their_records() {
        let lvs: Vec<Lv> = rows(LVS).expect("it is a report");

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
        let groups: Vec<Vg> = rows(VGS).expect("it is a report");
        let pools: Vec<ThinPool> = rows(POOL).expect("it is a report");
        let none: Vec<Lv> = rows(NONE).expect("it is a report");

        assert_eq!(groups[0].extent, Bytes::MIB.times(4));
        assert_eq!(groups[0].missing, 0);
        assert_eq!((&*pools[0].segtype, &*pools[0].zero), ("thin-pool", "zero"));
        assert!(none.is_empty());
    }
}
