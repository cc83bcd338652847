//! Volumes that no `PersistentVolume` names.
//!
//! Until a person or `--delete-orphans-after` decides, an orphan stays as it is: the name of a volume has its claim's UID in
//! it, so that no other claim can ever get it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::ListParams;
use tonic::{Code, Request};
use tracing::{info, warn};

use super::findings::Kind;
use super::{Reconciler, Sight};
use crate::cluster::inventory::Key;
use crate::cluster::kubernetes::Record;
use crate::cluster::nodes::Node;
use crate::csi::proto::inspection::Orphan;
use crate::csi::proto::{DeleteVolumeRequest, Volume};
use crate::names::{CLAIM_NAME, CLAIM_NAMESPACE, DOCKER, EPHEMERAL};
use crate::volume::VolumeId;

/// How long a deletion may take.
const DELETED_WITHIN: Duration = Duration::from_secs(30);
/// How many objects are asked for at a time.
const PAGE: u32 = 500;

/// The volumes without a record, by node and id.
#[derive(Debug, Default)]
pub(super) struct Orphans(BTreeMap<(Arc<str>, VolumeId), Alone>);

/// One of them.
#[derive(Debug)]
struct Alone {
    since: Instant,
    /// What its node says of it; asked when it is time to care.
    said: Option<Said>,
}

#[derive(Debug)]
struct Said {
    created: Option<Timestamp>,
    /// Whether a Kubernetes should have a record of it at all.
    recorded: bool,
    /// The claim that it was made for: its namespace and its name.
    claim: Option<(String, String)>,
}

impl Orphans {
    /// Notes who is alone, tells who is so for too long, and deletes those it was told to.
    pub(super) async fn look(&mut self, by: &Reconciler, sight: &Sight<'_>) {
        self.note(sight);
        for node in &sight.nodes {
            if self.ask(by, node, sight.at).await {
                by.tell_orphans(&node.name).await;
            }
        }
        if let Some(after) = by.patience.delete_orphans_after
            && let Err(error) = self.delete(by, sight, after).await
        {
            warn!(
                error = format!("{error:#}"),
                "orphans that should go stay for now"
            );
        }
    }

    /// Those that are orphans.
    pub(super) fn list(&self) -> Vec<Orphan> {
        let orphan = |(node, id): &(Arc<str>, VolumeId)| Orphan {
            volume_id: id.to_string(),
            node: node.to_string(),
        };
        self.orphans().map(|(at, _)| orphan(at)).collect()
    }

    pub(super) fn found(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.orphans().map(|((node, _), _)| (&**node, Kind::Volume))
    }

    fn orphans(&self) -> impl Iterator<Item = (&(Arc<str>, VolumeId), &Said)> {
        let said = |(at, alone)| Some((at, Alone::said(alone)?));
        self.0.iter().filter_map(said)
    }

    fn note(&mut self, sight: &Sight<'_>) {
        let recorded: BTreeMap<_, _> = sight
            .recorded
            .values()
            .map(|record| (&record.volume, record.node.as_deref()))
            .collect();
        let is_named = |id: &VolumeId, node: &str| {
            let at = recorded.get(id);
            at.is_some_and(|at| at.is_none_or(|at| at == node))
        };
        let is_alone = |(node, id): &(Arc<str>, VolumeId)| {
            let held = sight.held.get(node);
            held.is_some_and(|held| held.contains(id)) && !is_named(id, node)
        };
        self.0.retain(|at, _| is_alone(at));
        for (node, held) in &sight.held {
            for id in held.iter().filter(|id| !is_named(id, node)) {
                let at = (Arc::clone(node), id.clone());
                self.0.entry(at).or_insert(Alone {
                    since: sight.at,
                    said: None,
                });
            }
        }
    }

    /// Asks a node for those of its volumes that are alone for long, and says whether there are new orphans among them.
    async fn ask(&mut self, by: &Reconciler, node: &Node, at: Instant) -> bool {
        let mut new = false;
        let of_node = self
            .0
            .iter_mut()
            .filter(|((name, _), _)| *name == node.name);
        for ((_, id), alone) in of_node {
            if alone.said.is_some() || at - alone.since < by.patience.orphans_after {
                continue;
            }
            let said = match by.ask(node, id).await {
                Ok(answer) => Said::of(answer.into_inner().volume.unwrap_or_default()),
                // It went meanwhile; the next look at the node shows it.
                Err(status) if status.code() == Code::NotFound => continue,
                // Nor will it say more of the others now.
                Err(_) => return new,
            };
            if said.is_older_than(by.patience.orphans_after) {
                new |= said.recorded;
                alone.said = Some(said);
            }
        }
        new
    }

