//! What a claim promises to the pods that use it.

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::space::{Space, Use};

pub(crate) const TESTS: &[Test] = &[
    ("a_second_pod_reads_what_the_first_wrote", second_pod),
    ("an_immediate_claim_is_bound_without_a_pod", immediate),
    ("a_block_claim_is_a_device_that_keeps_its_bytes", block),
    ("an_inline_volume_lives_as_long_as_its_pod", inline),
    ("a_generic_ephemeral_volume_goes_with_its_pod", generic),
    ("a_claim_of_one_pod_keeps_a_second_waiting", one_pod),
    ("a_read_only_mount_can_not_be_written", read_only),
    ("the_group_of_a_pod_owns_its_volume", group),
    ("a_sub_path_is_a_directory_of_the_volume", sub_path),
    ("the_options_of_a_class_are_mount_options", options),
    ("a_stateful_set_finds_each_its_own_volume", stateful),
];

fn second_pod(space: &Space<'_>) -> Result<()> {
    space.claim("data", "tree", "64Mi", "")?;
    space.pod("first", "data", &Use::Mount)?;
    space.ready(&["first"])?;
    space.shell("first", "echo kept > /v/file")?;
    let node = space.node_of("first")?;

    space.delete(&["pod", "first"])?;
    space.pod("second", "data", &Use::Mount)?;
    space.ready(&["second"])?;

    ensure!(space.shell("second", "cat /v/file")? == "kept");
    ensure!(space.node_of("second")? == node, "a volume is on its node");
    Ok(())
}

fn immediate(space: &Space<'_>) -> Result<()> {
    space.claim("data", "immediate", "64Mi", "")?;
    space.wait("jsonpath={.status.phase}=Bound", "pvc/data")?;

    space.pod("user", "data", &Use::Mount)?;

    space.ready(&["user"])
}

fn block(space: &Space<'_>) -> Result<()> {
    space.claim("disk", "tree", "16Mi", "volumeMode: Block,")?;
    space.pod("first", "disk", &Use::Device)?;
    space.ready(&["first"])?;
    ensure!(space.shell("first", "blockdev --getsize64 /v")? == (16 << 20).to_string());
    space.shell("first", "echo kept | dd of=/v conv=fsync")?;

    space.delete(&["pod", "first"])?;
    space.pod("second", "disk", &Use::Device)?;
    space.ready(&["second"])?;

    ensure!(space.shell("second", "head -c 4 /v")? == "kept");
    Ok(())
}

fn inline(space: &Space<'_>) -> Result<()> {
    let volume = "csi: {driver: csi.orlop.dev, volumeAttributes: {size: 16Mi}}";
    space.pod_with("brief", volume, &Use::Mount, "")?;
    space.ready(&["brief"])?;

    space.shell("brief", "echo here > /v/file")?;

    ensure!(space.shell("brief", "cat /v/file")? == "here");
    Ok(())
}

fn generic(space: &Space<'_>) -> Result<()> {
    let volume = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], storageClassName: tree, \
                  resources: {requests: {storage: 16Mi}}}}}";
    space.pod_with("brief", volume, &Use::Mount, "")?;
    space.ready(&["brief"])?;
    space.shell("brief", "echo here > /v/file")?;

    space.delete(&["pod", "brief"])?;

    space.until("the claim goes with its pod", || {
        let claims = space.kubectl(&["get", "pvc", "--output=name"])?;
        Ok(claims.trim().is_empty())
    })
}

fn one_pod(space: &Space<'_>) -> Result<()> {
    space.claim("data", "tree", "16Mi", "accessModes: [ReadWriteOncePod],")?;
    space.pod("first", "data", &Use::Mount)?;
    space.ready(&["first"])?;

    space.pod("second", "data", &Use::Mount)?;
    let waits = ".status.conditions[?(@.type==\"PodScheduled\")].message";
    space.until("the second pod is refused", || {
        let message = space.field("pod/second", waits)?;
        Ok(message.contains("ReadWriteOncePod"))
    })?;
    space.delete(&["pod", "first"])?;

    space.ready(&["second"])
}

