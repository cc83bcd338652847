//! Upstream's storage suite, the specs that Kubernetes itself runs against a driver: `make test-cluster-suite`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::space::Space;

pub(crate) const TESTS: &[Test] = &[
    ("suite_on_directory_trees", trees),
    ("suite_on_directory_images", images),
    ("suite_on_btrfs", subvolumes),
];

/// Of more than seven hundred specs, those that apply to a driver of this kind, at the least.
const LEAST: u32 = 60;

/// What needs another system, a cluster for itself, or what the driver does not say that it has.
const SKIPPED: &str = r"\[Disruptive\]|\[Feature:Windows|[Nn]tfs|\[Serial\]";

/// For directories whose size is not that of a filesystem: `df` in a pod tells the disk's, as this kernel has no project
/// quotas, and btrfs tells nobody but us of its own.
const OF_ITS_DISK: &[&str] = &["FSResizeFromSourceNotSupported"];

fn trees(space: &Space<'_>) -> Result<()> {
    passes(space, "tree", "1Mi", OF_ITS_DISK)
}

fn images(space: &Space<'_>) -> Result<()> {
    // Of the machine that may lack CAP_SYS_RESOURCE: there only XFS grows while it is mounted.
    passes(space, "xfs", "300Mi", &[])
}

fn subvolumes(space: &Space<'_>) -> Result<()> {
    passes(space, "btrfs", "1Mi", OF_ITS_DISK)
}

/// All that the driver can, for what is kept silent is tested as absent.
fn driver(class: &str, least: &str, more: &[&str]) -> String {
    let capabilities = [
        "block",
        "controllerExpansion",
        "exec",
        "fsGroup",
        "multipods",
        "nodeExpansion",
        "onlineExpansion",
        "persistence",
        "pvcDataSource",
        "readWriteOncePod",
        "singleNodeVolume",
        "snapshotDataSource",
        "topology",
    ];
    let mut text = format!(
        "StorageClass: {{FromExistingClassName: {class}}}\n\
         SnapshotClass: {{FromExistingClassName: orlop}}\n\
         DriverInfo:\n  Name: csi.orlop.dev\n  SupportedSizeRange: {{Min: {least}}}\n  \
         TopologyKeys: [topology.orlop.dev/node]\n  Capabilities:\n"
    );
    for capability in capabilities.iter().chain(more) {
        let _ = writeln!(text, "    {capability}: true");
    }
    text + "InlineVolumes:\n- shared: false\n  attributes: {size: 16Mi}\n"
}

fn passes(space: &Space<'_>, class: &str, least: &str, more: &[&str]) -> Result<()> {
    let suite = space.bed.suite.as_deref();
    let suite = suite.context("the cluster was started without the suite's images")?;
    let paper = tempfile::tempdir()?;
    let (log, description) = (paper.path().join("log"), paper.path().join("driver.yaml"));
    std::fs::write(&description, driver(class, least, more))?;
    let line = format!(
        "{suite}/ginkgo --procs=4 --no-color '--focus=External.Storage' '--skip={SKIPPED}' {suite}/e2e.test -- \
         -storage.testdriver={description} -kubeconfig=$KUBECONFIG -provider=local >{log} 2>&1 || \
         {{ grep -a -A 30 'Summarizing' {log} >&2; tail -n 5 {log} >&2; exit 1; }}",
        suite = suite.display(),
        description = description.display(),
        log = log.display()
    );
    let ran = space.bed.inside(&["bash", "-c", &line]);
    let said = std::fs::read(&log)?;
    keep(class, &said)?;
    ran?;
    let passed = passed(&String::from_utf8_lossy(&said))?;
    eprintln!("class {class}: {passed} specs passed");
    ensure!(
        passed >= LEAST,
        "only {passed} specs passed: were the others not run?"
    );
    Ok(())
}

/// How many specs passed, by the line that ends a run: `SUCCESS! -- 51 Passed | 0 Failed | …`.
fn passed(said: &str) -> Result<u32> {
    let line = said.rsplit("-- ").find(|rest| rest.contains(" Passed"));
    let number = line.and_then(|rest| rest.split(' ').next());
    Ok(number.context("it does not say how many passed")?.parse()?)
}

/// What the suite printed, for whom it failed.
fn keep(class: &str, said: &[u8]) -> Result<()> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("suite-{class}.log"));
    std::fs::write(&place, said).with_context(|| format!("writing {}", place.display()))
}
