//! Blobs that containerd keeps as well are not kept twice: a lease holds them there for as long as they would be kept here.
//!
//! A lease is never made longer: every few hours a new one takes over from the one before, which ends by itself. So
//! nothing of ours stays in containerd for long when we are gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::containerd::Api;
use super::runtime::Runtime;
use super::store::{Held, Store};
use crate::layers::fetch::Fetches;
use crate::layers::image::digest::Digest;

/// How often blobs are looked for that are kept twice.
const ROUND: Duration = Duration::from_secs(10);
/// For how many seconds a lease is the newest; it holds what it holds as long again.
const PERIOD: i64 = 6 * 60 * 60;

/// The newest lease and the one before it.
struct Leases {
    names: [String; 2],
    end: Timestamp,
}

/// Until `shutdown`, drops blobs of our own that containerd keeps, too, and has it keep them within our quota.
pub async fn keep_once(fetches: Arc<Fetches>, shutdown: CancellationToken) {
    let (store, runtime) = (&fetches.sources.store, fetches.runtime());
    if store.quota() == 0 || runtime.blobs.is_none() {
        return;
    }
    let Some(api) = &runtime.api else { return };
    let mut rounds = tokio::time::interval(ROUND);
    while shutdown.run_until_cancelled(rounds.tick()).await.is_some() {
        match round(api, store, runtime).await {
            Ok(0) => {}
            Ok(dropped) => {
                fetches.let_go_of_dropped();
                tracing::info!(
                    dropped,
                    "dropped blobs that containerd keeps, and holds for us"
                );
            }
            Err(error) => tracing::debug!(
                error = format!("{error:#}"),
                "containerd holds nothing for us"
            ),
        }
    }
}

/// How many blobs of our own were dropped.
async fn round(api: &Api, store: &Store, runtime: &Runtime) -> Result<usize> {
    let leases = Leases::now()?;
    let [newest, before] = &leases.names;
    api.lease(newest, leases.end).await?;
    let mut held = api.held_by(newest).await?;
    for digest in api.held_by(before).await? {
        if !held.contains(&digest) {
            api.hold(newest, &digest).await?;
            held.insert(digest);
        }
    }
    let mut dropped = 0;
    for ours in tokio::task::block_in_place(|| twice(store, runtime))? {
        api.hold(newest, &ours.digest).await?;
        // A file that is there may be about to be removed; what containerd knows now, it keeps.
        if api.knows(&ours.digest).await? {
            store.remove(&ours.digest);
            dropped += 1;
        }
        held.insert(ours.digest);
    }
    let room = store.quota().saturating_sub(store.used());
    for digest in tokio::task::block_in_place(|| beyond(room, &held, runtime)) {
        leases.release(api, &digest).await?;
    }
    Ok(dropped)
}

/// Which blobs may go here, because containerd seems to have them.
fn twice(store: &Store, runtime: &Runtime) -> Result<Vec<Held>> {
    let mut ours = store.list()?;
    ours.retain(|ours| runtime.find(&ours.digest).is_some() && !store.is_pinned(&ours.digest));
    Ok(ours)
}

/// Which blobs are held in vain, because they are not there, or for which there is no room: the least recently used ones.
fn beyond(room: u64, held: &HashSet<Digest>, runtime: &Runtime) -> Vec<Digest> {
    let mut there: Vec<_> = held
        .iter()
        .filter_map(|digest| runtime.look(digest))
        .collect();
    there.sort_by_key(|blob| std::cmp::Reverse(blob.used));
    let mut taken = 0;
    there.retain(|blob| {
        let fits = taken + blob.size <= room;
        taken += if fits { blob.size } else { 0 };
        fits
    });
    let stay: HashSet<_> = there.into_iter().map(|blob| blob.digest).collect();
    held.difference(&stay).cloned().collect()
}

impl Leases {
    fn now() -> Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let turn = i64::try_from(now.as_secs())? / PERIOD;
        let end = Timestamp::from_second((turn + 2) * PERIOD).context("the clock is wrong")?;
        let names = [turn, turn - 1].map(|turn| format!("orlop-layers-{turn}"));
        Ok(Self { names, end })
    }

    /// What either of them holds.
    async fn hold(&self, api: &Api) -> Result<HashSet<Digest>, Status> {
        let [newest, before] = &self.names;
        let mut held = api.held_by(newest).await?;
        held.extend(api.held_by(before).await?);
        Ok(held)
    }

    async fn release(&self, api: &Api, digest: &Digest) -> Result<()> {
        for lease in &self.names {
            api.release(lease, digest).await?;
        }
        Ok(())
    }
}

impl Runtime {
    /// The blobs that containerd holds for us; none if it does not answer.
    pub async fn leased(&self) -> Vec<Held> {
        let (Some(api), Ok(leases)) = (&self.api, Leases::now()) else {
            return Vec::new();
        };
        let held = leases.hold(api).await.unwrap_or_default();
        held.iter().filter_map(|digest| self.look(digest)).collect()
    }

    /// Lets containerd drop a blob that it holds for us; whether it did hold it.
    pub async fn release(&self, digest: &Digest) -> bool {
        let (Some(api), Ok(leases)) = (&self.api, Leases::now()) else {
            return false;
        };
        let held = leases.hold(api).await.unwrap_or_default();
        held.contains(digest) && leases.release(api, digest).await.is_ok()
    }

    fn look(&self, digest: &Digest) -> Option<Held> {
        let meta = self.find(digest)?.metadata().ok()?;
        Some(Held {
            digest: digest.clone(),
            size: meta.len(),
            used: meta.modified().ok()?,
        })
    }
}
