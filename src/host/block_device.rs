//! Block devices of any kind: what is on one, whether writing to it is allowed, and whether somebody has it for himself.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::gate::Gate;
use super::{kernel, passing};

/// What is read at once past the page cache, and where that may begin: no disk has larger sectors.
const SECTOR: usize = 4096;

/// So many bytes at `offset`, from the disk and not from memory, where older ones may be.
///
/// # Errors
/// Also when the device ends before.
pub fn read_past_cache(device: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let reading = || format!("reading {}", device.display());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::DIRECT;
    let fd = rustix::fs::open(device, flags, Mode::empty()).with_context(reading)?;
    let before = usize::try_from(offset % SECTOR as u64)?;
    let whole = (before + length).next_multiple_of(SECTOR);
    // Only to memory that begins at such a multiple can the disk write.
    let mut buffer = vec![0; whole + SECTOR];
    let start = buffer.as_ptr().align_offset(SECTOR);
    let sectors = &mut buffer[start..start + whole];
    File::from(fd)
        .read_exact_at(sectors, offset - before as u64)
        .with_context(reading)?;
    Ok(sectors[before..before + length].to_vec())
}

/// Whether the device refuses to be written.
pub fn is_read_only(device: &Path) -> Result<bool> {
    let file = open(device)?;
    kernel::device_is_read_only(&file)
        .with_context(|| format!("asking {} whether it is read-only", device.display()))
}

/// Makes the device refuse to be written, by anybody, or allows it again.
pub fn set_read_only(gate: &Gate, device: &Path, read_only: bool) -> Result<()> {
    gate.pass(format_args!(
        "blockdev --set{} {}",
        if read_only { "ro" } else { "rw" },
        device.display()
    ))?;
    let file = open(device)?;
    kernel::set_device_read_only(&file, read_only).with_context(|| {
        format!(
            "making {} {}",
            device.display(),
            if read_only { "read-only" } else { "writable" }
        )
    })
}

/// Waits until nobody has the device mounted or opened for himself alone.
///
/// A tool that a killed process had started still ends, and what it had half mounted the kernel still takes away.
///
/// # Errors
/// `EBUSY` in the chain when somebody still has it after `limit`.
pub fn wait_until_unclaimed(device: &Path, limit: Duration) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = || rustix::fs::open(device, flags, Mode::empty());
    let opened = passing::wait(limit, open, |opened| matches!(opened, Err(Errno::BUSY)));
    opened.map(drop).with_context(|| {
        format!(
            "{} is still in use: it is mounted, or a tool works on it",
            device.display()
        )
    })
}

/// Makes the node of a device where nobody keeps up `/dev`, as in a container; one that is there by now is fine.
pub(super) fn make_node(gate: &Gate, node: &Path, rdev: u64) -> Result<()> {
    let making = || format!("making {}", node.display());
    gate.pass(making())?;
    let mode = Mode::from_raw_mode(0o660);
    match rustix::fs::mknodat(CWD, node, FileType::BlockDevice, mode, rdev) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(making),
    }
}

fn open(device: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd: OwnedFd = rustix::fs::open(device, flags, Mode::empty())
        .with_context(|| format!("opening {}", device.display()))?;
    Ok(File::from(fd))
}
