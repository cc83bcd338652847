//! What the pools file says of a pool of logical volumes.

use anyhow::{Result, ensure};
use serde::Deserialize;

/// A volume group, whole or a thin pool in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Lvm {
    /// The volume group. It must exist, and so must the thin pool.
    pub volume_group: String,
    /// The thin pool in it; without one, volumes are thick.
    pub thin_pool: Option<String>,
    /// How many percent of the thin pool's size its volumes may be promised together: 100 promises nothing twice.
    #[serde(default = "Lvm::whole")]
    pub overcommit_percent: u64,
    /// From how many percent of the thin pool's space in use on nothing more is made in it.
    #[serde(default = "Lvm::most")]
    pub max_data_percent: u64,
    /// The same for the space in which it keeps account.
    #[serde(default = "Lvm::most")]
    pub max_metadata_percent: u64,
    /// Whether the thin pool is extended from the free space of its volume group before it is full.
    pub auto_grow: Option<AutoGrow>,
    /// The size of the snapshots of a thick volume, in percent of the volume's: one that was written more than that
    /// since is lost. At 100 none is.
    #[serde(default = "Lvm::whole")]
    pub snapshot_percent: u64,
}

/// When a thin pool is extended, and by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AutoGrow {
    /// From how many percent in use on, of its space or of what it keeps account in.
    #[serde(default = "AutoGrow::at")]
    pub at_percent: u64,
    /// By how many percent of its size.
    #[serde(default = "AutoGrow::by")]
    pub by_percent: u64,
}

impl Lvm {
    fn whole() -> u64 {
        100
    }

    fn most() -> u64 {
        95
    }

    /// Where it is, for people: `vg0/thin0`.
    pub fn place(&self) -> String {
        match &self.thin_pool {
            Some(pool) => format!("{}/{pool}", self.volume_group),
            None => self.volume_group.clone(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        for name in std::iter::once(&self.volume_group).chain(&self.thin_pool) {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
            ensure!(
                !name.is_empty()
                    && name.len() < 64
                    && !name.starts_with(['-', '.'])
                    && name.bytes().all(legal),
                "{name:?} is no name of a volume group or a thin pool"
            );
        }
        let grow = self.auto_grow.unwrap_or(AutoGrow {
            at_percent: AutoGrow::at(),
            by_percent: AutoGrow::by(),
        });
        for (key, percent, most) in [
            ("overcommitPercent", self.overcommit_percent, 100_000),
            ("maxDataPercent", self.max_data_percent, 100),
            ("maxMetadataPercent", self.max_metadata_percent, 100),
            ("snapshotPercent", self.snapshot_percent, 100),
            ("autoGrow.atPercent", grow.at_percent, 99),
            ("autoGrow.byPercent", grow.by_percent, 100),
        ] {
            ensure!(
                (1..=most).contains(&percent),
                "{key} is {percent}: say something from 1 to {most}"
            );
        }
        Ok(())
    }
}

impl AutoGrow {
    fn at() -> u64 {
        80
    }

    fn by() -> u64 {
        20
    }
}
