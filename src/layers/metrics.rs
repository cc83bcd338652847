//! What the layer cache counts.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::fetch::Fetches;
use super::people::admin::Stats;

/// From a chunk that is here to a source that is replaced, in seconds.
const WAITS: [f64; 10] = [0.000_5, 0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];

/// Where a blob or its bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Whom bytes went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A client on this node.
    Client,
    /// Another node.
    Peer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    sink: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    code: String,
}

/// The counters of one layer cache.
#[derive(Debug)]
pub struct Metrics {
    hits: Family<From, Counter>,
    received: Family<From, Counter>,
    sent: Family<To, Counter>,
    asked: Family<Answer, Counter>,
    waits: Histogram,
    failures: Counter,
    silences: Counter,
    bans: Counter,
    peers: Gauge,
    fetches: OnceLock<Weak<Fetches>>,
}

/// The store, which is asked at each scrape.
#[derive(Debug)]
struct Store(Arc<Metrics>);

impl Source {
    const ALL: [Self; 4] = [Self::Disk, Self::Runtime, Self::Peer, Self::Upstream];

    fn label(self) -> From {
        let source = match self {
            Self::Disk => "disk",
            Self::Runtime => "runtime",
            Self::Peer => "peer",
            Self::Upstream => "upstream",
        };
        From { source }
    }
}

impl Sink {
    fn label(self) -> To {
        let sink = match self {
            Self::Client => "client",
            Self::Peer => "peer",
        };
        To { sink }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            hits: Family::default(),
            received: Family::default(),
            sent: Family::default(),
            asked: Family::default(),
            waits: Histogram::new(WAITS),
            failures: Counter::default(),
            silences: Counter::default(),
            bans: Counter::default(),
            peers: Gauge::default(),
            fetches: OnceLock::new(),
        }
    }
}

impl Metrics {
    /// Counters that are part of `registry`, whose prefix should be the program's. Whatever has a known label begins at 0.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Arc::new(Self::default());
        for source in Source::ALL {
            metrics.hits.get_or_create(&source.label()).inc_by(0);
        }
        for source in [Source::Peer, Source::Upstream] {
            metrics.received(source, 0);
        }
        for sink in [Sink::Client, Sink::Peer] {
            metrics.sent(sink, 0);
        }
        metrics.register(registry);
        registry.register_collector(Box::new(Store(metrics.clone())));
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let help = "Blobs opened, by where they came from";
        registry.register("layers_blobs_opened", help, self.hits.clone());
        let help = "Bytes received from elsewhere, by where from";
        registry.register("layers_received_bytes", help, self.received.clone());
        let help = "Bytes of blobs given away, by to whom";
        registry.register("layers_sent_bytes", help, self.sent.clone());
        let help = "Requests to registries, by status; `none` if no answer came";
        registry.register("layers_upstream_requests", help, self.asked.clone());
        let help = "How long a client waited for each next piece of a blob";
        let unit = Unit::Seconds;
        registry.register_with_unit("layers_wait", help, unit, self.waits.clone());
        let help = "Fetches that failed with every source";
        registry.register("layers_failed_fetches", help, self.failures.clone());
        let help = "Times that a peer did not answer, so that others were asked for a while";
        registry.register("layers_silences", help, self.silences.clone());
        let help = "Peers that were banned because they sent wrong bytes";
        registry.register("layers_bans", help, self.bans.clone());
        let help = "Other nodes that are known";
        registry.register("layers_peers", help, self.peers.clone());
    }

    /// From now on tells of the store of these, too.
    pub fn watch(&self, fetches: &Arc<Fetches>) {
        // There is one in a process.
        let _ = self.fetches.set(Arc::downgrade(fetches));
    }

    /// What was counted so far, without what the store knows.
    pub fn stats(&self) -> Stats {
        let count = |family: &Family<From, Counter>, source: Source| {
            family.get_or_create(&source.label()).get()
        };
        Stats {
            opened: Source::ALL.map(|source| count(&self.hits, source)),
            received_bytes: [Source::Peer, Source::Upstream]
                .map(|source| count(&self.received, source)),
            bans: self.bans.get(),
            ..Stats::default()
        }
    }

    /// So many other nodes are known.
    pub fn peers(&self, count: usize) {
        self.peers.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A peer did not answer.
    pub fn silent(&self) {
        self.silences.inc();
    }

    /// A peer was banned.
    pub fn banned(&self) {
        self.bans.inc();
    }

    /// A blob was opened.
    pub fn hit(&self, source: Source) {
        self.hits.get_or_create(&source.label()).inc();
    }

    /// A blob could not be had from anybody.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// Bytes arrived.
    pub fn received(&self, source: Source, bytes: usize) {
        let received = self.received.get_or_create(&source.label());
        received.inc_by(bytes as u64);
    }

    /// Bytes were given away.
    pub fn sent(&self, sink: Sink, bytes: u64) {
        self.sent.get_or_create(&sink.label()).inc_by(bytes);
    }

    /// A registry was asked, and answered with this status or not at all.
    pub fn asked(&self, status: Option<u16>) {
        let code = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.asked.get_or_create(&Answer { code }).inc();
    }

    /// A client waited for the next piece.
    pub fn waited(&self, time: Duration) {
        self.waits.observe(time.as_secs_f64());
    }
}

impl Collector for Store {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(fetches) = self.0.fetches.get().and_then(Weak::upgrade) else {
            return Ok(());
        };
        let store = &fetches.sources.store;
        for (name, help, bytes) in [
            (
                "layers_used",
                "What the cache has on its disk",
                store.used(),
            ),
            ("layers_quota", "What the cache may have", store.quota()),
        ] {
            let unit = Some(&Unit::Bytes);
            let descriptor = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX)).encode(descriptor)?;
        }
        let help = "Blobs that were dropped to make room";
        let kind = MetricType::Counter;
        let descriptor = encoder.encode_descriptor("layers_evictions", help, None, kind)?;
        ConstCounter::new(store.evicted()).encode(descriptor)
    }
}
