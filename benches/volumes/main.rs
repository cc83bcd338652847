//! What Orlop costs, each figure beside its floor: the least that this machine can do it in, measured in the same run.
//!
//! `cargo bench --bench volumes -- [FILTER]…` runs the parts whose names contain a filter, or all of them; it prints a
//! table and writes `target/bench/volumes.json`. Ours and the floor take turns call by call, in rounds, so that what
//! else the machine does meets both; a ratio is given as the least, the median and the greatest of all rounds.
//!
//! The driver is the real binary in a process of its own, on a socket; the pools are below `target/bench`, or in the
//! directory that `ORLOP_BENCH_DIR` names, whose disk is the one that is measured. Mounts are made in a namespace of
//! the run's own, and end with it.

mod bare;
mod copies;
mod creates;
mod images;
mod mounts;
mod node;
mod process;
mod report;
mod status;
mod thousands;

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use orlop::host::namespace::in_own_mounts;
use report::Report;

/// Where a run has its pools.
pub(crate) struct Ground {
    directory: tempfile::TempDir,
}

impl Ground {
    /// A new directory for one part.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf> {
        let place = self.directory.path().join(name);
        fs::create_dir(&place).with_context(|| format!("making {}", place.display()))?;
        Ok(place)
    }
}

fn main() -> Result<()> {
    // `cargo bench` adds flags for the usual harness.
    let filters: Vec<String> = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../bench");
    let place = env::var_os("ORLOP_BENCH_DIR").map_or_else(|| target.clone(), PathBuf::from);
    for directory in [&target, &place] {
        fs::create_dir_all(directory)?;
    }
    let ground = Ground {
        directory: tempfile::tempdir_in(place.canonicalize()?)?,
    };
    let mut report = Report::new(ground.directory.path())?;
    let ran = in_own_mounts(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(until_interrupted(run(&ground, &filters, &mut report)))
    });
    // Only now, when the namespace and its mounts are gone, can what they stood on be removed.
    ground.directory.close().context("cleaning up")?;
    ran.context("the bench mounts: run it as root")??;
    report.write(&target.join("volumes.json"))
}

/// So that a run that somebody stops is cleaned up too.
async fn until_interrupted(running: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        ran = running => ran,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn run(ground: &Ground, filters: &[String], report: &mut Report) -> Result<()> {
    let wanted =
        |part: &str| filters.is_empty() || filters.iter().any(|asked| part.contains(&**asked));
    if wanted("process") {
        process::measure(ground, report).await?;
    }
    if wanted("creates") {
        creates::measure(ground, report).await?;
    }
    if wanted("thousands") {
        thousands::measure(ground, report).await?;
    }
    if wanted("mounts") {
        mounts::measure(ground, report).await?;
    }
    for filesystem in ["xfs", "btrfs"] {
        if wanted(&format!("images-{filesystem}")) {
            images::measure(ground, filesystem, report).await?;
        }
    }
    if wanted("copies") {
        copies::measure(ground, report).await?;
    }
    Ok(())
}
