//! `orlop layers`: the layer cache of one node, and what people do with it.

mod fetch;
mod look;
pub(super) mod remote;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use clap::{Args, Subcommand};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::fetch::{Import, Prefetch};
use self::look::{Look, Remove};
use self::wiring::{Configure, Restore};
use super::Log;
use super::enrolment::Enrolment;
use super::node::{host_name, runtime, until_all_ended};
use crate::enrol::Applicant;
use crate::layers;
use crate::layers::settings::Settings;
use crate::shutdown;
use crate::telemetry::http::{self, Readiness, Ready};
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

    /// The name of this node in the cluster, for its certificate; the host's name if left out.
    #[arg(long = "node-name", env = "NODE_NAME", value_name = "NAME")]
    node: Option<String>,

    #[command(flatten)]
    enrolment: Enrolment,

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
            let certified = Arc::new(AtomicBool::new(false));
            if let Some(address) = self.metrics {
                let port = http::bind(address).await?;
                let ready = readiness(certified.clone());
                let metrics = Arc::clone(&metrics);
                running.spawn(http::serve(port, metrics, ready, shutdown.clone()));
            }
            let applicant = self.applicant();
            let caching = layers::run(self.settings, &mut metrics.registry(), shutdown.clone());
            running.spawn(serve(caching, applicant, certified, shutdown.clone()));
            until_all_ended(running, &shutdown).await
        })
    }

    fn applicant(&self) -> Option<Applicant> {
        let folder = self.settings.certificates.as_deref()?;
        let node = self.node.clone().unwrap_or_else(host_name);
        self.enrolment.applicant(folder, &node)
    }
}

/// Runs the cache as soon as it has its certificate, which is kept new from then on. Until then nobody is served, and the
/// runtime goes to the registries itself.
async fn serve(
    caching: impl Future<Output = Result<()>>,
    applicant: Option<Applicant>,
    certified: Arc<AtomicBool>,
    shutdown: CancellationToken,
) -> Result<()> {
    let Some(applicant) = applicant else {
        certified.store(true, Ordering::Relaxed);
        return caching.await;
    };
    tokio::select! {
        begun = applicant.begin() => begun?,
        () = shutdown.cancelled() => return Ok(()),
    }
    certified.store(true, Ordering::Relaxed);
    tokio::try_join!(caching, applicant.keep(shutdown)).map(drop)
}

fn readiness(certified: Arc<AtomicBool>) -> Ready {
    Arc::new(move || {
        if certified.load(Ordering::Relaxed) {
            return Readiness::Ready;
        }
        Readiness::NotReady("no controller has signed the certificate yet: see the log".to_owned())
    })
}
