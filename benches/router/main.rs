//! What the router costs in a cluster of 5,000 nodes with 100,000 volumes: `cargo bench --bench router`.
//!
//! The router is the real binary in a process of its own; the nodes are fakes in this one, each with its own port and its
//! own certificate. It prints a table and writes `target/bench/router.json`. `ORLOP_BENCH_NODES` says another number of
//! nodes. It needs three open files for each.

mod fakes;
mod router;

#[path = "../../tests/support/authority.rs"]
mod authority;
#[path = "../volumes/report.rs"]
#[allow(dead_code, reason = "it has more kinds of bars than are used here")]
mod report;
#[path = "../volumes/status.rs"]
mod status;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use authority::Authority;
use fakes::Asked;
use report::{Bar, Report, Round, Row, median};
use router::{Direct, Router};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const NODES: usize = 5_000;
/// The volumes of each node.
const VOLUMES: usize = 20;
const ROUNDS: usize = 9;
const CALLS: usize = 101;
/// After so long without a creation, the router looks whether another has created meanwhile.
const QUIET: Duration = Duration::from_secs(16);
/// How long the looks are counted: each node is looked at about once in that time.
const COUNTED: usize = 60;

#[tokio::main]
async fn main() -> Result<()> {
    let nodes = env::var("ORLOP_BENCH_NODES").map_or(Ok(NODES), |text| text.parse())?;
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../bench");
    fs::create_dir_all(&target)?;
    enough_files(nodes)?;
    let desk = tempfile::tempdir()?;
    let mut report = Report::new(desk.path())?;
    let (authority, asked) = (Authority::new(), Arc::new(Asked::default()));
    let mut members = Vec::with_capacity(nodes);
    for number in 0..nodes {
        let name = format!("node-{number}");
        let credentials = authority.credentials(&format!("{name}.node.orlop.dev"));
        let address = fakes::start(&name, VOLUMES, &credentials, &asked).await?;
        members.push((name, address));
    }

    let mut resyncs = Vec::new();
    let mut router = None;
    for _ in 0..3 {
        drop(router.take());
        let begun = Instant::now();
        let started = Router::start(&authority, &members, desk.path()).await?;
        started.until_all_are_heard(nodes).await?;
        resyncs.push(begun.elapsed());
        router = Some(started);
    }
    let router = router.context("it was started")?;
    resync(&mut report, nodes, resyncs);
    first_creation(&mut report, &router, &asked).await?;
    creations(&mut report, &router, &authority, &members).await?;
    unknown(&mut report, &router, &asked).await?;
    looks(&mut report, &asked).await;
    report.add(Row {
        what: "resident memory of the router",
        case: format!("{nodes} nodes, {} volumes", nodes * VOLUMES),
        floor: "its own code and data in files",
        unit: "MiB",
        bar: Bar::Most(256.0),
        rounds: vec![Round {
            ours: router.status("VmRSS")? / 1024.0,
            floor: router.status("RssFile")? / 1024.0,
        }],
    });
    report.write(&target.join("router.json"))
}

/// A listener and both ends of a connection for each node, less what the router has of them.
fn enough_files(nodes: usize) -> Result<()> {
    let has = getrlimit(Resource::Nofile);
    let wanted = 2 * nodes as u64 + 1_000;
    if has.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let more = Rlimit {
        current: Some(wanted),
        maximum: has.maximum,
    };
    setrlimit(Resource::Nofile, more).with_context(|| {
        format!("{nodes} nodes need {wanted} open files: run it with `ulimit -n`, or say fewer by ORLOP_BENCH_NODES")
    })
}

fn resync(report: &mut Report, nodes: usize, took: Vec<Duration>) {
    let round = |took: Duration| Round {
        ours: took.as_secs_f64(),
        floor: f64::NAN,
    };
    report.add(Row {
        what: "start to all nodes heard",
        case: format!("{nodes} nodes, {} volumes", nodes * VOLUMES),
        floor: "nothing",
        unit: "s",
        bar: Bar::Most(30.0),
        rounds: took.into_iter().map(round).collect(),
    });
}

