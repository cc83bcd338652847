//! The binary as a plugin of kubectl.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::Test;
use crate::bed::{Bed, NODES};
use crate::space::Space;

pub(crate) const TESTS: &[Test] = &[("kubectl_tells_what_the_cluster_has", told)];

/// What `kubectl orlop` prints.
pub(crate) fn ask(bed: &Bed, question: &str) -> Result<String> {
    let found_in = tempfile::tempdir()?;
    symlink(
        env!("CARGO_BIN_EXE_orlop"),
        found_in.path().join("kubectl-orlop"),
    )?;
    let path = found_in.path().display();
    let line = format!("PATH={path}:$PATH kubectl orlop {question}");
    bed.inside(&["sh", "-c", &line])
}

fn told(space: &Space<'_>) -> Result<()> {
    space.claim("data", "immediate", "16Mi", "")?;
    space.wait("jsonpath={.status.phase}=Bound", "pvc/data")?;

    let volumes = ask(space.bed, "volumes")?;
    let pools = ask(space.bed, "pools")?;
    // That a person should look at something is an answer, too.
    let doctor = ask(space.bed, "doctor --output=json || test $? = 5")?;

    let claim = format!("{}/data", space.name);
    ensure!(volumes.contains(&claim), "{volumes}");
    for node in NODES {
        let on = pools
            .lines()
            .filter(|line| line.contains(&format!(" {node} ")));
        ensure!(on.count() == 3, "{pools}");
    }
    let findings: Vec<Value> = serde_json::from_str(&doctor)?;
    let says_so = |finding: &&Value| {
        let found = finding["found"].as_str().unwrap_or_default();
        found.starts_with("a node serves on /var/lib/kubelet/")
    };
    let served = findings.iter().filter(says_so);
    let served: BTreeSet<_> = served.filter_map(|one| one["node"].as_str()).collect();
    ensure!(served.into_iter().eq(NODES), "{doctor}");
    Ok(())
}
