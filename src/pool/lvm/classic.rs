//! Classic snapshots: one is lost once more has changed in its volume than its store can hold.

use anyhow::{Result, bail};

use super::group::Group;
use super::report::Report;
use super::{Lvm, SNAPSHOT, snapshot_lv};
use crate::host::device_mapper::{self, Target};
use crate::pool::Fault;
use crate::volume::{self, Error, Snapshot, Volume};

const SNAPSHOTS_LOST: &str = "SnapshotsLost";

impl Lvm {
    /// Whether this snapshot is known to be lost; of one whose volume is not active nobody knows.
    pub(super) fn is_lost(&self, lv: &str) -> Result<bool> {
        Ok(self.config.thin_pool.is_none() && is_lost(&self.group, lv)?)
    }

    /// Refuses to read a snapshot that is lost.
    pub(super) fn refuse_lost(&self, snapshot: &Snapshot) -> Result<()> {
        if self.config.thin_pool.is_some() {
            return Ok(());
        }
        let lv = snapshot_lv(&snapshot.id.name);
        self.group.activate(&lv)?;
        if is_lost(&self.group, &lv)? {
            bail!(
                "snapshot {} is lost: more has changed in its volume than its {} % of space could hold: delete it; a larger \
                 `snapshotPercent` in the pools file lets the next one last",
                snapshot.id,
                self.config.snapshot_percent
            );
        }
        Ok(())
    }

    /// Takes the device away from a volume that has classic snapshots: LVM resizes no such volume while it is active.
    pub(super) fn release_origin(&self, lv: &str, volume: &Volume) -> volume::Result<()> {
        if self.config.thin_pool.is_some() {
            return Ok(());
        }
        let snapshots = self.group.snapshots_of(lv)?;
        if snapshots.is_empty() {
            return Ok(());
        }
        let Err(error) = self.group.deactivate(lv) else {
            return Ok(());
        };
        // LVM waits for udev, who opens what was just closed: only after that it tells who else has it open. Its
        // snapshots go with it: one that is just being restored keeps it too.
        for lv in snapshots.iter().map(String::as_str).chain([lv]) {
            if device_mapper::is_open(&self.group.mapped(lv))? {
                return Err(Error::InUse(format!(
                    "volume {} has snapshots and {} is in use, and LVM grows no such volume: unstage it, or delete its snapshots",
                    volume.id,
                    self.group.path(lv)
                )));
            }
        }
        Err(error.into())
    }
}

/// That snapshots of ours are lost, if some are.
pub(super) fn fault(group: &Group, report: &Report) -> Option<Fault> {
    let is_one = |name: &str| name.starts_with(SNAPSHOT);
    let ours = report.lvs.iter().filter(|lv| {
        lv.pool.is_empty() && !lv.origin.is_empty() && is_one(&lv.name) && lv.is_ours()
    });
    let lost: Vec<_> = ours
        .filter(|lv| is_lost(group, &lv.name).unwrap_or(false))
        .map(|lv| group.path(&lv.name))
        .collect();
    let first = lost.first()?;
    Some(Fault::degraded(
        SNAPSHOTS_LOST,
        format!(
            "{} snapshots are lost, {first} among them, for more has changed in their volumes than they could hold: delete \
             them; a larger `snapshotPercent` in the pools file lets the next ones last",
            lost.len()
        ),
    ))
}

fn is_lost(group: &Group, lv: &str) -> Result<bool> {
    let target = device_mapper::status(&group.mapped(lv))?;
    Ok(target.as_ref().is_some_and(says_so))
}

/// The kernel's `Documentation/admin-guide/device-mapper/snapshot.rst`, "dmsetup status for snapshot".
fn says_so(target: &Target) -> bool {
    target.kind == "snapshot" && ["Invalid", "Overflow"].contains(&target.status.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Bytes;

    #[test]
    fn a_snapshot_is_lost_when_the_kernel_says_so() {
        let lost = |kind: &str, status: &str| {
            says_so(&Target {
                length: Bytes::MIB,
                kind: kind.to_owned(),
                status: status.to_owned(),
            })
        };

        assert!(lost("snapshot", "Invalid") && lost("snapshot", "Overflow "));
        assert!(!lost("snapshot", "16/24576 16"));
        assert!(!lost("snapshot", "Unknown"));
        assert!(!lost("snapshot-origin", ""));
    }
}
