//! What a snapshot and a copy promise.

use anyhow::{Result, ensure};

use crate::Test;
use crate::space::{Space, Use};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_snapshot_outlives_its_source_and_restores_larger",
        restore,
    ),
    ("a_clone_is_apart_from_its_source", clone),
];

fn restore(space: &Space<'_>) -> Result<()> {
    space.claim("data", "image", "16Mi", "")?;
    space.pod("writer", "data", &Use::Mount)?;
    space.ready(&["writer"])?;
    space.shell("writer", "echo kept > /v/file && sync")?;
    space.apply(
        "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: before}, spec: \
         {volumeSnapshotClassName: orlop, source: {persistentVolumeClaimName: data}}}",
    )?;
    space.wait(
        "jsonpath={.status.readyToUse}=true",
        "volumesnapshot/before",
    )?;
    space.shell("writer", "echo changed > /v/file")?;
    let node = space.node_of("writer")?;
    space.delete(&["pod/writer", "pvc/data"])?;

    let source =
        "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: before},";
    space.claim("restored", "image", "32Mi", source)?;
    follows(space, "reader", "restored", &node)?;

    ensure!(space.shell("reader", "cat /v/file")? == "kept");
    let size = space.shell("reader", "df -k /v | awk 'NR == 2 { print $2 }'")?;
    ensure!(size.parse::<u32>()? > 20 << 10, "it has {size} KiB");
    Ok(())
}

fn clone(space: &Space<'_>) -> Result<()> {
    space.claim("data", "tree", "16Mi", "")?;
    space.pod("writer", "data", &Use::Mount)?;
    space.ready(&["writer"])?;
    space.shell("writer", "echo kept > /v/file && sync")?;
    let node = space.node_of("writer")?;

    let source = "dataSource: {kind: PersistentVolumeClaim, name: data},";
    space.claim("copy", "tree", "16Mi", source)?;
    follows(space, "reader", "copy", &node)?;
    space.shell("reader", "echo changed >> /v/file")?;

    ensure!(space.shell("reader", "cat /v/file")? == "kept\nchanged");
    ensure!(space.shell("writer", "cat /v/file")? == "kept");
    Ok(())
}

/// A pod that would rather be elsewhere is where the source of its claim is.
fn follows(space: &Space<'_>, pod: &str, claim: &str, node: &str) -> Result<()> {
    let volume = format!("persistentVolumeClaim: {{claimName: {claim}}}");
    let elsewhere = format!(
        "affinity: {{nodeAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 100, preference: \
         {{matchExpressions: [{{key: kubernetes.io/hostname, operator: NotIn, values: [{node}]}}]}}}}]}}}},"
    );
    space.pod_with(pod, &volume, &Use::Mount, &elsewhere)?;
    space.ready(&[pod])?;
    ensure!(space.node_of(pod)? == node, "it is on another node");
    Ok(())
}
