//! Who runs commands: the tools of this machine, which count how long each takes.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{Command, start};
use crate::host::gate::Gate;

/// Runs commands; the scripted one of the tests expects given lines and answers with recorded output.
pub trait Runner: Send + Sync {
    /// Runs to the end and gives the standard output.
    ///
    /// # Errors
    /// A tool that is missing, fails or passes its limit; the message holds the line and what the tool said.
    fn run(&self, command: &Command) -> Result<String>;

    /// How long those that ended took, where that is counted.
    fn durations(&self) -> Option<Durations> {
        None
    }
}

/// How long commands take, in seconds, by the tool that runs.
pub type Durations = Family<Tool, Histogram, fn() -> Histogram>;

/// The tool of a command.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Tool {
    tool: String,
}

/// From a query of a small tool to the making of a large filesystem, in seconds.
const BUCKETS: [f64; 9] = [0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0];

/// Runs commands on this machine.
#[derive(Clone, Debug)]
pub struct Tools {
    gate: Gate,
    durations: Durations,
}

impl Tools {
    /// Tools whose changing commands pass the given gate.
    pub fn new(gate: Gate) -> Arc<Self> {
        Arc::new(Self {
            gate,
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        })
    }
}

impl Runner for Tools {
    fn run(&self, command: &Command) -> Result<String> {
        let started = Instant::now();
        let output = start(&self.gate, command)?.finish();
        let tool = command.program.to_string_lossy().into_owned();
        self.durations
            .get_or_create(&Tool { tool })
            .observe(started.elapsed().as_secs_f64());
        output
    }

    fn durations(&self) -> Option<Durations> {
        Some(self.durations.clone())
    }
}
