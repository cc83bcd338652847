//! The controller service of one node: parse, do, reply.

use tonic::{Request, Response};

use super::proto::controller_service_capability::rpc::Type;
use super::proto::{
    self, ControllerServiceCapability, controller_service_capability as capability,
    list_snapshots_response, list_volumes_response,
};
use super::{Reply, reply, request};
use crate::driver::{Driver, snapshots, volumes};
use crate::volume::{Bytes, Error, Snapshot, SnapshotId, VolumeId};

/// What the controller service of a node can.
const CAPABILITIES: [Type; 13] = [
    Type::CreateDeleteVolume,
    Type::ListVolumes,
    Type::GetCapacity,
    Type::CreateDeleteSnapshot,
    Type::ListSnapshots,
    Type::CloneVolume,
    Type::ExpandVolume,
    Type::GetVolume,
    Type::SingleNodeMultiWriter,
    Type::GetSnapshot,
    Type::GetVolumeHealth,
    Type::ListVolumeHealth,
    Type::ModifyVolume,
];

/// Serves `csi.v1.Controller` for this node.
#[derive(Clone)]
pub struct Controller {
    driver: Driver,
}

impl Controller {
    /// The controller service over this driver.
    pub fn new(driver: Driver) -> Self {
        Self { driver }
    }
}

/// What a node can is what all of them can, and so what the router can.
pub(crate) fn capabilities() -> proto::ControllerGetCapabilitiesResponse {
    let capability = |r#type: Type| ControllerServiceCapability {
        r#type: Some(capability::Type::Rpc(capability::Rpc {
            r#type: r#type.into(),
        })),
    };
    proto::ControllerGetCapabilitiesResponse {
        capabilities: CAPABILITIES.into_iter().map(capability).collect(),
    }
}

