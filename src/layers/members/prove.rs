//! Believing the gossip: a node that it tells of counts once it has answered for itself, over a connection on which it
//! proved who it is. So a forged datagram can make nobody a home.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Member;
use crate::layers::swarm::peers::Peers;

/// How soon one that did not answer for itself is asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// How many are asked at a time.
const AT_ONCE: usize = 16;

/// Until `shutdown`, asks everybody that the gossip tells of, and believes in those who answer.
pub async fn keep_proving(peers: Arc<Peers>, shutdown: CancellationToken) {
    let mut heard = peers.members.heard();
    let mut proven: HashSet<Member> = HashSet::new();
    loop {
        let told = heard.borrow_and_update().clone();
        proven.retain(|member| told.contains(member));
        // Who left is gone before the new ones have answered.
        believe(&peers, &told, &proven);
        let new = told.iter().filter(|member| !proven.contains(member));
        let mut asking = ask(&peers, new.cloned());
        while let Some(answered) = asking.join_next().await {
            if let Ok(Some(member)) = answered {
                proven.insert(member);
                believe(&peers, &told, &proven);
            }
        }
        let all = proven.len() == told.len();
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = heard.changed() => {}
            () = tokio::time::sleep(AGAIN), if !all => {}
        }
    }
}

/// Until `shutdown`, asks those for their keys for whom there is gossip, and of whom the gossip itself does not tell yet.
pub async fn keep_asking_for_keys(peers: Arc<Peers>, shutdown: CancellationToken) {
    let keys = &peers.members.keys;
    while let Some(lacking) = shutdown.run_until_cancelled(keys.lacking()).await {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let mut asking = JoinSet::new();
        for address in lacking {
            let (peers, slots) = (peers.clone(), slots.clone());
            asking.spawn(async move {
                let _slot = slots.acquire().await;
                if let Err(trouble) = peers.hello(address).await {
                    tracing::debug!(peer = %address, %trouble, "a node does not hand over its key");
                    peers.members.keys.forget(address);
                }
            });
        }
        while asking.join_next().await.is_some() {}
    }
}

/// Asks each of these who it is.
fn ask(peers: &Arc<Peers>, members: impl Iterator<Item = Member>) -> JoinSet<Option<Member>> {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for member in members {
        let (peers, slots) = (peers.clone(), slots.clone());
        asking.spawn(async move {
            let _slot = slots.acquire().await;
            match peers.hello(member.address).await {
                // Its generation may have grown, which changes nothing of who it is.
                Ok(answered) => {
                    let same = (answered.address, &answered.zone) == (member.address, &member.zone);
                    same.then_some(member)
                }
                Err(trouble) => {
                    tracing::debug!(peer = %member.address, %trouble, "a peer does not prove who it is");
                    None
                }
            }
        });
    }
    asking
}

fn believe(peers: &Peers, told: &[Member], proven: &HashSet<Member>) {
    let known = told.iter().filter(|member| proven.contains(member));
    peers.members.believe(known.cloned().collect());
}
