//! What the layer cache costs and saves, beside direct pulls and the bound of the links: `cargo bench --bench layers`.
//!
//! Each node is the real binary in a network namespace of its own, behind a link of 100 Mbit/s both ways; so is the
//! registry, which counts what it is asked for. `cargo bench --bench layers -- [FILTER]…` runs the parts whose names contain
//! a filter; it prints a table and writes `target/bench/layers.json`. It takes root.

mod hits;
mod net;
mod node;

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
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use net::{Link, Net, RATE};
use node::{Node, Pulled};
use noise::noise;
use report::{Bar, Report, Round, Row, ms};
use rustix::process::Signal;
use upstream::Upstream;

const MIB: usize = 1 << 20;
/// One layer that is pulled by many.
const LARGE: usize = 64 * MIB;
/// The address of the registry.
const REGISTRY: u8 = 200;

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
            cold(report, nodes, &[LARGE]).await?;
        }
    }
    if wanted("many-layers") {
        cold(report, 8, &[2 * MIB; 30]).await?;
    }
    if wanted("images") {
        images(report).await?;
    }
    if wanted("warm") {
        warm(report).await?;
    }
    if wanted("late") {
        late(report).await?;
    }
    if wanted("alone") {
        alone(report).await?;
    }
    for (signal, how) in [(Signal::KILL, "killed"), (Signal::STOP, "frozen")] {
        if wanted(how) {
            lost(report, signal, how).await?;
        }
    }
    if wanted("memory") {
        memory(report).await?;
    }
    if wanted("hits") {
        hits::measure(report).await?;
    }
    Ok(())
}

/// A registry with layers, and nodes that know each other.
struct Bed {
    _registry: Link,
    upstream: Upstream,
    digests: Vec<String>,
    bytes: usize,
    nodes: Vec<Node>,
    // It goes last.
    _net: Net,
}

impl Bed {
    async fn of(nodes: u8, layers: &[usize]) -> Result<Self> {
        let mut net = Net::new().context("the bench makes network namespaces: run it as root")?;
        let registry = net.link(REGISTRY)?;
        let address = registry.address;
        let upstream = registry.spawn(Upstream::at(address)).await?;
        let layer =
            |(seed, size): (usize, &usize)| upstream.blob("a/b", &noise(seed as u64 + 1, *size));
        let digests = layers.iter().enumerate().map(layer).collect();
        let nodes: Vec<_> = (1..=nodes)
            .map(|at| Node::start(&mut net, at, &upstream.url))
            .collect::<Result<_>>()?;
        for node in &nodes {
            node.knows(nodes.len() - 1).await?;
        }
        Ok(Self {
            _registry: registry,
            upstream,
            digests,
            bytes: layers.iter().sum(),
            nodes,
            _net: net,
        })
    }

    /// All that these nodes pull, together.
    async fn all_pull(nodes: &[Node], digests: &[String]) -> Result<Vec<Pulled>> {
        let pulls: Vec<_> = nodes.iter().map(|node| node.pull(digests)).collect();
        let mut pulled = Vec::new();
        for pull in pulls.into_iter().map(tokio::spawn).collect::<Vec<_>>() {
            pulled.push(pull.await??);
        }
        Ok(pulled)
    }

    /// How long the layers take through one link.
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    fn bound(&self) -> f64 {
        self.bytes as f64 * 8.0 / RATE
    }

    /// What a pull by several took, beside the bound.
    fn row(&self, report: &mut Report, what: &'static str, case: String, took: Duration) {
        report.add(Row {
            what,
            case,
            floor: "what the links allow",
            unit: "s",
            bar: Bar::Ratio(1.2),
            rounds: vec![Round {
                ours: took.as_secs_f64(),
                floor: self.bound(),
            }],
        });
    }

    /// What the registry was asked for.
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    fn asked(&self, report: &mut Report, case: &str) {
        let blobs = self.upstream.asked(&["GET", "/blobs/"]).len();
        report.add(Row {
            what: "bytes from the registry",
            case: format!("{case}, in {blobs} requests"),
            floor: "the layers",
            unit: "MiB",
            bar: Bar::Ratio(1.01),
            rounds: vec![Round {
                ours: self.upstream.sent() as f64 / MIB as f64,
                floor: self.bytes as f64 / MIB as f64,
            }],
        });
    }
}

/// When the last of them had all.
fn end(pulled: &[Pulled], begun: Instant) -> Duration {
    let ends = pulled.iter().map(|pulled| pulled.last - begun);
    ends.max().unwrap_or_default()
}

async fn cold(report: &mut Report, nodes: u8, layers: &[usize]) -> Result<()> {
    let bed = Bed::of(nodes, layers).await?;
    let case = format!("{nodes} nodes, {} layers", layers.len());
    let begun = Instant::now();
    let pulled = Bed::all_pull(&bed.nodes, &bed.digests).await?;
    bed.row(
        report,
        "cold, all together",
        case.clone(),
        end(&pulled, begun),
    );
    bed.asked(report, &case);
    let firsts = pulled.iter().map(|pulled| pulled.first);
    let (first, last) = (firsts.clone().min(), firsts.max());
    let (first, last) = first.zip(last).context("some have pulled")?;
    report.add(Row {
        what: "the first byte at the last node",
        case,
        floor: "at the first, from the beginning",
        unit: "ms",
        bar: Bar::Above(50.0),
        rounds: vec![Round::of(last - begun, first - begun)],
    });
    if nodes == 8 && layers.len() == 1 {
        direct(report, &bed).await?;
    }
    Ok(())
}

