//! What the layer cache costs and saves, beside direct pulls and the bound of the links: `cargo bench --bench layers`.
//!
//! Each node is the real binary in a network namespace of its own, behind a link of 100 Mbit/s both ways; so is the
//! registry, which counts what it is asked for. `cargo bench --bench layers -- [FILTER]…` runs the parts whose names contain
//! a filter; it prints a table and writes `target/bench/layers.json`. It takes root. `ORLOP_BENCH_MBIT` sets the links to
//! another rate, for a machine whose processors are not up to 16 nodes at this one, and `ORLOP_BENCH_ROUNDS` how often
//! each pull by several is repeated, 3 times if not said.

mod bed;
mod hits;
mod net;
mod node;
mod single;
mod together;

#[path = "../../tests/layers/noise.rs"]
mod noise;
#[path = "../volumes/report.rs"]
#[allow(dead_code, reason = "it has more kinds of bars than are used here")]
mod report;
#[path = "../volumes/status.rs"]
mod status;
#[path = "../../tests/layers/upstream.rs"]
#[allow(dead_code, reason = "nothing goes wrong with it here")]
mod upstream;

use std::path::PathBuf;

use anyhow::Result;
use report::Report;
use rustix::process::Signal;

const MIB: usize = 1 << 20;
/// One layer that is pulled by many.
const LARGE: usize = 64 * MIB;

fn main() -> Result<()> {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../bench");
    std::fs::create_dir_all(&target)?;
    // A second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut report = Report::new(&target)?;
    tokio::runtime::Runtime::new()?.block_on(run(&filters, &mut report))?;
    report.write(&target.join("layers.json"))
}

async fn run(filters: &[String], report: &mut Report) -> Result<()> {
    let wanted =
        |part: &str| filters.is_empty() || filters.iter().any(|asked| part.contains(&**asked));
    if wanted("cold") {
        for nodes in [2, 4, 8, 16] {
            together::cold(report, nodes, &[LARGE]).await?;
        }
    }
    if wanted("many-layers") {
        together::cold(report, 8, &[2 * MIB; 30]).await?;
    }
    if wanted("images") {
        together::images(report).await?;
    }
    if wanted("warm") {
        together::warm(report).await?;
    }
    if wanted("late") {
        together::late(report).await?;
    }
    if wanted("alone") {
        single::alone(report).await?;
    }
    for (signal, how) in [(Signal::KILL, "killed"), (Signal::STOP, "frozen")] {
        if wanted(how) {
            single::lost(report, signal, how).await?;
        }
    }
    if wanted("memory") {
        single::memory(report).await?;
    }
    if wanted("hits") {
        hits::measure(report).await?;
    }
    Ok(())
}

/// How often each pull by several is repeated.
fn rounds() -> usize {
    let asked = std::env::var("ORLOP_BENCH_ROUNDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(3)
}
