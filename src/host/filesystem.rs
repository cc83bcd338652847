//! Filesystems on images and devices: made, recognised, checked, grown and told apart from what they were cloned from.

mod btrfs;
mod ext4;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{SeekFrom, seek};
use rustix::thread::CapabilitySet;

use super::command::{Command, Runner};
use super::gate::Gate;
use crate::volume::{Bytes, Filesystem};

/// How long a tool may take that walks a whole filesystem.
const WHOLE: Duration = Duration::from_hours(1);

/// The block of all filesystems that we make.
const BLOCK: u64 = 4096;

/// What the kernel resizes a btrfs to at the least, though it makes smaller ones.
const BTRFS_LEAST_RESIZED: Bytes = Bytes(256 << 20);

/// A filesystem that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which it is.
    pub filesystem: Filesystem,
    /// The size that it records of itself.
    pub size: Bytes,
}

/// How many errors a mounted filesystem on the device of this number has met that it remembers; nothing if it keeps no
/// count. ext4 forgets them when it is checked.
pub fn errors(filesystem: Filesystem, rdev: u64) -> Result<Option<u64>> {
    if filesystem != Filesystem::Ext4 {
        return Ok(None);
    }
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let device = format!("/sys/dev/block/{major}:{minor}");
    let device = fs::canonicalize(&device).with_context(|| format!("reading {device}"))?;
    let name = device.file_name().context("a device without a name")?;
    let file = Path::new("/sys/fs/ext4").join(name).join("errors_count");
    match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        count => {
            let reading = || format!("reading {}", file.display());
            let count = count.with_context(reading)?;
            Ok(Some(count.trim().parse().with_context(reading)?))
        }
    }
}

/// Makes a filesystem on a new image file or device, as large as that is.
///
/// All of them get blocks and sectors of 4 KiB, so that an image can be attached to a loop device of either block size.
///
/// # Errors
/// A target whose first or last MiB is not blank: there may be data on it, and it is left alone.
pub fn make(runner: &dyn Runner, filesystem: Filesystem, target: &Path) -> Result<()> {
    let file = File::open(target).with_context(|| format!("opening {}", target.display()))?;
    ensure!(
        blank_ends(&file).with_context(|| format!("reading {}", target.display()))?,
        "{} is not blank: there may be data on it, so no filesystem is made",
        target.display()
    );
    make_anew(runner, filesystem, target)
}

/// As [`make`], whatever is on the target now: for the mapping of an encrypted device that is new, which holds noise.
pub fn make_anew(runner: &dyn Runner, filesystem: Filesystem, target: &Path) -> Result<()> {
    let file = File::open(target).with_context(|| format!("opening {}", target.display()))?;
    let command = match filesystem {
        // Blocks kept for root would be missing from the volume. A new file is all holes: to "discard" it costs nothing
        // and spares zeroing inode tables and journal; a device may hold anything between its ends.
        Filesystem::Ext4 => {
            let zeroing = if file.metadata()?.is_file() {
                "discard,lazy_journal_init=1"
            } else {
                "nodiscard,lazy_itable_init=1"
            };
            Command::new("mkfs.ext4")
                .args(["-F", "-q", "-b", "4096", "-m", "0", "-E"])
                .arg(zeroing)
        }
        Filesystem::Xfs => {
            Command::new("mkfs.xfs").args(["-f", "-q", "-K", "-s", "size=4096", "-m", "reflink=1"])
        }
        Filesystem::Btrfs => Command::new("mkfs.btrfs").args(["-f", "-q", "-K"]),
    };
    runner.run(&command.arg(target)).map(drop)
}

/// Whether the first and the last MiB of a file or device hold nothing but zeros.
pub fn blank_ends(file: &File) -> io::Result<bool> {
    let size = seek(file, SeekFrom::End(0))?;
    let length = Bytes::MIB.0.min(size);
    Ok(blank(file, 0, length)? && blank(file, size - length, length)?)
}

