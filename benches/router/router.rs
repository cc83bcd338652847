//! The router that is measured, and a node that is asked without one.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hyper_util::rt::TokioIo;
use orlop::csi::proto::controller_client::ControllerClient;
use orlop::csi::proto::volume_capability::access_mode::Mode;
use orlop::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use orlop::csi::proto::{
    CreateVolumeRequest, DeleteVolumeRequest, Topology, TopologyRequirement, VolumeCapability,
};
use orlop::tls::{self, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::authority::Authority;
use crate::fakes::TOPOLOGY;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// A running `orlop controller`; killed when dropped.
pub(crate) struct Router {
    process: Child,
    metrics: SocketAddr,
    socket: PathBuf,
    client: ControllerClient<Channel>,
}

/// A connection to a node.
pub(crate) struct Direct(ControllerClient<Channel>);

impl Router {
    /// Starts one over these nodes, and waits until it serves.
    pub(crate) async fn start(
        authority: &Authority,
        members: &[(String, SocketAddr)],
        desk: &Path,
    ) -> Result<Self> {
        let certificates = authority.sign(&Role::Controller.to_string(), desk);
        let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let socket = desk.join("router.sock");
        #[expect(clippy::disallowed_methods, reason = "the router is another's process")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
        command.arg("controller").arg("--endpoint").arg(&socket);
        command.arg("--certificates").arg(certificates);
        command.args(["--metrics", &metrics.to_string()]);
        for (name, address) in members {
            command.args(["--node", &format!("{name}={address}")]);
        }
        let log = fs::File::create(desk.join("log"))?;
        let process = command.stderr(Stdio::from(log)).spawn()?;
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect_lazy();
        let router = Self {
            process,
            metrics,
            socket,
            client: ControllerClient::new(channel),
        };
        let begun = Instant::now();
        while router.told().await.is_err() {
            ensure!(begun.elapsed() < PATIENCE, "the router does not serve");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(router)
    }

    /// Waits until it knows what every node has.
    pub(crate) async fn until_all_are_heard(&self, nodes: usize) -> Result<()> {
        let begun = Instant::now();
        let line = format!("orlop_nodes{{state=\"heard\"}} {nodes}");
        while !self.told().await?.lines().any(|told| told == line) {
            ensure!(begun.elapsed() < PATIENCE, "not all nodes were heard");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// What it tells at /metrics.
    async fn told(&self) -> Result<String> {
        let mut stream = tokio::net::TcpStream::connect(self.metrics).await?;
        let ask = b"GET /metrics HTTP/1.1\r\nHost: router\r\nConnection: close\r\n\r\n";
        stream.write_all(ask).await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok(said)
    }

    /// A line of its `/proc/PID/status`, in KiB.
    pub(crate) fn status(&self, key: &str) -> Result<f64> {
        crate::status::of(self.process.id(), key)
    }

    pub(crate) async fn create(&self, name: &str, node: &str) -> Result<()> {
        let mut client = self.client.clone();
        client.create_volume(creation(name, node)).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<()> {
        let request = DeleteVolumeRequest {
            volume_id: id.to_owned(),
            ..Default::default()
        };
        self.client.clone().delete_volume(request).await?;
        Ok(())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // One that has ended by itself is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

impl Direct {
    /// As the router has one to it.
    pub(crate) fn to(authority: &Authority, name: &str, address: SocketAddr) -> Self {
        let expected = Role::Node(name.to_owned());
        let credentials = authority.credentials(&Role::Controller.to_string());
        let config = Arc::new(credentials.client(move |role| *role == expected));
        let connect = move |_: Uri| {
            let config = Arc::clone(&config);
            async move { io::Result::Ok(TokioIo::new(tls::connect(address, config).await?)) }
        };
        let channel = Endpoint::from_static("http://node");
        let channel = channel.connect_with_connector_lazy(tower::service_fn(connect));
        Self(ControllerClient::new(channel))
    }

    pub(crate) async fn create(&self, name: &str) -> Result<()> {
        self.0.clone().create_volume(creation(name, "any")).await?;
        Ok(())
    }
}

/// As the provisioner asks for a volume on the node that the scheduler has chosen.
fn creation(name: &str, node: &str) -> CreateVolumeRequest {
    let there = Topology {
        segments: [(TOPOLOGY.to_owned(), node.to_owned())].into(),
    };
    CreateVolumeRequest {
        name: name.to_owned(),
        volume_capabilities: vec![VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        }],
        accessibility_requirements: Some(TopologyRequirement {
            requisite: vec![there.clone()],
            preferred: vec![there],
        }),
        ..Default::default()
    }
}
