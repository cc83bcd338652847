//! `orlop controller`: the router of a cluster, on the socket of the sidecars.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use super::Log;
use super::node::{runtime, until_all_ended};
use crate::cluster::Router;
use crate::cluster::kubernetes::{self, Service};
use crate::cluster::nodes::Members;
use crate::csi::endpoint::Endpoint;
use crate::csi::proto::controller_server::ControllerServer;
use crate::csi::proto::identity_server::IdentityServer;
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

    /// Find the nodes by Kubernetes: those behind the headless service of this namespace.
    #[arg(long, env = "ORLOP_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,

    /// The headless service of the nodes; of several ports, the one named `router` is taken.
    #[arg(
        long,
        env = "ORLOP_SERVICE",
        default_value = "orlop-nodes",
        value_name = "NAME"
    )]
    service: String,

    /// How to reach the Kubernetes; if left out, as a pod does.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE", requires = "namespace")]
    kubeconfig: Option<PathBuf>,

    /// The directory with the router's `tls.crt` and `tls.key`, and the `ca.crt` of the nodes.
    #[arg(long, env = "ORLOP_CERTIFICATES", value_name = "DIR")]
    certificates: PathBuf,

    /// Serve /metrics, /healthz and /readyz on this address, such as 127.0.0.1:9097; off if left out.
    #[arg(long, env = "ORLOP_METRICS", value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,

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
        let credentials = Credentials::open(&self.certificates)?;
        let (is, must_be) = (credentials.role(), Role::Controller);
        ensure!(
            is == must_be,
            "the certificate in {} is of {is}: the router is {must_be}",
            self.certificates.display()
        );
        let members = match self.namespace {
            None => watch::Sender::new(Some(members(self.nodes)?)).subscribe(),
            Some(namespace) => {
                let service = Service {
                    namespace,
                    name: self.service,
                };
                let client = kubernetes::client(self.kubeconfig.as_deref()).await?;
                kubernetes::follow(client, service, shutdown.clone())
            }
        };
        let router = Router::new(members, credentials, shutdown.clone());
        let metrics = Metrics::new();
        let socket = Socket::bind(&self.endpoint)?;
        let services = Routes::new(IdentityServer::new(Identity::new(router.clone())))
            .add_service(ControllerServer::new(router.clone()));
        let mut running = JoinSet::new();
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
