//! Layers that several nodes pull at the same time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bed::{Bed, Walls, each_round, end, join};
use crate::node;
use crate::report::{Bar, Report, Round, Row};
use crate::{LARGE, MIB};

pub(crate) async fn cold(report: &mut Report, nodes: u8, layers: &[usize]) -> Result<()> {
    let case = format!("{nodes} nodes, {} layers", layers.len());
    let (mut walls, mut firsts, mut direct) = (Walls::default(), Vec::new(), Vec::new());
    for _ in each_round() {
        let bed = Bed::of(nodes, layers).await?;
        let begun = Instant::now();
        let pull = async {
            let pulled = Bed::all_pull(&bed.nodes, &bed.digests).await?;
            Ok((end(&pulled, begun), pulled))
        };
        let pulled = bed.measure(&mut walls, pull).await?;
        let first = pulled.iter().map(|pulled| pulled.first);
        let (first, last) = (first.clone().min(), first.max());
        let (first, last) = first.zip(last).context("some have pulled")?;
        firsts.push(Round::of(last - begun, first - begun));
        if nodes == 8 && layers.len() == 1 && direct.is_empty() {
            direct.push(without(&bed).await?);
        }
    }
    walls.report(report, "cold, all together", &case, 1.2);
    report.add(Row {
        what: "the first byte at the last node",
        case,
        floor: "at the first, from the beginning",
        unit: "ms",
        bar: Bar::Above(50.0),
        rounds: firsts,
    });
    if !direct.is_empty() {
        report.add(Row {
            what: "direct pulls",
            case: format!("{nodes} nodes, without the cache"),
            floor: "what the links allow",
            unit: "s",
            bar: Bar::Open,
            rounds: direct,
        });
    }
    Ok(())
}

/// The same by the clients of the same nodes without a cache.
async fn without(bed: &Bed) -> Result<Round> {
    let begun = Instant::now();
    let below = format!("{}/v2/a/b/blobs/", bed.upstream.url);
    let pulls = bed.nodes.iter();
    let pulls = pulls.map(|at| node::pull(&at.link, below.clone(), &bed.digests, node::AT_ONCE));
    let pulled = join(pulls).await?;
    Ok(Round {
        ours: end(&pulled, begun).as_secs_f64(),
        floor: bed.bound(),
    })
}

/// Sixteen images, of one layer each, which every node pulls all at once.
pub(crate) async fn images(report: &mut Report) -> Result<()> {
    let mut walls = Walls::default();
    for _ in each_round() {
        let bed = Bed::of(8, &[4 * MIB; 16]).await?;
        let begun = Instant::now();
        let pull = async {
            let pulls = bed.nodes.iter().enumerate().map(|(number, node)| {
                let mut digests = bed.digests.clone();
                digests.rotate_left(number * 2);
                node.pull_at_once(&digests, digests.len())
            });
            Ok((end(&join(pulls).await?, begun), ()))
        };
        bed.measure(&mut walls, pull).await?;
    }
    walls.report(
        report,
        "16 images at once",
        "8 nodes, 4 MiB each, each node begins with others",
        1.3,
    );
    Ok(())
}

pub(crate) async fn warm(report: &mut Report) -> Result<()> {
    let mut walls = Walls::default();
    for _ in each_round() {
        let bed = Bed::of(8, &[LARGE]).await?;
        bed.nodes[0].pull(&bed.digests).await?;
        let begun = Instant::now();
        let pull = async {
            let pulled = Bed::all_pull(&bed.nodes[1..], &bed.digests).await?;
            Ok((end(&pulled, begun), ()))
        };
        bed.measure(&mut walls, pull).await?;
    }
    walls.report(report, "the rest together", "8 nodes, one has it", 1.2);
    Ok(())
}

pub(crate) async fn late(report: &mut Report) -> Result<()> {
    let mut walls = Walls::default();
    for _ in each_round() {
        let bed = Bed::of(8, &[LARGE]).await?;
        let pull = async {
            let pulls = bed.nodes[..4].iter().map(|node| node.pull(&bed.digests));
            let early: Vec<_> = pulls.map(tokio::spawn).collect();
            tokio::time::sleep(Duration::from_secs_f64(bed.bound() / 2.0)).await;
            let joined = Instant::now();
            let late = Bed::all_pull(&bed.nodes[4..], &bed.digests).await?;
            for pull in early {
                pull.await??;
            }
            Ok((end(&late, joined), ()))
        };
        bed.measure(&mut walls, pull).await?;
    }
    let case = "8 nodes, of which 4 join when half must be there";
    walls.report(report, "those that join at half time", case, 1.2);
    Ok(())
}
