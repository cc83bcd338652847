//! The driver that is measured: the real binary in a process of its own, and a CSI client on its socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orlop::csi::proto::controller_client::ControllerClient;
use orlop::csi::proto::identity_client::IdentityClient;
use orlop::csi::proto::node_client::NodeClient;
use orlop::csi::proto::volume_capability::access_mode::Mode;
use orlop::csi::proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use orlop::csi::proto::volume_content_source::{Type, VolumeSource};
use orlop::csi::proto::{
    CapacityRange, CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest,
    DeleteVolumeRequest, ListVolumesRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, ProbeRequest,
    VolumeCapability, VolumeContentSource,
};
use tonic::transport::{Channel, Endpoint};

/// The binary under measurement.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_orlop");

/// How long a start may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running driver; killed when dropped, and its socket removed.
pub(crate) struct Node {
    child: Child,
    directory: tempfile::TempDir,
    pub(crate) client: Client,
    /// From the start of the process to the first answer to Probe.
    pub(crate) started_in: Duration,
}

/// One connection to a driver; a clone shares it.
#[derive(Clone)]
pub(crate) struct Client(Channel);

/// What kind of volume is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tree,
    Block,
}

impl Node {
    /// A driver with one pool of this kind (`directory`, `btrfs`) in `place`, that has answered.
    pub(crate) async fn start(kind: &str, place: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let pools = directory.path().join("pools.yaml");
        let place = place.display();
        fs::write(
            &pools,
            format!("pools:\n  - name: bench\n    {kind}: {{ path: {place} }}\n"),
        )?;
        let socket = directory.path().join("csi.sock");
        #[expect(
            clippy::disallowed_methods,
            reason = "the driver is what is measured, not a tool of ours"
        )]
        let mut command = std::process::Command::new(BINARY);
        let said = fs::File::create(directory.path().join("log"))?;
        let begun = Instant::now();
        let mut child = command
            .args([
                "node",
                "--log",
                "warn",
                "--node-name",
                "bench",
                "--endpoint",
            ])
            .arg(&socket)
            .arg("--pools")
            .arg(&pools)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .with_context(|| format!("starting {BINARY}"))?;
        match Client::first(&socket, begun, &mut child).await {
            Ok(client) => Ok(Self {
                child,
                directory,
                client,
                started_in: begun.elapsed(),
            }),
            Err(error) => {
                child.kill()?;
                let log = fs::read_to_string(directory.path().join("log"))?;
                Err(error.context(log))
            }
        }
    }

    /// Another connection.
    pub(crate) async fn connect(&self) -> Result<Client> {
        Client::connect(&self.directory.path().join("csi.sock")).await
    }

    /// A figure of `/proc/PID/status`, such as `VmRSS` in KiB.
    pub(crate) fn status(&self, key: &str) -> Result<f64> {
        crate::status::of(self.child.id(), key)
    }

    /// Page faults of the processes that it started and that ended: none, if it started none.
    pub(crate) fn faults_of_children(&self) -> Result<u64> {
        let file = format!("/proc/{}/stat", self.child.id());
        let text = fs::read_to_string(&file).context(file)?;
        // After the name in brackets, which may hold anything, the state is field 3, and this one field 11.
        text.rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(8)?.parse().ok())
            .context("the stat has no cminflt")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("process {} stays behind: {error}", self.child.id());
        }
    }
}

