//! Orphans, and nodes that are lost: what is recorded and what is there, when they are not the same.

use anyhow::{Result, ensure};

use crate::Test;
use crate::bed::NODES;
use crate::plugin;
use crate::space::{Space, alone, left_on};

pub(crate) const TESTS: &[Test] = &[("an_orphan_is_told_and_deleted_where_that_is_wanted", orphan)];

/// Those for which nobody else may need the nodes.
pub(crate) const ALONE: &[Test] = &[(
    "a_set_goes_on_without_its_lost_node_whose_return_is_harmless",
    lost,
)];

fn orphan(space: &Space<'_>) -> Result<()> {
    // Twice on one node, so that the Event of the node counts.
    let mut node = None;
    for claim in ["first", "second"] {
        let on = node.as_deref().map(str::to_owned);
        let volume = abandoned(space, claim, on.as_deref())?;
        node = Some(volume.node.clone());
        space.until("it is listed", || is_orphan(space, &volume.id))?;
        let reasons = events_of(space, &volume.node)?;
        ensure!(reasons.contains("OrphanedVolumes"), "{reasons}");
        space.until("it is deleted", || {
            Ok(!left_on(space.bed, &volume.node)?.contains(&volume.name))
        })?;
    }
    Ok(())
}

struct Abandoned {
    name: String,
    id: String,
    node: String,
}

/// A volume of which somebody deleted the record by hand.
fn abandoned(space: &Space<'_>, claim: &str, on: Option<&str>) -> Result<Abandoned> {
    space.claim(claim, "tree", "16Mi", "")?;
    let pod = format!("user-{claim}");
    let place = on.map_or(String::new(), |node| {
        format!("nodeSelector: {{kubernetes.io/hostname: {node}}},")
    });
    let volume = format!("persistentVolumeClaim: {{claimName: {claim}}}");
    space.pod_with(&pod, &volume, &crate::space::Use::Mount, &place)?;
    space.ready(&[&pod])?;
    let node = space.node_of(&pod)?;
    let name = space.field(&format!("pvc/{claim}"), ".spec.volumeName")?;
    let record = format!("pv/{name}");
    let id = space.field(&record, ".spec.csi.volumeHandle")?;
    let keep = r#"{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}"#;
    space.kubectl(&["patch", &record, "--patch", keep])?;
    space.delete(&["pod", &pod])?;
    space.delete(&["pvc", claim])?;
    space.delete(&[&record])?;
    Ok(Abandoned { name, id, node })
}

/// Whether the leading controller lists this volume; not while none leads.
fn is_orphan(space: &Space<'_>, id: &str) -> Result<bool> {
    // Others kill what is asked here.
    let _alone = alone();
    let listed = plugin::ask(space.bed, "orphans --output=name");
    // Others kill the controllers meanwhile, also between the look who leads and the question; then it must look first.
    let nobody = [
        "no controller leads now",
        "container not found",
        "once it has looked",
    ];
    match listed {
        Err(error) if nobody.iter().any(|why| format!("{error:#}").contains(why)) => Ok(false),
        listed => Ok(listed?.contains(id)),
    }
}

fn events_of(space: &Space<'_>, node: &str) -> Result<String> {
    let of = format!("--field-selector=involvedObject.kind=Node,involvedObject.name={node}");
    space
        .bed
        .kubectl(&["get", "events", "--namespace=default", &of])
}

fn lost(space: &Space<'_>) -> Result<()> {
    space.apply(
        "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: set}, spec: {serviceName: set, replicas: 1, \
         selector: {matchLabels: {app: set}}, template: {metadata: {labels: {app: set}}, \
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: shell, image: localhost/shell:1, \
         imagePullPolicy: Never, volumeMounts: [{name: data, mountPath: /v}]}]}}, volumeClaimTemplates: \
         [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], storageClassName: lets-go, \
         resources: {requests: {storage: 16Mi}}}}]}}",
    )?;
    space.wait("jsonpath={.status.readyReplicas}=1", "statefulset/set")?;
    space.shell("set-0", "echo old > /v/file")?;
    let (node, volume) = where_it_is(space)?;

    space.bed.cut_power(&node)?;
    let off = "node.kubernetes.io/out-of-service=off:NoExecute";
    space.bed.kubectl(&["taint", "node", &node, off])?;

    space.until("the set goes on elsewhere", || {
        Ok(where_it_is(space).is_ok_and(|(at, now)| at != node && now != volume))
    })?;
    space.ready(&["set-0"])?;
    space.shell("set-0", "test ! -e /v/file && echo new > /v/file")?;
    let events = space.kubectl(&["get", "events", "--field-selector=reason=NodeLost"])?;
    ensure!(
        events.contains("persistentvolumeclaim/data-set-0"),
        "{events}"
    );

    space.bed.start(&node)?;
    until_ready(space, &node)?;
    space
        .bed
        .kubectl(&["taint", "node", &node, &format!("{off}-")])?;
    // Its class deletes what no claim has; the provisioner only had to wait for the node.
    let gone = || space.bed.kubectl(&["get", "pv", &volume]).is_err();
    space.until("the old volume is gone", || Ok(gone()))?;
    ensure!(!left_on(space.bed, &node)?.contains(&volume));
    ensure!(space.shell("set-0", "cat /v/file")? == "new");
    for node in NODES {
        until_ready(space, node)?;
    }
    Ok(())
}

fn until_ready(space: &Space<'_>, node: &str) -> Result<()> {
    let (ready, limit) = ("--for=condition=Ready", "--timeout=120s");
    let waited = space
        .bed
        .kubectl(&["wait", ready, limit, &format!("node/{node}")]);
    waited.map(drop)
}

/// The node of the set's pod, and the volume of its claim.
fn where_it_is(space: &Space<'_>) -> Result<(String, String)> {
    let volume = space.field("pvc/data-set-0", ".spec.volumeName")?;
    let node = space.node_of("set-0")?;
    ensure!(!volume.is_empty() && !node.is_empty());
    Ok((node, volume))
}
