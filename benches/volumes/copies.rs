//! A snapshot that is a full copy, for want of shared blocks, and what other calls notice of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Ground;
use crate::bare::{self, Bare};
use crate::node::{Kind, Node, image};
use crate::report::{Bar, Report, Round, Row, median};

const ROUNDS: usize = 5;
const SIZE: u64 = 1 << 30;
const BEFORE: usize = 31;

/// A pool with a large image and a staged tree, and a place for the floors.
struct Stock {
    node: Node,
    large: String,
    tree: String,
    staging: PathBuf,
    target: PathBuf,
    bare: Bare,
    file: PathBuf,
    copy: PathBuf,
}

/// What unrelated calls took, and the bare work beside them.
#[derive(Default)]
struct Beside {
    create: Vec<Duration>,
    bare: Vec<Duration>,
    publish: Vec<Duration>,
    count: usize,
}

pub(crate) async fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let stock = Stock::new(&ground.place("copies")?).await?;
    let mut before = Beside::default();
    for _ in 0..BEFORE {
        before.once(&stock).await?;
    }
    let mut durable = Vec::new();
    let mut cached = Vec::new();
    let mut beside = Vec::new();
    for round in 0..ROUNDS {
        let (copied, synced) = copy(&stock)?;
        let begun = Instant::now();
        let snapshot = stock
            .node
            .client
            .snapshot(&stock.large, format!("alone-{round}"))
            .await?;
        let ours = begun.elapsed();
        stock.node.client.delete_snapshot(snapshot).await?;
        durable.push(throughput(ours, synced));
        cached.push(throughput(ours, copied));
        beside.push(meanwhile(&stock, round).await?);
    }
    add(report, "cp --sparse=always, fsync", Bar::Gain(0.8), durable);
    add(
        report,
        "cp --sparse=always, left in the cache",
        Bar::Open,
        cached,
    );
    unrelated(report, before, beside);
    Ok(())
}

impl Stock {
    async fn new(place: &Path) -> Result<Self> {
        let [pool, beside, mounts] = ["pool", "bare", "mounts"].map(|name| place.join(name));
        for directory in [&pool, &beside, &mounts] {
            fs::create_dir(directory)?;
        }
        let node = Node::start("directory", &pool).await?;
        let size = i64::try_from(SIZE)?;
        let large = node
            .client
            .create("large".to_owned(), Kind::Block, size, None)
            .await?;
        bare::fill(&image(&pool, &large), SIZE)?;
        let (file, staging) = (beside.join("large"), mounts.join("staging"));
        bare::fill(&file, SIZE)?;
        let tree = node.client.tree("tree".to_owned()).await?;
        node.client.stage(&tree, &staging).await?;
        Ok(Self {
            copy: beside.join("copy"),
            target: mounts.join("target"),
            bare: Bare::new(beside)?,
            node,
            large,
            tree,
            staging,
            file,
        })
    }
}

impl Beside {
    async fn once(&mut self, stock: &Stock) -> Result<()> {
        let client = &stock.node.client;
        let name = format!("unrelated-{}-{}", self.count, self.bare.len());
        self.count += 1;
        let begun = Instant::now();
        let volume = client.tree(name.clone()).await?;
        self.create.push(begun.elapsed());
        self.bare.push(stock.bare.create(&name)?);
        let begun = Instant::now();
        client
            .publish(&stock.tree, &stock.staging, &stock.target)
            .await?;
        self.publish.push(begun.elapsed());
        client.unpublish(&stock.tree, &stock.target).await?;
        client.delete(volume).await
    }
}

/// The floor: how long `cp` takes, and how long until its copy is durable.
fn copy(stock: &Stock) -> Result<(Duration, Duration)> {
    let [from, to] = [&stock.file, &stock.copy].map(|path| path.display().to_string());
    let begun = Instant::now();
    bare::tool("cp", &["--sparse=always", "--reflink=never", &from, &to])?;
    let copied = begun.elapsed();
    File::open(&stock.copy)?.sync_all()?;
    let synced = begun.elapsed();
    fs::remove_file(&stock.copy)?;
    Ok((copied, synced))
}

/// Unrelated calls as long as a snapshot is taken.
async fn meanwhile(stock: &Stock, round: usize) -> Result<Beside> {
    let mut beside = Beside {
        count: (round + 1) * 1000,
        ..Beside::default()
    };
    let (client, large) = (stock.node.client.clone(), stock.large.clone());
    let copying =
        tokio::spawn(async move { client.snapshot(&large, format!("busy-{round}")).await });
    while !copying.is_finished() {
        beside.once(stock).await?;
    }
    stock.node.client.delete_snapshot(copying.await??).await?;
    Ok(beside)
}

fn throughput(ours: Duration, floor: Duration) -> Round {
    #[expect(clippy::cast_precision_loss, reason = "a power of two")]
    let rate = |time: Duration| SIZE as f64 / 1e6 / time.as_secs_f64();
    Round {
        ours: rate(ours),
        floor: rate(floor),
    }
}

fn add(report: &mut Report, floor: &'static str, bar: Bar, rounds: Vec<Round>) {
    report.add(Row {
        what: "CreateSnapshot by copying",
        case: "1 GiB image, durable".to_owned(),
        floor,
        unit: "MB/s",
        bar,
        rounds,
    });
}

fn unrelated(report: &mut Report, before: Beside, beside: Vec<Beside>) {
    let [create, bare, publish] = [before.create, before.bare, before.publish].map(median);
    let mut rounds: [Vec<Round>; 4] = Default::default();
    for round in beside {
        let (busy_create, busy_bare) = (median(round.create), median(round.bare));
        rounds[0].push(Round::of(busy_create, busy_bare));
        rounds[1].push(Round::of(busy_create, create));
        rounds[2].push(Round::of(busy_bare, bare));
        rounds[3].push(Round::of(median(round.publish), publish));
    }
    let [beside_bare, create, bare, publish] = rounds;
    let loop_meanwhile = "mkdir, write, fsync, rename, fsync meanwhile";
    for (what, floor, bar, rounds) in [
        ("CreateVolume", loop_meanwhile, Bar::Ratio(1.5), beside_bare),
        ("CreateVolume", "the same before", Bar::Open, create),
        (
            "mkdir, write, fsync, rename, fsync",
            "the same before",
            Bar::Open,
            bare,
        ),
        (
            "NodePublishVolume",
            "the same before",
            Bar::Ratio(1.5),
            publish,
        ),
    ] {
        report.add(Row {
            what,
            case: "while 1 GiB is copied, p50".to_owned(),
            floor,
            unit: "ms",
            bar,
            rounds,
        });
    }
}
