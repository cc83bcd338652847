//! `orlop node` as its surroundings see it: clients, systemd, the kubelet, and those who watch.

mod absent;
mod health;
mod listing;
mod monitoring;
mod mounting;
mod process;
mod surroundings;
mod tracing;

#[path = "../support/calls.rs"]
mod calls;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../support/layers.rs"]
mod layers;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it is so.
async fn until(what: &str, claim: impl Fn() -> bool) {
    let started = Instant::now();
    while !claim() {
        assert!(started.elapsed() < PATIENCE, "{what}: it does not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