/// The filesystem on an image or a device; nothing if it is none that we make.
///
/// # Errors
/// Only those of reading; what is too short for a filesystem has none.
pub fn probe(file: &File) -> io::Result<Option<Found>> {
    let found = |filesystem, size| Found {
        filesystem,
        size: Bytes(size),
    };
    let ext4 = ext4::Superblock::read(file)?.map(|of| of.size);
    let xfs = read::<512>(file, 0)?.and_then(|block| xfs_size(&block));
    let btrfs = read::<4096>(file, 0x10000)?.and_then(|block| btrfs_size(&block));
    Ok(xfs
        .map(|size| found(Filesystem::Xfs, size))
        .or(btrfs.map(|size| found(Filesystem::Btrfs, size)))
        .or(ext4.map(|size| found(Filesystem::Ext4, size))))
}

/// As [`probe`], for a path.
pub fn probe_at(path: &Path) -> Result<Option<Found>> {
    let reading = || format!("reading {}", path.display());
    let file = File::open(path).with_context(reading)?;
    probe(&file).with_context(reading)
}

/// Checks a filesystem that is not mounted, and mends what can be mended without losing anything.
///
/// XFS and btrfs do that themselves when they are mounted, and an ext4 that says that it was left clean is believed, as
/// its tool would.
///
/// # Errors
/// Damage that a person must look at.
pub fn check(runner: &dyn Runner, filesystem: Filesystem, device: &Path) -> Result<()> {
    match filesystem {
        Filesystem::Ext4 => {
            let reading = || format!("reading {}", device.display());
            let file = File::open(device).with_context(reading)?;
            if ext4::Superblock::read(&file)
                .with_context(reading)?
                .is_some_and(|of| of.left_clean)
            {
                return Ok(());
            }
            // 1 says that all errors were corrected.
            let check = Command::new("e2fsck")
                .arg("-p")
                .arg(device)
                .accept(1)
                .limit(WHOLE);
            runner.run(&check).map(drop).with_context(|| {
                format!(
                    "{0} is damaged: copy it, then run `e2fsck -f {0}` by hand",
                    device.display()
                )
            })
        }
        Filesystem::Xfs | Filesystem::Btrfs => Ok(()),
    }
}

/// Grows a mounted filesystem to the size that its device has now; fine if it has it already.
///
/// # Errors
/// ext4 without `CAP_SYS_RESOURCE`, as [`can_grow_mounted`] tells beforehand; btrfs to a size below 256 MiB, which the
/// kernel does not resize to.
pub fn grow(
    runner: &dyn Runner,
    filesystem: Filesystem,
    device: &Path,
    mount_point: &Path,
) -> Result<()> {
    let opened = File::open(device).with_context(|| format!("opening {}", device.display()))?;
    let room = seek(&opened, SeekFrom::End(0))?;
    let fills = |found: Found| found.filesystem == filesystem && found.size.0 + BLOCK > room;
    if probe(&opened)?.is_some_and(fills) {
        return Ok(());
    }
    ensure!(
        filesystem != Filesystem::Btrfs || Bytes(room) >= BTRFS_LEAST_RESIZED,
        "btrfs can be grown to {BTRFS_LEAST_RESIZED} or more, not to {}",
        Bytes(room)
    );
    ensure!(
        can_grow_mounted(filesystem),
        "{} is mounted, and a mounted {filesystem} grows only with CAP_SYS_RESOURCE, which this process lacks",
        device.display()
    );
    let command = match filesystem {
        Filesystem::Ext4 => Command::new("resize2fs").arg(device),
        Filesystem::Xfs => Command::new("xfs_growfs").arg("-d").arg(mount_point),
        Filesystem::Btrfs => Command::new("btrfs")
            .args(["filesystem", "resize", "max"])
            .arg(mount_point),
    };
    runner.run(&command.limit(WHOLE)).map(drop)
}

