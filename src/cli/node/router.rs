//! What a node serves to the router: all except what is done on its machine itself, over mutual TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DRAIN_LIMIT, routes_for_router};
use crate::cli::enrolment::Enrolment;
use crate::csi;
use crate::driver::Driver;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Credentials, Role};

/// Where the router may call, and how the node proves to it who it is.
#[derive(Args, Debug, Default)]
pub(super) struct ForRouter {
    /// Let the router call on this address, such as 0.0.0.0:9740, over mutual TLS; off if left out.
    #[arg(
        long,
        env = "ORLOP_LISTEN",
        value_name = "ADDRESS",
        requires = "certificates"
    )]
    listen: Option<SocketAddr>,

    /// The directory with this node's `tls.crt` and `tls.key`, and the `ca.crt` of those whom it believes.
    #[arg(long, env = "ORLOP_CERTIFICATES", value_name = "DIR")]
    certificates: Option<PathBuf>,

    #[command(flatten)]
    enrolment: Enrolment,
}

impl ForRouter {
    /// Serves the calls of the router until the token is set; none where none were wanted. While there is no certificate
    /// yet, nothing is served here, and all else of the node goes on.
    pub(super) async fn serve(
        self,
        driver: Driver,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Result<()> {
        let (Some(address), Some(folder)) = (self.listen, &self.certificates) else {
            shutdown.cancelled().await;
            return Ok(());
        };
        let applicant = self.enrolment.applicant(folder, driver.node());
        if let Some(applicant) = &applicant {
            tokio::select! {
                begun = applicant.begin() => begun?,
                () = shutdown.cancelled() => return Ok(()),
            }
        }
        let credentials = credentials(folder, driver.node())?;
        let port = TcpListener::bind(address)
            .await
            .with_context(|| format!("the address {address} could not be opened for the router"))?;
        let config = credentials.server(|role| *role == Role::Controller);
        let routes = routes_for_router(&driver);
        let stop = shutdown.clone();
        let serving = csi::serve_over_tls(port, config, routes, metrics, shutdown, DRAIN_LIMIT);
        match applicant {
            None => serving.await,
            Some(applicant) => tokio::try_join!(serving, applicant.keep(stop)).map(drop),
        }
    }
}

/// The credentials in a directory, which must be of the node of this name.
fn credentials(directory: &Path, node: &str) -> Result<Credentials> {
    let credentials = Credentials::open(directory)?;
    let (is, must_be) = (credentials.role(), Role::Node(node.to_owned()));
    ensure!(
        is == must_be,
        "the certificate in {} is of {is}: this node is {must_be}, give it its own",
        directory.display()
    );
    Ok(credentials)
}
