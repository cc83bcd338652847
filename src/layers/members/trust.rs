//! How peers know each other: by their certificates, each of which names a node; or, in a lab, not at all.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use axum::serve::Listener;
use reqwest::ClientBuilder;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::tls::{self, Connection, Credentials, Role};

/// What this node proves itself to its peers with, and asks of them.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Nothing: whoever reaches the port is a peer.
    Anyone,
    /// A certificate of a node, from the authority of ours.
    Nodes(Credentials),
}

/// Accepts peers that have proved to be nodes.
pub struct Proven {
    local: std::net::SocketAddr,
    connections: ReceiverStream<io::Result<Connection>>,
}

impl Trust {
    /// By the certificates of a folder, which are followed when they change; without one, anyone is trusted, and the log
    /// says so.
    pub fn open(certificates: Option<&Path>) -> Result<Self> {
        let Some(folder) = certificates else {
            tracing::warn!(
                "peers are not asked who they are, and what they send can be read: give --certificates unless this is a lab"
            );
            return Ok(Self::Anyone);
        };
        let credentials = Credentials::open(folder)
            .with_context(|| format!("reading the certificates in {}", folder.display()))?;
        anyhow::ensure!(
            is_node(&credentials.role()),
            "the certificate in {} is {}'s, and peers talk to nodes alone",
            folder.display(),
            credentials.role()
        );
        Ok(Self::Nodes(credentials))
    }

    /// How the addresses of peers begin.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Anyone => "http",
            Self::Nodes(_) => "https",
        }
    }

    /// A client that talks to nobody else.
    pub fn client(&self, builder: ClientBuilder) -> ClientBuilder {
        match self {
            Self::Anyone => builder,
            Self::Nodes(credentials) => {
                builder.tls_backend_preconfigured(credentials.client(is_node))
            }
        }
    }

    /// The port of peers, if they are to prove who they are; the port itself, if not.
    pub fn listener(&self, port: TcpListener) -> Result<Result<Proven, TcpListener>> {
        let Self::Nodes(credentials) = self else {
            return Ok(Err(port));
        };
        let local = port.local_addr().context("listening for peers")?;
        let connections = tls::listen(port, credentials.server(is_node));
        Ok(Ok(Proven { local, connections }))
    }
}

fn is_node(role: &Role) -> bool {
    matches!(role, Role::Node(_))
}

impl Listener for Proven {
    type Io = Connection;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Connection, std::net::SocketAddr) {
        loop {
            match self.connections.next().await {
                Some(Ok(connection)) => return (connection, self.local),
                Some(Err(error)) => tracing::warn!(%error, "a peer was not accepted"),
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        Ok(self.local)
    }
}
