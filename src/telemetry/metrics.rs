//! The figures that the process counts, in Prometheus' words.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From a Probe to a full copy, in seconds.
const BUCKETS: [f64; 16] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    60.0, 300.0,
];

/// All metrics of the process; every name begins with `orlop_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    calls: Family<Call, Histogram, fn() -> Histogram>,
    running: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Release {
    version: &'static str,
}

impl Metrics {
    /// Metrics with what every process has: `orlop_rpc_duration_seconds{method,code}`, `orlop_rpc_running`, its release and its start.
    pub fn new() -> Arc<Self> {
        let calls = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let mut registry = Registry::with_prefix("orlop");
        registry.register_with_unit(
            "rpc_duration",
            "How long calls took, by method and gRPC code",
            Unit::Seconds,
            calls.clone(),
        );
        let running = Gauge::default();
        registry.register(
            "rpc_running",
            "Calls that run or wait for their turn",
            running.clone(),
        );
        let release = Family::<Release, Gauge>::default();
        release
            .get_or_create(&Release {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        registry.register("build_info", "1 for the release that runs", release);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default().as_secs();
        registry.register_with_unit(
            "start_time",
            "When the process started, since 1970",
            Unit::Seconds,
            ConstGauge::new(i64::try_from(since).unwrap_or_default()),
        );
        Arc::new(Self {
            registry: Mutex::new(registry),
            calls,
            running,
        })
    }

    /// Where others register theirs, without the prefix; not to be kept, a scrape waits for it.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock()
    }

    /// Counts a call as running until [`Metrics::called`].
    pub fn calls(&self) {
        self.running.inc();
    }

    /// Counts one finished call.
    pub fn called(&self, method: &'static str, code: &'static str, took: Duration) {
        self.running.dec();
        self.calls
            .get_or_create(&Call { method, code })
            .observe(took.as_secs_f64());
    }

    /// Everything in the `OpenMetrics` text format; runs the collectors, so it may block.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry()).context("the metrics could not be written")?;
        Ok(text)
    }
}
