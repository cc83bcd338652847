//! The process by itself: its size, its memory at rest, and what a call costs that does nothing.

use std::fs;
use std::time::Instant;

use anyhow::Result;

use crate::Ground;
use crate::bare::Echo;
use crate::node::{BINARY, Node};
use crate::report::{Bar, Report, Round, Row, median};

const ROUNDS: usize = 9;
const CALLS: usize = 201;

pub(crate) async fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let node = Node::start("directory", &ground.place("process")?).await?;
    size(report)?;
    report.add(Row {
        what: "resident memory",
        case: "idle".to_owned(),
        floor: "its own code and data in files",
        unit: "MiB",
        bar: Bar::Most(15.0),
        rounds: vec![Round {
            ours: node.status("VmRSS")? / 1024.0,
            floor: node.status("RssFile")? / 1024.0,
        }],
    });
    probe(&node, report).await
}

#[expect(clippy::cast_precision_loss, reason = "a file of some megabytes")]
fn size(report: &mut Report) -> Result<()> {
    let bytes = fs::metadata(BINARY)?.len() as f64;
    report.add(Row {
        what: "binary",
        case: "stripped, release".to_owned(),
        floor: "itself",
        unit: "MB",
        bar: Bar::Most(25.0),
        rounds: vec![Round {
            ours: bytes / 1e6,
            floor: bytes / 1e6,
        }],
    });
    Ok(())
}

async fn probe(node: &Node, report: &mut Report) -> Result<()> {
    let mut echo = Echo::new()?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            floor.push(echo.call()?);
            let begun = Instant::now();
            node.client.probe().await?;
            ours.push(begun.elapsed());
        }
        rounds.push(Round::of(median(ours), median(floor)));
    }
    report.add(Row {
        what: "Probe",
        case: "one client, p50: what the wire costs".to_owned(),
        floor: "one byte over a Unix socket and back",
        unit: "ms",
        bar: Bar::Open,
        rounds,
    });
    Ok(())
}
