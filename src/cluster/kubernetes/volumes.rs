//! What a `PersistentVolume` of ours says.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeSpec};

use crate::names::{DRIVER, TOPOLOGY_NODE};
use crate::volume::VolumeId;

/// What matters of one.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cluster) struct Record {
    pub(in crate::cluster) volume: VolumeId,
    /// The one node from which the volume can be reached.
    pub(in crate::cluster) node: Option<String>,
    pub(in crate::cluster) class: Option<String>,
    pub(in crate::cluster) uid: String,
    pub(in crate::cluster) claim: Option<Claim>,
    /// Whether it is being deleted.
    pub(in crate::cluster) ends: bool,
}

/// The claim that it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Claim {
    pub(in crate::cluster) namespace: String,
    pub(in crate::cluster) name: String,
    pub(in crate::cluster) uid: String,
}

impl Record {
    /// Nothing if it is of another driver.
    pub(in crate::cluster) fn of(volume: &PersistentVolume) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let source = spec.csi.as_ref().filter(|csi| csi.driver == DRIVER)?;
        Some(Self {
            volume: source.volume_handle.parse().ok()?,
            node: node(spec),
            class: spec.storage_class_name.clone(),
            uid: volume.metadata.uid.clone().unwrap_or_default(),
            claim: spec.claim_ref.as_ref().and_then(Claim::of),
            ends: volume.metadata.deletion_timestamp.is_some(),
        })
    }
}

impl Claim {
    fn of(reference: &ObjectReference) -> Option<Self> {
        Some(Self {
            namespace: reference.namespace.clone()?,
            name: reference.name.clone()?,
            // Without one it is only meant for a claim.
            uid: reference.uid.clone()?,
        })
    }

    /// What an Event is about that is about it.
    pub(in crate::cluster) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolumeClaim".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

fn node(spec: &PersistentVolumeSpec) -> Option<String> {
    let required = spec.node_affinity.as_ref()?.required.as_ref()?;
    let mut expressions = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_expressions.iter().flatten());
    let ours = expressions.find(|expression| expression.key == TOPOLOGY_NODE)?;
    ours.values.as_ref()?.first().cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_volume_of_ours_says_where_it_is() {
        let record = |driver: &str| {
            let volume = json!({"spec": {
                "csi": {"driver": driver, "volumeHandle": "fast/pvc-1"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": TOPOLOGY_NODE, "operator": "In", "values": ["a"]},
                ]}]}},
            }});
            Record::of(&serde_json::from_value(volume).expect("it is a volume"))
        };

        let ours = record(DRIVER).expect("it is ours");
        assert_eq!(ours.volume.to_string(), "fast/pvc-1");
        assert_eq!(ours.node.as_deref(), Some("a"));
        assert_eq!(record("other.example"), None);
    }
}
