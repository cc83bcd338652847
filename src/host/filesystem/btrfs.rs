//! Another id for a cloned btrfs, without touching anything but its superblocks.
//!
//! `btrfstune -m` does the same within a transaction of its own, after which the log of a filesystem that was not
//! unmounted can not be replayed (btrfs-progs 6.2): the clone of such a one could never be mounted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::read;
use crate::host::gate::Gate;

/// Where the superblocks are, as far as the device reaches.
const SUPERBLOCKS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];

/// The superblock's fields that matter here (the kernel's `struct btrfs_super_block`): offsets.
const FSID: usize = 0x20;
const POSITION: usize = 0x30;
const MAGIC: usize = 0x40;
const INCOMPAT: usize = 0xbc;
const CHECKSUM_TYPE: usize = 0xc4;
const METADATA_UUID: usize = 0x23b;

/// Says that blocks of metadata carry `METADATA_UUID` instead of `FSID`.
const INCOMPAT_METADATA_UUID: u64 = 1 << 10;

type Superblock = [u8; 4096];
type Uuid = [u8; 16];

/// Gives the filesystem in `image`, which is not mounted, an id of its own.
///
/// # Errors
/// A superblock that is damaged, or of a kind that we do not make; nothing is written then.
pub(super) fn renew_identity(gate: &Gate, image: &Path) -> Result<()> {
    let renewing = || format!("giving {} an id of its own", image.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .with_context(renewing)?;
    let fsid = random_uuid().with_context(renewing)?;
    let mut renewed = Vec::new();
    for position in SUPERBLOCKS {
        let Some(mut block) = read(&file, position).with_context(renewing)? else {
            break;
        };
        rename(&mut block, position, fsid)
            .with_context(|| format!("the superblock at {position}"))
            .with_context(renewing)?;
        renewed.push((position, block));
    }
    gate.pass(renewing())?;
    for (position, block) in renewed {
        file.write_all_at(&block, position).with_context(renewing)?;
    }
    file.sync_all().with_context(renewing)
}

fn rename(block: &mut Superblock, position: u64, fsid: Uuid) -> Result<()> {
    ensure!(block[MAGIC..].starts_with(b"_BHRfS_M"), "it is none");
    ensure!(
        block[CHECKSUM_TYPE..].starts_with(&[0, 0]),
        "it has another kind of checksum than we make"
    );
    ensure!(
        block[POSITION..].starts_with(&position.to_le_bytes())
            && block.starts_with(&crc32c(&block[FSID..]).to_le_bytes()),
        "it is damaged"
    );
    let flags: &mut [u8; 8] = block[INCOMPAT..]
        .first_chunk_mut()
        .context("it is too short")?;
    let before = u64::from_le_bytes(*flags);
    *flags = (before | INCOMPAT_METADATA_UUID).to_le_bytes();
    if before & INCOMPAT_METADATA_UUID == 0 {
        block.copy_within(FSID..FSID + fsid.len(), METADATA_UUID);
    }
    block[FSID..FSID + fsid.len()].copy_from_slice(&fsid);
    let checksum = crc32c(&block[FSID..]).to_le_bytes();
    block[..checksum.len()].copy_from_slice(&checksum);
    Ok(())
}

/// A UUID of version 4.
fn random_uuid() -> io::Result<Uuid> {
    let mut uuid = Uuid::default();
    File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

/// CRC-32C (RFC 3720, B.4); for three blocks of 4 KiB no table is worth its place.
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_damaged_superblock_is_not_written() {
        let mut block = [0; 4096];
        block[MAGIC..][..8].copy_from_slice(b"_BHRfS_M");
        let before = block;

        let refused = rename(&mut block, 64 << 10, [7; 16]);

        assert!(refused.is_err());
        assert_eq!(block, before);
    }
}
