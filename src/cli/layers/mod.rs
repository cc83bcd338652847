//! `orlop layers`: the layer cache of one node, and what people do with it.

mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, Subcommand};
use tokio::task::JoinSet;

use self::wiring::{Configure, Restore};
use super::Log;
use super::node::{runtime, until_all_ended};
use crate::layers::{self, Settings};
use crate::shutdown;
use crate::telemetry::http::{self, Readiness};
use crate::telemetry::metrics::Metrics;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Layers {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Tell the runtimes of this node to ask the mirror first; a second time changes nothing.
    Configure(Configure),
    /// Give the runtimes of this node back what they were told before.
    Restore(Restore),
}

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    settings: Settings,

    /// Serve /metrics, /healthz and /readyz on this address, such as 127.0.0.1:9098; off if left out.
    #[arg(long, env = "ORLOP_LAYERS_METRICS", value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,

    #[command(flatten)]
    log: Log,
}

impl Layers {
    pub(super) fn run(self) -> Result<()> {
        match self.verb {
            None => self.serve.run(),
            Some(Verb::Configure(configure)) => configure.run(),
            Some(Verb::Restore(restore)) => restore.run(),
        }
    }
}

impl Serve {
    fn run(self) -> Result<()> {
        self.log.start()?;
        runtime()?.block_on(async {
            let shutdown = shutdown::on_signal()?;
            let metrics = Metrics::new();
            let mut running = JoinSet::new();
            running.spawn(layers::run(
                self.settings,
                &mut metrics.registry(),
                shutdown.clone(),
            ));
            if let Some(address) = self.metrics {
                let port = http::bind(address).await?;
                let ready = Arc::new(|| Readiness::Ready);
                running.spawn(http::serve(port, metrics, ready, shutdown.clone()));
            }
            until_all_ended(running, &shutdown).await
        })
    }
}
