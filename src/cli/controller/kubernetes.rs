//! What a controller in a Kubernetes is told of it, and what it has from there: its nodes, and certificates for all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::DRAIN_LIMIT;
use crate::cli::node::host_name;
use crate::cluster::Router;
use crate::cluster::kubernetes::{self, Absences, Election, Records, Service};
use crate::cluster::nodes::Members;
use crate::cluster::reconcile::{Findings, Patience, Reconciler};
use crate::csi;
use crate::csi::proto::inspection::enrolment_server::EnrolmentServer;
use crate::enrol::{Desk, Keeper, Signer};
use crate::telemetry::metrics::Metrics;
use crate::tls::Credentials;

/// What the controller holds that leads.
pub(in crate::cli) const LEASE: &str = "orlop-controller";

#[derive(Args, Debug)]
pub(super) struct Kubernetes {
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

    /// Let volumes be deleted of which a node is the last known place whose Node object is gone for so long, such as 24h; if
    /// left out they are waited for.
    #[arg(
        long,
        env = "ORLOP_FORGET_LOST_NODES_AFTER",
        value_name = "TIME",
        value_parser = time,
        requires = "namespace"
    )]
    forget_lost_nodes_after: Option<Duration>,

    /// Call a volume an orphan that no `PersistentVolume` names for so long.
    #[arg(
        long,
        env = "ORLOP_ORPHANS_AFTER",
        default_value = "1h",
        value_name = "TIME",
        value_parser = time
    )]
    orphans_after: Duration,

    /// Delete orphans that were made for a claim which is gone, when they are so for so long, such as 168h; never, if left
    /// out.
    #[arg(
        long,
        env = "ORLOP_DELETE_ORPHANS_AFTER",
        value_name = "TIME",
        value_parser = time,
        requires = "namespace"
    )]
    delete_orphans_after: Option<Duration>,

    /// Release the claims of classes with `onNodeLoss: release` when the Node object of their volume is gone for so long; at
    /// once, if a person taints it `node.kubernetes.io/out-of-service`.
    #[arg(
        long,
        env = "ORLOP_RELEASE_CLAIMS_AFTER",
        default_value = "10m",
        value_name = "TIME",
        value_parser = time
    )]
    release_claims_after: Duration,

    /// What this controller is called among those of which one leads; the name of the host if left out.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,

    /// Sign certificates on this address, such as 0.0.0.0:9741, for nodes that prove by a token who they are.
    #[arg(
        long,
        env = "ORLOP_ENROL_LISTEN",
        value_name = "ADDRESS",
        requires = "namespace",
        conflicts_with = "certificates"
    )]
    enrol_listen: Option<SocketAddr>,

    /// The service account of the nodes, whose tokens are believed.
    #[arg(
        long,
        env = "ORLOP_ENROL_ACCOUNT",
        default_value = "orlop-node",
        value_name = "NAME"
    )]
    enrol_account: String,

    /// The Secret with the authorities that sign, where no --certificates are given; it is made if it is not there.
    #[arg(
        long,
        env = "ORLOP_CA_SECRET",
        default_value = "orlop-ca",
        value_name = "NAME"
    )]
    ca_secret: String,

    /// Another keeps that Secret, such as cert-manager: it has `tls.crt` and `tls.key` of an authority, and is only read.
    #[arg(long, env = "ORLOP_CA_ISSUED")]
    ca_issued: bool,

    /// The `ConfigMap` that tells the certificates of these authorities, as `ca.crt`.
    #[arg(
        long,
        env = "ORLOP_TRUST_CONFIGMAP",
        default_value = "orlop-trust",
        value_name = "NAME"
    )]
    trust_configmap: String,
}

/// A Kubernetes that can be asked.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
    told: Kubernetes,
}

impl Kubernetes {
    /// The one that was told, if one was.
    pub(super) async fn connect(mut self) -> Result<Option<Cluster>> {
        let Some(namespace) = self.namespace.take() else {
            return Ok(None);
        };
        let client = kubernetes::client(self.kubeconfig.as_deref()).await?;
        Ok(Some(Cluster {
            client,
            namespace,
            told: self,
        }))
    }
}

impl Cluster {
    /// Its nodes, and where its volumes were.
    pub(super) fn nodes(
        &self,
        shutdown: &CancellationToken,
    ) -> (watch::Receiver<Option<Members>>, Option<Records>) {
        let service = Service {
            namespace: self.namespace.clone(),
            name: self.told.service.clone(),
        };
        let (client, absences) = (self.client.clone(), Absences::default());
        let records = Records::new(
            client.clone(),
            absences.clone(),
            self.told.forget_lost_nodes_after,
        );
        let members = kubernetes::follow(client, service, absences, shutdown.clone());
        (members, Some(records))
    }

    /// Looks, while this controller leads, whether what is recorded is what the nodes have.
    pub(super) fn reconcile(
        &self,
        router: Router,
        records: Records,
        findings: Findings,
        running: &mut JoinSet<Result<()>>,
        shutdown: &CancellationToken,
    ) {
        let identity = self.told.identity.clone().unwrap_or_else(host_name);
        let election = Election::new(self.client.clone(), &self.namespace, LEASE, identity);
        let patience = Patience {
            orphans_after: self.told.orphans_after,
            delete_orphans_after: self.told.delete_orphans_after,
            release_claims_after: self.told.release_claims_after,
        };
        let client = self.client.clone();
        let reconciler = Reconciler::new(router, client, records, patience, findings);
        let shutdown = shutdown.clone();
        running.spawn(async move {
            // It is large, and lives as long as the controller.
            let look = async || Box::pin(reconciler.look()).await;
            election.lead(shutdown, look).await;
            Ok(())
        });
    }

    /// Signs for this controller and, if it was told where, for nodes.
    pub(super) async fn sign(
        &self,
        running: &mut JoinSet<Result<()>>,
        metrics: &Arc<Metrics>,
        shutdown: &CancellationToken,
    ) -> Result<Credentials> {
        let keeper = if self.told.ca_issued {
            Keeper::Another
        } else {
            Keeper::Us
        };
        let secret = (keeper, self.told.ca_secret.clone());
        let trust = self.told.trust_configmap.clone();
        let signer = Signer::open(&self.client, &self.namespace, secret, trust).await?;
        let credentials = signer.credentials().clone();
        running.spawn(signer.clone().keep(shutdown.clone()));
        if let Some(address) = self.told.enrol_listen {
            let port = TcpListener::bind(address)
                .await
                .with_context(|| format!("the address {address} could not be opened for nodes"))?;
            let account = &self.told.enrol_account;
            let desk = Desk::new(signer, &self.client, &self.namespace, account);
            running.spawn(csi::serve_over_tls(
                port,
                credentials.server_for_anybody(),
                Routes::new(EnrolmentServer::new(desk)),
                Arc::clone(metrics),
                shutdown.clone(),
                DRAIN_LIMIT,
            ));
        }
        Ok(credentials)
    }
}

fn time(text: &str) -> Result<Duration> {
    let time: jiff::SignedDuration = text.parse().context("write it like 24h or 30m")?;
    Duration::try_from(time).context("it must not be negative")
}
