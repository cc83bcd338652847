//! Which nodes hold which blobs whole, as they told the homes of those blobs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::peers::Peers;
use crate::layers::fetch::Fetches;
use crate::layers::image::digest::Digest;
use crate::layers::members::Member;

/// More holders of one blob are not remembered: they are enough to choose from.
const MOST_HOLDERS: usize = 64;
/// More blobs are not remembered.
const MOST_BLOBS: usize = 200_000;
/// Digests told in one message.
const AT_ONCE: usize = 1000;
/// Changes that come closer together are told together.
const TOGETHER: Duration = Duration::from_millis(100);

/// What a home was told.
#[derive(Debug, Default)]
pub struct Holders(Mutex<HashMap<Digest, Vec<SocketAddr>>>);

impl Holders {
    /// Somebody holds these blobs.
    pub fn note(&self, from: SocketAddr, digests: Vec<Digest>) {
        let mut known = self.known();
        for digest in digests {
            if known.len() >= MOST_BLOBS && !known.contains_key(&digest) {
                break;
            }
            let holders = known.entry(digest).or_default();
            if holders.len() < MOST_HOLDERS && !holders.contains(&from) {
                holders.push(from);
            }
        }
    }

    /// Who holds a blob; the one that told last comes first.
    pub fn of(&self, digest: &Digest) -> Vec<SocketAddr> {
        let mut holders = self.known().get(digest).cloned().unwrap_or_default();
        holders.reverse();
        holders
    }

    /// Somebody who was thought to hold a blob did not give it.
    pub fn forget(&self, from: SocketAddr, digest: &Digest) {
        let mut known = self.known();
        if let Some(holders) = known.get_mut(digest) {
            holders.retain(|holder| *holder != from);
            if holders.is_empty() {
                known.remove(digest);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Vec<SocketAddr>>> {
        self.0.lock()
    }
}

/// Tells the homes of all blobs that this node holds, and again when a blob or a home is new, until `shutdown`.
pub async fn announce(fetches: Arc<Fetches>, peers: Arc<Peers>, shutdown: CancellationToken) {
    let mut others = peers.members.others();
    let mut told: HashMap<Digest, Vec<Member>> = HashMap::new();
    loop {
        fetches.metrics().peers(others.borrow_and_update().len());
        let mut news: HashMap<SocketAddr, Vec<Digest>> = HashMap::new();
        let held = fetches.all_held();
        told.retain(|digest, _| held.contains(digest));
        for digest in held {
            let homes = peers.members.homes(digest.seed());
            let before = told
                .insert(digest.clone(), homes.clone())
                .unwrap_or_default();
            for home in homes.into_iter().filter(|home| !before.contains(home)) {
                news.entry(home.address).or_default().push(digest.clone());
            }
        }
        for (home, digests) in news {
            for part in digests.chunks(AT_ONCE) {
                if let Err(trouble) = peers.tell_held(home, part).await {
                    tracing::debug!(%home, %trouble, "a home was not told what is here");
                    told.retain(|digest, _| !part.contains(digest));
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = others.changed() => {}
            () = fetches.kept() => {}
        }
        tokio::time::sleep(TOGETHER).await;
    }
}
