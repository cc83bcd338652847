//! The kernel, the rights of this process, and the tools.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};

use super::Finding;
use crate::host::command::Tools;
use crate::host::gate::Gate;
use crate::host::probe::{self, CapabilitySet};

/// A tool, the kind of pool that needs it if not all do, its Debian package, and what it is for.
type Needed = (
    &'static str,
    Option<&'static str>,
    &'static str,
    &'static str,
);

const TOOLS: [Needed; 10] = [
    ("mkfs.ext4", None, "e2fsprogs", "to make images with ext4"),
    ("e2fsck", None, "e2fsprogs", "to mount images with ext4"),
    ("resize2fs", None, "e2fsprogs", "to grow images with ext4"),
    ("mkfs.xfs", None, "xfsprogs", "to make images with XFS"),
    ("xfs_growfs", None, "xfsprogs", "to grow images with XFS"),
    (
        "mkfs.btrfs",
        None,
        "btrfs-progs",
        "to make images with btrfs",
    ),
    ("btrfs", None, "btrfs-progs", "to grow images with btrfs"),
    (
        "cryptsetup",
        None,
        "cryptsetup-bin",
        "for encrypted volumes",
    ),
    ("lvm", Some("lvm"), "lvm2", "for pools of LVM"),
    ("zfs", Some("zfs"), "zfsutils-linux", "for pools of ZFS"),
];

/// What the kernel can, and what this process may.
pub(super) fn kernel() -> Vec<Finding> {
    let must = |has: bool, check: &str, what: &str, advice: &str| {
        if has {
            Finding::ok(check, what)
        } else {
            Finding::bad(check, format!("no {what}"), advice)
        }
    };
    let should = |has: bool, check: &str, what: &str, advice: &str| {
        if has {
            Finding::ok(check, what)
        } else {
            Finding::warn(check, format!("no {what}"), advice)
        }
    };
    let release = probe::kernel_release();
    let mut findings = vec![
        Finding::ok("kernel", format!("Linux {release}")),
        must(
            probe::has_openat2(),
            "openat2",
            "paths opened without following symlinks",
            "run Linux 5.8 or newer",
        ),
        must(
            probe::tells_mounts(),
            "statx",
            "mounts recognised by one call",
            "run Linux 5.8 or newer",
        ),
        should(
            probe::has_mount_calls(),
            "open_tree, mount_setattr",
            "mounts prepared unseen",
            "older calls are used, which are slower; Linux 5.12 has the new ones",
        ),
        must(
            probe::may(CapabilitySet::SYS_ADMIN),
            "CAP_SYS_ADMIN",
            "right to mount",
            "run as root, in a container as privileged",
        ),
        should(
            probe::may(CapabilitySet::SYS_RESOURCE),
            "CAP_SYS_RESOURCE",
            "right to grow ext4 while it is mounted",
            "grant it, or grown volumes with ext4 get their size when they are next staged",
        ),
    ];
    findings.push(match probe::loop_control() {
        Ok(()) => Finding::ok("loop devices", "images can be attached"),
        Err(error) => Finding::warn(
            "loop devices",
            format!("{error:#}"),
            "images and block volumes need them: `modprobe loop`, and in a container mount /dev of the host",
        ),
    });
    findings
}

/// The tools that images are made and grown with, and those of these kinds of pools.
pub(super) fn tools(kinds: &BTreeSet<String>) -> Vec<Finding> {
    let runner = Tools::new(Gate::open());
    let is_needed = |kind: Option<&str>| kind.is_none_or(|kind| kinds.contains(kind));
    let look = |(tool, kind, package, purpose): Needed| {
        let advice = format!("install {package} {purpose}: `apt-get install {package}`");
        let wrong = |found: String| match kind {
            None => Finding::warn(tool, found, &advice),
            Some(_) => Finding::bad(tool, found, &advice),
        };
        match probe::version(&*runner, tool) {
            Ok(version) => Finding::ok(tool, version),
            Err(error) if is_missing(&error) => wrong("not found".to_owned()),
            Err(error) => wrong(format!("{error:#}")),
        }
    };
    let needed = TOOLS.into_iter().filter(|(_, kind, ..)| is_needed(*kind));
    needed.map(look).collect()
}

fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::NotFound)
}
