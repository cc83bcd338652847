//! Getting a digest once, however many ask: from our disk, the runtime's, or whoever else has it.

pub mod connect;
mod disk;
pub mod fill;
mod gather;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};

use self::connect::Feed;
use self::fill::fill;
use crate::layers::blob::{Blob, Standing};
use crate::layers::disk::runtime::Runtime;
use crate::layers::disk::store::Store;
use crate::layers::image::digest::Digest;
use crate::layers::metrics::{Metrics, Source};
use crate::layers::miss::Miss;
use crate::layers::pace::Egress;
use crate::layers::swarm::Swarm;
use crate::layers::swarm::holders::Holders;
use crate::layers::swarm::peers::Peers;
use crate::layers::upstream::Upstream;
use crate::layers::upstream::flow::Ask;

/// More blobs than this are not kept open when nobody reads them.
const MOST_OPEN: usize = 256;
/// How often a blob that turns out to be broken is looked for anew before the client is told.
const ATTEMPTS: usize = 3;

type Cell = Arc<OnceCell<Arc<Swarm>>>;

/// Where blobs come from.
#[derive(Debug)]
pub struct Sources {
    /// Our disk.
    pub store: Store,
    /// The runtime of this node.
    pub runtime: Runtime,
    /// The other nodes; nothing if this one is alone.
    pub peers: Option<Arc<Peers>>,
    /// The registries.
    pub upstream: Arc<Upstream>,
    /// How fast bytes go to other nodes.
    pub egress: Egress,
}

/// All blobs that are open, whole or arriving, and where to get others.
#[derive(Debug)]
pub struct Fetches {
    pub(in crate::layers) sources: Sources,
    metrics: Arc<Metrics>,
    holders: Holders,
    kept: Notify,
    open: Mutex<HashMap<Digest, Cell>>,
}

impl Fetches {
    /// With nothing open.
    pub fn new(sources: Sources, metrics: Arc<Metrics>) -> Arc<Self> {
        let fetches = Arc::new(Self {
            sources,
            metrics,
            holders: Holders::default(),
            kept: Notify::new(),
            open: Mutex::default(),
        });
        fetches.metrics.watch(&fetches);
        fetches
    }

    /// The blob, of which the first chunk is ready; the rest may still be arriving.
    ///
    /// All who ask while it arrives share one fetch. It goes on when they hang up.
    pub async fn get(self: &Arc<Self>, ask: &Ask) -> Result<Arc<Blob>, Miss> {
        let mut miss = Miss::NotFound;
        for _ in 0..ATTEMPTS {
            let swarm = self.swarm(ask).await?;
            match swarm.blob.ready(0).await {
                Ok(()) => {
                    swarm.blob.used_now();
                    return Ok(swarm.blob.clone());
                }
                Err(why) => miss = Miss::Unavailable(why.to_string()),
            }
        }
        Err(miss)
    }

    /// The blob and those around it, perhaps without any chunk yet.
    pub async fn swarm(self: &Arc<Self>, ask: &Ask) -> Result<Arc<Swarm>, Miss> {
        loop {
            let cell = self.cell(&ask.digest);
            let (fetches, wanted, opened) = (self.clone(), ask.clone(), cell.clone());
            // A task of its own, so that a client who hangs up does not take the fetch along.
            let opening = tokio::spawn(async move {
                let found = opened.get_or_try_init(|| fetches.find(wanted)).await;
                found.cloned()
            });
            let found = match opening.await {
                Ok(found) => found.inspect_err(|_| self.forget(&ask.digest, &cell))?,
                Err(panic) => return Err(Miss::Unavailable(panic.to_string())),
            };
            if is_sound(&found.blob) {
                return Ok(found);
            }
            self.forget(&ask.digest, &cell);
        }
    }

    /// The blob, if it is on this node already, whole or arriving.
    pub fn here(self: &Arc<Self>, digest: &Digest) -> Option<Arc<Swarm>> {
        let cell = self.open.lock().get(digest).cloned();
        if let Some(swarm) = cell.as_ref().and_then(|cell| cell.get()) {
            return is_sound(&swarm.blob).then(|| swarm.clone());
        }
        if cell.is_some() {
            return None;
        }
        let found = self.clone().local(digest)?;
        let cell = self.cell(digest);
        // Somebody may have been faster.
        let _ = cell.set(found);
        cell.get().cloned()
    }

