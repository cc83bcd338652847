//! What a fault must not do to the pods that run, nor to what is being made.

use anyhow::{Result, ensure};

use crate::Test;
use crate::bed::{Bed, NAMESPACE, NODES};
use crate::plugin;
use crate::space::{Space, Use, alone, pod_on};

pub(crate) const TESTS: &[Test] = &[
    ("a_killed_plugin_takes_no_mount_with_it", plugin_killed),
    ("killed_routers_lose_no_claim", routers_killed),
    ("pods_start_again_without_a_router", no_router),
    (
        "all_certificates_are_replaced_while_claims_are_made",
        certificates_replaced,
    ),
];

/// Without a kubelet nobody can look into any pod of its node.
pub(crate) const ALONE: &[Test] = &[("a_killed_kubelet_finds_its_volumes_again", kubelet_killed)];

fn plugin_killed(space: &Space<'_>) -> Result<()> {
    space.claim("data", "image", "16Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;
    let node = space.node_of("user")?;
    let plugin = pod_on(space.bed, &node, "node")?;
    let restarts = || restarts(space, &plugin);
    let before = restarts()?;

    space
        .bed
        .on(&node, &["pkill", "-9", "-f", "^/usr/bin/orlop node"])?;
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

fn routers_killed(space: &Space<'_>) -> Result<()> {
    let _alone = alone();
    let claims: Vec<_> = (0..10).map(|number| format!("data-{number}")).collect();
    let kill = ["sh", "-c", "pkill -9 -f '^/usr/bin/orlop controller'; true"];

    for (number, claim) in claims.iter().enumerate() {
        space.claim(claim, "immediate", "16Mi", "")?;
        if number == 4 {
            for node in NODES {
                space.bed.on(node, &kill)?;
            }
        }
    }

    for claim in &claims {
        space.wait("jsonpath={.status.phase}=Bound", &format!("pvc/{claim}"))?;
    }
    Ok(())
}

fn no_router(space: &Space<'_>) -> Result<()> {
    let _alone = alone();
    space.claim("data", "image", "16Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;
    let away = Away::of_routers(space.bed)?;

    space.shell("user", "echo written > /v/file")?;
    space.delete(&["pod", "user"])?;
    space.pod("next", "data", &Use::Mount)?;
    space.ready(&["next"])?;

    ensure!(space.shell("next", "cat /v/file")? == "written");
    drop(away);
    space.claim("more", "immediate", "16Mi", "")?;
    space.wait("jsonpath={.status.phase}=Bound", "pvc/more")
}

/// As a person does who no longer trusts the authority: it is deleted, and the controllers start again.
fn certificates_replaced(space: &Space<'_>) -> Result<()> {
    let _alone = alone();
    let secret = ["secret/orlop-ca", "--namespace", NAMESPACE];
    let authority = || {
        let uid = "--output=jsonpath={.metadata.uid}";
        space.bed.kubectl(&[&["get"], &secret[..], &[uid]].concat())
    };
    let controllers = ["deployment/orlop-controller", "--namespace", NAMESPACE];
    let before = authority()?;
    let claims: Vec<_> = (0..20).map(|number| format!("data-{number}")).collect();

    for (number, claim) in claims.iter().enumerate() {
        space.claim(claim, "immediate", "16Mi", "")?;
        if number == 4 {
            space.bed.kubectl(&[&["delete"], &secret[..]].concat())?;
            let restart = [&["rollout", "restart"], &controllers[..]].concat();
            space.bed.kubectl(&restart)?;
        }
    }

    for claim in &claims {
        space.wait("jsonpath={.status.phase}=Bound", &format!("pvc/{claim}"))?;
    }
    let status = ["rollout", "status", "--timeout=120s"];
    space.bed.kubectl(&[&status, &controllers[..]].concat())?;
    ensure!(authority()? != before);
    space.until("every node has a certificate of the new one", || {
        let pools = plugin::ask(space.bed, "pools").unwrap_or_default();
        let heard = |node: &&str| pools.contains(&format!(" {node} "));
        Ok(NODES.iter().all(heard))
    })
}

/// There is no router while it lives.
struct Away<'a>(&'a Bed);

impl<'a> Away<'a> {
    fn of_routers(bed: &'a Bed) -> Result<Self> {
        let away = Self(bed);
        away.scale(0)?;
        bed.kubectl(&[
            "wait",
            "--namespace",
            NAMESPACE,
            "--for=delete",
            "--timeout=60s",
            "pod",
            "--selector=app.kubernetes.io/component=controller",
        ])?;
        Ok(away)
    }

    fn scale(&self, replicas: u8) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        let scale = [
            "scale",
            "--namespace",
            NAMESPACE,
            "deployment/orlop-controller",
            &replicas,
        ];
        self.0.kubectl(&scale).map(drop)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.scale(2) {
            eprintln!("the routers stay away: {error:#}");
        }
    }
}
