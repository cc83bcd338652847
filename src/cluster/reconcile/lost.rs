//! Claims to volumes of nodes that are lost, where their class lets go of them.
//!
//! Such a claim is deleted: its pod could only wait for a node that does not come back, and a `StatefulSet` makes a new claim
//! for it elsewhere. What the node has stays there; if it comes back after all, no claim can get it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};
use tracing::{info, warn};

use super::{Reconciler, Sight};
use crate::cluster::kubernetes::{Claim, Record};

/// The parameter of a class, and what it must say.
const LETS_GO: (&str, &str) = ("onNodeLoss", "release");

/// The claims that were let go, by their UIDs, for as long as a volume is bound to them.
#[derive(Debug, Default)]
pub(super) struct Released(BTreeSet<String>);

impl Released {
    /// Lets go of the claims to what is on lost nodes.
    pub(super) async fn look(&mut self, by: &Reconciler, sight: &Sight<'_>) {
        if let Err(error) = self.release(by, sight).await {
            warn!(
                error = format!("{error:#}"),
                "claims on nodes that may be lost stay for now"
            );
        }
    }

    async fn release(&mut self, by: &Reconciler, sight: &Sight<'_>) -> Result<()> {
        let bound = || {
            sight.recorded.values().filter_map(|record| {
                Some((record.node.as_deref()?, record, record.claim.as_ref()?))
            })
        };
        let uids: BTreeSet<_> = bound().map(|(_, _, claim)| &claim.uid).collect();
        self.0.retain(|uid| uids.contains(uid));
        let heard: BTreeSet<_> = sight.nodes.iter().map(|node| &*node.name).collect();
        let mut unheard = BTreeMap::<&str, Vec<(&Record, &Claim)>>::new();
        for (node, record, claim) in bound() {
            if !heard.contains(node) && !self.0.contains(&claim.uid) {
                unheard.entry(node).or_default().push((record, claim));
            }
        }
        if unheard.is_empty() {
            return Ok(());
        }
        let classes = by.classes_that_let_go().await?;
        let lets_go = |record: &Record| {
            record
                .class
                .as_ref()
                .is_some_and(|class| classes.contains(class))
        };
        for (node, mut bound) in unheard {
            bound.retain(|(record, _)| lets_go(record));
            if bound.is_empty()
                || !by
                    .records
                    .is_lost(node, by.patience.release_claims_after)
                    .await?
            {
                continue;
            }
            for (record, claim) in bound {
                by.release(node, record, claim).await?;
                self.0.insert(claim.uid.clone());
            }
        }
        Ok(())
    }
}

impl Reconciler {
    async fn classes_that_let_go(&self) -> Result<BTreeSet<String>> {
        let classes = Api::<StorageClass>::all(self.client.clone());
        let lets_go = |class: &StorageClass| {
            let parameters = class.parameters.as_ref();
            parameters
                .and_then(|all| all.get(LETS_GO.0))
                .is_some_and(|said| said == LETS_GO.1)
        };
        let all = classes
            .list(&ListParams::default())
            .await?
            .items
            .into_iter();
        Ok(all
            .filter(lets_go)
            .filter_map(|class| class.metadata.name)
            .collect())
    }

    async fn release(&self, node: &str, record: &Record, claim: &Claim) -> Result<()> {
        let what = format!(
            "node {node} is lost, and the class of this claim says onNodeLoss: release: the claim is deleted, so that a new \
             one can be made elsewhere; volume {} stays on that node, for whoever can bring it back",
            record.volume
        );
        self.records
            .tell(&claim.reference(), "NodeLost", "Releasing", what)
            .await;
        let claims =
            Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &claim.namespace);
        // A claim that was made anew under this name is another.
        let this = DeleteParams::default().preconditions(Preconditions {
            uid: Some(claim.uid.clone()),
            resource_version: None,
        });
        match claims.delete(&claim.name, &this).await {
            Ok(_) => {
                info!(volume.id = %record.volume, node, claim = claim.name, "a claim is released");
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
