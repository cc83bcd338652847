//! The part of Kubernetes in the demo: the CSI calls that its sidecars and a kubelet make.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::csi::endpoint::Endpoint;
use crate::csi::proto::controller_client::ControllerClient;
use crate::csi::proto::node_client::NodeClient;
use crate::csi::proto::volume_capability::access_mode::Mode;
use crate::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use crate::csi::proto::volume_content_source::{SnapshotSource, Type};
use crate::csi::proto::{
    CapacityRange, CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest,
    DeleteVolumeRequest, ListSnapshotsRequest, ListVolumesRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Snapshot, Volume,
    VolumeCapability, VolumeContentSource,
};
use crate::volume::Bytes;

/// A client of a node's CSI, which keeps its mount points in a directory.
#[derive(Clone)]
pub(super) struct Client {
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    mount_points: PathBuf,
}

impl Client {
    pub(super) async fn connect(endpoint: &Endpoint, mount_points: &Path) -> Result<Self> {
        let channel = tonic::transport::Endpoint::from_shared(endpoint.to_string())?
            .connect()
            .await
            .with_context(|| format!("connecting to {endpoint}"))?;
        Ok(Self {
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel),
            mount_points: mount_points.to_owned(),
        })
    }

    /// Creates a volume, empty or from a snapshot.
    pub(super) async fn create(
        &self,
        name: &str,
        size: Bytes,
        from: Option<&Snapshot>,
    ) -> Result<Volume> {
        let source = |snapshot: &Snapshot| VolumeContentSource {
            r#type: Some(Type::Snapshot(SnapshotSource {
                snapshot_id: snapshot.snapshot_id.clone(),
            })),
        };
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: size.as_wire(),
                limit_bytes: 0,
            }),
            volume_capabilities: vec![capability()],
            volume_content_source: from.map(source),
            ..CreateVolumeRequest::default()
        };
        let created = answer(
            "CreateVolume",
            self.controller.clone().create_volume(request),
        )
        .await?;
        created.volume.context("CreateVolume answered no volume")
    }

    /// Stages a volume and publishes it, as for one pod; gives the path where it is.
    pub(super) async fn publish(&self, volume: &Volume) -> Result<PathBuf> {
        let (staging, target) = self.paths();
        let request = NodeStageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path: staging.clone(),
            volume_capability: Some(capability()),
            volume_context: volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        answer(
            "NodeStageVolume",
            self.node.clone().node_stage_volume(request),
        )
        .await?;
        let request = NodePublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path: staging,
            target_path: target.clone(),
            volume_capability: Some(capability()),
            volume_context: volume.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        };
        answer(
            "NodePublishVolume",
            self.node.clone().node_publish_volume(request),
        )
        .await?;
        Ok(target.into())
    }

    /// Takes back what [`Client::publish`] did.
    pub(super) async fn unpublish(&self, volume: &Volume) -> Result<()> {
        let (staging_target_path, target_path) = self.paths();
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            target_path,
        };
        answer(
            "NodeUnpublishVolume",
            self.node.clone().node_unpublish_volume(request),
        )
        .await?;
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path,
        };
        answer(
            "NodeUnstageVolume",
            self.node.clone().node_unstage_volume(request),
        )
        .await?;
        Ok(())
    }

    pub(super) async fn snapshot(&self, volume: &Volume, name: &str) -> Result<Snapshot> {
        let request = CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.volume_id.clone(),
            ..CreateSnapshotRequest::default()
        };
        let taken = answer(
            "CreateSnapshot",
            self.controller.clone().create_snapshot(request),
        )
        .await?;
        taken
            .snapshot
            .context("CreateSnapshot answered no snapshot")
    }

    pub(super) async fn delete(&self, volume: &Volume) -> Result<()> {
        let request = DeleteVolumeRequest {
            volume_id: volume.volume_id.clone(),
            ..DeleteVolumeRequest::default()
        };
        answer(
            "DeleteVolume",
            self.controller.clone().delete_volume(request),
        )
        .await?;
        Ok(())
    }

    pub(super) async fn delete_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        let request = DeleteSnapshotRequest {
            snapshot_id: snapshot.snapshot_id.clone(),
            ..DeleteSnapshotRequest::default()
        };
        answer(
            "DeleteSnapshot",
            self.controller.clone().delete_snapshot(request),
        )
        .await?;
        Ok(())
    }

    /// The ids of all volumes and snapshots that there are.
    pub(super) async fn list(&self) -> Result<Vec<String>> {
        let mut controller = self.controller.clone();
        let volumes = answer(
            "ListVolumes",
            controller.list_volumes(ListVolumesRequest::default()),
        )
        .await?;
        let snapshots = answer(
            "ListSnapshots",
            controller.list_snapshots(ListSnapshotsRequest::default()),
        )
        .await?;
        let volumes = volumes.entries.into_iter().filter_map(|entry| entry.volume);
        let snapshots = snapshots
            .entries
            .into_iter()
            .filter_map(|entry| entry.snapshot);
        Ok(volumes
            .map(|volume| volume.volume_id)
            .chain(snapshots.map(|snapshot| snapshot.snapshot_id))
            .collect())
    }

    fn paths(&self) -> (String, String) {
        let path = |name: &str| self.mount_points.join(name).display().to_string();
        (path("staged"), path("published"))
    }
}

/// A directory that one pod at a time writes to.
fn capability() -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

async fn answer<T>(
    method: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T> {
    match call.await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(anyhow!(
            "{method}: {} ({:?})",
            status.message(),
            status.code()
        )),
    }
}
