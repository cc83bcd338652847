//! Where a disk of LVM says who it is, and where its copies of the metadata are.
//!
//! A label in one of the first sectors leads to the id of the disk and to the metadata areas. Each of these is a header and
//! a ring of texts; the header says where in the ring the one is that counts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::host::block_device;

const LABEL: &[u8] = b"LABELONE";
const LABEL_TYPE: &[u8] = b"LVM2 001";
const HEADER_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";

/// How much of a header may ever differ; the ring begins behind it.
const HEADER: usize = 512;
/// In which sectors of this size a label may be.
const LABEL_SECTOR: usize = 512;
const LABEL_SECTORS: usize = 4;
/// The length of the id, where the label leads to; a size follows it, and then the areas.
const ID: usize = 32;
const AREAS: usize = ID + 8;
/// Where in a header the places of the texts are: that of now, and that of a change that is being made.
const PLACES: usize = 40;
const PLACE: usize = 24;
/// What all checksums of LVM begin with.
const CHECKSUM_BEGINS: u32 = 0xf597_a6cf;
/// No text is larger by far.
const LARGEST: u64 = 256 << 20;

/// A disk; equal ones have the same metadata.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disk {
    path: PathBuf,
    pub(super) id: String,
    pub(super) areas: Vec<Area>,
}

/// A metadata area.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Area {
    disk: PathBuf,
    /// Where it begins, and its length, in bytes.
    at: (u64, u64),
    header: Vec<u8>,
}

impl Disk {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let start = block_device::read_past_cache(path, 0, 4096)?;
        let (id, places) = label(&start)?;
        let area = |at: (u64, u64)| {
            let header = block_device::read_past_cache(path, at.0, HEADER)?;
            ensure!(
                header[4..].starts_with(HEADER_MAGIC),
                "no metadata at {}",
                at.0
            );
            Ok(Area {
                disk: path.to_owned(),
                at,
                header,
            })
        };
        Ok(Self {
            path: path.to_owned(),
            id,
            areas: places.into_iter().map(area).collect::<Result<_>>()?,
        })
    }
}

impl Area {
    /// The text that counts.
    pub(super) fn text(&self) -> Result<Vec<u8>> {
        let place = |number: usize| {
            let (at, rest) = number_at(&self.header, PLACES + number * PLACE)?;
            let size = number_at(rest, 0)?.0;
            Ok::<_, anyhow::Error>((at, size))
        };
        let ((at, size), changing) = (place(0)?, place(1)?.0);
        ensure!(changing == 0, "a change is being made");
        let checksum = self.header[PLACES + 16..PLACES + 20].try_into();
        let checksum = u32::from_le_bytes(checksum?);
        let end = self.at.1;
        let begin = HEADER as u64;
        ensure!(
            size > 0 && size < LARGEST && (begin..end).contains(&at) && size <= end - begin,
            "the header leads nowhere"
        );
        let first = size.min(end - at);
        let read = |offset: u64, length: u64| {
            let length = usize::try_from(length)?;
            block_device::read_past_cache(&self.disk, self.at.0 + offset, length)
        };
        let mut text = read(at, first)?;
        if first < size {
            text.extend(read(begin, size - first)?);
        }
        ensure!(sum(&text) == checksum, "the checksum is another");
        Ok(text)
    }
}

/// The checksum of LVM: that of zlib, but for how it begins and ends.
fn sum(text: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!CHECKSUM_BEGINS);
    hasher.update(text);
    !hasher.finalize()
}

/// The number at an offset, and what follows it.
fn number_at(bytes: &[u8], offset: usize) -> Result<(u64, &[u8])> {
    let rest = bytes.get(offset..).context("it ends too soon")?;
    let (number, rest) = rest.split_first_chunk().context("it ends too soon")?;
    Ok((u64::from_le_bytes(*number), rest))
}

/// The id of a disk, and where its metadata areas begin and how large they are, by how the disk begins.
fn label(start: &[u8]) -> Result<(String, Vec<(u64, u64)>)> {
    let label = start
        .chunks(LABEL_SECTOR)
        .take(LABEL_SECTORS)
        .position(|sector| sector.starts_with(LABEL) && sector[24..].starts_with(LABEL_TYPE));
    let label = label.context("it has no label of LVM")? * LABEL_SECTOR;
    let leads_to = start[label + 20..label + 24]
        .try_into()
        .map(u32::from_le_bytes)?;
    let place = label + usize::try_from(leads_to)?;
    let (id, lists) = start
        .get(place..)
        .and_then(|found| found.get(..ID).zip(found.get(AREAS..)))
        .context("the label leads nowhere")?;
    let id = std::str::from_utf8(id).context("its id is no text")?;
    // Two lists of offsets and sizes, each up to a pair of zeros: data, then metadata.
    let pairs = lists
        .chunks_exact(16)
        .map(|pair| Ok((number_at(pair, 0)?.0, number_at(pair, 8)?.0)))
        .collect::<Result<Vec<_>>>()?;
    let mut lists = pairs.split(|(offset, _)| *offset == 0);
    let (_data, metadata) = (lists.next(), lists.next());
    let metadata = metadata.context("the label has no end")?;
    Ok((id.to_owned(), metadata.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: &str = "0123456789abcdefghijABCDEFGHIJ01";

    /// How a disk begins: a label in its second sector, one data area, and a metadata area for each offset.
    fn disk(metadata: &[u64]) -> Vec<u8> {
        let mut disk = vec![0; 4096];
        disk[512..520].copy_from_slice(LABEL);
        disk[532..536].copy_from_slice(&32_u32.to_le_bytes());
        disk[536..544].copy_from_slice(LABEL_TYPE);
        disk[544..576].copy_from_slice(WHO.as_bytes());
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
            let (id, areas) = label(&disk(metadata)).expect("it is a disk of LVM");

            let places: Vec<_> = areas.into_iter().map(|(offset, _)| offset).collect();
            assert_eq!((&*id, &*places), (WHO, metadata));
        }
    }

    #[test]
    fn what_is_no_disk_of_lvm_is_told() {
        let mut unknown = disk(&[4096]);
        unknown[543] = b'2';
        let mut astray = disk(&[4096]);
        astray[532..536].copy_from_slice(&u32::MAX.to_le_bytes());

        for start in [vec![0; 4096], unknown, astray] {
            assert!(label(&start).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_on_a_disk_makes_it_panic(at in 0..4096_usize, byte: u8) {
            let mut start = disk(&[4096]);
            start[at] = byte;

            let _ = label(&start);
        }

        #[test]
        fn nor_anything_in_a_header(header in proptest::collection::vec(proptest::num::u8::ANY, HEADER)) {
            let area = Area { disk: "/dev/null".into(), at: (4096, 1 << 20), header };

            let _ = area.text();
        }
    }
}
