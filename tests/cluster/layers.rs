//! The layer cache of the chart: one on each node, which the runtime there asks, and which knows the others.

use anyhow::{Result, ensure};

use crate::Test;
use crate::bed::{NAMESPACE, NODES};
use crate::space::Space;

pub(crate) const TESTS: &[Test] = &[("the_layer_caches_find_each_other_and_are_asked", found)];

fn found(space: &Space<'_>) -> Result<()> {
    let rollout = [
        "rollout",
        "status",
        "daemonset/orlop-layers",
        "--timeout=2m",
    ];
    space
        .bed
        .kubectl(&[&["--namespace", NAMESPACE], &rollout[..]].concat())?;
    for node in NODES {
        let on = format!("--field-selector=spec.nodeName={node}");
        let pod = space.bed.kubectl(&[
            "--namespace",
            NAMESPACE,
            "get",
            "pods",
            "--selector=app.kubernetes.io/component=layers",
            &on,
            "--output=name",
        ])?;
        space.until("it knows the others", || {
            let ask = [
                "exec",
                pod.trim(),
                "--",
                "orlop",
                "layers",
                "peers",
                "-o",
                "name",
            ];
            let peers = space
                .bed
                .kubectl(&[&["--namespace", NAMESPACE], &ask[..]].concat())?;
            Ok(peers.lines().count() == NODES.len() - 1)
        })?;
        let hosts = space.bed.on(
            node,
            &["cat", "/etc/containerd/certs.d/_default/hosts.toml"],
        )?;
        ensure!(hosts.contains("http://127.0.0.1:5052"), "{hosts}");
    }
    Ok(())
}
