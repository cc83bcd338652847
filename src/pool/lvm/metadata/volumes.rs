//! From the metadata of a volume group to what LVM reports of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::text::Section;
use crate::pool::lvm::report::{Lv, Report, Vg};
use crate::volume::Bytes;

/// What sizes are counted in.
const SECTOR: Bytes = Bytes(512);

/// The report of the group in `root`, which is on the disks with these sorted ids, and on no others.
pub(super) fn report(root: &Section<'_>, ids: &[&str], before: &Report) -> Result<Report> {
    let (_, group) = root.sections().next().context("it is of no group")?;
    ensure!(
        group.text("format").is_none_or(|format| format == "lvm2"),
        "another format"
    );
    let extent = SECTOR.times(group.number("extent_size")?);
    let mut disks = disks(group, ids)?;
    let volumes: BTreeMap<_, _> = group.sections_of("logical_volumes").collect();
    for volume in volumes.values() {
        for (disk, extents) in taken(volume)? {
            let disk = disks.get_mut(disk);
            let disk = disk.with_context(|| "extents are on no disk of the group")?;
            let left = disk.free.checked_sub(extents);
            disk.free = left.context("more is taken of a disk than there is")?;
        }
    }
    let all = |count: fn(&Room) -> u64| extent.times(disks.values().map(count).sum());
    let snapshots = snapshots(&volumes)?;
    let is_told = |(name, volume): &(&&str, &&Section<'_>)| {
        let ties = segments(volume).any(|segment| segment.text("type") == Some("snapshot"));
        !ties && (is_visible(volume) || snapshots.contains_key(**name))
    };
    Ok(Report {
        group: Vg {
            size: all(|disk| disk.extents),
            free: all(|disk| disk.free),
            extent,
            missing: 0,
        },
        lvs: volumes
            .iter()
            .filter(is_told)
            .map(|(name, volume)| lv(name, volume, extent, &snapshots))
            .collect::<Result<_>>()?,
        disks: before.disks.clone(),
        free: disks
            .values()
            .filter(|disk| disk.allocatable)
            .map(|disk| extent.times(disk.free))
            .collect(),
    })
}

/// What there is of a disk, in extents.
struct Room {
    extents: u64,
    free: u64,
    allocatable: bool,
}

fn disks<'a>(group: &Section<'a>, ids: &[&str]) -> Result<BTreeMap<&'a str, Room>> {
    let (mut disks, mut found) = (BTreeMap::new(), Vec::new());
    for (name, disk) in group.sections_of("physical_volumes") {
        ensure!(
            disk.texts("flags").next().is_none(),
            "{name} is not a disk like others"
        );
        let id = disk.text("id").context("a disk without an id")?;
        found.push(id.replace('-', ""));
        let extents = disk.number("pe_count")?;
        let room = Room {
            extents,
            free: extents,
            allocatable: disk.texts("status").any(|status| status == "ALLOCATABLE"),
        };
        disks.insert(name, room);
    }
    found.sort_unstable();
    ensure!(found == ids, "the group is on other disks than before");
    Ok(disks)
}

fn segments<'s, 'a>(volume: &'s Section<'a>) -> impl Iterator<Item = &'s Section<'a>> {
    volume.sections().map(|(_, segment)| segment)
}

/// How many extents of which disks a volume takes by itself, and not by others beneath it.
fn taken<'s>(volume: &'s Section<'_>) -> Result<Vec<(&'s str, u64)>> {
    let mut taken = Vec::new();
    let moved = volume.texts("status").any(|status| status == "PVMOVE");
    ensure!(!moved, "extents are being moved");
    for segment in segments(volume) {
        match segment.text("type").unwrap_or_default() {
            "striped" => {
                let stripes: Vec<_> = segment.texts("stripes").collect();
                let each = segment.number("extent_count")? / (stripes.len() as u64).max(1);
                taken.extend(stripes.into_iter().map(|disk| (disk, each)));
            }
            "thin-pool" | "thin" | "snapshot" | "error" | "zero" => {}
            raid if raid.starts_with("raid") => {}
            other => bail!("segments of type {other} are LVM's to report"),
        }
    }
    Ok(taken)
}