fn read_only(space: &Space<'_>) -> Result<()> {
    space.claim("data", "tree", "16Mi", "")?;
    space.pod("writer", "data", &Use::Mount)?;
    space.ready(&["writer"])?;
    space.shell("writer", "echo kept > /v/file")?;

    let volume = "persistentVolumeClaim: {claimName: data, readOnly: true}";
    space.pod_with("reader", volume, &Use::ReadOnly, "")?;
    space.ready(&["reader"])?;

    ensure!(space.shell("reader", "cat /v/file")? == "kept");
    let refused = space.shell_fails("reader", "echo changed > /v/file")?;
    ensure!(refused.contains("Read-only file system"), "{refused}");
    Ok(())
}

fn group(space: &Space<'_>) -> Result<()> {
    for class in ["tree", "image"] {
        space.claim(class, class, "16Mi", "")?;
        let volume = format!("persistentVolumeClaim: {{claimName: {class}}}");
        let user = "securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000},";
        space.pod_with(class, &volume, &Use::Mount, user)?;
        space.ready(&[class])?;

        space.shell(class, "echo mine > /v/file")?;

        let owners = space.shell(class, "stat -c %u:%g /v/file")?;
        ensure!(owners == "1000:2000", "{class}: {owners}");
    }
    Ok(())
}

fn sub_path(space: &Space<'_>) -> Result<()> {
    space.claim("data", "tree", "16Mi", "")?;
    space.pod("part", "data", &Use::SubPath("a/b"))?;
    space.pod("whole", "data", &Use::Mount)?;
    space.ready(&["part", "whole"])?;

    space.shell("part", "echo below > /v/file")?;

    ensure!(space.shell("whole", "cat /v/a/b/file")? == "below");
    Ok(())
}

fn options(space: &Space<'_>) -> Result<()> {
    space.claim("data", "noatime", "16Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;

    let mounted = space.shell("user", "grep ' /v ' /proc/mounts")?;

    ensure!(
        mounted.contains("ext4") && mounted.contains("noatime"),
        "{mounted}"
    );
    Ok(())
}

fn stateful(space: &Space<'_>) -> Result<()> {
    space.apply(
        "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: set}, spec: {serviceName: set, replicas: 3, \
         podManagementPolicy: Parallel, selector: {matchLabels: {app: set}}, template: {metadata: {labels: {app: set}}, \
         spec: {terminationGracePeriodSeconds: 0, topologySpreadConstraints: [{maxSkew: 1, \
         topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, \
         labelSelector: {matchLabels: {app: set}}}], containers: [{name: shell, image: localhost/shell:1, \
         imagePullPolicy: Never, volumeMounts: [{name: data, mountPath: /v}]}]}}, volumeClaimTemplates: \
         [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], storageClassName: tree, \
         resources: {requests: {storage: 16Mi}}}}]}}",
    )?;
    let pods = ["set-0", "set-1", "set-2"];
    space.wait("jsonpath={.status.readyReplicas}=3", "statefulset/set")?;
    let nodes = pods.map(|pod| space.node_of(pod));
    let nodes = nodes
        .into_iter()
        .collect::<Result<std::collections::BTreeSet<_>>>()?;
    ensure!(nodes.len() == 3, "they are on {nodes:?}");
    for pod in pods {
        space.shell(pod, "hostname > /v/name")?;
    }

    space.delete(&["pod", "--all"])?;
    space.wait("jsonpath={.status.readyReplicas}=3", "statefulset/set")?;
    space.ready(&pods)?;

    for pod in pods {
        let name = space.shell(pod, "cat /v/name").context(pod)?;
        ensure!(name == pod, "{pod} found what {name} wrote");
    }
    Ok(())
}
