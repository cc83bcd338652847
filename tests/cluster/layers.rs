//! The layer cache of the chart: one on each node, which the runtime there asks, and which knows the others.

use anyhow::{Result, ensure};

use crate::Test;
use crate::bed::{NAMESPACE, NODES};
use crate::space::{Space, pod_on};

pub(crate) const TESTS: &[Test] = &[("the_layer_caches_find_each_other_and_are_asked", found)];

fn found(space: &Space<'_>) -> Result<()> {
    let kubectl = |args: &[&str]| {
        let within = ["--namespace", NAMESPACE];
        space.bed.kubectl(&[&within, args].concat())
    };
    kubectl(&[
        "rollout",
        "status",
        "daemonset/orlop-layers",
        "--timeout=2m",
    ])?;
    for node in NODES {
        let pod = pod_on(space.bed, node, "layers")?;
        space.until("it knows the others", || {
            let ask = ["exec", &pod, "--", "orlop", "layers", "peers", "-oname"];
            Ok(kubectl(&ask)?.lines().count() == NODES.len() - 1)
        })?;
        let hosts = "/etc/containerd/certs.d/_default/hosts.toml";
        let hosts = space.bed.on(node, &["cat", hosts])?;
        ensure!(hosts.contains("http://127.0.0.1:5052"), "{hosts}");
    }
    Ok(())
}
