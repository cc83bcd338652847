//! One node alone, one that loses whom it is served by, and what memory they take.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use crate::bed::Bed;
use crate::node;
use crate::report::{Bar, Report, Round, Row, ms};
use crate::{LARGE, MIB};

/// One node through its cache, and one without: each round on other layers.
pub(crate) async fn alone(report: &mut Report) -> Result<()> {
    let bed = Bed::of(1, &[16 * MIB; 5]).await?;
    let below = format!("{}/v2/a/b/blobs/", bed.upstream.url);
    let mut rounds = Vec::new();
    for digest in bed.digests.chunks(1) {
        let begun = Instant::now();
        let ours = bed.nodes[0].pull(digest).await?.last - begun;
        let begun = Instant::now();
        let direct = node::pull(&bed.nodes[0].link, below.clone(), digest, node::AT_ONCE).await?;
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
pub(crate) async fn lost(report: &mut Report, signal: Signal, how: &str) -> Result<()> {
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
    Ok(())
}

pub(crate) async fn memory(report: &mut Report) -> Result<()> {
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