/// The first after a quiet while, when another router may have created what this one does not know.
async fn first_creation(report: &mut Report, router: &Router, asked: &Asked) -> Result<()> {
    let mut rounds = Vec::new();
    let before = asked.lists.load(Ordering::Relaxed);
    for number in 0..3 {
        tokio::time::sleep(QUIET).await;
        let begun = Instant::now();
        router.create(&format!("first-{number}"), "node-1").await?;
        let first = begun.elapsed();
        let begun = Instant::now();
        router.create(&format!("second-{number}"), "node-1").await?;
        rounds.push(Round::of(first, begun.elapsed()));
    }
    let lists = asked.lists.load(Ordering::Relaxed) - before;
    report.add(Row {
        what: "the first creation after a quiet while",
        case: format!("{lists} lists were asked for meanwhile"),
        floor: "the one after it",
        unit: "ms",
        bar: Bar::Open,
        rounds,
    });
    Ok(())
}

async fn creations(
    report: &mut Report,
    router: &Router,
    authority: &Authority,
    members: &[(String, std::net::SocketAddr)],
) -> Result<()> {
    let (name, address) = &members[members.len() / 2];
    let direct = Direct::to(authority, name, *address);
    direct.create("warm").await?;
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for call in 0..CALLS {
            let begun = Instant::now();
            direct.create(&format!("direct-{round}-{call}")).await?;
            floor.push(begun.elapsed());
            let begun = Instant::now();
            router
                .create(&format!("routed-{round}-{call}"), name)
                .await?;
            ours.push(begun.elapsed());
        }
        rounds.push(Round::of(median(ours), median(floor)));
    }
    report.add(Row {
        what: "CreateVolume through the router",
        case: "on a node that is named, p50".to_owned(),
        floor: "the same straight to the node",
        unit: "ms",
        bar: Bar::Above(5.0),
        rounds,
    });
    Ok(())
}

/// A deletion of what no node has: asked again by a sidecar whose first answer was lost.
async fn unknown(report: &mut Report, router: &Router, asked: &Asked) -> Result<()> {
    let mut rounds = Vec::new();
    let before = asked.lists.load(Ordering::Relaxed);
    for number in 0..3 {
        let begun = Instant::now();
        router.delete(&format!("default/nothing-{number}")).await?;
        let took = begun.elapsed();
        let id = format!("default/first-{number}");
        let begun = Instant::now();
        router.delete(&id).await?;
        rounds.push(Round::of(took, begun.elapsed()));
    }
    let lists = asked.lists.load(Ordering::Relaxed) - before;
    report.add(Row {
        what: "DeleteVolume of what no node has",
        case: format!("{lists} lists were asked for in three"),
        floor: "of what one has",
        unit: "ms",
        bar: Bar::Open,
        rounds,
    });
    Ok(())
}

/// Whether nodes are looked at in one moment: the busiest second beside the mean.
#[expect(clippy::cast_precision_loss, reason = "a count of some thousands")]
async fn looks(report: &mut Report, asked: &Asked) {
    let mut seconds = Vec::new();
    let mut last = asked.lists.load(Ordering::Relaxed);
    for _ in 0..COUNTED {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = asked.lists.load(Ordering::Relaxed);
        seconds.push((now - last) as f64);
        last = now;
    }
    let busiest = seconds.iter().copied().fold(0.0, f64::max);
    let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
    report.add(Row {
        what: "nodes looked at in the busiest second",
        case: format!("of {COUNTED} quiet ones"),
        floor: "in one on the average",
        unit: "",
        bar: Bar::Ratio(4.0),
        rounds: vec![Round {
            ours: busiest,
            floor: mean,
        }],
    });
}
