//! What is not well, as the kubelet tells it: of a volume in the status of its pod, of a pool in that of its node.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Test;
use crate::space::{Space, Use};
use crate::support::skipped;

pub(crate) const TESTS: &[Test] = &[
    ("an_error_on_a_volume_is_told_of_its_pod", on_a_volume),
    ("a_pool_that_is_full_is_told_of_its_node", of_a_pool),
];

/// Whether this Kubernetes tells it at all; 1.37 was the first that could. An older one has a gate of that name for
/// something else.
fn is_told(space: &Space<'_>) -> Result<bool> {
    let version: Value = serde_json::from_str(&space.bed.kubectl(&["get", "--raw", "/version"])?)?;
    let minor: u32 = version["minor"].as_str().context("it has one")?.parse()?;
    let told = minor >= 37;
    if !told {
        skipped("what a cluster tells of health", "it is older than that");
    }
    Ok(told)
}

fn on_a_volume(space: &Space<'_>) -> Result<()> {
    if !is_told(space)? {
        return Ok(());
    }
    space.claim("data", "image", "32Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;
    let conditions = ".status.volumeHealth[?(@.name==\"v\")].healthConditions[*].reason";
    let name = space.field("pvc/data", ".spec.volumeName")?;
    let node = space.node_of("user")?;

    // Has the kernel find an error in the filesystem.
    let image = format!("/var/lib/orlop/default/volumes/{name}/image");
    let fail = format!(
        "device=$(losetup --noheadings --output NAME --associated {image}) && \
         echo a test >/sys/fs/ext4/${{device#/dev/}}/trigger_fs_error"
    );
    space.bed.on(&node, &["sh", "-c", &fail])?;

    space.until("the pod tells of it", || {
        Ok(space.field("pod/user", conditions)? == "FilesystemErrors")
    })?;
    space.delete(&["pod/user", "pvc/data"])
}

fn of_a_pool(space: &Space<'_>) -> Result<()> {
    if !is_told(space)? {
        return Ok(());
    }
    let (node, place) = ("n1", "/var/lib/orlop/btrfs");
    let path = ".status.storageHealth[?(@.name==\"csi.orlop.dev\")].healthConditions[*].reason";
    let told = || space.field(&format!("csinode/{node}"), path);
    let fill = format!(
        "free=$(df --output=avail --block-size=1M {place} | tail -n 1) && \
         fallocate --length=$((free - 64))M {place}/ballast"
    );

    space.bed.on(node, &["sh", "-c", &fill])?;
    let ill = space.until("the node tells of it", || Ok(told()? == "NearlyFull"));
    space.bed.on(node, &["rm", &format!("{place}/ballast")])?;

    ill?;
    space.until("the node tells that it is well", || Ok(told()?.is_empty()))
}