    /// The length of the blob, if it is on this node already.
    pub fn size(self: &Arc<Self>, digest: &Digest) -> Option<u64> {
        self.here(digest).map(|swarm| swarm.blob.size())
    }

    /// Every blob that is on this node whole.
    pub fn all_held(&self) -> HashSet<Digest> {
        let ours = self.sources.store.list().unwrap_or_default();
        let ours = ours.into_iter().map(|held| held.digest);
        ours.chain(self.sources.runtime.list()).collect()
    }

    /// Waits until a further blob is held.
    pub async fn kept(&self) {
        self.kept.notified().await;
    }

    /// The registries.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.sources.upstream
    }

    /// The runtime of this node.
    pub fn runtime(&self) -> &Runtime {
        &self.sources.runtime
    }

    /// The other nodes.
    pub fn peers(&self) -> Option<&Arc<Peers>> {
        self.sources.peers.as_ref()
    }

    /// What others told this node as the home of their blobs.
    pub fn holders(&self) -> &Holders {
        &self.holders
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Does not ask a peer for a while, because it did not answer.
    pub fn avoid(&self, peer: SocketAddr) {
        if let Some(peers) = self.peers() {
            peers.members.avoid(peer);
            self.metrics.silent();
        }
    }

    /// Does not ask a peer for long, because it sent a wrong byte.
    pub fn ban(&self, peer: SocketAddr) {
        if let Some(peers) = self.peers() {
            peers.members.ban(peer);
            self.metrics.banned();
        }
    }

    fn cell(&self, digest: &Digest) -> Cell {
        let mut open = self.open.lock();
        if open.len() >= MOST_OPEN {
            let is_used = |swarm: &Arc<Swarm>| {
                Arc::strong_count(swarm) > 1 || Arc::strong_count(&swarm.blob) > 1
            };
            open.retain(|_, cell| Arc::strong_count(cell) > 1 || cell.get().is_some_and(is_used));
        }
        open.entry(digest.clone()).or_default().clone()
    }

    fn forget(&self, digest: &Digest, cell: &Cell) {
        let mut open = self.open.lock();
        if open.get(digest).is_some_and(|kept| Arc::ptr_eq(kept, cell)) {
            open.remove(digest);
        }
    }

    /// The walk of a digest: our disk, the runtime's, then everybody else.
    async fn find(self: Arc<Self>, mut ask: Ask) -> Result<Arc<Swarm>, Miss> {
        if let Some(found) = self.clone().local(&ask.digest) {
            return Ok(found);
        }
        if self.sources.store.keeps_nothing() {
            return Err(Miss::NoRoom);
        }
        let (size, feed) = self.connect(&mut ask, None).await?;
        let size = size.ok_or(Miss::NoRoom)?;
        let (file, partial) = self.clone().begin(ask.digest.clone(), size).await?;
        self.metrics.hit(match feed {
            Feed::Peer(..) => Source::Peer,
            Feed::Upstream(_) => Source::Upstream,
        });
        let swarm = Swarm::new(Blob::new(ask.digest.clone(), size, file));
        if let Some(offer) = &ask.offer {
            swarm.accept(offer);
        }
        let filled = swarm.clone();
        tokio::spawn(async move {
            let blob = filled.blob.clone();
            match fill(self.clone(), ask, filled, feed).await {
                Ok(()) => self.keep(blob, partial).await,
                Err(why) => {
                    tracing::warn!(digest = %blob.digest(), why, "a fetch failed");
                    self.metrics.failed();
                    blob.break_off(&why);
                }
            }
        });
        Ok(swarm)
    }
}

/// Whether a blob can still be read: it did not break, its disk did not fail, and nobody wrote to its file.
fn is_sound(blob: &Blob) -> bool {
    !blob.is_lost() && blob.untouched() && !matches!(blob.standing(), Standing::Broken(_))
}
