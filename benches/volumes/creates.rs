//! Volumes created by one client, and by 64 at once.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::Ground;
use crate::bare::Bare;
use crate::node::{Client, Node};
use crate::report::{Bar, Report, Round, Row, median};

const ROUNDS: usize = 9;
const CALLS: usize = 21;
pub(crate) const CLIENTS: usize = 64;
const EACH: usize = 6;

pub(crate) async fn measure(ground: &Ground, report: &mut Report) -> Result<()> {
    let node = Node::start("directory", &ground.place("creates")?).await?;
    let bare = Arc::new(Bare::new(ground.place("creates-bare")?)?);
    fill(&node, 100).await?;
    one(&node.client, &bare, report).await?;
    many(&node, &bare, report).await
}

/// Makes so many volumes, by many clients at once.
pub(crate) async fn fill(node: &Node, count: usize) -> Result<()> {
    let each = count.div_ceil(CLIENTS);
    let clients = clients(node).await?;
    let mut running = JoinSet::new();
    for (client, start) in clients.into_iter().zip((0..count).step_by(each)) {
        running.spawn(async move {
            for number in start..count.min(start + each) {
                client.tree(format!("present-{number:05}")).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

async fn clients(node: &Node) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(node.connect().await?);
    }
    Ok(clients)
}

async fn one(client: &Client, bare: &Bare, report: &mut Report) -> Result<()> {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let (mut ours, mut floor, mut made) = (Vec::new(), Vec::new(), Vec::new());
        for call in 0..CALLS {
            let name = format!("one-{round}-{call}");
            floor.push(bare.create(&name)?);
            let begun = Instant::now();
            made.push(client.tree(name).await?);
            ours.push(begun.elapsed());
        }
        rounds.push(Round::of(median(ours), median(floor)));
        for volume in made {
            client.delete(volume).await?;
        }
    }
    report.add(Row {
        what: "CreateVolume",
        case: "tree, durable, one client, p50".to_owned(),
        floor: "mkdir, write, fsync, rename, fsync",
        unit: "ms",
        bar: Bar::Ratio(1.5),
        rounds,
    });
    Ok(())
}

async fn many(node: &Node, bare: &Arc<Bare>, report: &mut Report) -> Result<()> {
    let clients = clients(node).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let one = at_once(&clients[..1], round, CLIENTS).await?;
        let many = at_once(&clients, round, EACH).await?;
        ours.push(Round {
            ours: many,
            floor: one,
        });
        let one = bare_at_once(bare, 1, round, CLIENTS)?;
        let many = bare_at_once(bare, CLIENTS, round, EACH)?;
        theirs.push(Round {
            ours: many,
            floor: one,
        });
    }
    report.add(Row {
        what: "CreateVolume",
        case: "tree, durable, 64 clients".to_owned(),
        floor: "one client",
        unit: "per s",
        bar: Bar::Gain(4.0),
        rounds: ours.clone(),
    });
    report.add(Row {
        what: "mkdir, write, fsync, rename, fsync",
        case: "64 threads".to_owned(),
        floor: "one thread",
        unit: "per s",
        bar: Bar::Open,
        rounds: theirs.clone(),
    });
    let both = ours.iter().zip(&theirs);
    report.add(Row {
        what: "CreateVolume",
        case: "tree, durable, 64 clients".to_owned(),
        floor: "64 threads of mkdir, write, fsync, rename, fsync",
        unit: "per s",
        bar: Bar::Open,
        rounds: both
            .map(|(ours, theirs)| Round {
                ours: ours.ours,
                floor: theirs.ours,
            })
            .collect(),
    });
    Ok(())
}

/// Has each client create `each` volumes; gives how many that are in a second, and deletes them.
async fn at_once(clients: &[Client], round: usize, each: usize) -> Result<f64> {
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (number, client) in clients.iter().cloned().enumerate() {
        running.spawn(async move {
            let mut made = Vec::new();
            for call in 0..each {
                made.push(client.tree(format!("many-{round}-{number}-{call}")).await?);
            }
            anyhow::Ok((client, made))
        });
    }
    let made = running.join_all().await;
    let rate = rate(clients.len() * each, begun.elapsed());
    let mut ending = JoinSet::new();
    for one in made {
        let (client, made) = one?;
        ending.spawn(async move {
            for volume in made {
                client.delete(volume).await?;
            }
            anyhow::Ok(())
        });
    }
    ending
        .join_all()
        .await
        .into_iter()
        .collect::<Result<()>>()?;
    Ok(rate)
}

fn bare_at_once(bare: &Arc<Bare>, threads: usize, round: usize, each: usize) -> Result<f64> {
    let begun = Instant::now();
    let running: Vec<_> = (0..threads)
        .map(|number| {
            let bare = Arc::clone(bare);
            thread::spawn(move || {
                (0..each).try_for_each(|call| {
                    let name = format!("many-{threads}-{round}-{number}-{call}");
                    bare.create(&name).map(drop)
                })
            })
        })
        .collect();
    for one in running {
        one.join().ok().context("a thread died")??;
    }
    Ok(rate(threads * each, begun.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "a count of calls is small")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
