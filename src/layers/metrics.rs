//! What the layer cache counts.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::admin::Stats;

/// Where a blob or its bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Source {
    /// Our own disk.
    Disk,
    /// The runtime's content store on this node.
    Runtime,
    /// Another node.
    Peer,
    /// The registry.
    Upstream,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    source: Source,
}

/// The counters of one layer cache.
#[derive(Debug, Default)]
pub struct Metrics {
    hits: Family<From, Counter>,
    bytes: Family<From, Counter>,
    bans: Counter,
    peers: Gauge,
}

impl Metrics {
    /// Counters that are part of `registry`, whose prefix should be the program's.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Arc::new(Self::default());
        registry.register(
            "layers_blobs_opened",
            "Blobs opened, by where they came from",
            metrics.hits.clone(),
        );
        registry.register(
            "layers_received_bytes",
            "Bytes received from elsewhere, by where from",
            metrics.bytes.clone(),
        );
        registry.register(
            "layers_bans",
            "Peers that were banned because they sent wrong bytes",
            metrics.bans.clone(),
        );
        registry.register(
            "layers_peers",
            "Other nodes that the gossip knows",
            metrics.peers.clone(),
        );
        metrics
    }

    /// What was counted so far, without what the store knows.
    pub fn stats(&self) -> Stats {
        let count =
            |family: &Family<From, Counter>, source| family.get_or_create(&From { source }).get();
        Stats {
            opened: [
                Source::Disk,
                Source::Runtime,
                Source::Peer,
                Source::Upstream,
            ]
            .map(|source| count(&self.hits, source)),
            received_bytes: [Source::Peer, Source::Upstream]
                .map(|source| count(&self.bytes, source)),
            bans: self.bans.get(),
            ..Stats::default()
        }
    }

    /// So many other nodes are known.
    pub fn peers(&self, count: usize) {
        self.peers.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A peer was banned.
    pub fn banned(&self) {
        self.bans.inc();
    }

    /// A blob was opened.
    pub fn hit(&self, source: Source) {
        self.hits.get_or_create(&From { source }).inc();
    }

    /// Bytes arrived.
    pub fn received(&self, source: Source, bytes: usize) {
        self.bytes
            .get_or_create(&From { source })
            .inc_by(bytes as u64);
    }
}
