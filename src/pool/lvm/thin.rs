//! A thin pool: whether there is room in it, and what is wrong with it, as the kernel tells.

use anyhow::{Context, Result, bail};

use super::group::Group;
use crate::host::device_mapper::{self, Target};
use crate::pool::{Fault, Level, Severity};
use crate::volume::Bytes;

/// In what a thin pool keeps account, as the kernel counts it.
pub(super) const METADATA_BLOCK: Bytes = Bytes(4096);
/// So much of it LVM wants free before it makes a volume or a snapshot, if that is less than a quarter of it
/// (`lib/metadata/thin_manip.c`).
const METADATA_FREE: Bytes = Bytes(4 << 20);

/// How a thin pool fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thin {
    /// All its space.
    pub(super) size: Bytes,
    /// How much of it is in use.
    pub(super) data: Share,
    /// How much of what it keeps account in is in use.
    pub(super) metadata: Share,
    /// Whether it can be written.
    pub(super) mode: Mode,
    /// Whether its account must be checked before it can be.
    pub(super) needs_check: bool,
}

/// A part of a whole, in blocks of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) used: u64,
    pub(super) total: u64,
}

/// What a thin pool lets be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// All.
    Writable,
    /// Nothing that needs another block.
    OutOfSpace,
    /// Only reading.
    ReadOnly,
    /// Nothing.
    Failed,
}

