//! What the leading controller looks after: that what a Kubernetes records and what the nodes have are the same.
//!
//! It acts seldom, and never at first sight: what it sees may be half done. All that it remembers is since when it sees it,
//! which a new leader begins again.

mod findings;
mod lost;
mod missing;
mod orphans;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use self::lost::Released;
use self::missing::Missing;
use self::orphans::Orphans;
use super::Router;
use super::kubernetes::{All, Record, Records, heard};
use super::nodes::{Node, Outcome};
use crate::csi::proto::{ControllerGetVolumeRequest, ControllerGetVolumeResponse};
use crate::volume::VolumeId;

pub use self::findings::Findings;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);
/// How long a node may take to say what a volume is.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// When it acts.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a volume must be without a `PersistentVolume` until it is called an orphan.
    pub orphans_after: Duration,
    /// How long until it is deleted, if ever.
    pub delete_orphans_after: Option<Duration>,
    /// How long a node must be gone until claims to what is on it are released.
    pub release_claims_after: Duration,
}

/// What looks.
pub struct Reconciler {
    router: Router,
    client: Client,
    records: Records,
    patience: Patience,
    findings: Findings,
}

/// What there is, on both sides, at one moment.
struct Sight<'a> {
    at: Instant,
    /// The nodes that were heard.
    nodes: Vec<Arc<Node>>,
    /// What each of all nodes has.
    held: BTreeMap<Arc<str>, BTreeSet<VolumeId>>,
    /// The `PersistentVolume` objects of ours, by their names.
    recorded: BTreeMap<&'a str, &'a Record>,
}

impl Reconciler {
    /// One that sees through this router.
    pub fn new(
        router: Router,
        client: Client,
        records: Records,
        patience: Patience,
        findings: Findings,
    ) -> Self {
        Self {
            router,
            client,
            records,
            patience,
            findings,
        }
    }

    /// Looks again and again, until it is dropped.
    pub async fn look(&self) {
        let _forgets = Forgets(&self.findings);
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        // They come in pages, and of each only the record stays.
        let mut volumes = pin!(watcher(volumes, Config::default()).default_backoff());
        let mut known = All::<Option<Record>>::default();
        let (mut orphans, mut missing) = (Orphans::default(), Missing::default());
        let mut released = Released::default();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(event) = volumes.next() => {
                    heard("PersistentVolumes", event, |event| known.take(event, Record::of));
                }
                _ = ticks.tick() => {
                    if let Some(sight) = self.sight(&known) {
                        orphans.look(self, &sight).await;
                        missing.look(self, &sight).await;
                        self.tell(&orphans, &missing);
                        released.look(self, &sight).await;
                    }
                }
            }
        }
    }

    /// Nothing until both sides are known.
    fn sight<'a>(&self, known: &'a All<Option<Record>>) -> Option<Sight<'a>> {
        let all = self.router.nodes.all()?;
        let recorded = known.all()?;
        let recorded = recorded
            .filter_map(|(name, record)| Some((name, record.as_ref()?)))
            .collect();
        let held = |node: &Arc<Node>| {
            let volumes = self.router.inventory.volumes_of(&node.name);
            (Arc::clone(&node.name), volumes.into_iter().collect())
        };
        Some(Sight {
            at: Instant::now(),
            held: all.iter().map(held).collect(),
            nodes: all
                .into_iter()
                .filter(|node| node.seen.borrow().what == Outcome::Heard)
                .collect(),
            recorded,
        })
    }

    fn tell(&self, orphans: &Orphans, missing: &Missing) {
        let found: Vec<_> = orphans.found().chain(missing.found()).collect();
        self.findings.become_these(orphans.list(), &found);
    }

    /// What a node says of a volume.
    async fn ask(
        &self,
        node: &Node,
        id: &VolumeId,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let mut request = Request::new(ControllerGetVolumeRequest {
            volume_id: id.to_string(),
        });
        request.set_timeout(ANSWERS_WITHIN);
        let asked = node.call(request, |mut client, request| async move {
            client.controller_get_volume(request).await
        });
        let answer = tokio::time::timeout(ANSWERS_WITHIN, asked).await;
        answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("it takes too long")))
    }
}

impl fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patience = &self.patience;
        f.debug_struct("Reconciler")
            .field("patience", patience)
            .finish_non_exhaustive()
    }
}

/// Forgets what was found once nobody looks any more.
struct Forgets<'a>(&'a Findings);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.0.forget();
    }
}
