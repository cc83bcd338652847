//! A volume group that is on this machine, and that LVM is told not to see by a devices file or a filter.

use anyhow::{Error, Result};

use super::group::Group;
use crate::host::command::Command;

/// What LVM sees if nobody tells it to look away.
const ALL: &str = "devices { use_devicesfile=0 filter=[\"a|.*|\"] global_filter=[\"a|.*|\"] }";

/// Adds to LVM's refusal to report the group what can be done about it.
pub(super) fn explained(group: &Group, refusal: Error) -> Error {
    let name = &group.name;
    let (Ok(all), Ok(seen)) = (disks(group, &["--config", ALL]), disks(group, &[])) else {
        return refusal;
    };
    if all.is_empty() {
        return refusal.context(format!(
            "this machine has no volume group {name}: make it with `vgcreate`, or bring its disks back"
        ));
    }
    let hidden: Vec<_> = all
        .into_iter()
        .filter(|disk| !seen.contains(disk))
        .collect();
    if hidden.is_empty() {
        return refusal;
    }
    refusal.context(format!(
        "volume group {name} is on {}, which LVM is told not to see: add that to LVM's devices file by `lvmdevices --adddev`, \
         and let `filter` and `global_filter` in its lvm.conf accept it",
        hidden.join(" and ")
    ))
}

/// The disks of the group that LVM sees when it is asked like this.
fn disks(group: &Group, how: &[&str]) -> Result<Vec<String>> {
    let look = Command::query("pvs")
        .args(["--noheadings", "--options", "pv_name"])
        .args(["--select", &format!("vg_name={}", group.name)])
        .args(how);
    let told = group.host.tools.run(&look)?;
    Ok(told.split_whitespace().map(str::to_owned).collect())
}
