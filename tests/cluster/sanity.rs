//! The upstream csi-sanity suite, through the router: whatever it asks of the controller goes to one node of three.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::bed::NAMESPACE;
use crate::space::Space;
use crate::support::{SPECS_THAT_MODIFY, run};

/// It takes the controllers to one node.
pub(crate) const ALONE: &[Test] = &[("csi_sanity_passes_through_the_router", passes)];

/// The node that has the most room in the pool `disk`, so that all volumes of the suite are placed there.
const NODE: &str = "n3";
/// How many specs pass at least.
const LEAST: u32 = 70;

fn passes(space: &Space<'_>) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sanity/build.sh");
    let suite = run("sh", [script])?;
    let pod = controllers_on(space, NODE)?;
    let paper = tempfile::tempdir()?;
    let (log, parameters) = (paper.path().join("log"), paper.path().join("parameters"));
    std::fs::write(&parameters, "pool: disk\n")?;

    // The kubelet's directory is what the node and its plugin both see.
    let kubelet = "/var/lib/kubelet";
    let line = format!(
        "{} -csi.endpoint={kubelet}/plugins/csi.orlop.dev/csi.sock \
         -csi.controllerendpoint={kubelet}/pods/{pod}/volumes/kubernetes.io~empty-dir/socket/csi.sock \
         -csi.mountdir={kubelet}/sanity-mount -csi.stagingdir={kubelet}/sanity-staging \
         -csi.testvolumesize=12582912 -csi.testvolumeexpandsize=29360128 -csi.testvolumeparameters={parameters} \
         '-ginkgo.skip={SPECS_THAT_MODIFY}' -ginkgo.no-color >{log} 2>&1 || {{ grep -A 20 'FAIL' {log} >&2; exit 1; }}",
        suite.trim(),
        parameters = parameters.display(),
        log = log.display()
    );
    space.bed.on(NODE, &["sh", "-c", &line])?;

    let said = std::fs::read_to_string(&log)?;
    let passed = said
        .split("-- ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let passed: u32 = passed.context("it does not say how many passed")?.parse()?;
    ensure!(
        passed >= LEAST,
        "only {passed} specs passed: were the others not run?"
    );
    Ok(())
}

/// Moves the controllers to a node, and gives the UID of the pod of one.
fn controllers_on(space: &Space<'_>, node: &str) -> Result<String> {
    let patch = format!(
        r#"{{"spec": {{"template": {{"spec": {{"nodeSelector": {{"kubernetes.io/hostname": "{node}"}}}}}}}}}}"#
    );
    let of = ["deployment/orlop-controller", "--namespace", NAMESPACE];
    space
        .bed
        .kubectl(&[&["patch"], &of[..], &["--patch", &patch]].concat())?;
    space
        .bed
        .kubectl(&[&["rollout", "status", "--timeout=120s"], &of[..]].concat())?;
    let uid = space.bed.kubectl(&[
        "get",
        "pods",
        "--namespace",
        NAMESPACE,
        "--selector=app.kubernetes.io/component=controller",
        &format!("--field-selector=spec.nodeName={node},status.phase=Running"),
        // One that ends is older.
        "--sort-by=.metadata.creationTimestamp",
        "--output=jsonpath={.items[-1:].metadata.uid}",
    ])?;
    Ok(uid)
}
