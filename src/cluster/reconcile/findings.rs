//! What a leading controller has found, for who asks and who scrapes.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tonic::{Request, Response, Status};

use crate::csi::Reply;
use crate::csi::proto::inspection::oversight_server::Oversight;
use crate::csi::proto::inspection::{ListOrphansRequest, ListOrphansResponse, Orphan};

/// Nothing is known while another leads; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    orphans: Arc<Mutex<Option<Vec<Orphan>>>>,
    counts: Family<Labels, Gauge>,
}

/// Which half is alone.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) enum Kind {
    /// A volume that no record names.
    Volume,
    /// A record whose volume is not there.
    Record,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    node: String,
    kind: &'static str,
}

impl Findings {
    /// Makes its figures part of a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "orphans",
            "Volumes that no PersistentVolume names, and PersistentVolumes (records) whose volume is not there",
            self.counts.clone(),
        );
    }

    /// Takes what was found now.
    pub(super) fn become_these(&self, orphans: Vec<Orphan>, found: &[(&str, Kind)]) {
        self.counts.clear();
        for (node, kind) in found {
            let labels = Labels {
                node: (*node).to_owned(),
                kind: match kind {
                    Kind::Volume => "volume",
                    Kind::Record => "record",
                },
            };
            self.counts.get_or_create(&labels).inc();
        }
        *self.orphans.lock() = Some(orphans);
    }

    /// Forgets all: another leads.
    pub(super) fn forget(&self) {
        self.counts.clear();
        *self.orphans.lock() = None;
    }

    /// The volumes that no record names; nothing while another leads.
    pub fn known_orphans(&self) -> Option<Vec<Orphan>> {
        self.orphans.lock().clone()
    }
}

#[tonic::async_trait]
impl Oversight for Findings {
    async fn list_orphans(
        &self,
        _request: Request<ListOrphansRequest>,
    ) -> Reply<ListOrphansResponse> {
        let orphans = self.known_orphans().ok_or_else(|| {
            Status::failed_precondition(
                "orphans are known to the controller that leads, once it has looked: ask the one that holds the Lease",
            )
        })?;
        Ok(Response::new(ListOrphansResponse { orphans }))
    }
}
