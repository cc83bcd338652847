//! What a fault must not do to the pods that run.

use anyhow::{Result, ensure};

use crate::Test;
use crate::bed::NAMESPACE;
use crate::space::{Space, Use, plugin_on};

pub(crate) const TESTS: &[Test] = &[
    ("a_killed_plugin_takes_no_mount_with_it", plugin_killed),
    ("a_killed_kubelet_finds_its_volumes_again", kubelet_killed),
];

fn plugin_killed(space: &Space<'_>) -> Result<()> {
    space.claim("data", "image", "16Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;
    let node = space.node_of("user")?;
    let plugin = plugin_on(space.bed, &node)?;
    let restarts = || restarts(space, &plugin);
    let before = restarts()?;

    space.bed.on(&node, &["pkill", "-9", "-x", "orlop"])?;
    space.until("the plugin is started again", || Ok(restarts()? > before))?;

    space.shell("user", "echo written > /v/file && cat /v/file")?;
    let wait = [
        "wait",
        "--namespace",
        NAMESPACE,
        "--for=condition=Ready",
        "--timeout=60s",
        &plugin,
    ];
    space.bed.kubectl(&wait)?;
    space.delete(&["pod", "user"])?;
    space.pod("next", "data", &Use::Mount)?;
    space.ready(&["next"])?;
    ensure!(space.shell("next", "cat /v/file")? == "written");
    Ok(())
}

fn restarts(space: &Space<'_>, plugin: &str) -> Result<u32> {
    let path = "{.status.containerStatuses[?(@.name==\"orlop\")].restartCount}";
    let output = format!("--output=jsonpath={path}");
    let count = space
        .bed
        .kubectl(&["get", "--namespace", NAMESPACE, plugin, &output])?;
    Ok(count.parse()?)
}

fn kubelet_killed(space: &Space<'_>) -> Result<()> {
    space.claim("data", "tree", "16Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;
    let node = space.node_of("user")?;

    space.bed.on(&node, &["pkill", "-9", "-x", "kubelet"])?;

    space.shell_works("user", "echo written > /v/file")?;
    space.delete(&["pod", "user"])?;
    space.pod("next", "data", &Use::Mount)?;
    space.ready(&["next"])?;
    ensure!(space.shell("next", "cat /v/file")? == "written");
    Ok(())
}
