//! The binary as a plugin of kubectl.

use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

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
    let doctor = ask(space.bed, "doctor")?;

    let claim = format!("{}/data", space.name);
    ensure!(volumes.contains(&claim), "{volumes}");
    for node in NODES {
        let on = pools
            .lines()
            .filter(|line| line.contains(&format!(" {node} ")));
        ensure!(on.count() == 2, "{pools}");
        ensure!(doctor.contains(&format!("{node}:\n")), "{doctor}");
    }
    let served = doctor.matches("a node serves on /var/lib/kubelet/").count();
    ensure!(served == NODES.len(), "{doctor}");
    Ok(())
}
