//! Of several controllers one leads: whoever holds a Lease and renews it.
//!
//! Times of different machines are never compared. A holder is away when its Lease did not change for as long as it lasts,
//! by the clock of who watches it; and it stops to lead earlier, by its own.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long a Lease lasts that nobody renews, as it says itself.
const LASTS: Duration = Duration::from_secs(15);
/// How long one leads who can not renew it.
const LEADS: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at.
const EVERY: Duration = Duration::from_secs(2);

/// A Lease to be held.
#[derive(Clone, Debug)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    /// Who we are; no two that run are called the same.
    identity: String,
}

/// The last state of the Lease that was seen, and when it was first seen so.
#[derive(Debug, Default)]
struct Watched(Option<(String, Instant)>);

impl Election {
    /// One for the Lease of this name.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
        }
    }

    /// Does `work` for as long as it leads, again and again, until the token is set; then it gives the Lease up.
    ///
    /// The work is dropped wherever it waits once it leads no longer.
    pub async fn lead<F: Future<Output = ()>>(
        self,
        shutdown: CancellationToken,
        mut work: impl FnMut() -> F,
    ) {
        loop {
            let since = tokio::select! {
                since = self.elected() => since,
                () = shutdown.cancelled() => return,
            };
            info!(lease = self.name, "this controller leads");
            tokio::select! {
                () = work() => {}
                () = self.renewed(since) => warn!(lease = self.name, "this controller leads no longer"),
                () = shutdown.cancelled() => {}
            }
            if shutdown.is_cancelled() {
                self.give_up().await;
                return;
            }
        }
    }

    /// Waits until we hold it, and says since when at least.
    async fn elected(&self) -> Instant {
        let mut watched = Watched::default();
        loop {
            let begun = Instant::now();
            match self.hold(&mut watched).await {
                Ok(true) => return begun,
                Ok(false) => {}
                Err(error) => debug!(error = format!("{error:#}"), "the Lease can not be had"),
            }
            time::sleep(EVERY).await;
        }
    }

    /// Renews it, and ends when it is another's, or could not be renewed for too long.
    async fn renewed(&self, mut last: Instant) {
        loop {
            time::sleep(EVERY).await;
            let begun = Instant::now();
            let mut watched = Watched::default();
            let asked = time::timeout_at(last + LEADS, self.hold(&mut watched));
            match asked.await {
                Ok(Ok(true)) => last = begun,
                Ok(Err(error)) if last.elapsed() < LEADS => {
                    warn!(error = format!("{error:#}"), "the Lease is not renewed");
                }
                Ok(Ok(false) | Err(_)) | Err(_) => return,
            }
        }
    }

    /// Takes it if it is free or ours, and says whether we have it now.
    async fn hold(&self, watched: &mut Watched) -> Result<bool> {
        let found = answered(self.leases.get_opt(&self.name)).await?;
        let Some(lease) = found else {
            let new = self.next(None);
            let params = PostParams::default();
            return won(answered(self.leases.create(&params, &new)).await);
        };
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref());
        let free = holder.is_none_or(|holder| holder.is_empty() || holder == self.identity);
        if !free && !watched.is_away(&lease, Instant::now()) {
            return Ok(false);
        }
        // It names the version it comes after: of several who saw it free, one is first.
        let next = self.next(Some(lease));
        let params = PostParams::default();
        won(answered(self.leases.replace(&self.name, &params, &next)).await)
    }

    /// What the Lease is to become.
    fn next(&self, before: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let (metadata, before) = match before {
            Some(lease) => (lease.metadata, lease.spec.unwrap_or_default()),
            None => (
                ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                LeaseSpec::default(),
            ),
        };
        let same = before.holder_identity.as_deref() == Some(&*self.identity);
        let changes = before.lease_transitions.unwrap_or(0) + i32::from(!same);
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
                acquire_time: before.acquire_time.filter(|_| same).or(Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(changes),
                ..before
            }),
        }
    }

    /// Lets another have it at once.
    async fn give_up(&self) {
        let given = async {
            let mut lease = answered(self.leases.get(&self.name)).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&*self.identity) {
                spec.holder_identity = None;
                let params = PostParams::default();
                answered(self.leases.replace(&self.name, &params, &lease)).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = given.await {
            info!(
                error = format!("{error:#}"),
                "the Lease is not given up: another waits until it ends"
            );
        }
    }
}

impl Watched {
    /// Whether its holder did not renew it for as long as it lasts.
    fn is_away(&mut self, lease: &Lease, now: Instant) -> bool {
        let version = lease.metadata.resource_version.as_deref().unwrap_or("");
        let lasts = lease
            .spec
            .as_ref()
            .and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
        match &self.0 {
            Some((seen, since)) if seen == version => {
                now - *since >= lasts.map_or(LASTS, Duration::from_secs)
            }
            _ => {
                self.0 = Some((version.to_owned(), now));
                false
            }
        }
    }
}

/// Whether what was put was put first.
fn won(put: Result<Lease>) -> Result<bool> {
    match put {
        Ok(_) => Ok(true),
        Err(error) => match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            _ => Err(error),
        },
    }
}

async fn answered<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match time::timeout(LEADS / 2, asked).await {
        Ok(answer) => answer.context("asking for the Lease"),
        Err(_) => bail!("asking for the Lease takes too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.to_owned());
        lease
            .spec
            .get_or_insert_default()
            .lease_duration_seconds
            .replace(30);
        lease
    }

    #[test]
    fn a_holder_is_away_when_its_lease_did_not_change_for_as_long_as_it_lasts() {
        let (mut watched, start) = (Watched::default(), Instant::now());
        let mut is_away =
            |version, after| watched.is_away(&lease(version), start + Duration::from_secs(after));

        assert!(!is_away("1", 0));
        assert!(!is_away("1", 29));
        assert!(!is_away("2", 58), "it was renewed meanwhile");
        assert!(!is_away("2", 87));
        assert!(is_away("2", 88));
    }
}
