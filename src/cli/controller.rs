//! `orlop controller`: the router of a cluster, on the socket of the sidecars.

mod kubernetes;
mod page;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use self::kubernetes::Kubernetes;
pub(super) use self::kubernetes::LEASE;
use self::page::Page;
use super::Log;
use super::node::{runtime, until_all_ended};
use crate::cluster::Router;
use crate::cluster::nodes::Members;
use crate::cluster::reconcile::Findings;
use crate::csi::endpoint::Endpoint;
use crate::csi::proto::controller_server::ControllerServer;
use crate::csi::proto::identity_server::IdentityServer;
use crate::csi::proto::inspection::inspection_server::InspectionServer;
use crate::csi::proto::inspection::oversight_server::OversightServer;
use crate::csi::socket::Socket;
use crate::csi::{self, Identity};
use crate::shutdown;
use crate::telemetry::http::{self, Readiness, Ready};
use crate::telemetry::metrics::Metrics;
use crate::tls::{Credentials, Role};

/// How long running calls may take to end after SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
pub(super) struct Controller {
    /// The socket to serve on: `unix:///csi/csi.sock`, or a path.
    #[arg(
        long,
        env = "CSI_ENDPOINT",
        default_value = "unix:///csi/csi.sock",
        value_name = "URL"
    )]
    endpoint: Endpoint,

    /// A node, and where it listens for the router; once for each, where no Kubernetes tells of them.
    #[arg(
        long = "node",
        value_name = "NAME=ADDRESS",
        value_parser = node,
        required_unless_present = "namespace",
        conflicts_with = "namespace"
    )]
    nodes: Vec<(String, SocketAddr)>,

    #[command(flatten)]
    kubernetes: Kubernetes,

    /// The directory with the router's `tls.crt` and `tls.key`, and the `ca.crt` of the nodes; in a Kubernetes it makes its
    /// own if this is left out.
    #[arg(
        long,
        env = "ORLOP_CERTIFICATES",
        value_name = "DIR",
        required_unless_present = "namespace"
    )]
    certificates: Option<PathBuf>,

    /// Serve /metrics, /healthz and /readyz on this address, such as 127.0.0.1:9097; off if left out.
    #[arg(long, env = "ORLOP_METRICS", value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,

    #[command(flatten)]
    page: Page,

    #[command(flatten)]
    log: Log,
}

impl Controller {
    pub(super) fn run(self) -> Result<()> {
        self.log.start()?;
        let runtime = runtime()?;
        let served = runtime.block_on(self.serve());
        runtime.shutdown_timeout(Duration::from_secs(1));
        served
    }

    async fn serve(self) -> Result<()> {
        let shutdown = shutdown::on_signal()?;
        let (metrics, mut running) = (Metrics::new(), JoinSet::new());
        let cluster = self.kubernetes.connect().await?;
        let (members, records) = match &cluster {
            Some(cluster) => cluster.nodes(&shutdown),
            None => (
                watch::Sender::new(Some(members(self.nodes)?)).subscribe(),
                None,
            ),
        };
        let credentials = match (self.certificates, &cluster) {
            (None, Some(cluster)) => cluster.sign(&mut running, &metrics, &shutdown).await?,
            (directory, _) => credentials(&directory.context("say --certificates")?)?,
        };
        let router = Router::new(members, records.clone(), credentials, shutdown.clone());
        router.register(&mut metrics.registry());
        let findings = Findings::default();
        findings.register(&mut metrics.registry());
        let socket = Socket::bind(&self.endpoint)?;
        let services = Routes::new(IdentityServer::new(Identity::new(router.clone())))
            .add_service(ControllerServer::new(router.clone()))
            .add_service(InspectionServer::new(router.clone()))
            .add_service(OversightServer::new(findings.clone()));
        self.page
            .serve(&router, &findings, &mut running, &shutdown)
            .await?;
        if let (Some(cluster), Some(records)) = (&cluster, records) {
            cluster.reconcile(router.clone(), records, findings, &mut running, &shutdown);
        }
        running.spawn(csi::serve(
            socket,
            services,
            Arc::clone(&metrics),
            shutdown.clone(),
            DRAIN_LIMIT,
        ));
        if let Some(address) = self.metrics {
            let port = http::bind(address).await?;
            running.spawn(http::serve(
                port,
                metrics,
                readiness(router),
                shutdown.clone(),
            ));
        }
        until_all_ended(running, &shutdown).await
    }
}

/// The credentials in a directory, which must be a controller's.
fn credentials(directory: &Path) -> Result<Credentials> {
    let credentials = Credentials::open(directory)?;
    let (is, must_be) = (credentials.role(), Role::Controller);
    ensure!(
        is == must_be,
        "the certificate in {} is of {is}: the router is {must_be}",
        directory.display()
    );
    Ok(credentials)
}

fn readiness(router: Router) -> Ready {
    Arc::new(move || {
        if router.knows_the_nodes() {
            return Readiness::Ready;
        }
        Readiness::NotReady("which nodes there are is not known yet".to_owned())
    })
}

fn node(text: &str) -> Result<(String, SocketAddr)> {
    let (name, address) = text
        .split_once('=')
        .context("write it like `node-1=192.0.2.1:9740`")?;
    ensure!(
        !name.is_empty() && !name.contains('/'),
        "{name:?} is not the name of a node"
    );
    let address = address
        .parse()
        .with_context(|| format!("{address:?} is not an address with a port"))?;
    Ok((name.to_owned(), address))
}

fn members(nodes: Vec<(String, SocketAddr)>) -> Result<Members> {
    let mut members = BTreeMap::new();
    for (name, address) in nodes {
        let before = members.insert(name.clone(), Some(address));
        ensure!(before.is_none(), "--node names {name} twice");
    }
    Ok(members)
}
