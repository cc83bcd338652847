//! `orlop layers`: the layer cache of one node, and what people do with it.

mod fetch;
mod look;
mod remote;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, Subcommand};
use tokio::task::JoinSet;

use self::fetch::{Import, Prefetch};
use self::look::{Look, Remove};
use self::wiring::{Configure, Restore};
use super::Log;
use super::node::{runtime, until_all_ended};
use crate::layers;
use crate::layers::settings::Settings;
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
    /// List the blobs that are cached, the last used one first.
    #[command(visible_alias = "list")]
    Ls(Look),
    /// List the other nodes that this one knows.
    Peers(Look),
    /// Show what the cache has, and what it did since it started.
    Stats(Look),
    /// Fetch images on all nodes before anybody asks for them.
    Prefetch(Prefetch),
    /// Put images into the cache from a file: they are served to all nodes, and need no registry.
    Import(Import),
    /// Drop blobs, or images that were imported.
    Rm(Remove),
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
            Some(Verb::Ls(look)) => look.blobs(),
            Some(Verb::Peers(look)) => look.peers(),
            Some(Verb::Stats(look)) => look.stats(),
            Some(Verb::Prefetch(prefetch)) => prefetch.run(),
            Some(Verb::Import(import)) => import.run(),
            Some(Verb::Rm(remove)) => remove.run(),
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
