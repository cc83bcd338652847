//! A registry with layers and nodes that know each other, and what their pulls came to.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::net::{Link, Net, rate};
use crate::node::{Node, Pulled};
use crate::noise::noise;
use crate::report::{Bar, Report, Round, Row};
use crate::upstream::Upstream;
use crate::{MIB, rounds};

/// The address of the registry.
const REGISTRY: u8 = 200;

/// A registry with layers, and nodes that know each other.
pub(crate) struct Bed {
    _registry: Link,
    pub(crate) upstream: Upstream,
    pub(crate) digests: Vec<String>,
    bytes: usize,
    pub(crate) nodes: Vec<Node>,
    // It goes last.
    _net: Net,
}

/// What pulls by several came to, one figure a round.
#[derive(Default)]
pub(crate) struct Walls {
    took: Vec<Round>,
    asked: Vec<Round>,
    gets: usize,
    busy: Vec<Round>,
    sent: Vec<Round>,
}

/// The time that processors spent, in seconds: on all, and on the nodes.
struct Spent {
    at: Instant,
    all: f64,
    nodes: f64,
    sent: f64,
}

impl Bed {
    pub(crate) async fn of(nodes: u8, layers: &[usize]) -> Result<Self> {
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

    /// What these nodes pull, together.
    pub(crate) async fn all_pull(nodes: &[Node], digests: &[String]) -> Result<Vec<Pulled>> {
        join(nodes.iter().map(|node| node.pull(digests))).await
    }

    /// How long the layers take through one link.
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    pub(crate) fn bound(&self) -> f64 {
        self.bytes as f64 * 8.0 / rate()
    }

    /// Notes what a pull came to, which ended in these.
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    async fn note(&self, walls: &mut Walls, took: Duration, before: &Spent) -> Result<()> {
        let (ours, floor) = (took.as_secs_f64(), self.bound());
        walls.took.push(Round { ours, floor });
        let ours = self.upstream.sent() as f64 / MIB as f64;
        let floor = self.bytes as f64 / MIB as f64;
        walls.asked.push(Round { ours, floor });
        walls.gets = walls
            .gets
            .max(self.upstream.asked(&["GET", "/blobs/"]).len());
        let after = Spent::by(&self.nodes).await?;
        let lasted = (after.at - before.at).as_secs_f64();
        let per_second = |spent: f64| spent / lasted;
        walls.busy.push(Round {
            ours: per_second(after.nodes - before.nodes),
            floor: per_second(after.all - before.all),
        });
        let ours = (after.sent - before.sent) / MIB as f64;
        walls.sent.push(Round { ours, floor });
        Ok(())
    }

    /// Runs a pull by several and notes what it came to.
    pub(crate) async fn measure<T>(
        &self,
        walls: &mut Walls,
        pull: impl Future<Output = Result<(Duration, T)>>,
    ) -> Result<T> {
        let before = Spent::by(&self.nodes).await?;
        let (took, result) = pull.await?;
        self.note(walls, took, &before).await?;
        if let Some(folder) = std::env::var_os("ORLOP_BENCH_LOGS") {
            for (number, node) in self.nodes.iter().enumerate() {
                let name = format!("{}.{number}", walls.took.len());
                fs::write(std::path::Path::new(&folder).join(name), node.log())?;
            }
        }
        Ok(result)
    }
}

/// Waits for pulls that run at the same time.
pub(crate) async fn join(
    pulls: impl Iterator<Item = impl Future<Output = Result<Pulled>> + Send + 'static>,
) -> Result<Vec<Pulled>> {
    let mut pulled = Vec::new();
    for pull in pulls.map(tokio::spawn).collect::<Vec<_>>() {
        pulled.push(pull.await??);
    }
    Ok(pulled)
}

/// When the last of them had all.
pub(crate) fn end(pulled: &[Pulled], begun: Instant) -> Duration {
    let ends = pulled.iter().map(|pulled| pulled.last - begun);
    ends.max().unwrap_or_default()
}

impl Walls {
    /// What a pull by several took, beside the bound, and what it cost.
    pub(crate) fn report(self, report: &mut Report, what: &'static str, case: &str, most: f64) {
        report.add(Row {
            what,
            case: case.to_owned(),
            floor: "what the links allow",
            unit: "s",
            bar: Bar::Ratio(most),
            rounds: self.took,
        });
        report.add(Row {
            what: "bytes from the registry",
            case: format!("{case}, in {} requests", self.gets),
            floor: "the layers",
            unit: "MiB",
            bar: Bar::Ratio(1.01),
            rounds: self.asked,
        });
        report.add(Row {
            what: "the most that one node sent to others",
            case: case.to_owned(),
            floor: "the layers",
            unit: "MiB",
            bar: Bar::Open,
            rounds: self.sent,
        });
        report.add(Row {
            what: "processors busy with the nodes",
            case: case.to_owned(),
            floor: "with anything",
            unit: "",
            bar: Bar::Open,
            rounds: self.busy,
        });
    }
}

impl Spent {
    async fn by(nodes: &[Node]) -> Result<Self> {
        let (mut spent, mut most) = (0.0, 0.0_f64);
        for node in nodes {
            spent += node.spent()?;
            most = most.max(
                node.metric("layers_sent_bytes_total{sink=\"peer\"}")
                    .await?,
            );
        }
        let all = fs::read_to_string("/proc/stat")?;
        let all: Vec<f64> = all
            .lines()
            .next()
            .context("all processors")?
            .split_whitespace()
            .skip(1)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        // User, nice and system, interrupts of both kinds, and what the host took.
        let all = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| all.get(*at));
        Ok(Self {
            at: Instant::now(),
            all: all.sum::<f64>() / crate::node::TICKS,
            nodes: spent,
            sent: most,
        })
    }
}

/// Rounds of a pull by several, each on a bed of its own.
pub(crate) fn each_round() -> std::ops::Range<usize> {
    0..rounds()
}
