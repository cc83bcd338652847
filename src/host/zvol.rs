//! The block devices of ZFS: which node is which volume's.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::gate::Gate;
use super::{block_device, kernel, passing};

/// How long the node of a new device may take to appear.
const LIMIT: Duration = Duration::from_secs(20);

/// A device's node and number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zvol {
    /// The kernel's own name of it: `/dev/zd16`.
    pub path: PathBuf,
    /// Its number.
    pub rdev: u64,
}

/// The device of the volume `name`, once it is there: the kernel makes it some time after the volume. Where nobody keeps
/// up `/dev`, as in a container, its node is made.
///
/// # Errors
/// None appears in time.
pub fn wait_for(gate: &Gate, name: &str) -> Result<Zvol> {
    let found = passing::wait(
        LIMIT,
        || find(gate, name),
        |found| matches!(found, Ok(None)),
    );
    found?.with_context(|| {
        format!("the device of {name} did not appear within {LIMIT:?}: is its `volmode` none?")
    })
}

/// The device of the volume `name`, if it is there.
pub fn find(gate: &Gate, name: &str) -> Result<Option<Zvol>> {
    // udev's link is a hint; the device itself says whose it is.
    if let Ok(node) = fs::canonicalize(Path::new("/dev/zvol").join(name))
        && name_of(&node).as_deref() == Some(name)
    {
        return Ok(Some(zvol(node)?));
    }
    let disks = fs::read_dir("/sys/block").context("reading /sys/block")?;
    for disk in disks.flatten() {
        let file = disk.file_name();
        let Some(kernel_name) = file.to_str().filter(|name| name.starts_with("zd")) else {
            continue;
        };
        let node = Path::new("/dev").join(kernel_name);
        if !node.exists() {
            make_node(gate, &node, &disk.path())?;
        }
        if name_of(&node).as_deref() == Some(name) {
            return Ok(Some(zvol(node)?));
        }
    }
    Ok(None)
}

/// The volume whose device this node is, if it is one of ZFS's.
pub fn name_of(node: &Path) -> Option<String> {
    let is_zvol = node.file_name()?.to_str()?.starts_with("zd");
    let device = is_zvol.then(|| File::open(node).ok())??;
    kernel::zvol_name(&device).ok()
}

fn zvol(path: PathBuf) -> Result<Zvol> {
    let metadata = fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
    Ok(Zvol {
        rdev: metadata.rdev(),
        path,
    })
}

fn make_node(gate: &Gate, node: &Path, disk: &Path) -> Result<()> {
    let making = || format!("making {}", node.display());
    let number = match fs::read_to_string(disk.join("dev")) {
        // It went in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        number => number.with_context(making)?,
    };
    let mut parts = number.trim().splitn(2, ':').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        bail!("{} has no device number: {number:?}", disk.display());
    };
    let rdev = rustix::fs::makedev(major, minor);
    block_device::make_node(gate, node, rdev)?;
    let is = fs::metadata(node).with_context(making)?.rdev();
    ensure!(is == rdev, "{} is another device", node.display());
    Ok(())
}
