//! Volumes of RAID: whether one still has all its disks, as the kernel tells.

use anyhow::{Context, Result};

use super::group::Group;
use crate::host::device_mapper::{self, Target};
use crate::pool::Fault;

pub(super) const RAID_DEGRADED: &str = "RaidDegraded";
const RAID_FAILED: &str = "RaidFailed";

/// How a volume of RAID fares.
#[derive(Debug, PartialEq, Eq)]
struct Raid {
    /// How many of its parts have failed, or are on disks that are not there.
    failed: usize,
    /// How many of them may, whichever they are.
    may_fail: usize,
    /// How far a part that was replaced is filled again, in percent.
    rebuilt: Option<u64>,
}

/// What is wrong with a logical volume, if it is of RAID and active. Costs one system call.
pub(super) fn fault(group: &Group, lv: &str) -> Option<Fault> {
    let target = device_mapper::status(&group.mapped(lv)).ok()??;
    let raid = Raid::read(&target).ok()??;
    raid.fault(&group.path(lv))
}

/// What is said of one that lost disks, and whose others have all that is in it.
pub(super) fn degraded(path: &str) -> Fault {
    Fault::degraded(
        RAID_DEGRADED,
        format!(
            "{path} goes on without a disk that it is on, and may not lose another: bring that back and run `lvchange \
             --refresh {path}`, or replace it by `vgextend` and `lvconvert --repair {path}`"
        ),
    )
}

impl Raid {
    /// The kernel's `Documentation/admin-guide/device-mapper/dm-raid.rst`, "Status Output"; nothing of what is no RAID.
    fn read(target: &Target) -> Result<Option<Self>> {
        if target.kind != "raid" {
            return Ok(None);
        }
        let words: Vec<_> = target.status.split(' ').collect();
        let [kind, _, parts, ratio, action, ..] = words[..] else {
            anyhow::bail!("the status of RAID {:?}", target.status);
        };
        let may_fail = match kind {
            "raid0" => 0,
            "raid1" => parts.len().saturating_sub(1),
            kind if kind.starts_with("raid6") => 2,
            _ => 1,
        };
        let (done, all) = ratio.split_once('/').context("a ratio without a slash")?;
        let (done, all): (u128, u128) = (done.parse()?, all.parse()?);
        let percent = u64::try_from(done * 100 / all.max(1)).unwrap_or(100);
        Ok(Some(Self {
            failed: parts.matches(['D', '-']).count(),
            may_fail,
            // When it is new, all of it is made the same, and nothing is missing.
            rebuilt: (action == "recover").then_some(percent),
        }))
    }

    fn fault(&self, path: &str) -> Option<Fault> {
        if self.failed > self.may_fail {
            return Some(Fault::inaccessible(
                RAID_FAILED,
                format!(
                    "{path} has lost {} of its parts: bring their disks back",
                    self.failed
                ),
            ));
        }
        if self.failed > 0 {
            return Some(degraded(path));
        }
        self.rebuilt.map(|percent| {
            Fault::degraded(
                RAID_DEGRADED,
                format!("{path} is rebuilt on another disk, {percent} % are done: wait"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Severity;
    use crate::volume::Bytes;

    fn of(status: &str) -> Option<(Severity, &'static str)> {
        let raid = Raid::read(&Target {
            length: Bytes::MIB,
            kind: "raid".to_owned(),
            status: status.to_owned(),
        });
        let fault = raid.expect("the kernel wrote it")?.fault("vg0/v-one")?;
        Some((fault.severity, fault.reason))
    }

    #[test]
    fn what_has_all_its_disks_is_well_also_while_it_is_new() {
        assert_eq!(of("raid1 2 AA 131072/131072 idle 0 0 -"), None);
        assert_eq!(of("raid1 2 aa 8192/131072 resync 0 0 -"), None);
        assert_eq!(of("raid5_ls 3 AAA 131072/131072 check 0 0 -"), None);
    }

    #[test]
    fn what_lost_a_disk_or_too_many_or_is_rebuilt_is_told() {
        let degraded = Some((Severity::Degraded, RAID_DEGRADED));
        let failed = Some((Severity::Inaccessible, RAID_FAILED));

        assert_eq!(of("raid1 2 AD 131072/131072 idle 0 0 -"), degraded);
        assert_eq!(of("raid1 3 A-D 131072/131072 idle 0 0 -"), degraded);
        assert_eq!(of("raid1 2 Aa 8192/131072 recover 0 0 -"), degraded);
        assert_eq!(of("raid5_ls 3 AAD 131072/131072 idle 0 0 -"), degraded);
        assert_eq!(of("raid6_zr 5 AADDA 131072/131072 idle 0 0 -"), degraded);
        assert_eq!(of("raid5_ls 3 ADD 131072/131072 idle 0 0 -"), failed);
        assert_eq!(of("raid0 2 AD 131072/131072 idle 0 0 -"), failed);
    }

    #[test]
    fn what_is_no_raid_is_left_alone() {
        let linear = Target {
            length: Bytes::MIB,
            kind: "linear".to_owned(),
            status: String::new(),
        };

        assert_eq!(Raid::read(&linear).expect("it is none"), None);
    }
}
