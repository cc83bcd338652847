//! The status page of a cluster, as a route of its controller: read-only, and only for who knows its token.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::status::{self, LayersAt, Of, Token, Watched};
use crate::cluster::Router;
use crate::cluster::reconcile::Findings;
use crate::telemetry::http;

#[derive(Args, Debug)]
pub(super) struct Page {
    /// Serve the status of the cluster as a page on this address, such as 0.0.0.0:9742; off if left out.
    #[arg(
        long = "status",
        env = "ORLOP_STATUS",
        value_name = "ADDRESS",
        requires = "token_file"
    )]
    address: Option<SocketAddr>,

    /// The file with the token that whoever opens the page has to know, as the password to any name; read again when it changes.
    #[arg(
        long = "status-token-file",
        env = "ORLOP_STATUS_TOKEN_FILE",
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    layers: LayersAt,
}

impl Page {
    /// Has the page served until the token is set, if it is wanted.
    pub(super) async fn serve(
        self,
        router: &Router,
        findings: &Findings,
        running: &mut JoinSet<Result<()>>,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        let Some(address) = self.address else {
            return Ok(());
        };
        let token = Token::in_file(self.token_file.context("say --status-token-file")?)?;
        let port = http::bind(address).await?;
        let caches = self.layers.caches(None)?;
        let of = Of::Cluster(Box::new(router.clone()), findings.clone());
        let watched = Watched { of, caches };
        running.spawn(status::serve(port, Some(token), watched, shutdown.clone()));
        Ok(())
    }
}
