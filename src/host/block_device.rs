//! Block devices of any kind: what is on one, whether writing to it is allowed, and whether somebody has it for himself.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::gate::Gate;
use super::kernel;

/// What is read at once past the page cache, and where that may begin: no disk has larger sectors.
const SECTOR: usize = 4096;

/// The sector at `offset`, from the disk and not from memory, where an older one may be. It begins at the multiple of its
/// length below `offset`.
pub fn read_sector(device: &Path, offset: u64) -> Result<Vec<u8>> {
    let reading = || format!("reading {}", device.display());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::DIRECT;
    let fd = rustix::fs::open(device, flags, Mode::empty()).with_context(reading)?;
    // Only to memory that begins at such a multiple can the disk write.
    let mut buffer = vec![0; 2 * SECTOR];
    let start = buffer.as_ptr().align_offset(SECTOR);
    let sector = &mut buffer[start..start + SECTOR];
    let offset = offset - offset % SECTOR as u64;
    File::from(fd)
        .read_exact_at(sector, offset)
        .with_context(reading)?;
    Ok(sector.to_vec())
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
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(100);
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK;
    loop {
        match rustix::fs::open(device, flags, Mode::empty()) {
            Err(Errno::BUSY) if Instant::now() < deadline => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            opened => {
                return opened.map(drop).with_context(|| {
                    format!(
                        "{} is still in use: it is mounted, or a tool works on it",
                        device.display()
                    )
                });
            }
        }
    }
}

fn open(device: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd: OwnedFd = rustix::fs::open(device, flags, Mode::empty())
        .with_context(|| format!("opening {}", device.display()))?;
    Ok(File::from(fd))
}