impl Client {
    async fn connect(socket: &Path) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        Ok(Self(endpoint.connect().await?))
    }

    /// Connects to a process that has just been started, until it answers.
    async fn first(socket: &Path, begun: Instant, child: &mut Child) -> Result<Self> {
        loop {
            if let Ok(client) = Self::connect(socket).await {
                client.probe().await?;
                return Ok(client);
            }
            ensure!(child.try_wait()?.is_none(), "the driver ended at once");
            ensure!(begun.elapsed() < PATIENCE, "the driver does not answer");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.0.clone()).max_decoding_message_size(64 << 20)
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.0.clone())
    }

    pub(crate) async fn probe(&self) -> Result<()> {
        IdentityClient::new(self.0.clone())
            .probe(ProbeRequest {})
            .await?;
        Ok(())
    }

    /// Creates a volume of so many bytes, with the content of the volume `source` if one is named; gives its id.
    pub(crate) async fn create(
        &self,
        name: String,
        kind: Kind,
        size: i64,
        source: Option<&str>,
    ) -> Result<String> {
        let request = CreateVolumeRequest {
            name,
            capacity_range: Some(CapacityRange {
                required_bytes: size,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![capability(kind)],
            volume_content_source: source.map(|id| VolumeContentSource {
                r#type: Some(Type::Volume(VolumeSource {
                    volume_id: id.to_owned(),
                })),
            }),
            ..CreateVolumeRequest::default()
        };
        let answer = self.controller().create_volume(request).await?.into_inner();
        Ok(answer.volume.context("no volume in the answer")?.volume_id)
    }

    /// An empty tree of 1 MiB.
    pub(crate) async fn tree(&self, name: String) -> Result<String> {
        self.create(name, Kind::Tree, 1 << 20, None).await
    }

    pub(crate) async fn delete(&self, volume_id: String) -> Result<()> {
        let request = DeleteVolumeRequest {
            volume_id,
            ..DeleteVolumeRequest::default()
        };
        self.controller().delete_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn snapshot(&self, volume: &str, name: String) -> Result<String> {
        let request = CreateSnapshotRequest {
            source_volume_id: volume.to_owned(),
            name,
            ..CreateSnapshotRequest::default()
        };
        let answer = self.controller().create_snapshot(request).await?;
        let snapshot = answer.into_inner().snapshot;
        Ok(snapshot.context("no snapshot in the answer")?.snapshot_id)
    }

    pub(crate) async fn delete_snapshot(&self, snapshot_id: String) -> Result<()> {
        let request = DeleteSnapshotRequest {
            snapshot_id,
            ..DeleteSnapshotRequest::default()
        };
        self.controller().delete_snapshot(request).await?;
        Ok(())
    }

    /// All volumes in one answer; gives how many.
    pub(crate) async fn list(&self) -> Result<usize> {
        let request = ListVolumesRequest::default();
        let answer = self.controller().list_volumes(request).await?;
        Ok(answer.into_inner().entries.len())
    }

    pub(crate) async fn stage(&self, volume: &str, staging: &Path) -> Result<()> {
        let request = NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: text(staging),
            volume_capability: Some(capability(Kind::Tree)),
            ..NodeStageVolumeRequest::default()
        };
        self.node().node_stage_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn unstage(&self, volume: &str, staging: &Path) -> Result<()> {
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: text(staging),
        };
        self.node().node_unstage_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn publish(&self, volume: &str, staging: &Path, target: &Path) -> Result<()> {
        let request = NodePublishVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: text(staging),
            target_path: text(target),
            volume_capability: Some(capability(Kind::Tree)),
            ..NodePublishVolumeRequest::default()
        };
        self.node().node_publish_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn unpublish(&self, volume: &str, target: &Path) -> Result<()> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: text(target),
        };
        self.node().node_unpublish_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn stats(&self, volume: &str, path: &Path) -> Result<()> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: volume.to_owned(),
            volume_path: text(path),
            ..NodeGetVolumeStatsRequest::default()
        };
        self.node().node_get_volume_stats(request).await?;
        Ok(())
    }
}

/// Where a directory pool in `place` keeps the image of a volume.
pub(crate) fn image(place: &Path, volume: &str) -> PathBuf {
    let name = volume.rsplit('/').next().unwrap_or(volume);
    place.join("volumes").join(name).join("image")
}

fn capability(kind: Kind) -> VolumeCapability {
    let access_type = match kind {
        Kind::Tree => AccessType::Mount(MountVolume::default()),
        Kind::Block => AccessType::Block(BlockVolume {}),
    };
    VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(access_type),
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
