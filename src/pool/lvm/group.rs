//! The volume group: LVM's own words, one command for each change, and one report for all questions between two changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::report::{self, Lv, Partial, Report, ThinPool};
use super::seen::Seen;
use crate::host::command::Command;
use crate::host::{Host, device_mapper};
use crate::volume::Bytes;

/// How long it may take to overwrite a whole device.
const WHOLE: Duration = Duration::from_hours(24);

/// A volume group of this machine.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) host: Host,
    pub(super) name: String,
    seen: Arc<Seen>,
}

/// How a device is made to forget what was on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Erasure {
    /// The disk is told that nobody needs it; what it reads as then is the disk's own affair.
    Discard,
    /// It reads as zeros.
    Zero,
}

impl Group {
    pub(super) fn new(host: Host, name: String) -> Self {
        let seen = Arc::default();
        Self { host, name, seen }
    }

    /// The group and all that is in it, as it is now.
    pub(super) fn report(&self) -> Result<Arc<Report>> {
        self.seen.get(|| {
            let json = [
                "fullreport",
                "--reportformat",
                "json",
                "--units",
                "b",
                "--nosuffix",
            ];
            let query = Report::FIELDS
                .iter()
                .fold(Command::query("lvm").args(json), |query, (part, fields)| {
                    query.args(["--configreport", part, "--options", fields])
                });
            Report::read(&self.host.tools.run(&query.arg(&self.name))?)
                .with_context(|| format!("volume group {}", self.name))
        })
    }

    /// The logical volume of this name.
    pub(super) fn find(&self, name: &str) -> Result<Option<Lv>> {
        let report = self.report()?;
        Ok(report.lvs.iter().find(|lv| lv.name == name).cloned())
    }

    /// The names of the snapshots of this logical volume.
    pub(super) fn snapshots_of(&self, name: &str) -> Result<Vec<String>> {
        let report = self.report()?;
        let of_it = report.lvs.iter().filter(|lv| lv.origin == name);
        Ok(of_it.map(|lv| lv.name.clone()).collect())
    }

    /// The logical volumes that miss a disk.
    pub(super) fn partial(&self) -> Result<Vec<Partial>> {
        report::lvs(&self.lvs(Partial::FIELDS, Partial::SELECTION)?)
    }

    /// What `lvs` says of the logical volumes that are selected.
    fn lvs(&self, fields: &str, selection: &str) -> Result<String> {
        let query = Command::query("lvs")
            .args(["--reportformat", "json", "--options", fields])
            .args(["--select", selection, &self.name]);
        self.host.tools.run(&query)
    }

    /// How the thin pool of this name was made.
    pub(super) fn thin_pool(&self, name: &str) -> Result<ThinPool> {
        let told = self.lvs(ThinPool::FIELDS, &format!("lv_name={name}"))?;
        let pool = ThinPool::read(&told)?;
        let pool = pool.with_context(|| {
            format!(
                "volume group {} has no thin pool {name}: make it with `lvcreate --type thin-pool`",
                self.name
            )
        })?;
        ensure!(
            pool.segtype == "thin-pool",
            "{}/{name} is no thin pool but {}: name another, or leave `thinPool` out",
            self.name,
            pool.segtype
        );
        Ok(pool)
    }

    /// A command that changes the group.
    pub(super) fn command(tool: &str) -> Command {
        let command = Command::new(tool).args(["--quiet", "--quiet", "--yes"]);
        if device_mapper::udev_is_running() {
            command
        } else {
            command.args(["--config", "activation{udev_sync=0 udev_rules=0}"])
        }
    }

    pub(super) fn run(&self, command: &Command) -> Result<()> {
        self.host.tools.run(command).map(drop)
    }

    /// As LVM's tools take the name of a logical volume.
    pub(super) fn path(&self, lv: &str) -> String {
        format!("{}/{lv}", self.name)
    }

    /// As the device mapper calls it.
    pub(super) fn mapped(&self, lv: &str) -> String {
        let double = |name: &str| name.replace('-', "--");
        format!("{}-{}", double(&self.name), double(lv))
    }

    /// The logical volume that the device mapper calls so, if it is of this group.
    pub(super) fn unmapped(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix(&self.mapped(""))?;
        // What LVM keeps to itself has a suffix behind a single dash.
        let single = rest.replace("--", "").contains('-');
        (!single).then(|| rest.replace("--", "-"))
    }

    /// The device of a logical volume, if it is active.
    pub(super) fn device(&self, lv: &str) -> Result<Option<(PathBuf, u64)>> {
        let name = self.mapped(lv);
        let Some(rdev) = device_mapper::find(&name)? else {
            return Ok(None);
        };
        let path = device_mapper::node(&self.host.gate, &name, rdev)?;
        Ok(Some((path, rdev)))
    }

    /// The device of a logical volume, activated if it is not active.
    pub(super) fn activate(&self, lv: &str) -> Result<(PathBuf, u64)> {
        if let Some(device) = self.device(lv)? {
            return Ok(device);
        }
        // A thin snapshot is activated only by those who mean it.
        let activate = Self::command("lvchange")
            .args(["--activate", "y", "--ignoreactivationskip"])
            .arg(self.path(lv));
        self.run(&activate)?;
        self.device(lv)?
            .with_context(|| format!("{} is active without a device", self.path(lv)))
    }

    /// Takes the device of a logical volume away; one that has none is fine.
    pub(super) fn deactivate(&self, lv: &str) -> Result<()> {
        if device_mapper::find(&self.mapped(lv))?.is_none() {
            return Ok(());
        }
        let deactivate = Self::command("lvchange").args(["--activate", "n"]);
        self.run(&deactivate.arg(self.path(lv)))
    }

    /// Makes a logical volume this large.
    pub(super) fn extend(&self, lv: &str, size: Bytes) -> Result<()> {
        let extend = Self::command("lvextend").args(["--size", &format!("{}b", size.0)]);
        self.run(&extend.arg(self.path(lv)))
    }

    /// Takes a tag from a logical volume.
    pub(super) fn untag(&self, lv: &str, tag: &str) -> Result<()> {
        self.run(
            &Self::command("lvchange")
                .args(["--deltag", tag])
                .arg(self.path(lv)),
        )
    }

    pub(super) fn rename(&self, lv: &str, to: &str) -> Result<()> {
        self.run(&Self::command("lvrename").args([&self.name, lv, to]))
    }

    pub(super) fn remove(&self, lv: &str) -> Result<()> {
        self.run(&Self::command("lvremove").arg(self.path(lv)))
    }

    /// Erases a part of the device of a logical volume, or all of it.
    pub(super) fn erase(&self, lv: &str, how: Erasure, part: Option<(Bytes, Bytes)>) -> Result<()> {
        let (device, _) = self.activate(lv)?;
        let mut erase = Command::new("blkdiscard").limit(WHOLE).arg("--force");
        if how == Erasure::Zero {
            erase = erase.arg("--zeroout");
        }
        if let Some((offset, length)) = part {
            erase = erase
                .args(["--offset", &offset.0.to_string()])
                .args(["--length", &length.0.to_string()]);
        }
        self.run(&erase.arg(device))
    }
}
