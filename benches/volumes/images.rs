//! Snapshots and clones of large and small images where the filesystem can share blocks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Ground;
use crate::bare::{self, Bare};
use crate::node::{Kind, Node, image};
use crate::report::{Bar, Report, Round, Row, median};

const ROUNDS: usize = 7;
const CALLS: usize = 7;
const SMALL: u64 = 1 << 20;
const LARGE: u64 = 1 << 30;

/// A pool with a small and a large volume, and the large one's image once more beside it.
struct Stock {
    node: Node,
    small: String,
    large: String,
    bare: Bare,
    file: File,
}

pub(crate) async fn measure(ground: &Ground, filesystem: &str, report: &mut Report) -> Result<()> {
    let place = match on_loop(ground, filesystem) {
        Ok(place) => place,
        Err(reason) => {
            report.skip(&format!("images on {filesystem}"), &format!("{reason:#}"));
            return Ok(());
        }
    };
    let stock = Stock::new(filesystem, &place).await?;
    snapshots(&stock, filesystem, report).await?;
    clones(&stock, filesystem, report).await
}

/// A new filesystem on a file, mounted as long as the run's namespace lasts.
fn on_loop(ground: &Ground, filesystem: &str) -> Result<PathBuf> {
    let place = ground.place(filesystem)?;
    let (file, mount) = (place.join("disk"), place.join("mount"));
    fs::create_dir(&mount)?;
    File::create(&file)?.set_len(6 << 30)?;
    let [file, mount_text] = [&file, &mount].map(|path| path.display().to_string());
    bare::tool(&format!("mkfs.{filesystem}"), &["-q", &file])?;
    bare::tool("mount", &["-oloop,noatime", &file, &mount_text])?;
    Ok(mount)
}

impl Stock {
    async fn new(filesystem: &str, place: &Path) -> Result<Self> {
        let kind = if filesystem == "btrfs" {
            "btrfs"
        } else {
            "directory"
        };
        let [pool, beside] = ["pool", "bare"].map(|name| place.join(name));
        fs::create_dir(&pool)?;
        fs::create_dir(&beside)?;
        let node = Node::start(kind, &pool).await?;
        let mut volumes = Vec::new();
        for (name, size) in [("small", SMALL), ("large", LARGE)] {
            let bytes = i64::try_from(size)?;
            let volume = node
                .client
                .create(name.to_owned(), Kind::Block, bytes, None)
                .await?;
            bare::fill(&image(&pool, &volume), size)?;
            volumes.push(volume);
        }
        let file = beside.join("large");
        bare::fill(&file, LARGE)?;
        Ok(Self {
            node,
            large: volumes.pop().unwrap_or_default(),
            small: volumes.pop().unwrap_or_default(),
            bare: Bare::new(beside)?,
            file: File::open(file)?,
        })
    }

    async fn snapshot(&self, of: &str, name: String) -> Result<Duration> {
        let begun = Instant::now();
        let snapshot = self.node.client.snapshot(of, name).await?;
        let took = begun.elapsed();
        self.node.client.delete_snapshot(snapshot).await?;
        Ok(took)
    }

    async fn clone_of(&self, of: &str, size: u64, name: String) -> Result<Duration> {
        let (begun, size) = (Instant::now(), i64::try_from(size)?);
        let clone = self
            .node
            .client
            .create(name, Kind::Block, size, Some(of))
            .await?;
        let took = begun.elapsed();
        self.node.client.delete(clone).await?;
        Ok(took)
    }
}

async fn snapshots(stock: &Stock, filesystem: &str, report: &mut Report) -> Result<()> {
    let (mut rounds, mut beside) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut times: [Vec<_>; 3] = Default::default();
        for call in 0..CALLS {
            let name = |of: &str| format!("snapshot-{of}-{round}-{call}");
            times[0].push(stock.snapshot(&stock.large, name("large")).await?);
            times[1].push(stock.snapshot(&stock.small, name("small")).await?);
            times[2].push(stock.bare.clone_of(&stock.file, &name("bare"))?);
        }
        let [large, small, bare] = times.map(median);
        rounds.push(Round::of(large, small));
        beside.push(Round::of(large, bare));
    }
    let case = format!("1 GiB image on {filesystem}, p50");
    report.add(Row {
        what: "CreateSnapshot",
        case: case.clone(),
        floor: "the same of 1 MiB",
        unit: "ms",
        bar: Bar::Ratio(3.0),
        rounds,
    });
    report.add(Row {
        what: "CreateSnapshot",
        case,
        floor: "creat, FICLONE, fsync, rename, fsync",
        unit: "ms",
        bar: Bar::Open,
        rounds: beside,
    });
    Ok(())
}

async fn clones(stock: &Stock, filesystem: &str, report: &mut Report) -> Result<()> {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut times: [Vec<_>; 2] = Default::default();
        for call in 0..CALLS {
            let name = |of: &str| format!("clone-{of}-{round}-{call}");
            times[0].push(stock.clone_of(&stock.large, LARGE, name("large")).await?);
            times[1].push(stock.clone_of(&stock.small, SMALL, name("small")).await?);
        }
        let [large, small] = times.map(median);
        rounds.push(Round::of(large, small));
    }
    report.add(Row {
        what: "CreateVolume from a volume",
        case: format!("1 GiB image on {filesystem}, p50"),
        floor: "the same of 1 MiB",
        unit: "ms",
        bar: Bar::Ratio(3.0),
        rounds,
    });
    Ok(())
}
