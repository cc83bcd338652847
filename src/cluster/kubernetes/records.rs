//! Where a volume was, and whether that node is gone for good, by the records of a Kubernetes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use tracing::warn;

use super::volumes::Record;
use crate::cluster::nodes::Members;
use crate::names::DRIVER;
use crate::volume::{Error, Result, VolumeId};

/// How long the API server may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// By this taint a person says that a node is off and stays off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What a Kubernetes can be asked beside which nodes there are.
#[derive(Clone)]
pub struct Records {
    client: Client,
    absences: Absences,
    forget_after: Option<Duration>,
    events: Recorder,
}

/// Since when nodes are not there; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Absences(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    /// Since when it is known which nodes there are.
    known: Option<Instant>,
    /// When those left that left since then.
    left: BTreeMap<String, Instant>,
}

impl Records {
    /// With `forget_after`, what was on a node whose object is gone for so long is gone with it.
    pub fn new(client: Client, absences: Absences, forget_after: Option<Duration>) -> Self {
        Self {
            events: Recorder::new(client.clone(), DRIVER.into()),
            client,
            absences,
            forget_after,
        }
    }

    /// The node on which the volume is, as its `PersistentVolume` says; nothing if there is no such object.
    ///
    /// # Errors
    /// `Unreachable` while Kubernetes does not answer.
    pub(in crate::cluster) async fn node_of(&self, id: &VolumeId) -> Result<Option<String>> {
        // The provisioner calls both by the same name.
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        let found = answered(volumes.get_opt(id.name.as_str())).await?;
        Ok(found
            .as_ref()
            .and_then(Record::of)
            .filter(|record| record.volume == *id)
            .and_then(|record| record.node))
    }

    /// Whether all that was on this node, which is not there, is to be taken for gone.
    ///
    /// # Errors
    /// `Unreachable` while Kubernetes does not answer.
    pub(in crate::cluster) async fn is_forgotten(&self, node: &str) -> Result<bool> {
        let nodes = Api::<Node>::all(self.client.clone());
        let long = |limit| self.absences.of(node).is_some_and(|gone| gone >= limit);
        // It may have come back just now.
        Ok(self.forget_after.is_some_and(long)
            && answered(nodes.get_metadata_opt(node)).await?.is_none())
    }

    /// Whether a node, which was not heard, will not come back: it is gone for so long, or a person says that it is off.
    ///
    /// # Errors
    /// `Unreachable` while Kubernetes does not answer.
    pub(in crate::cluster) async fn is_lost(&self, node: &str, gone_for: Duration) -> Result<bool> {
        let nodes = Api::<Node>::all(self.client.clone());
        let Some(there) = answered(nodes.get_opt(node)).await? else {
            return Ok(self.absences.of(node).is_some_and(|gone| gone >= gone_for));
        };
        let taints = there.spec.and_then(|spec| spec.taints).unwrap_or_default();
        Ok(taints.iter().any(|taint| taint.key == OUT_OF_SERVICE))
    }

    /// Leaves an Event beside the `PersistentVolume`.
    pub(in crate::cluster) async fn tell_forgotten(&self, id: &VolumeId, node: &str) {
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        let Ok(Some(volume)) = answered(volumes.get_opt(id.name.as_str())).await else {
            return;
        };
        let what = format!(
            "node {node} is gone for good, and volume {id} with it; if it comes back, what it has of it is an orphan"
        );
        self.tell(&volume.object_ref(&()), "NodeLost", "Deleting", what)
            .await;
    }

    /// Leaves an Event that is a warning; one that can not be left is only logged.
    pub(in crate::cluster) async fn tell(
        &self,
        of: &ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        let name = of.name.as_deref();
        match tokio::time::timeout(LIMIT, self.events.publish(&event, of)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, reason, name, "an Event could not be left"),
            Err(_) => warn!(reason, name, "leaving an Event takes too long"),
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("absences", &self.absences)
            .field("forget_after", &self.forget_after)
            .finish_non_exhaustive()
    }
}

impl Absences {
    /// Notes which nodes there are now.
    pub(super) fn note(&self, before: Option<&Members>, now: &Members) {
        let mut times = self.0.lock();
        let at = Instant::now();
        times.known.get_or_insert(at);
        times.left.retain(|node, _| !now.contains_key(node));
        let left = before.into_iter().flat_map(Members::keys);
        let left = left.filter(|node| !now.contains_key(*node));
        times.left.extend(left.map(|node| (node.clone(), at)));
    }

    /// For how long a node that is not there has been away, as far as that is known.
    fn of(&self, node: &str) -> Option<Duration> {
        let times = self.0.lock();
        let since = times.left.get(node).copied().or(times.known)?;
        Some(since.elapsed())
    }
}

async fn answered<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T> {
    let unsaid = |why: String| {
        Error::Unreachable(format!(
            "Kubernetes does not say where the volume was: {why}"
        ))
    };
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unsaid(error.to_string())),
        Err(_) => Err(unsaid("it takes too long".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> Members {
        names.iter().map(|&name| (name.to_owned(), None)).collect()
    }

    #[test]
    fn a_node_is_away_since_it_left_or_since_anything_is_known() {
        let absences = Absences::default();
        assert_eq!(absences.of("a"), None);

        let (both, one) = (members(&["a", "b"]), members(&["a"]));
        absences.note(None, &both);
        let never_seen = absences.of("c").expect("all nodes are known");
        absences.note(Some(&both), &one);

        let times = |absences: &Absences| absences.0.lock().left.clone();
        assert_eq!(times(&absences).keys().collect::<Vec<_>>(), ["b"]);
        let (left, again) = (absences.of("b"), absences.of("c"));
        assert!(left < again && Some(never_seen) < again);
        absences.note(Some(&one), &both);
        assert!(times(&absences).is_empty());
    }
}
