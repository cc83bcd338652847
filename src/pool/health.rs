//! What can be wrong with a pool of folders, and what a person should do about it.

use anyhow::Result;

use super::Fault;
use crate::host::folder::Folder;
use crate::host::space;
use crate::pool::folders::DATA;
use crate::pool::image;
use crate::volume::{Layout, Volume};

/// Beyond this share of its space a filesystem of copies on write can fail in surprising places.
const NEARLY_FULL_PERCENT: u64 = 95;

/// The faults of the filesystem below the pool, and of what it could not remove.
pub(super) fn of_pool(root: &Folder, trash: Result<Vec<String>>) -> Vec<Fault> {
    let place = root.path().display();
    let space = match space::of_open(root) {
        Ok(space) => space,
        Err(error) => {
            return vec![unreachable(format!(
                "{place} does not answer: {error:#}; look at its disk"
            ))];
        }
    };
    let free = 100u64
        .saturating_mul(space.bytes.available)
        .checked_div(space.bytes.total);
    let used = 100 - free.unwrap_or(100);
    let read_only = space.read_only;
    let mut faults = Vec::new();
    if read_only {
        faults.push(unreachable(format!(
            "{place} is read-only: check its filesystem and mount it writable"
        )));
    }
    if used >= NEARLY_FULL_PERCENT {
        faults.push(Fault::degraded(
            "NearlyFull",
            format!("{place} is {used} % full: delete volumes or snapshots, or add space"),
        ));
    }
    match trash {
        Ok(left) if left.is_empty() || read_only => {}
        Ok(left) => faults.push(Fault::degraded(
            "TrashNotEmpty",
            format!(
                "{} deleted entries are still being removed from {place}/trash",
                left.len()
            ),
        )),
        Err(error) => faults.push(unreachable(format!("{error:#}"))),
    }
    faults
}

/// The faults of one volume: whether what its record describes is there.
pub(super) fn of_volume(entry: Result<Folder>, volume: &Volume) -> Vec<Fault> {
    let there = |entry: Folder| match volume.record.layout {
        Layout::Tree => Ok(entry.folder(DATA)?.is_some()),
        Layout::Image | Layout::Device => Ok(entry.file(image::FILE, false)?.is_some()),
    };
    match entry.and_then(there) {
        Ok(true) => Vec::new(),
        Ok(false) => vec![Fault::data_loss(
            "DataMissing",
            format!(
                "volume {} has a record but no data: restore a snapshot or a backup",
                volume.id
            ),
        )],
        Err(error) => vec![Fault::inaccessible("Unreadable", format!("{error:#}"))],
    }
}

/// That the limit of a volume which was made with one does not hold now.
pub(super) fn unlimited(volume: &Volume, obstacle: &str) -> Fault {
    Fault::degraded(
        "SizeNotEnforced",
        format!("volume {} can grow beyond its size: {obstacle}", volume.id),
    )
}

fn unreachable(message: String) -> Fault {
    Fault::inaccessible("Unreachable", message)
}
