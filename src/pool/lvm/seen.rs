//! What LVM last reported of a volume group, which is true for as long as the metadata on its disks is the same.
//!
//! A command of LVM takes tens of milliseconds, a look at the metadata's header one read: every change, by whomever, writes
//! it anew. The format is LVM2's own (`lib/format_text/layout.h`): a label in one of the first sectors says where the
//! metadata areas of the disk are, and each begins with its header.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use super::report::Report;
use crate::host::block_device;

const LABEL: &[u8] = b"LABELONE";
const LABEL_TYPE: &[u8] = b"LVM2 001";
const HEADER_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";

/// How much of a header may ever differ.
const HEADER: usize = 512;
/// In which sectors of this size a label may be.
const LABEL_SECTOR: usize = 512;
const LABEL_SECTORS: usize = 4;
/// Where the list of areas is, from the beginning of what the label leads to: behind an id and a size.
const AREAS: usize = 32 + 8;

/// The headers of all metadata areas of a volume group.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Vec<Vec<u8>>);

/// The last report.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    report: Arc<Report>,
    /// What the disks said before the report and after it, if they could be read and said the same.
    stamp: Option<Stamp>,
}

impl Seen {
    /// The last report, if it is still true, or the one that `ask` gets. Who comes meanwhile waits for the same.
    pub(super) fn get(&self, ask: impl FnOnce() -> Result<Report>) -> Result<Arc<Report>> {
        // Only whole reports are put there: a panic elsewhere can not have spoilt one.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.as_ref().and_then(|last| Stamp::of(&last.report.disks));
        if let (Some(last), Some(now)) = (&*last, &before)
            && last.stamp.as_ref() == Some(now)
        {
            return Ok(Arc::clone(&last.report));
        }
        let report = Arc::new(ask()?);
        let after = Stamp::of(&report.disks);
        *last = Some(Last {
            report: Arc::clone(&report),
            stamp: after.filter(|after| before.as_ref() == Some(after)),
        });
        Ok(report)
    }
}

impl Stamp {
    /// Nothing, if a disk can not be read, or has no metadata at all with the others.
    fn of(disks: &[PathBuf]) -> Option<Self> {
        let read = |disk: &PathBuf| match headers(disk) {
            Ok(headers) => Some(headers),
            Err(error) => {
                let (disk, error) = (disk.display(), format!("{error:#}"));
                tracing::debug!(%disk, error, "LVM is asked each time");
                None
            }
        };
        let headers: Vec<_> = disks.iter().map(read).collect::<Option<Vec<_>>>()?.concat();
        (!headers.is_empty()).then_some(Self(headers))
    }
}

/// The headers of the metadata areas of a disk, which may have none.
fn headers(disk: &Path) -> Result<Vec<Vec<u8>>> {
    let start = block_device::read_sector(disk, 0)?;
    let header = |offset: u64| {
        let sector = block_device::read_sector(disk, offset)?;
        let within = usize::try_from(offset)? % sector.len();
        let header = sector
            .get(within..within + HEADER)
            .context("a header past its sector")?;
        ensure!(
            header[4..].starts_with(HEADER_MAGIC),
            "no metadata at {offset}"
        );
        Ok(header.to_vec())
    };
    areas(&start)?.into_iter().map(header).collect()
}

/// Where the metadata areas of a disk begin, by how the disk begins.
fn areas(start: &[u8]) -> Result<Vec<u64>> {
    let label = start
        .chunks(LABEL_SECTOR)
        .take(LABEL_SECTORS)
        .position(|sector| sector.starts_with(LABEL) && sector[24..].starts_with(LABEL_TYPE));
    let label = label.context("it has no label of LVM")? * LABEL_SECTOR;
    let leads_to = start[label + 20..label + 24]
        .try_into()
        .map(u32::from_le_bytes)?;
    let lists = start
        .get(label + usize::try_from(leads_to)? + AREAS..)
        .context("the label leads nowhere")?;
    // Two lists of offsets and sizes, each up to a pair of zeros: data, then metadata.
    let offset = |pair: &[u8]| pair[..8].try_into().map(u64::from_le_bytes);
    let pairs = lists
        .chunks_exact(16)
        .map(offset)
        .collect::<Result<Vec<_>, _>>()?;
    let mut lists = pairs.split(|offset| *offset == 0);
    let (_data, metadata) = (lists.next(), lists.next());
    Ok(metadata.context("the label has no end")?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a disk begins: a label in its second sector, one data area, and a metadata area for each offset.
    fn disk(metadata: &[u64]) -> Vec<u8> {
        let mut disk = vec![0; 4096];
        disk[512..520].copy_from_slice(LABEL);
        disk[532..536].copy_from_slice(&32_u32.to_le_bytes());
        disk[536..544].copy_from_slice(LABEL_TYPE);
        let pairs = [1 << 20, 0].iter().chain(metadata).chain(&[0]);
        for (number, offset) in pairs.enumerate() {
            let at = 512 + 32 + AREAS + number * 16;
            disk[at..at + 8].copy_from_slice(&u64::to_le_bytes(*offset));
        }
        disk
    }

    #[test]
    fn the_areas_of_a_disk_are_found_by_its_label() {
        for metadata in [&[][..], &[4096], &[4096, 1 << 30]] {
            assert_eq!(
                areas(&disk(metadata)).expect("it is a disk of LVM"),
                metadata
            );
        }
    }

    #[test]
    fn what_is_no_disk_of_lvm_is_told() {
        let mut unknown = disk(&[4096]);
        unknown[543] = b'2';
        let mut astray = disk(&[4096]);
        astray[532..536].copy_from_slice(&u32::MAX.to_le_bytes());

        for start in [vec![0; 4096], unknown, astray] {
            assert!(areas(&start).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_on_a_disk_makes_it_panic(at in 0..4096_usize, byte: u8) {
            let mut start = disk(&[4096]);
            start[at] = byte;

            let _ = areas(&start);
        }
    }
}
