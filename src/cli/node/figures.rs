//! The figures of a node for whoever scrapes: asked of its pools at each scrape, never kept.

use std::fmt;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use crate::driver::Driver;
use crate::driver::figures::Figures;
use crate::host::command::Durations;
use crate::pool::Severity;

/// Makes the node's figures part of `registry`.
pub(super) fn register(registry: &mut Registry, driver: &Driver, durations: Option<Durations>) {
    registry.register_with_unit(
        "queue_duration",
        "How long calls waited for a thread",
        Unit::Seconds,
        driver.queued(),
    );
    if let Some(durations) = durations {
        registry.register_with_unit(
            "command_duration",
            "How long the machine's tools took, by tool",
            Unit::Seconds,
            durations,
        );
    }
    registry.register_collector(Box::new(Pools {
        driver: driver.clone(),
        asking: Mutex::default(),
    }));
}

/// The pools, which are asked by one scrape at a time: one that hangs on a disk must not be joined by others.
struct Pools {
    driver: Driver,
    asking: Mutex<()>,
}

#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pool {
    pool: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Part {
    pool: String,
    part: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Fault {
    pool: String,
    severity: &'static str,
    reason: &'static str,
}

type Gauges<L> = Family<L, Gauge<f64, AtomicU64>>;

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(_alone) = self.asking.try_lock() else {
            return Ok(());
        };
        let (figures, mounts, copies) = self
            .driver
            .look_here(|core| (core.figures(), core.mounts(), core.copies()));
        room(&mut encoder, &figures)?;
        content(&mut encoder, &figures)?;
        levels(&mut encoder, &figures)?;
        faults(&mut encoder, &figures)?;
        single(
            &mut encoder,
            "mounts",
            "Paths at which volumes are mounted",
            mounts,
        )?;
        single(&mut encoder, "copies", "Copies that are running", copies)
    }
}

/// What each pool has, has promised, and has left.
fn room(encoder: &mut DescriptorEncoder<'_>, all: &[Figures]) -> fmt::Result {
    let told = |figures: &&Figures| figures.pool.capacity.total.0 > 0;
    let all: Vec<_> = all.iter().filter(told).collect();
    let bytes =
        |of: fn(&Figures) -> u64| by_pool(all.iter().map(|figures| (*figures, Some(of(figures)))));
    let unit = Some(&Unit::Bytes);
    family(
        encoder,
        ("pool_size", "What the pool has", unit),
        &bytes(|figures| figures.pool.capacity.total.0),
    )?;
    family(
        encoder,
        (
            "pool_provisioned",
            "What is promised to the pool's volumes",
            unit,
        ),
        &bytes(|figures| figures.pool.capacity.promised.0),
    )?;
    family(
        encoder,
        ("pool_available", "What a new volume can get", unit),
        &bytes(|figures| figures.pool.capacity.available.0),
    )
}

/// How much is in each pool.
fn content(encoder: &mut DescriptorEncoder<'_>, all: &[Figures]) -> fmt::Result {
    let count = |of: fn(&Figures) -> Option<usize>| {
        let number = |figures| of(figures).and_then(|count| u64::try_from(count).ok());
        by_pool(all.iter().map(|figures| (figures, number(figures))))
    };
    family(
        encoder,
        ("volumes", "Volumes in the pool", None),
        &count(|figures| figures.volumes),
    )?;
    family(
        encoder,
        ("snapshots", "Snapshots in the pool", None),
        &count(|figures| figures.snapshots),
    )?;
    family(
        encoder,
        ("retired", "Deleted volumes that are not gone", None),
        &count(|figures| figures.retired),
    )
}

/// How full the parts of each pool are.
fn levels(encoder: &mut DescriptorEncoder<'_>, all: &[Figures]) -> fmt::Result {
    let (bytes, ratio) = (Gauges::default(), Gauges::default());
    let (inodes, limit) = (Gauges::default(), Gauges::default());
    for figures in all {
        for level in &figures.pool.levels {
            let pool = figures.pool.name.to_string();
            let (used, total) = (float(level.used), float(level.total));
            let part = Part {
                pool: pool.clone(),
                part: level.part,
            };
            ratio.get_or_create(&part).set(used / total.max(1.0));
            if level.part == "inodes" {
                limit.get_or_create(&Pool { pool: pool.clone() }).set(total);
                inodes.get_or_create(&Pool { pool }).set(used);
            } else {
                bytes.get_or_create(&part).set(used);
            }
        }
    }
    let unit = Some(&Unit::Bytes);
    let help = "How much of a part of the pool is in use";
    family(encoder, ("pool_used", help, unit), &bytes)?;
    let help = "Inodes of the pool's filesystem";
    family(encoder, ("pool_size_inodes", help, None), &limit)?;
    let help = "Inodes of the pool's filesystem that are in use";
    family(encoder, ("pool_used_inodes", help, None), &inodes)?;
    let unit = Unit::Other("ratio".to_owned());
    let help = "How full a part of the pool is";
    family(encoder, ("pool_fill", help, Some(&unit)), &ratio)
}

/// What is wrong with each pool, and whether it can be used.
fn faults(encoder: &mut DescriptorEncoder<'_>, all: &[Figures]) -> fmt::Result {
    let usable = |figures: &Figures| {
        let mut faults = figures.pool.faults.iter();
        u64::from(faults.all(|fault| fault.severity == Severity::Degraded))
    };
    family(
        encoder,
        ("pool_usable", "Whether the pool can be used", None),
        &by_pool(all.iter().map(|figures| (figures, Some(usable(figures))))),
    )?;
    let (present, ill) = (Gauges::default(), Gauges::default());
    for figures in all {
        let label = |severity, reason| Fault {
            pool: figures.pool.name.to_string(),
            severity: word(severity),
            reason,
        };
        for fault in &figures.pool.faults {
            let label = label(fault.severity, fault.reason);
            present.get_or_create(&label).set(1.0);
        }
        for (&(severity, reason), &count) in &figures.ill {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            ill.get_or_create(&label(severity, reason))
                .set(float(count));
        }
    }
    let help = "1 for each thing that is wrong with the pool";
    family(encoder, ("pool_fault", help, None), &present)?;
    let help = "Volumes with which this is wrong";
    family(encoder, ("faulty_volumes", help, None), &ill)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Degraded => "degraded",
        Severity::Inaccessible => "inaccessible",
        Severity::DataLoss => "data_loss",
    }
}

fn by_pool<'a>(values: impl Iterator<Item = (&'a Figures, Option<u64>)>) -> Gauges<Pool> {
    let gauges = Gauges::default();
    for (figures, value) in values {
        let pool = figures.pool.name.to_string();
        if let Some(value) = value {
            gauges.get_or_create(&Pool { pool }).set(float(value));
        }
    }
    gauges
}

fn family<L>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    gauges: &Gauges<L>,
) -> fmt::Result
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq,
{
    gauges.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
}

fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    count: usize,
) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has only floats; beyond 8 PiB a byte more or less does not matter"
)]
fn float(count: u64) -> f64 {
    count as f64
}
