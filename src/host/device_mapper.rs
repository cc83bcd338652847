//! Devices of the device mapper: whether one is there, how it fares, and its node.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;

use super::gate::Gate;
use super::{kernel, passing};
use crate::volume::Bytes;

/// Where its nodes are.
const NODES: &str = "/dev/mapper";

/// How long udev may take to make a node before we do.
const UDEV_LIMIT: Duration = Duration::from_secs(2);

/// A part of a mapped device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its length.
    pub length: Bytes,
    /// What it is mapped by: `linear`, `thin-pool`.
    pub kind: String,
    /// What that says of it, in its own words.
    pub status: String,
}

/// The number of the device of this name, if there is one.
pub fn find(name: &str) -> Result<Option<u64>> {
    let asked = control().and_then(|control| kernel::mapped_device(&control, name));
    present(asked.map(|mapping| mapping.dev), name)
}

/// Whether somebody has the device of this name open; nobody has one that is not there.
pub fn is_open(name: &str) -> Result<bool> {
    let asked = control().and_then(|control| kernel::mapped_device(&control, name));
    Ok(present(asked, name)?.is_some_and(|mapping| mapping.open_count > 0))
}

/// What the first target of the device of this name says of itself; nothing if there is no such device. Never waits.
pub fn status(name: &str) -> Result<Option<Target>> {
    let asked = control().and_then(|control| kernel::mapped_status(&control, name));
    let found = present(asked, name)?.and_then(|mapping| mapping.first_target());
    Ok(found.map(|(sectors, kind, status)| Target {
        length: Bytes(sectors).times(512),
        kind,
        status,
    }))
}

/// The name of the device of this number, if it is one of the device mapper's.
pub fn name_of(rdev: u64) -> Option<String> {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    named(Path::new(&format!("/sys/dev/block/{major}:{minor}")))
}

/// The name of the device that the kernel calls so: `dm-3`.
pub fn name_of_node(node: &str) -> Option<String> {
    let number = node.strip_prefix("dm-")?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit());
    plain
        .then(|| named(&Path::new("/sys/block").join(node)))
        .flatten()
}

/// The node of a device that is there, and no link to it, so that it can be bound. Udev makes it; where there is none, or
/// not in this `/dev`, we do.
pub fn node(gate: &Gate, name: &str, rdev: u64) -> Result<PathBuf> {
    let path = Path::new(NODES).join(name);
    let limit = if udev_is_running() {
        UDEV_LIMIT
    } else {
        Duration::ZERO
    };
    let is_there = || fs::metadata(&path).is_ok_and(|found| found.rdev() == rdev);
    if passing::wait(limit, is_there, |there| !there) {
        return fs::canonicalize(&path).with_context(|| format!("following {}", path.display()));
    }
    gate.pass(format_args!("mknod {}", path.display()))?;
    match rustix::fs::unlink(&path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => {
            return Err(errno).with_context(|| format!("removing a stale {}", path.display()));
        }
    }
    rustix::fs::mknodat(
        CWD,
        &path,
        FileType::BlockDevice,
        Mode::RUSR | Mode::WUSR,
        rdev,
    )
    .with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// Whether udev runs where we can see it: only then may a tool wait for it.
pub fn udev_is_running() -> bool {
    Path::new("/run/udev/control").exists()
}

fn control() -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(Path::new(NODES).join("control"))
}

fn present<T>(asked: io::Result<T>, name: &str) -> Result<Option<T>> {
    match asked {
        Ok(found) => Ok(Some(found)),
        // Without the control node nothing was ever mapped here.
        Err(error) if [Some(libc::ENXIO), Some(libc::ENOENT)].contains(&error.raw_os_error()) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("asking the device mapper for {name}")),
    }
}

fn named(device: &Path) -> Option<String> {
    let name = fs::read_to_string(device.join("dm/name")).ok()?;
    Some(name.trim_end().to_owned())
}
