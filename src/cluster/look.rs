//! Looking at a node: what it has, and how much room is left, again and again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};

use super::inventory::{Inventory, Key};
use super::nodes::{Node, Nodes, Outcome, Seen, trouble};
use crate::csi::proto::controller_client::ControllerClient;
use crate::csi::proto::inspection::ListPoolsRequest;
use crate::csi::proto::inspection::inspection_client::InspectionClient;
use crate::csi::proto::{ListSnapshotsRequest, ListVolumesRequest};
use crate::volume::{self, Error};

/// How often a node that answers is looked at; what it was asked in between is known anyway.
const EVERY: Duration = Duration::from_mins(1);
/// How often one that does not answer is tried.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How many nodes are looked at, at once; of those that were silent the last time so few that others need not wait.
const LOOKS: (usize, usize) = (128, 16);
/// How long a call waits for a node that is being looked at; for all of them, of which most wait for their turn.
const LOOK_WITHIN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(10));
/// How often it sees whether it waits for one that says nothing.
const GLANCE: Duration = Duration::from_millis(500);
/// How many entries are asked for at a time.
const PAGE: i32 = 1000;

/// Whose turn it is to be looked at.
#[derive(Debug)]
pub(super) struct Turns {
    others: Semaphore,
    silent: Semaphore,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            others: Semaphore::new(LOOKS.0),
            silent: Semaphore::new(LOOKS.1),
        }
    }

    /// Waits for one that a node of this outcome may have.
    pub(super) async fn of(&self, outcome: &Outcome) -> Option<SemaphorePermit<'_>> {
        let turns = match outcome {
            Outcome::Silent(_) => &self.silent,
            Outcome::New | Outcome::Heard => &self.others,
        };
        // They are never closed.
        turns.acquire().await.ok()
    }
}

impl Nodes {
    /// Looks at all nodes again, and waits until it is done, except for those that were silent last time.
    ///
    /// # Errors
    /// `Unreachable` while it is not known which there are, and when there are more than can be looked at in time.
    pub(super) async fn look_again(&self) -> volume::Result<()> {
        Self::look_at(&self.known()?).await
    }

