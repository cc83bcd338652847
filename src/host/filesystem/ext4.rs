//! What the superblock of an ext4 says.

use std::fs::File;
use std::io;

/// Where it is, in bytes.
const AT: u64 = 1024;

const MAGIC: u16 = 0xEF53;
/// The only state that says nothing against it.
const VALID: u16 = 1;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

/// A part of the kernel's `struct ext4_super_block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// The size of the filesystem in bytes.
    pub(super) size: u64,
    /// Whether it was unmounted in order, has met no error since it was last checked, and is due for no check: then
    /// `e2fsck -p` would not look further either.
    pub(super) left_clean: bool,
}

impl Superblock {
    /// That of an image or a device; nothing if there is none.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        Ok(super::read(file, AT)?.and_then(|block| Self::parse(&block)))
    }

    fn parse(block: &[u8; 1024]) -> Option<Self> {
        let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        let word = |at| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let (magic, incompatible) = (half(0x38), word(0x60));
        // The number of blocks has its upper half elsewhere, if it has one.
        let upper = if incompatible & INCOMPAT_64BIT == 0 {
            0
        } else {
            word(0x150)
        };
        let blocks = u64::from(upper) << 32 | u64::from(word(0x4));
        let size = blocks.checked_mul(1024_u64.checked_shl(word(0x18))?)?;
        let orphans = word(0xE8) != 0 || word(0x64) & RO_COMPAT_ORPHAN_PRESENT != 0;
        let (mounts, most_mounts, errors) = (half(0x34), half(0x36), word(0x194));
        // Zero, or minus one: it is never due. Neither is what has no interval.
        let due = mounts >= most_mounts && !matches!(most_mounts, 0 | u16::MAX) || word(0x44) != 0;
        (magic == MAGIC).then_some(Self {
            size,
            left_clean: half(0x3A) == VALID
                && incompatible & INCOMPAT_RECOVER == 0
                && !orphans
                && errors == 0
                && !due,
        })
    }
}
