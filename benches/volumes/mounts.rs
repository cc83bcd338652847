//! Volumes published, counted and unpublished, with few mounts on the machine and with many.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::Ground;
use crate::bare;
use crate::node::Node;
use crate::report::{Bar, Report, Round, Row, median};

const ROUNDS: usize = 9;
const CALLS: usize = 51;
const MANY: usize = 10_000;
const LIMIT_MS: f64 = 0.7;

/// A staged volume, and a place for consumers' targets.
struct Staged {
    node: Node,
    volume: String,
    staging: PathBuf,
    targets: PathBuf,
    bare: PathBuf,
}

pub(crate) async fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let node = Node::start("directory", &ground.place("mounts")?).await?;
    let targets = ground.place("targets")?;
    let staged = Staged {
        volume: node.client.tree("mounted".to_owned()).await?,
        staging: targets.join("staging"),
        bare: targets.join("bare"),
        node,
        targets,
    };
    let client = &staged.node.client;
    client.stage(&staged.volume, &staged.staging).await?;
    fs::create_dir(&staged.bare)?;
    let faults = staged.node.faults_of_children()?;
    publish(&staged, "few mounts", Bar::Most(LIMIT_MS), report).await?;
    stats(&staged, report).await?;
    for other in 0..MANY {
        let target = staged.targets.join(format!("other-{other}"));
        fs::create_dir(&target)?;
        bare::bind(&staged.bare, &target)?;
    }
    publish(&staged, "10,000 mounts", Bar::Above(LIMIT_MS), report).await?;
    ensure!(
        faults == staged.node.faults_of_children()?,
        "a process was started for a mount or for figures"
    );
    for other in 0..MANY {
        bare::unbind(&staged.targets.join(format!("other-{other}")))?;
    }
    client.unstage(&staged.volume, &staged.staging).await
}

async fn publish(staged: &Staged, case: &str, bar: Bar, report: &mut Report) -> Result<()> {
    let Staged {
        node,
        volume,
        staging,
        targets,
        bare,
    } = staged;
    let (mut publishing, mut unpublishing) = (Vec::new(), Vec::new());
    let target = targets.join("pod");
    for _ in 0..ROUNDS {
        let mut times: [Vec<_>; 4] = Default::default();
        for _ in 0..CALLS {
            times[0].push(bare::bind(staging, bare)?);
            times[1].push(bare::unbind(bare)?);
            let begun = Instant::now();
            node.client.publish(volume, staging, &target).await?;
            times[2].push(begun.elapsed());
            let begun = Instant::now();
            node.client.unpublish(volume, &target).await?;
            times[3].push(begun.elapsed());
        }
        let [bind, unbind, publish, unpublish] = times.map(median);
        publishing.push(Round::of(publish, bind));
        unpublishing.push(Round::of(unpublish, unbind));
    }
    for (what, floor, rounds) in [
        ("NodePublishVolume", "open_tree, move_mount", publishing),
        ("NodeUnpublishVolume", "umount2", unpublishing),
    ] {
        report.add(Row {
            what,
            case: format!("tree, {case}, p50"),
            floor,
            unit: "ms",
            bar,
            rounds,
        });
    }
    Ok(())
}

async fn stats(staged: &Staged, report: &mut Report) -> Result<()> {
    let path: &Path = &staged.staging;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            floor.push(bare::space(path)?);
            let begun = Instant::now();
            staged.node.client.stats(&staged.volume, path).await?;
            ours.push(begun.elapsed());
        }
        rounds.push(Round::of(median(ours), median(floor)));
    }
    report.add(Row {
        what: "NodeGetVolumeStats",
        case: "tree, p50, no process started".to_owned(),
        floor: "statfs",
        unit: "ms",
        bar: Bar::Most(0.5),
        rounds,
    });
    Ok(())
}