impl Share {
    /// In percent, rounded up.
    pub(super) fn percent(self) -> u64 {
        let percent = (u128::from(self.used) * 100).div_ceil(u128::from(self.total.max(1)));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

impl Thin {
    /// Asks the kernel; costs one system call.
    ///
    /// # Errors
    /// A thin pool that is not active.
    pub(super) fn of(group: &Group, pool: &str) -> Result<Self> {
        let mut found = target(group, pool)?;
        if found.is_none() {
            // LVM takes a pool away for a moment to make the first volume in it. It holds the lock of the group meanwhile,
            // for which a question waits.
            group.report()?;
            found = target(group, pool)?;
        }
        let found = found.with_context(|| {
            let path = group.path(pool);
            format!("thin pool {path} is not active: look why with `lvchange -ay {path}`")
        })?;
        Self::read(&found).with_context(|| format!("the status of thin pool {}", group.path(pool)))
    }

    /// The kernel's `Documentation/admin-guide/device-mapper/thin-provisioning.rst`, "Status".
    fn read(target: &Target) -> Result<Self> {
        if target.kind != "thin-pool" {
            bail!("it is {}", target.kind);
        }
        let nothing = Share { used: 0, total: 0 };
        let words: Vec<_> = target.status.split(' ').collect();
        let [_, metadata, data, _, mode, ..] = words[..] else {
            return Ok(Self {
                size: target.length,
                data: nothing,
                metadata: nothing,
                mode: Mode::Failed,
                needs_check: true,
            });
        };
        Ok(Self {
            size: target.length,
            data: share(data)?,
            metadata: share(metadata)?,
            mode: match mode {
                "rw" => Mode::Writable,
                "out_of_data_space" => Mode::OutOfSpace,
                "ro" => Mode::ReadOnly,
                other => bail!("an unknown mode {other:?}"),
            },
            needs_check: words.contains(&"needs_check"),
        })
    }

    /// How full its parts are, in bytes.
    pub(super) fn levels(&self) -> [Level; 2] {
        let block = self.size.0.checked_div(self.data.total).unwrap_or(0);
        let level = |part, share: Share, block: u64| Level {
            part,
            used: share.used.saturating_mul(block),
            total: share.total.saturating_mul(block),
        };
        [
            level("data", self.data, block),
            level("metadata", self.metadata, METADATA_BLOCK.0),
        ]
    }

    /// From how many percent of its account in use on LVM makes nothing more in it.
    pub(super) fn metadata_end(&self) -> u64 {
        let total = self.metadata.total;
        let free = (total / 4).min(METADATA_FREE.0 / METADATA_BLOCK.0);
        let used = total - free;
        Share { used, total }.percent()
    }

    /// Why nothing more should be made in it, if so.
    pub(super) fn refusal(&self, path: &str, most_data: u64, most_metadata: u64) -> Option<String> {
        let (data, metadata) = (self.data.percent(), self.metadata.percent());
        if self.mode != Mode::Writable {
            return Some(format!("thin pool {path} can not be written"));
        }
        if data >= most_data {
            return Some(format!(
                "thin pool {path} is {data} % full, and from {most_data} % on nothing more is made in it: delete \
                 volumes or snapshots, or extend it with `lvextend -L +SIZE {path}`"
            ));
        }
        let most_metadata = most_metadata.min(self.metadata_end());
        (metadata >= most_metadata).then(|| {
            format!(
                "the metadata of thin pool {path} is {metadata} % full, and from {most_metadata} % on nothing more is \
                 made in it: delete snapshots, or extend it with `lvextend --poolmetadatasize +SIZE {path}`"
            )
        })
    }

    /// What is wrong with it.
    pub(super) fn faults(&self, path: &str, most_data: u64, most_metadata: u64) -> Vec<Fault> {
        let fault = |severity, reason, message| {
            vec![Fault {
                severity,
                reason,
                message,
            }]
        };
        let broken = |reason, what| {
            fault(
                Severity::Inaccessible,
                reason,
                format!(
                    "thin pool {path} {what}: stop what uses it, and run `lvconvert --repair {path}` by hand; nothing is \
                     written to it until then"
                ),
            )
        };
        match self.mode {
            Mode::Failed => broken("ThinPoolFailed", "has failed"),
            Mode::OutOfSpace => fault(
                Severity::Inaccessible,
                "ThinPoolOutOfDataSpace",
                format!(
                    "thin pool {path} is full, and writes to its volumes fail: extend it with `lvextend -L +SIZE {path}`, \
                     or delete volumes or snapshots"
                ),
            ),
            _ if self.needs_check => broken("ThinPoolNeedsRepair", "needs its metadata repaired"),
            Mode::ReadOnly => broken("ThinPoolReadOnly", "is read-only"),
            Mode::Writable => self
                .refusal(path, most_data, most_metadata)
                .map(|message| fault(Severity::Degraded, "NearlyFull", message))
                .unwrap_or_default(),
        }
    }
}

/// The device of a thin pool: once a volume uses it, the pool itself is behind another one.
fn target(group: &Group, pool: &str) -> Result<Option<Target>> {
    let mapped = group.mapped(pool);
    let inner = device_mapper::status(&format!("{mapped}-tpool"))?;
    inner.map_or_else(|| device_mapper::status(&mapped), |target| Ok(Some(target)))
}

/// `used/total`.
fn share(text: &str) -> Result<Share> {
    let (used, total) = text.split_once('/').context("a share without a slash")?;
    Ok(Share {
        used: used.parse()?,
        total: total.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thin(status: &str) -> Thin {
        Thin::read(&Target {
            length: Bytes::MIB.times(800),
            kind: "thin-pool".into(),
            status: status.into(),
        })
        .expect("the kernel wrote it")
    }

    #[test]
    fn a_sound_pool_has_no_fault_until_it_is_nearly_full() {
        let thin = thin("2 112/1024 11520/12800 - rw discard_passdown error_if_no_space - 256 ");

        assert_eq!((thin.data.percent(), thin.metadata.percent()), (90, 11));
        assert!(thin.faults("vg0/thin0", 91, 12).is_empty());
        assert_eq!(thin.faults("vg0/thin0", 90, 12)[0].reason, "NearlyFull");
        assert_eq!(thin.faults("vg0/thin0", 91, 11)[0].reason, "NearlyFull");
    }

    #[test]
    fn of_its_account_a_quarter_stays_free_or_four_mebibytes() {
        let is_full = |metadata: &str| {
            let thin = thin(&format!(
                "2 {metadata} 12/12800 - rw discard_passdown error_if_no_space - 256 "
            ));
            thin.refusal("vg0/thin0", 95, 95).is_some()
        };

        let small = ["757/1024", "768/1024"].map(is_full);
        let large = ["15200/16384", "15360/16384"].map(is_full);

        assert_eq!([small, large], [[false, true]; 2]);
    }

    #[test]
    fn its_parts_are_told_in_bytes() {
        let thin = thin("2 112/1024 3200/12800 - rw discard_passdown error_if_no_space - 256 ");

        let levels = thin
            .levels()
            .map(|level| (level.part, level.used, level.total));

        let [data, metadata] = [800_u64 << 20, 1024 * 4096];
        let used = 112 * 4096;
        assert_eq!(
            levels,
            [("data", data / 4, data), ("metadata", used, metadata)]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let of = |status| {
            let faults = thin(status).faults("vg0/thin0", 95, 95);
            faults.into_iter().map(|fault| fault.reason).next()
        };

        let reasons = [
            "2 112/1024 12800/12800 - out_of_data_space discard_passdown error_if_no_space - 256 ",
            "2 1024/1024 12/12800 - ro discard_passdown error_if_no_space needs_check 256 ",
            "2 112/1024 12/12800 - ro discard_passdown error_if_no_space - 256 ",
            "Fail",
        ]
        .map(of);

        let expected = [
            "ThinPoolOutOfDataSpace",
            "ThinPoolNeedsRepair",
            "ThinPoolReadOnly",
            "ThinPoolFailed",
        ];
        assert_eq!(reasons, expected.map(Some));
    }
}
