//! A CSI client that waits for its answers, with the few calls that a volume's life needs.

use std::collections::BTreeMap;
use std::path::Path;

use orlop::csi::proto::controller_client::ControllerClient;
use orlop::csi::proto::node_client::NodeClient;
use orlop::csi::proto::volume_capability::{
    AccessMode, AccessType, BlockVolume, MountVolume, access_mode,
};
use orlop::csi::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use orlop::csi::proto::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerGetVolumeHealthRequest,
    ControllerModifyVolumeRequest, CreateSnapshotRequest, CreateVolumeRequest,
    DeleteSnapshotRequest, DeleteVolumeRequest, ListSnapshotsRequest, ListVolumesRequest,
    NodeGetStorageHealthRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Snapshot,
    VolumeCapability, VolumeContentSource, VolumeUsage,
};
use orlop::names::ENCRYPTION_KEY;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

use crate::node::Node;

/// A connection to a node.
pub(crate) struct Client {
    runtime: Runtime,
    channel: Channel,
    /// The key that stagings come with.
    pub(crate) key: Option<&'static str>,
}

/// What a new volume holds.
pub(crate) enum From<'a> {
    Nothing,
    Volume(&'a str),
    Snapshot(&'a str),
}

impl Client {
    pub(crate) fn of(node: &Node) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let channel = runtime.block_on(node.channel());
        Self {
            runtime,
            channel,
            key: None,
        }
    }

    /// Changes these parameters of a volume.
    pub(crate) fn modify(&self, id: &str, parameters: &[(&str, &str)]) -> Result<(), Status> {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let request = ControllerModifyVolumeRequest {
            volume_id: id.into(),
            mutable_parameters: parameters.iter().map(text).collect(),
            ..Default::default()
        };
        self.runtime
            .block_on(self.controller().controller_modify_volume(request))
            .map(drop)
    }

    /// Creates a mount volume with these parameters, and gives its id.
    pub(crate) fn create(
        &self,
        name: &str,
        size: u64,
        parameters: &[(&str, &str)],
        from: &From<'_>,
    ) -> Result<String, Status> {
        self.create_as(capability(), name, size, parameters, from)
    }

    /// The same to be used as a device: it has no filesystem.
    pub(crate) fn create_device(
        &self,
        name: &str,
        size: u64,
        parameters: &[(&str, &str)],
    ) -> Result<String, Status> {
        let device = VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume::default())),
            ..capability()
        };
        self.create_as(device, name, size, parameters, &From::Nothing)
    }

    fn create_as(
        &self,
        usage: VolumeCapability,
        name: &str,
        size: u64,
        parameters: &[(&str, &str)],
        from: &From<'_>,
    ) -> Result<String, Status> {
        let source = match from {
            From::Nothing => None,
            From::Volume(id) => Some(Type::Volume(VolumeSource {
                volume_id: (*id).into(),
            })),
            From::Snapshot(id) => Some(Type::Snapshot(SnapshotSource {
                snapshot_id: (*id).into(),
            })),
        };
        let request = CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(range(size)),
            volume_capabilities: vec![usage],
            parameters: parameters
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            volume_content_source: source.map(|source| VolumeContentSource {
                r#type: Some(source),
            }),
            ..Default::default()
        };
        let created = self
            .runtime
            .block_on(self.controller().create_volume(request))?;
        Ok(created
            .into_inner()
            .volume
            .expect("an answer has a volume")
            .volume_id)
    }

    pub(crate) fn delete(&self, id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest {
            volume_id: id.into(),
            ..Default::default()
        };
        self.runtime
            .block_on(self.controller().delete_volume(request))
            .map(drop)
    }

    /// Gives how large it is then.
    pub(crate) fn grow(&self, id: &str, size: u64) -> Result<u64, Status> {
        let request = ControllerExpandVolumeRequest {
            volume_id: id.into(),
            capacity_range: Some(range(size)),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        let grown = self
            .runtime
            .block_on(self.controller().controller_expand_volume(request))?;
        let bytes = grown.into_inner().capacity_bytes;
        Ok(bytes.try_into().expect("a size is not negative"))
    }

    pub(crate) fn snapshot(&self, id: &str, name: &str) -> Result<String, Status> {
        let request = CreateSnapshotRequest {
            source_volume_id: id.into(),
            name: name.into(),
            ..Default::default()
        };
        let taken = self
            .runtime
            .block_on(self.controller().create_snapshot(request))?;
        Ok(taken
            .into_inner()
            .snapshot
            .expect("an answer has a snapshot")
            .snapshot_id)
    }

    pub(crate) fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.into(),
            ..Default::default()
        };
        self.runtime
            .block_on(self.controller().delete_snapshot(request))
            .map(drop)
    }

    /// The ids and sizes of all volumes.
    pub(crate) fn volumes(&self) -> Vec<(String, u64)> {
        let request = ListVolumesRequest::default();
        let listed = self
            .runtime
            .block_on(self.controller().list_volumes(request))
            .expect("there is a list");
        let volumes = listed.into_inner().entries.into_iter();
        volumes
            .filter_map(|entry| entry.volume)
            .map(|volume| {
                let size = volume.capacity_bytes.try_into().expect("it has a size");
                (volume.volume_id, size)
            })
            .collect()
    }

    /// The ids of all snapshots.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let all = self.list_snapshots().into_iter();
        all.map(|snapshot| snapshot.snapshot_id).collect()
    }

    /// Whether something can be restored from the only snapshot.
    pub(crate) fn is_ready(&self) -> bool {
        let all = self.list_snapshots();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].ready_to_use
    }

    fn list_snapshots(&self) -> Vec<Snapshot> {
        let request = ListSnapshotsRequest::default();
        let listed = self
            .runtime
            .block_on(self.controller().list_snapshots(request))
            .expect("there is a list");
        let snapshots = listed.into_inner().entries.into_iter();
        snapshots.filter_map(|entry| entry.snapshot).collect()
    }

    /// Stages the volume, and publishes it at `target`, writable.
    pub(crate) fn publish(&self, id: &str, staging: &Path, target: &Path) -> Result<(), Status> {
        std::fs::create_dir_all(staging).expect("the place can be written");
        let staged = NodeStageVolumeRequest {
            volume_id: id.into(),
            staging_target_path: text(staging),
            volume_capability: Some(capability()),
            secrets: self.key.map(secret).into_iter().collect(),
            ..Default::default()
        };
        self.runtime
            .block_on(self.node().node_stage_volume(staged))?;
        let published = NodePublishVolumeRequest {
            volume_id: id.into(),
            staging_target_path: text(staging),
            target_path: text(target),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        self.runtime
            .block_on(self.node().node_publish_volume(published))
            .map(drop)
    }

    pub(crate) fn unpublish(&self, id: &str, staging: &Path, target: &Path) -> Result<(), Status> {
        let unpublished = NodeUnpublishVolumeRequest {
            volume_id: id.into(),
            target_path: text(target),
        };
        self.runtime
            .block_on(self.node().node_unpublish_volume(unpublished))?;
        let unstaged = NodeUnstageVolumeRequest {
            volume_id: id.into(),
            staging_target_path: text(staging),
        };
        self.runtime
            .block_on(self.node().node_unstage_volume(unstaged))
            .map(drop)
    }

    /// The figures of a published volume: bytes, then inodes.
    pub(crate) fn stats(&self, id: &str, target: &Path) -> Result<Vec<VolumeUsage>, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: id.into(),
            volume_path: text(target),
            ..Default::default()
        };
        let stats = self
            .runtime
            .block_on(self.node().node_get_volume_stats(request))?;
        Ok(stats.into_inner().usage)
    }

    /// What is wrong with the volume, in the words for machines.
    pub(crate) fn health(&self, id: &str) -> Result<Vec<String>, Status> {
        let request = ControllerGetVolumeHealthRequest {
            volume_id: id.into(),
            ..Default::default()
        };
        let health = self
            .runtime
            .block_on(self.controller().controller_get_volume_health(request))?;
        let health = health
            .into_inner()
            .volume_health
            .expect("an answer has a health");
        Ok(health
            .health_statuses
            .into_iter()
            .map(|fault| fault.reason)
            .collect())
    }

    /// What is wrong with the pools, in the words for machines.
    pub(crate) fn storage_health(&self) -> Result<Vec<String>, Status> {
        let request = NodeGetStorageHealthRequest::default();
        let health = self
            .runtime
            .block_on(self.node().node_get_storage_health(request))?;
        let faults = health.into_inner().backend_health.into_iter();
        Ok(faults.map(|fault| fault.reason).collect())
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }
}

fn capability() -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode {
            mode: access_mode::Mode::SingleNodeWriter.into(),
        }),
    }
}

fn secret(key: &str) -> (String, String) {
    (ENCRYPTION_KEY.to_owned(), key.to_owned())
}

fn range(size: u64) -> CapacityRange {
    CapacityRange {
        required_bytes: size.try_into().expect("tests are modest"),
        limit_bytes: 0,
    }
}

fn text(path: &Path) -> String {
    path.to_str()
        .expect("the paths of tests are text")
        .to_owned()
}
