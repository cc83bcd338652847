//! What grows with the number of volumes: creating one more, listing them, starting, memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Ground;
use crate::bare;
use crate::creates::fill;
use crate::node::{BINARY, Node};
use crate::report::{Bar, Report, Round, Row, median, ms};

const ROUNDS: usize = 9;
const CALLS: usize = 15;
const STARTS: usize = 7;
const MANY: usize = 10_000;
const FEW: usize = 100;
const KIB_IN_MIB: f64 = 1024.0;

pub(crate) async fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let (few, many) = (ground.place("few")?, ground.place("many")?);
    let [of_few, of_many] = [
        Node::start("directory", &few).await?,
        Node::start("directory", &many).await?,
    ];
    fill(&of_few, FEW).await?;
    fill(&of_many, MANY).await?;
    creates(&of_few, &of_many, report).await?;
    list(&of_many, &many, report).await?;
    report.add(memory(&of_few, &of_many, "as they were made")?);
    drop((of_few, of_many));
    start(&few, &many, report).await
}

async fn creates(of_few: &Node, of_many: &Node, report: &mut Report) -> Result<()> {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut times = [Vec::new(), Vec::new()];
        let mut made = Vec::new();
        for call in 0..CALLS {
            for (times, node) in times.iter_mut().zip([of_many, of_few]) {
                let begun = Instant::now();
                let volume = node.client.tree(format!("more-{round}-{call}")).await?;
                times.push(begun.elapsed());
                made.push((node, volume));
            }
        }
        for (node, volume) in made {
            node.client.delete(volume).await?;
        }
        let [many, few] = times.map(median);
        rounds.push(Round::of(many, few));
    }
    report.add(Row {
        what: "CreateVolume",
        case: "tree, one client, 10,000 present, p50".to_owned(),
        floor: "the same with 100 present",
        unit: "ms",
        bar: Bar::Ratio(1.2),
        rounds,
    });
    Ok(())
}

async fn list(node: &Node, place: &Path, report: &mut Report) -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let floor = bare::look_at_all(&place.join("volumes"), "volume.json")?;
        let begun = Instant::now();
        let found = node.client.list().await?;
        let ours = begun.elapsed();
        ensure!(found == MANY, "{found} volumes were listed, not {MANY}");
        rounds.push(Round::of(ours, floor));
    }
    report.add(Row {
        what: "ListVolumes",
        case: "10,000 in one answer".to_owned(),
        floor: "getdents64, and statx of each record",
        unit: "ms",
        bar: Bar::Most(50.0),
        rounds,
    });
    Ok(())
}

fn memory(of_few: &Node, of_many: &Node, when: &str) -> Result<Row> {
    let resident = |node: &Node| Ok::<_, anyhow::Error>(node.status("VmRSS")? / KIB_IN_MIB);
    Ok(Row {
        what: "resident memory",
        case: format!("10,000 volumes, {when}"),
        floor: "the same with 100 volumes",
        unit: "MiB",
        bar: Bar::Most(40.0),
        rounds: vec![Round {
            ours: resident(of_many)?,
            floor: resident(of_few)?,
        }],
    })
}

async fn start(few: &Path, many: &Path, report: &mut Report) -> Result<()> {
    let mut rounds = Vec::new();
    let mut settled = None;
    for _ in 0..STARTS {
        let floor = bare::tool(BINARY, &["--version"])?;
        let of_many = Node::start("directory", many).await?;
        rounds.push(Round {
            ours: ms(of_many.started_in),
            floor: ms(floor),
        });
        // Until it has read all records, a start is not over.
        of_many.client.list().await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let of_few = Node::start("directory", few).await?;
        of_few.client.list().await?;
        settled = Some(memory(&of_few, &of_many, "after a restart and a list")?);
    }
    report.add(Row {
        what: "process started to Probe answered",
        case: "10,000 volumes".to_owned(),
        floor: "orlop --version",
        unit: "ms",
        bar: Bar::Most(100.0),
        rounds,
    });
    if let Some(row) = settled {
        report.add(row);
    }
    Ok(())
}
