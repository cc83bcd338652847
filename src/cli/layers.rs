//! `orlop layers`: the layer cache of one node.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use tokio::task::JoinSet;

use super::Log;
use super::node::{runtime, until_all_ended};
use crate::layers::{self, Settings};
use crate::shutdown;
use crate::telemetry::http::{self, Readiness};
use crate::telemetry::metrics::Metrics;

#[derive(Args, Debug)]
pub(super) struct Layers {
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