#[tonic::async_trait]
impl proto::controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<proto::CreateVolumeRequest>,
    ) -> Reply<proto::CreateVolumeResponse> {
        let spec = request::create_volume(request.into_inner(), self.driver.node())?;
        let volume = self
            .driver
            .change(volumes::to_create(&spec), move |core| core.create(&spec))
            .await?;
        Ok(Response::new(proto::CreateVolumeResponse {
            volume: Some(reply::volume(volume, self.driver.node())),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<proto::DeleteVolumeRequest>,
    ) -> Reply<proto::DeleteVolumeResponse> {
        match request::volume_id(&request.into_inner().volume_id) {
            Err(Error::NotFound(_)) => {}
            id => {
                let id = id?;
                self.driver
                    .change(volumes::to_change(&id.name), move |core| core.delete(&id))
                    .await?;
            }
        }
        Ok(Response::new(proto::DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<proto::ValidateVolumeCapabilitiesRequest>,
    ) -> Reply<proto::ValidateVolumeCapabilitiesResponse> {
        let asked = request.into_inner();
        let spec = request::validate(asked.clone())?;
        let refusal = self
            .driver
            .look(move |core| core.refusal(&spec.volume, spec.capabilities))
            .await?;
        Ok(Response::new(reply::validated(asked, refusal)))
    }

    async fn list_volumes(
        &self,
        request: Request<proto::ListVolumesRequest>,
    ) -> Reply<proto::ListVolumesResponse> {
        let request = request.into_inner();
        let page = request::page::<VolumeId>(request.max_entries, &request.starting_token)?;
        let most = page.and_one_more();
        let mut found = self
            .driver
            .look(move |core| core.list(page.after.as_ref(), most))
            .await?;
        let next_token = reply::next_token(&mut found, page.most, |volume| volume.id.clone());
        let entry = |volume| list_volumes_response::Entry {
            volume: Some(reply::volume(volume, self.driver.node())),
            status: None,
        };
        Ok(Response::new(proto::ListVolumesResponse {
            entries: found.into_iter().map(entry).collect(),
            next_token,
        }))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<proto::ControllerListVolumeHealthRequest>,
    ) -> Reply<proto::ControllerListVolumeHealthResponse> {
        let request = request.into_inner();
        let page = request::page::<VolumeId>(request.max_entries, &request.starting_token)?;
        let most = page.and_one_more();
        let mut found = self
            .driver
            .look(move |core| core.list_health(page.after.as_ref(), most))
            .await?;
        let next_token = reply::next_token(&mut found, page.most, |(volume, _)| volume.id.clone());
        let entries = found
            .into_iter()
            .map(|(volume, faults)| reply::volume_health(volume.id.to_string(), faults))
            .collect();
        Ok(Response::new(proto::ControllerListVolumeHealthResponse {
            entries,
            next_token,
        }))
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<proto::ControllerGetVolumeHealthRequest>,
    ) -> Reply<proto::ControllerGetVolumeHealthResponse> {
        let id = request::volume_id(&request.into_inner().volume_id)?;
        let asked = id.clone();
        let faults = self
            .driver
            .look(move |core| core.volume_health(&asked))
            .await?;
        let volume_health = Some(reply::volume_health(id.to_string(), faults));
        Ok(Response::new(proto::ControllerGetVolumeHealthResponse {
            volume_health,
        }))
    }

    async fn get_capacity(
        &self,
        request: Request<proto::GetCapacityRequest>,
    ) -> Reply<proto::GetCapacityResponse> {
        let Some(class) = request::get_capacity(request.into_inner(), self.driver.node())? else {
            return Ok(Response::new(reply::capacity(Bytes(0), None)));
        };
        let (capacity, shape) = self.driver.look(move |core| core.capacity(&class)).await?;
        Ok(Response::new(reply::capacity(
            capacity.available,
            Some(shape.least),
        )))
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<proto::ControllerGetCapabilitiesRequest>,
    ) -> Reply<proto::ControllerGetCapabilitiesResponse> {
        Ok(Response::new(capabilities()))
    }

    async fn create_snapshot(
        &self,
        request: Request<proto::CreateSnapshotRequest>,
    ) -> Reply<proto::CreateSnapshotResponse> {
        let spec = request::create_snapshot(request.into_inner(), self.driver.node())?;
        let snapshot = self
            .driver
            .change(spec.keys(), move |core| core.snapshot(&spec))
            .await?;
        Ok(Response::new(proto::CreateSnapshotResponse {
            snapshot: Some(reply::snapshot(&snapshot, self.driver.node())),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<proto::DeleteSnapshotRequest>,
    ) -> Reply<proto::DeleteSnapshotResponse> {
        match request::snapshot_id(&request.into_inner().snapshot_id) {
            Err(Error::NotFound(_)) => {}
            id => {
                let id = id?;
                self.driver
                    .change(snapshots::to_delete(&id), move |core| {
                        core.delete_snapshot(&id)
                    })
                    .await?;
            }
        }
        Ok(Response::new(proto::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Reply<proto::ListSnapshotsResponse> {
        let (page, only) = request::list_snapshots(&request.into_inner())?;
        let most = page.and_one_more();
        let mut found = self
            .driver
            .look(move |core| core.list_snapshots(page.after.as_ref(), most, &only))
            .await?;
        let next_token =
            reply::next_token(&mut found, page.most, |snapshot: &Snapshot| -> SnapshotId {
                snapshot.id.clone()
            });
        let entry = |snapshot| list_snapshots_response::Entry {
            snapshot: Some(reply::snapshot(snapshot, self.driver.node())),
        };
        Ok(Response::new(proto::ListSnapshotsResponse {
            entries: found.iter().map(entry).collect(),
            next_token,
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<proto::GetSnapshotRequest>,
    ) -> Reply<proto::GetSnapshotResponse> {
        let id = request::snapshot_id(&request.into_inner().snapshot_id)?;
        let snapshot = self
            .driver
            .look(move |core| Ok(core.existing_snapshot(&id)?.1))
            .await?;
        Ok(Response::new(proto::GetSnapshotResponse {
            snapshot: Some(reply::snapshot(&snapshot, self.driver.node())),
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<proto::ControllerExpandVolumeRequest>,
    ) -> Reply<proto::ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        let (id, range) = request::expand(&request.volume_id, request.capacity_range)?;
        let volume = self
            .driver
            .change(volumes::to_change(&id.name), move |core| {
                core.grow(&id, range)
            })
            .await?;
        Ok(Response::new(proto::ControllerExpandVolumeResponse {
            capacity_bytes: volume.record.usable().as_wire(),
            node_expansion_required: false,
        }))
    }

    async fn controller_get_volume(
        &self,
        request: Request<proto::ControllerGetVolumeRequest>,
    ) -> Reply<proto::ControllerGetVolumeResponse> {
        let id = request::volume_id(&request.into_inner().volume_id)?;
        let volume = self.driver.look(move |core| core.get(&id)).await?;
        Ok(Response::new(proto::ControllerGetVolumeResponse {
            volume: Some(reply::volume(volume, self.driver.node())),
            status: None,
        }))
    }

    async fn controller_publish_volume(
        &self,
        _request: Request<proto::ControllerPublishVolumeRequest>,
    ) -> Reply<proto::ControllerPublishVolumeResponse> {
        Err(Error::Unsupported(
            "volumes are on their node already: nothing is attached to one".into(),
        )
        .into())
    }

    async fn controller_unpublish_volume(
        &self,
        _request: Request<proto::ControllerUnpublishVolumeRequest>,
    ) -> Reply<proto::ControllerUnpublishVolumeResponse> {
        Err(Error::Unsupported(
            "volumes are on their node already: nothing is attached to one".into(),
        )
        .into())
    }

    async fn controller_modify_volume(
        &self,
        request: Request<proto::ControllerModifyVolumeRequest>,
    ) -> Reply<proto::ControllerModifyVolumeResponse> {
        let (id, changes) = request::modify(request.into_inner())?;
        self.driver
            .change(volumes::to_change(&id.name), move |core| {
                core.modify(&id, &changes)
            })
            .await?;
        Ok(Response::new(proto::ControllerModifyVolumeResponse {}))
    }
}