    /// The same, of these nodes.
    pub(super) async fn look_at(nodes: &[Arc<Node>]) -> volume::Result<()> {
        let now = Instant::now();
        let asked: Vec<_> = nodes
            .iter()
            .filter(|node| !matches!(node.seen.borrow().what, Outcome::Silent(_)))
            .collect();
        for node in &asked {
            node.look.notify_one();
        }
        for node in &asked {
            while !node.is_seen_since(now).await {
                if node.is_looked_at_for() > LOOK_WITHIN.0 {
                    node.is_silent("it did not say in time what it has".into());
                    break;
                }
                if now.elapsed() > LOOK_WITHIN.1 {
                    return Err(Error::Unreachable(
                        "the nodes are still being asked what they have: ask again".into(),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Node {
    /// Waits for a glance whether it was looked at since then. One that left meanwhile is not waited for.
    async fn is_seen_since(&self, then: Instant) -> bool {
        let mut seen = self.seen.subscribe();
        let looked = seen.wait_for(|seen| seen.at >= then);
        tokio::time::timeout(GLANCE, looked).await.is_ok()
    }

    fn is_looked_at_for(&self) -> Duration {
        let since = *self.looking.lock();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Looks at the node until it is dropped or the token is set; sooner than planned when it is told so.
pub(super) async fn again_and_again(
    node: Weak<Node>,
    told: Arc<Notify>,
    inventory: Arc<Inventory>,
    turns: Arc<Turns>,
    looks: Histogram,
    stop: CancellationToken,
) {
    let mut before = Outcome::New;
    loop {
        let wait = {
            let turn = turns.of(&before).await;
            // It is held only meanwhile: dropped by the others, it ends this.
            let Some(node) = node.upgrade() else { return };
            let mut looking = pin!(look(&node, &inventory, &looks));
            let in_time = tokio::time::timeout(LOOK_WITHIN.0, &mut looking).await;
            // One that says nothing for so long holds up nobody.
            drop(turn);
            let wait = match in_time {
                Ok(wait) => wait,
                Err(_) => looking.await,
            };
            before = node.seen.borrow().what.clone();
            spread(wait, &node.name)
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = told.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Half as much up to half as much again, by the name, so that many nodes are not looked at in one moment.
fn spread(wait: Duration, name: &str) -> Duration {
    let mut hash = DefaultHasher::new();
    name.hash(&mut hash);
    let part = u32::try_from(hash.finish() % 1000).expect("it is below 1000");
    wait / 2 + wait * part / 1000
}

/// Looks once, and says when to look again.
async fn look(node: &Node, inventory: &Inventory, looks: &Histogram) -> Duration {
    let at = Instant::now();
    let before = node.seen.borrow().what.clone();
    inventory.list_begins(&node.name);
    *node.looking.lock() = Some(at);
    let looked = tokio::time::timeout(LIMIT, ask(node)).await;
    let looked = looked.unwrap_or_else(|_| Err(Status::deadline_exceeded("it takes too long")));
    let (what, wait) = match looked {
        Ok((keys, room)) => {
            node.room.store(room, Ordering::Relaxed);
            inventory.list_ends(&node.name, keys.into_iter());
            looks.observe(at.elapsed().as_secs_f64());
            (Outcome::Heard, EVERY)
        }
        Err(status) => {
            let why = trouble(&status).unwrap_or_else(|| status.message().to_owned());
            (Outcome::Silent(why), TRY_EVERY)
        }
    };
    match &what {
        Outcome::Silent(why) if !matches!(before, Outcome::Silent(_)) => {
            warn!(node = %node.name, why, "a node does not say what it has");
        }
        Outcome::Heard if before != Outcome::Heard => {
            info!(node = %node.name, "a node has said what it has");
        }
        _ => {}
    }
    *node.looking.lock() = None;
    node.seen.send_replace(Seen { at, what });
    wait
}

/// All that the node has, and the room in its emptiest pool.
async fn ask(node: &Node) -> Result<(Vec<Key>, u64), Status> {
    let mut client = ControllerClient::new(node.channel());
    let mut keys = Vec::new();
    let mut starting_token = String::new();
    loop {
        let page = client.list_volumes(ListVolumesRequest {
            max_entries: PAGE,
            starting_token,
        });
        let page = page.await?.into_inner();
        let ids = page.entries.into_iter().filter_map(|entry| entry.volume);
        keys.extend(ids.filter_map(|volume| volume.volume_id.parse().ok().map(Key::Volume)));
        match turn(page.next_token) {
            ControlFlow::Continue(token) => starting_token = token,
            ControlFlow::Break(()) => break,
        }
    }
    starting_token = String::new();
    loop {
        let page = client.list_snapshots(ListSnapshotsRequest {
            max_entries: PAGE,
            starting_token,
            ..Default::default()
        });
        let page = page.await?.into_inner();
        let ids = page.entries.into_iter().filter_map(|entry| entry.snapshot);
        keys.extend(
            ids.filter_map(|snapshot| snapshot.snapshot_id.parse().ok().map(Key::Snapshot)),
        );
        match turn(page.next_token) {
            ControlFlow::Continue(token) => starting_token = token,
            ControlFlow::Break(()) => break,
        }
    }
    let mut inspection = InspectionClient::new(node.channel());
    let pools = inspection
        .list_pools(ListPoolsRequest {})
        .await?
        .into_inner()
        .pools;
    let room = pools.iter().map(|pool| pool.available_bytes).max();
    Ok((keys, room.unwrap_or(0)))
}

fn turn(next_token: String) -> ControlFlow<(), String> {
    if next_token.is_empty() {
        return ControlFlow::Break(());
    }
    ControlFlow::Continue(next_token)
}