/// Whether this process may grow a filesystem that is mounted: the kernel wants `CAP_SYS_RESOURCE` for ext4.
pub fn can_grow_mounted(filesystem: Filesystem) -> bool {
    let may = rustix::thread::capabilities(None)
        .is_ok_and(|has| has.effective.contains(CapabilitySet::SYS_RESOURCE));
    filesystem != Filesystem::Ext4 || may
}

/// Grows a filesystem that is not mounted to the size that its image or device has now; false if it is one that grows
/// only when it is mounted: XFS and btrfs.
pub fn grow_at_rest(runner: &dyn Runner, filesystem: Filesystem, image: &Path) -> Result<bool> {
    if filesystem != Filesystem::Ext4 {
        return Ok(false);
    }
    // resize2fs insists on a whole check just before.
    let check = Command::new("e2fsck").args(["-f", "-p"]).arg(image);
    runner.run(&check.accept(1).limit(WHOLE))?;
    runner.run(&Command::new("resize2fs").arg(image).limit(WHOLE))?;
    Ok(true)
}

/// Whether the kernel takes two filesystems of this kind with one id for one: [`renew_identity`] has something to do.
pub fn has_identity(filesystem: Filesystem) -> bool {
    filesystem == Filesystem::Btrfs
}

/// Makes it possible to mount a cloned image, which is not mounted, beside the one that it was cloned from.
///
/// Only btrfs minds: the kernel takes two filesystems with one id for two devices of the same. ext4 does not look, and
/// XFS is mounted by [`Mounts::mount`](super::mount::Mounts::mount) so that it does not.
///
/// # Errors
/// A damaged superblock; nothing is written then.
pub fn renew_identity(gate: &Gate, filesystem: Filesystem, image: &Path) -> Result<()> {
    match filesystem {
        Filesystem::Ext4 | Filesystem::Xfs => Ok(()),
        Filesystem::Btrfs => btrfs::renew_identity(gate, image),
    }
}

fn blank(file: &File, offset: u64, length: u64) -> io::Result<bool> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

fn read<const LENGTH: usize>(file: &File, offset: u64) -> io::Result<Option<[u8; LENGTH]>> {
    let mut block = [0; LENGTH];
    match file.read_exact_at(&mut block, offset) {
        Ok(()) => Ok(Some(block)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kernel's `struct xfs_dsb`.
fn xfs_size(block: &[u8; 512]) -> Option<u64> {
    let (magic, rest) = block.split_first_chunk::<4>()?;
    let (size_of_block, rest) = rest.split_first_chunk::<4>()?;
    let (blocks, _) = rest.split_first_chunk::<8>()?;
    let size = u64::from_be_bytes(*blocks).checked_mul(u32::from_be_bytes(*size_of_block).into());
    (magic == b"XFSB").then_some(size).flatten()
}

/// The kernel's `struct btrfs_super_block`.
fn btrfs_size(block: &[u8; 4096]) -> Option<u64> {
    let magic = block[0x40..].starts_with(b"_BHRfS_M");
    let size = block[0x70..].first_chunk::<8>()?;
    magic.then_some(u64::from_le_bytes(*size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(bytes: &[u8], offset: u64, size: u64) -> File {
        let file = tempfile::tempfile().expect("the temporary directory can be written");
        file.set_len(size).expect("holes cost nothing");
        file.write_all_at(bytes, offset).expect("it can be written");
        file
    }

    #[test]
    fn what_is_no_filesystem_is_none() {
        let files = [
            image(b"", 0, 0),
            image(b"XFS", 0, 4096),
            image(b"", 0, 1 << 20),
        ];

        for file in files {
            assert_eq!(probe(&file).expect("it can be read"), None);
        }
    }

    #[test]
    fn only_what_is_blank_at_both_ends_is_blank() {
        let size = 8 << 20;
        let blank = |offset| blank_ends(&image(b"x", offset, size)).expect("it can be read");

        let ends = [0, (1 << 20) - 1, 4 << 20, size - (1 << 20), size - 1].map(blank);

        assert_eq!(ends, [false, false, true, false, false]);
        assert!(blank_ends(&image(b"", 0, 0)).expect("it can be read"));
    }
}
