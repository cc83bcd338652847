//! `PersistentVolume` objects whose volume is not on the node that they name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use tonic::Code;

use super::findings::Kind;
use super::{Reconciler, Sight};
use crate::cluster::kubernetes::{Claim, Record};

/// For how long one must not have been seen: the router looks at each node at least as often, and the volume of a new object may be
/// known to another router alone.
const AFTER: Duration = Duration::from_mins(3);

/// The objects, by their names.
#[derive(Debug, Default)]
pub(super) struct Missing(BTreeMap<String, Absent>);

/// A volume that was not seen.
#[derive(Debug)]
struct Absent {
    node: Arc<str>,
    since: Instant,
    /// Whether its node said so itself.
    certain: bool,
}

impl Missing {
    /// Notes which are not seen, asks their nodes, and tells of each once.
    pub(super) async fn look(&mut self, by: &Reconciler, sight: &Sight<'_>) {
        self.note(sight);
        let after = AFTER.min(by.patience.orphans_after);
        for node in &sight.nodes {
            let of_node = self
                .0
                .iter_mut()
                .filter(|(_, absent)| absent.node == node.name);
            for (name, absent) in of_node {
                let Some(record) = sight.recorded.get(&**name) else {
                    continue;
                };
                if absent.certain || sight.at - absent.since < after {
                    continue;
                }
                match by.ask(node, &record.volume).await {
                    Err(status) if status.code() == Code::NotFound => {
                        by.tell_missing(name, record, &node.name).await;
                        absent.certain = true;
                    }
                    // It is on its way into what is known.
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }

    pub(super) fn found(&self) -> impl Iterator<Item = (&str, Kind)> {
        let certain = self.0.values().filter(|absent| absent.certain);
        certain.map(|absent| (&*absent.node, Kind::Record))
    }

    fn note(&mut self, sight: &Sight<'_>) {
        let is_absent = |record: &Record| {
            let (node, held) = sight.held.get_key_value(record.node.as_deref()?)?;
            (!record.ends && !held.contains(&record.volume)).then_some(node)
        };
        let now = |name: &str| {
            sight
                .recorded
                .get(name)
                .and_then(|record| is_absent(record))
        };
        self.0
            .retain(|name, absent| now(name).is_some_and(|node| *node == absent.node));
        for (name, record) in &sight.recorded {
            if let Some(node) = is_absent(record) {
                self.0.entry((*name).to_owned()).or_insert(Absent {
                    node: Arc::clone(node),
                    since: sight.at,
                    certain: false,
                });
            }
        }
    }
}

impl Reconciler {
    async fn tell_missing(&self, name: &str, record: &Record, node: &str) {
        let what = format!(
            "volume {} is not on node {node}, where it should be: bring back the disk or the pool that it was in; if it is \
             lost, delete the claim and restore it from a snapshot or a backup",
            record.volume
        );
        let volume = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolume".into()),
            name: Some(name.to_owned()),
            uid: Some(record.uid.clone()),
            ..ObjectReference::default()
        };
        let claim = record.claim.as_ref().map(Claim::reference);
        for of in [Some(volume), claim].into_iter().flatten() {
            self.records
                .tell(&of, "VolumeMissing", "Looking", what.clone())
                .await;
        }
    }
}
