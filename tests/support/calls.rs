//! The requests that tests send, with only what matters to them said.

#![allow(dead_code, reason = "no test sends all of them")]

use std::path::Path;

use orlop::csi::proto::controller_client::ControllerClient;
use orlop::csi::proto::identity_client::IdentityClient;
use orlop::csi::proto::node_client::NodeClient;
use orlop::csi::proto::volume_capability::access_mode::Mode;
use orlop::csi::proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use orlop::csi::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use orlop::csi::proto::{
    CapacityRange, ControllerExpandVolumeRequest, CreateSnapshotRequest, CreateVolumeRequest,
    DeleteSnapshotRequest, DeleteVolumeRequest, ListSnapshotsRequest, ListVolumesRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, Snapshot, Volume, VolumeCapability, VolumeContentSource,
};
use tonic::Status;
use tonic::transport::Channel;

/// One mebibyte.
pub(crate) const MIB: i64 = 1 << 20;

/// The clients of one connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) identity: IdentityClient<Channel>,
    pub(crate) controller: ControllerClient<Channel>,
    pub(crate) node: NodeClient<Channel>,
}

impl Client {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            identity: IdentityClient::new(channel.clone()),
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel),
        }
    }

    pub(crate) async fn create(&mut self, request: CreateVolumeRequest) -> Result<Volume, Status> {
        let created = self.controller.create_volume(request).await?.into_inner();
        Ok(created.volume.expect("a created volume is told"))
    }

    pub(crate) async fn delete(&mut self, id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest {
            volume_id: id.to_owned(),
            ..Default::default()
        };
        self.controller.delete_volume(request).await.map(drop)
    }

    pub(crate) async fn snapshot(&mut self, name: &str, of: &str) -> Result<Snapshot, Status> {
        let request = CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: of.to_owned(),
            ..Default::default()
        };
        let taken = self.controller.create_snapshot(request).await?.into_inner();
        Ok(taken.snapshot.expect("a taken snapshot is told"))
    }

    pub(crate) async fn delete_snapshot(&mut self, id: &str) -> Result<(), Status> {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..Default::default()
        };
        self.controller.delete_snapshot(request).await.map(drop)
    }

    /// Grows to at least so many bytes, and gives how many there are.
    pub(crate) async fn grow(&mut self, id: &str, bytes: i64) -> Result<i64, Status> {
        let request = ControllerExpandVolumeRequest {
            volume_id: id.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: bytes,
                limit_bytes: 0,
            }),
            ..Default::default()
        };
        let grown = self.controller.controller_expand_volume(request).await?;
        Ok(grown.into_inner().capacity_bytes)
    }

    pub(crate) async fn stage(
        &mut self,
        id: &str,
        at: &Path,
        capability: VolumeCapability,
    ) -> Result<(), Status> {
        let request = NodeStageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: text(at),
            volume_capability: Some(capability),
            ..Default::default()
        };
        self.node.node_stage_volume(request).await.map(drop)
    }

    pub(crate) async fn unstage(&mut self, id: &str, at: &Path) -> Result<(), Status> {
        let request = NodeUnstageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: text(at),
        };
        self.node.node_unstage_volume(request).await.map(drop)
    }

    pub(crate) async fn publish(
        &mut self,
        request: NodePublishVolumeRequest,
    ) -> Result<(), Status> {
        self.node.node_publish_volume(request).await.map(drop)
    }

    pub(crate) async fn unpublish(&mut self, id: &str, at: &Path) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: text(at),
        };
        self.node.node_unpublish_volume(request).await.map(drop)
    }

    /// All volumes.
    pub(crate) async fn volumes(&mut self) -> Vec<Volume> {
        let listed = self
            .controller
            .list_volumes(ListVolumesRequest::default())
            .await;
        let entries = listed.expect("listing works").into_inner().entries;
        entries
            .into_iter()
            .map(|entry| entry.volume.expect("an entry has a volume"))
            .collect()
    }

    /// All snapshots.
    pub(crate) async fn snapshots(&mut self) -> Vec<Snapshot> {
        let listed = self
            .controller
            .list_snapshots(ListSnapshotsRequest::default())
            .await;
        let entries = listed.expect("listing works").into_inner().entries;
        entries
            .into_iter()
            .map(|entry| entry.snapshot.expect("an entry has a snapshot"))
            .collect()
    }
}

/// A volume of this name that is mounted, of at least so many bytes.
pub(crate) fn volume(name: &str, bytes: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![mounted()],
        ..Default::default()
    }
}

/// The same as an image with this filesystem.
pub(crate) fn image(name: &str, bytes: i64, filesystem: &str) -> CreateVolumeRequest {
    let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    CreateVolumeRequest {
        parameters: [
            ("layout", "image"),
            ("csi.storage.k8s.io/fstype", filesystem),
        ]
        .map(pair)
        .into(),
        ..volume(name, bytes)
    }
}

/// The same as a block device.
pub(crate) fn device(name: &str, bytes: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        volume_capabilities: vec![block()],
        ..volume(name, bytes)
    }
}

/// A publication of a staged volume.
pub(crate) fn publication(id: &str, staging: &Path, target: &Path) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: text(staging),
        target_path: text(target),
        volume_capability: Some(mounted()),
        ..Default::default()
    }
}

pub(crate) fn of_volume(id: &str) -> VolumeContentSource {
    let source = VolumeSource {
        volume_id: id.to_owned(),
    };
    VolumeContentSource {
        r#type: Some(Type::Volume(source)),
    }
}

pub(crate) fn of_snapshot(id: &str) -> VolumeContentSource {
    let source = SnapshotSource {
        snapshot_id: id.to_owned(),
    };
    VolumeContentSource {
        r#type: Some(Type::Snapshot(source)),
    }
}

/// Mounted, for any number of writers on one node.
pub(crate) fn mounted() -> VolumeCapability {
    capability(
        AccessType::Mount(MountVolume::default()),
        Mode::SingleNodeWriter,
    )
}

/// As a block device, for any number of writers on one node.
pub(crate) fn block() -> VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter)
}

pub(crate) fn capability(access: AccessType, mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(access),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str()
        .expect("the paths of tests are text")
        .to_owned()
}