    /// Deletes those whose time has come.
    async fn delete(&mut self, by: &Reconciler, sight: &Sight<'_>, after: Duration) -> Result<()> {
        let due = |(at, alone): (&(Arc<str>, VolumeId), &Alone)| {
            let said = alone.said()?;
            // What was not made for a claim is for whoever made it to delete.
            let claim = said.claim.clone()?;
            let long = sight.at - alone.since >= after && said.is_older_than(after);
            long.then(|| (at.clone(), claim))
        };
        let due: Vec<_> = self.0.iter().filter_map(due).collect();
        if due.is_empty() {
            return Ok(());
        }
        // What was seen may be old by now.
        let named = by.named_now(due.iter().map(|((_, id), _)| id)).await?;
        for ((node, id), claim) in due {
            let heard = sight.nodes.iter().find(|heard| heard.name == node);
            if let Some(heard) = heard
                && !named.contains(&id)
                && !by.is_awaited(&id, &claim).await?
                && by.delete_orphan(heard, &id).await
            {
                self.0.remove(&(node, id));
            }
        }
        Ok(())
    }
}

impl Alone {
    /// What is said of it, if it is an orphan.
    fn said(&self) -> Option<&Said> {
        self.said.as_ref().filter(|said| said.recorded)
    }
}

impl Said {
    fn of(volume: Volume) -> Self {
        let mut context = volume.volume_context;
        let namespace = context.remove(CLAIM_NAMESPACE);
        let inline = context.contains_key(EPHEMERAL);
        let name = context.remove(CLAIM_NAME);
        Self {
            created: context.get("created").and_then(|at| at.parse().ok()),
            recorded: !inline && namespace.as_deref() != Some(DOCKER),
            claim: namespace.zip(name),
        }
    }

    /// By the clock of its node. One whose age is unknown is new.
    fn is_older_than(&self, age: Duration) -> bool {
        let age_of = |created| Duration::try_from(Timestamp::now().duration_since(created)).ok();
        self.created.and_then(age_of).is_some_and(|is| is >= age)
    }
}

impl Reconciler {
    /// Once for all of a node: if a disk comes back with a thousand of them, one Event is enough.
    async fn tell_orphans(&self, node: &str) {
        let of = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            // As the kubelet writes it, too.
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let what = "there are volumes on this node that no PersistentVolume names: `kubectl orlop orphans` lists them, \
                    and `orlop volume rm` on the node removes what nobody needs";
        self.records
            .tell(&of, "OrphanedVolumes", "Looking", what.to_owned())
            .await;
    }

    /// Which of these a `PersistentVolume` names, as the API server has it now.
    async fn named_now<'a>(
        &self,
        ids: impl Iterator<Item = &'a VolumeId>,
    ) -> Result<BTreeSet<VolumeId>> {
        let asked: BTreeSet<_> = ids.collect();
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        let (mut named, mut params) = (BTreeSet::new(), ListParams::default().limit(PAGE));
        loop {
            let page = volumes.list(&params).await?;
            let records = page.items.iter().filter_map(Record::of);
            named.extend(
                records
                    .map(|record| record.volume)
                    .filter(|id| asked.contains(id)),
            );
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(named),
            }
        }
    }

    /// Whether the claim that the volume was made for is still there, and may get it.
    async fn is_awaited(
        &self,
        id: &VolumeId,
        (namespace, name): &(String, String),
    ) -> Result<bool> {
        let claims = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        let claim = claims
            .get_opt(name)
            .await
            .context("asking for the claim of an orphan")?;
        let uid = claim.and_then(|claim| claim.metadata.uid);
        Ok(uid.is_some_and(|uid| id.name.as_str().ends_with(&uid)))
    }

    /// Says whether it is gone.
    async fn delete_orphan(&self, node: &Node, id: &VolumeId) -> bool {
        let mut request = Request::new(DeleteVolumeRequest {
            volume_id: id.to_string(),
            ..DeleteVolumeRequest::default()
        });
        request.set_timeout(DELETED_WITHIN);
        let deleted = node.call(request, |mut client, request| async move {
            client.delete_volume(request).await
        });
        match tokio::time::timeout(DELETED_WITHIN, deleted).await {
            Ok(Ok(_)) => {
                let key = Key::Volume(id.clone());
                self.router.inventory.remove(&key, &node.name);
                info!(volume.id = %id, node = %node.name, "an orphan is deleted");
                true
            }
            Ok(Err(status)) => {
                warn!(volume.id = %id, node = %node.name, error = status.message(), "an orphan stays");
                false
            }
            Err(_) => false,
        }
    }
}
