//! Block devices of any kind: whether writing to one is allowed.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};

use super::gate::Gate;
use super::kernel;

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

fn open(device: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd: OwnedFd = rustix::fs::open(device, flags, Mode::empty())
        .with_context(|| format!("opening {}", device.display()))?;
    Ok(File::from(fd))
}