fn is_visible(volume: &Section<'_>) -> bool {
    volume.texts("status").any(|status| status == "VISIBLE")
}

/// The classic snapshots, each with its origin. What keeps the changes is said to be hidden, and told; another, which ties
/// it to its origin, is said to be visible, and never told.
fn snapshots<'s>(volumes: &BTreeMap<&str, &'s Section<'_>>) -> Result<BTreeMap<&'s str, &'s str>> {
    let ties = volumes
        .values()
        .flat_map(|volume| segments(volume))
        .filter(|segment| segment.text("type") == Some("snapshot"));
    ties.map(|tie| {
        tie.text("cow_store")
            .zip(tie.text("origin"))
            .context("a snapshot that is being merged")
    })
    .collect()
}

fn lv(
    name: &str,
    volume: &Section<'_>,
    extent: Bytes,
    snapshots: &BTreeMap<&str, &str>,
) -> Result<Lv> {
    let mut extents = 0;
    for segment in segments(volume) {
        let merging = segment.text("merge").is_some();
        ensure!(!merging, "{name} is being merged");
        extents += segment.number("extent_count")?;
    }
    let of_thin = |key| {
        let mut thin = segments(volume).filter(|segment| segment.text("type") == Some("thin"));
        thin.find_map(|segment| segment.text(key))
    };
    let tags: Vec<_> = volume.texts("tags").collect();
    let origin = of_thin("origin").or(of_thin("external_origin"));
    Ok(Lv::new(
        name,
        extent.times(extents),
        &tags,
        of_thin("thin_pool").unwrap_or_default(),
        origin.or(snapshots.get(name).copied()).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::lvm::metadata::text;

    const TOLD: &str = include_str!("../../../../tests/fixtures/lvm-2.03.16/mixed.json");
    const WRITTEN: &str = include_str!("../../../../tests/fixtures/lvm-2.03.16/mixed.txt");
    const DISKS: [&str; 2] = [
        "5HmYclESURNEmgPQgBZlTFMT8B8tvXWz",
        "uIBRbfJqZJFlkNxpz7pIwNoFuuqlI15i",
    ];

    /// What is read of a text like the fixture, but for one change.
    fn read(from: &str, to: &str, disks: &[&str]) -> Result<Report> {
        assert!(WRITTEN.contains(from), "{from}");
        let text = WRITTEN.replacen(from, to, 1) + "\0";
        let told = Report::read(TOLD).expect("it is a report");
        report(&text::parse(text.as_bytes())?, disks, &told)
    }

    #[test]
    fn what_is_written_is_what_lvm_tells() {
        let told = Report::read(TOLD).expect("it is a report");

        let read = read("", "", &DISKS).expect("LVM wrote it");

        assert!(read.says_the_same_as(&told), "{read:#?}\n{told:#?}");
    }

    #[test]
    fn at_any_doubt_lvm_is_asked() {
        for (from, to) in [
            ("type = \"striped\"", "type = \"cache\""),
            ("flags = []\ndev_size", "flags = [\"MISSING\"]\ndev_size"),
            ("format = \"lvm2\"", "format = \"lvm3\""),
            ("extent_size = 8192\n", ""),
            ("pe_count = 99", "pe_count = 1"),
            ("\"pv0\", ", "\"pv7\", "),
            ("\"VISIBLE\"", "\"PVMOVE\""),
            ("cow_store = ", "merging_store = "),
        ] {
            assert!(read(from, to, &DISKS).is_err(), "{from} → {to}");
        }
        assert!(read("", "", &DISKS[..1]).is_err(), "a disk is missing");
        assert!(read("", "", &["other", DISKS[1]]).is_err(), "it is another");
    }
}
