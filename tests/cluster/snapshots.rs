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
    take(space, "before", "data")?;
    space.shell("writer", "echo changed > /v/file")?;
    let node = space.node_of("writer")?;
    space.delete(&["pod/writer", "pvc/data"])?;

    space.claim("restored", "image", "32Mi", &of("before"))?;
    follows(space, "reader", "restored", &node)?;

    ensure!(space.shell("reader", "cat /v/file")? == "kept");
    let size = space.shell("reader", "df -k /v | awk 'NR == 2 { print $2 }'")?;
    ensure!(size.parse::<u32>()? > 20 << 10, "it has {size} KiB");
    Ok(())
}

/// Takes a snapshot of a claim, and waits until it is ready.
pub(crate) fn take(space: &Space<'_>, name: &str, claim: &str) -> Result<()> {
    space.apply(&format!(
        "{{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {{name: {name}}}, spec: \
         {{volumeSnapshotClassName: orlop, source: {{persistentVolumeClaimName: {claim}}}}}}}"
    ))?;
    space.wait(
        "jsonpath={.status.readyToUse}=true",
        &format!("volumesnapshot/{name}"),
    )
}

/// What makes a claim from that snapshot.
pub(crate) fn of(snapshot: &str) -> String {
    format!(
        "dataSource: {{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {snapshot}}},"
    )
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
