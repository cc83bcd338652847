//! The node service: parse, do, reply.

use tonic::{Request, Response};

use super::proto::node_service_capability::rpc::Type;
use super::proto::{self, NodeServiceCapability, node_service_capability as capability};
use super::request::Publication;
use super::{Reply, reply, request};
use crate::driver::locks::Hold;
use crate::driver::{Driver, Handle, mounts};

/// What the node service can.
const CAPABILITIES: [Type; 6] = [
    Type::StageUnstageVolume,
    Type::GetVolumeStats,
    Type::ExpandVolume,
    Type::SingleNodeMultiWriter,
    Type::GetVolumeHealth,
    Type::GetStorageHealth,
];

/// Serves `csi.v1.Node`.
#[derive(Clone)]
pub struct Node {
    driver: Driver,
}

impl Node {
    /// The node service over this driver.
    pub fn new(driver: Driver) -> Self {
        Self { driver }
    }
}

#[tonic::async_trait]
impl proto::node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<proto::NodeStageVolumeRequest>,
    ) -> Reply<proto::NodeStageVolumeResponse> {
        let spec = request::stage(request.into_inner())?;
        let keys = mounts::to_stage(&spec.volume.name, Hold::Shared, &spec.staging);
        self.driver
            .change(keys, move |core| core.stage(&spec))
            .await?;
        Ok(Response::new(proto::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<proto::NodeUnstageVolumeRequest>,
    ) -> Reply<proto::NodeUnstageVolumeResponse> {
        let (id, staging) = request::unstage(&request.into_inner())?;
        let keys = mounts::to_stage(&id.name, Hold::Shared, &staging);
        self.driver
            .change(keys, move |core| core.unstage(&id, &staging))
            .await?;
        Ok(Response::new(proto::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<proto::NodePublishVolumeRequest>,
    ) -> Reply<proto::NodePublishVolumeResponse> {
        match request::publish(request.into_inner())? {
            Publication::Persistent(spec) => {
                let keys = mounts::to_publish(
                    &spec.volume.name,
                    Some(spec.capability.usage),
                    &spec.target,
                );
                self.driver
                    .change(keys, move |core| core.publish(&spec))
                    .await?;
            }
            Publication::Ephemeral(spec) => {
                let keys = mounts::to_stage(&spec.volume.name(), Hold::Exclusive, &spec.target);
                self.driver
                    .change(keys, move |core| core.publish_ephemeral(&spec))
                    .await?;
            }
        }
        Ok(Response::new(proto::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<proto::NodeUnpublishVolumeRequest>,
    ) -> Reply<proto::NodeUnpublishVolumeResponse> {
        match request::unpublish(&request.into_inner())? {
            (Handle::Id(id), target) => {
                let keys = mounts::to_publish(&id.name, None, &target);
                self.driver
                    .change(keys, move |core| core.unpublish(&id, &target))
                    .await?;
            }
            (Handle::Inline(name), target) => {
                let keys = mounts::to_stage(&name, Hold::Exclusive, &target);
                self.driver
                    .change(keys, move |core| core.unpublish_ephemeral(&name, &target))
                    .await?;
            }
        }
        Ok(Response::new(proto::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<proto::NodeGetVolumeStatsRequest>,
    ) -> Reply<proto::NodeGetVolumeStatsResponse> {
        let request = request.into_inner();
        let (handle, path) = request::volume_at(&request.volume_id, &request.volume_path)?;
        let stats = self
            .driver
            .look(move |core| core.stats(&core.resolve(&handle)?, &path))
            .await?;
        Ok(Response::new(reply::stats(&stats)))
    }

    async fn node_get_volume_health(
        &self,
        request: Request<proto::NodeGetVolumeHealthRequest>,
    ) -> Reply<proto::NodeGetVolumeHealthResponse> {
        let asked = request.into_inner();
        let (handle, paths) = request::health_at(&asked)?;
        let faults = self
            .driver
            .look(move |core| core.health_at(&core.resolve(&handle)?, &paths))
            .await?;
        let volume_health = Some(reply::volume_health(asked.volume_id, faults));
        Ok(Response::new(proto::NodeGetVolumeHealthResponse {
            volume_health,
        }))
    }

    async fn node_get_storage_health(
        &self,
        _request: Request<proto::NodeGetStorageHealthRequest>,
    ) -> Reply<proto::NodeGetStorageHealthResponse> {
        let faults = self.driver.look(|core| Ok(core.storage_health())).await?;
        Ok(Response::new(reply::storage_health(faults)))
    }

    async fn node_expand_volume(
        &self,
        request: Request<proto::NodeExpandVolumeRequest>,
    ) -> Reply<proto::NodeExpandVolumeResponse> {
        let request = request.into_inner();
        let (handle, path) = request::volume_at(&request.volume_id, &request.volume_path)?;
        let range = request::capacity_range(request.capacity_range)?;
        let keys = mounts::to_expand(handle.name());
        let confirmed = self.driver.change(keys, move |core| {
            core.confirm_size(&core.resolve(&handle)?, &path, range)
        });
        let volume = confirmed.await?;
        Ok(Response::new(proto::NodeExpandVolumeResponse {
            capacity_bytes: volume.record.usable().as_wire(),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<proto::NodeGetCapabilitiesRequest>,
    ) -> Reply<proto::NodeGetCapabilitiesResponse> {
        let capability = |r#type: Type| NodeServiceCapability {
            r#type: Some(capability::Type::Rpc(capability::Rpc {
                r#type: r#type.into(),
            })),
        };
        let capabilities = CAPABILITIES.into_iter().map(capability).collect();
        Ok(Response::new(proto::NodeGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn node_get_info(
        &self,
        _request: Request<proto::NodeGetInfoRequest>,
    ) -> Reply<proto::NodeGetInfoResponse> {
        let node = self.driver.node();
        Ok(Response::new(proto::NodeGetInfoResponse {
            node_id: node.to_owned(),
            max_volumes_per_node: 0,
            accessible_topology: Some(reply::topology(node)),
        }))
    }
}