/// The same by the clients of the same nodes without a cache.
async fn direct(report: &mut Report, bed: &Bed) -> Result<()> {
    let begun = Instant::now();
    let below = format!("{}/v2/a/b/blobs/", bed.upstream.url);
    let pulls: Vec<_> = bed
        .nodes
        .iter()
        .map(|node| tokio::spawn(node::pull(&node.link, below.clone(), &bed.digests)))
        .collect();
    let mut pulled = Vec::new();
    for pull in pulls {
        pulled.push(pull.await??);
    }
    report.add(Row {
        what: "direct pulls",
        case: format!("{} nodes, without the cache", bed.nodes.len()),
        floor: "what the links allow",
        unit: "s",
        bar: Bar::Open,
        rounds: vec![Round {
            ours: end(&pulled, begun).as_secs_f64(),
            floor: bed.bound(),
        }],
    });
    Ok(())
}

/// Each node pulls another image than the one before it first, and all pull all.
async fn images(report: &mut Report) -> Result<()> {
    let sizes = [4 * MIB; 16];
    let bed = Bed::of(8, &sizes).await?;
    let begun = Instant::now();
    let pulls: Vec<_> = bed
        .nodes
        .iter()
        .enumerate()
        .map(|(number, node)| {
            let mut digests = bed.digests.clone();
            digests.rotate_left(number * 2);
            tokio::spawn(node.pull(&digests))
        })
        .collect();
    let mut pulled = Vec::new();
    for pull in pulls {
        pulled.push(pull.await??);
    }
    report.add(Row {
        what: "16 images at once",
        case: "8 nodes, each in another order".to_owned(),
        floor: "what the links allow",
        unit: "s",
        bar: Bar::Ratio(1.3),
        rounds: vec![Round {
            ours: end(&pulled, begun).as_secs_f64(),
            floor: bed.bound(),
        }],
    });
    bed.asked(report, "16 images");
    Ok(())
}

async fn warm(report: &mut Report) -> Result<()> {
    let bed = Bed::of(8, &[LARGE]).await?;
    bed.nodes[0].pull(&bed.digests).await?;
    let begun = Instant::now();
    let pulled = Bed::all_pull(&bed.nodes[1..], &bed.digests).await?;
    let case = "8 nodes, one has it".to_owned();
    bed.row(report, "the rest together", case, end(&pulled, begun));
    Ok(())
}

async fn late(report: &mut Report) -> Result<()> {
    let bed = Bed::of(8, &[LARGE]).await?;
    let begun = Instant::now();
    let pulls = bed.nodes[..4].iter().map(|node| node.pull(&bed.digests));
    let early: Vec<_> = pulls.map(tokio::spawn).collect();
    tokio::time::sleep(Duration::from_secs_f64(bed.bound() / 2.0)).await;
    let joined = Instant::now();
    let late = Bed::all_pull(&bed.nodes[4..], &bed.digests).await?;
    for pull in early {
        pull.await??;
    }
    let case = format!(
        "8 nodes, of which 4 join {:.1} s after the others",
        (joined - begun).as_secs_f64()
    );
    bed.row(
        report,
        "those that join at half time",
        case,
        end(&late, joined),
    );
    Ok(())
}

/// One node through its cache, and one without: each round on other layers.
async fn alone(report: &mut Report) -> Result<()> {
    let bed = Bed::of(1, &[16 * MIB; 5]).await?;
    let below = format!("{}/v2/a/b/blobs/", bed.upstream.url);
    let mut rounds = Vec::new();
    for digest in bed.digests.chunks(1) {
        let begun = Instant::now();
        let ours = bed.nodes[0].pull(digest).await?.last - begun;
        let begun = Instant::now();
        let direct = node::pull(&bed.nodes[0].link, below.clone(), digest).await?;
        rounds.push(Round::of(ours, direct.last - begun));
    }
    report.add(Row {
        what: "one node alone, cold",
        case: "16 MiB".to_owned(),
        floor: "a direct pull",
        unit: "ms",
        bar: Bar::Ratio(1.03),
        rounds,
    });
    Ok(())
}

/// The one that serves is lost at half time.
async fn lost(report: &mut Report, signal: Signal, how: &str) -> Result<()> {
    let bed = Bed::of(3, &[LARGE]).await?;
    // Two have it, so that there is another.
    Bed::all_pull(&bed.nodes[..2], &bed.digests).await?;
    let pulling = tokio::spawn(bed.nodes[2].pull(&bed.digests));
    tokio::time::sleep(Duration::from_secs_f64(bed.bound() / 2.0)).await;
    bed.nodes[0].signal(signal)?;
    let pulled = pulling.await??;
    report.add(Row {
        what: "the longest stall",
        case: format!("a serving peer is {how} at half time"),
        floor: "nothing",
        unit: "ms",
        bar: Bar::Most(2000.0),
        rounds: vec![Round {
            ours: ms(pulled.stalled),
            floor: f64::NAN,
        }],
    });
    bed.nodes[0].signal(Signal::CONT).ok();
    bed.asked(report, &format!("a serving peer was {how}"));
    Ok(())
}

async fn memory(report: &mut Report) -> Result<()> {
    let bed = Bed::of(4, &[LARGE, 8 * MIB, 8 * MIB]).await?;
    let idle = bed.nodes[0].memory()?;
    let mut peak = 0.0_f64;
    let watched = async {
        loop {
            for node in &bed.nodes {
                peak = peak.max(node.memory()?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        pulled = Bed::all_pull(&bed.nodes, &bed.digests) => drop(pulled?),
        ended = watched => return ended,
    }
    for (case, ours, most) in [("idle", idle, 20.0), ("at most, under load", peak, 64.0)] {
        report.add(Row {
            what: "resident memory",
            case: case.to_owned(),
            floor: "nothing",
            unit: "MiB",
            bar: Bar::Most(most),
            rounds: vec![Round {
                ours,
                floor: f64::NAN,
            }],
        });
    }
    Ok(())
}
