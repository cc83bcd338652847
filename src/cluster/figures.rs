//! The figures of the router for whoever scrapes: of what it knows, and how long it takes to hear a node.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::Router;
use super::nodes::Outcome;

#[derive(Debug)]
struct Known(Router);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

impl Router {
    /// Makes its figures part of a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "node_look_duration",
            "How long it took until a node had said all that it has",
            Unit::Seconds,
            self.nodes.looks.clone(),
        );
        registry.register_collector(Box::new(Known(self.clone())));
    }
}

impl Collector for Known {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let nodes = Family::<State, Gauge>::default();
        for state in ["heard", "new", "silent"] {
            nodes.get_or_create(&State { state }).set(0);
        }
        for node in self.0.nodes.all().unwrap_or_default() {
            let state = match node.seen.borrow().what {
                Outcome::Heard => "heard",
                Outcome::New => "new",
                Outcome::Silent(_) => "silent",
            };
            nodes.get_or_create(&State { state }).inc();
        }
        let help = "Nodes that there are, by whether they have said what they have";
        nodes.encode(encoder.encode_descriptor("nodes", help, None, MetricType::Gauge)?)?;
        let (volumes, snapshots) = self.0.inventory.counts();
        for (name, help, count) in [
            (
                "known_volumes",
                "Volumes that are known to be on nodes",
                volumes,
            ),
            (
                "known_snapshots",
                "Snapshots that are known to be on nodes",
                snapshots,
            ),
        ] {
            let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            count.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
