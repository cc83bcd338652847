//! The controller service of the router: find the node, pass the call on, note what it changed.

use tonic::{Request, Response};

use super::Router;
use super::inventory::Key;
use super::listing::Page;
use crate::csi::proto::{self, controller_server, list_snapshots_response, list_volumes_response};
use crate::csi::{Reply, capabilities, snapshot_id, volume_id};
use crate::volume::{Error, Result, SnapshotName};

/// Passes a call on to the node that has the volume it names.
macro_rules! to_owner {
    ($router:ident, $request:ident, $method:ident) => {{
        let id = volume_id(&$request.get_ref().volume_id)?;
        let node = $router.owner(&Key::Volume(id)).await?;
        node.call($request, |mut client, request| async move {
            client.$method(request).await
        })
        .await
    }};
}

#[tonic::async_trait]
impl controller_server::Controller for Router {
    async fn create_volume(
        &self,
        request: Request<proto::CreateVolumeRequest>,
    ) -> Reply<proto::CreateVolumeResponse> {
        self.place(request).await
    }

    async fn delete_volume(
        &self,
        request: Request<proto::DeleteVolumeRequest>,
    ) -> Reply<proto::DeleteVolumeResponse> {
        let Some(id) = if_it_can_be(volume_id(&request.get_ref().volume_id))? else {
            return Ok(Response::new(proto::DeleteVolumeResponse {}));
        };
        let Some(node) = self.deleter(&id).await? else {
            return Ok(Response::new(proto::DeleteVolumeResponse {}));
        };
        let key = Key::Volume(id.clone());
        let answer = node
            .call(request, |mut client, request| async move {
                client.delete_volume(request).await
            })
            .await?;
        self.inventory.remove(&key, &node.name);
        self.inventory.settle(&id.name, &node.name);
        Ok(answer)
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<proto::ValidateVolumeCapabilitiesRequest>,
    ) -> Reply<proto::ValidateVolumeCapabilitiesResponse> {
        to_owner!(self, request, validate_volume_capabilities)
    }

    async fn list_volumes(
        &self,
        request: Request<proto::ListVolumesRequest>,
    ) -> Reply<proto::ListVolumesResponse> {
        let asked = request.into_inner();
        let page = self.paged(
            asked.max_entries,
            &asked.starting_token,
            async |node, page| {
                let page = page.map(|(max_entries, starting_token)| proto::ListVolumesRequest {
                    max_entries,
                    starting_token,
                });
                let call = node.call(page, |mut client, request| async move {
                    client.list_volumes(request).await
                });
                let list = call.await?.into_inner();
                Ok(Page::<list_volumes_response::Entry> {
                    entries: list.entries,
                    next_token: list.next_token,
                })
            },
        );
        let Page {
            entries,
            next_token,
        } = page.await?;
        Ok(Response::new(proto::ListVolumesResponse {
            entries,
            next_token,
        }))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<proto::ControllerListVolumeHealthRequest>,
    ) -> Reply<proto::ControllerListVolumeHealthResponse> {
        let asked = request.into_inner();
        let page = self.paged(
            asked.max_entries,
            &asked.starting_token,
            async |node, page| {
                let page = page.map(|(max_entries, starting_token)| {
                    proto::ControllerListVolumeHealthRequest {
                        max_entries,
                        starting_token,
                        secrets: asked.secrets.clone(),
                    }
                });
                let call = node.call(page, |mut client, request| async move {
                    client.controller_list_volume_health(request).await
                });
                let list = call.await?.into_inner();
                Ok(Page::<proto::VolumeHealth> {
                    entries: list.entries,
                    next_token: list.next_token,
                })
            },
        );
        let Page {
            entries,
            next_token,
        } = page.await?;
        Ok(Response::new(proto::ControllerListVolumeHealthResponse {
            entries,
            next_token,
        }))
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<proto::ControllerGetVolumeHealthRequest>,
    ) -> Reply<proto::ControllerGetVolumeHealthResponse> {
        to_owner!(self, request, controller_get_volume_health)
    }

    async fn get_capacity(
        &self,
        request: Request<proto::GetCapacityRequest>,
    ) -> Reply<proto::GetCapacityResponse> {
        self.capacity(request).await
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
        let asked = request.get_ref();
        let node = match volume_id(&asked.source_volume_id) {
            // What is missing, and in which order it is told, is the node's to say.
            Err(Error::Invalid(_)) => self.any_node()?,
            _ if asked.name.is_empty() => self.any_node()?,
            id => self.owner(&Key::Volume(id?)).await?,
        };
        let name = SnapshotName::from_csi(&asked.name);
        let others = self.inventory.snapshots_named(&name);
        if let Some(other) = others.iter().find(|other| **other != node.name) {
            return Err(Error::Conflict(format!(
                "snapshot {name} exists already, of a volume on node {other}: take another name"
            ))
            .into());
        }
        let answer = node
            .call(request, |mut client, request| async move {
                client.create_snapshot(request).await
            })
            .await?;
        let taken = answer.get_ref().snapshot.as_ref();
        if let Some(id) = taken.and_then(|snapshot| snapshot.snapshot_id.parse().ok()) {
            self.inventory.add(&Key::Snapshot(id), &node.name);
        }
        Ok(answer)
    }

    async fn delete_snapshot(
        &self,
        request: Request<proto::DeleteSnapshotRequest>,
    ) -> Reply<proto::DeleteSnapshotResponse> {
        let gone = Response::new(proto::DeleteSnapshotResponse {});
        let Some(id) = if_it_can_be(snapshot_id(&request.get_ref().snapshot_id))? else {
            return Ok(gone);
        };
        let key = Key::Snapshot(id);
        let Some(node) = self.holder(&key).await? else {
            return Ok(gone);
        };
        let answer = node
            .call(request, |mut client, request| async move {
                client.delete_snapshot(request).await
            })
            .await?;
        self.inventory.remove(&key, &node.name);
        Ok(answer)
    }

    async fn list_snapshots(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Reply<proto::ListSnapshotsResponse> {
        let asked = request.get_ref().clone();
        if !asked.snapshot_id.is_empty() {
            let holder = match if_it_can_be(snapshot_id(&asked.snapshot_id))? {
                Some(id) => self.holder(&Key::Snapshot(id)).await?,
                None => None,
            };
            let Some(node) = holder else {
                return Ok(Response::new(proto::ListSnapshotsResponse::default()));
            };
            let list = node.call(request, |mut client, request| async move {
                client.list_snapshots(request).await
            });
            return list.await;
        }
        // The source of a snapshot may be gone: its snapshots are looked for everywhere.
        let page = self.paged(
            asked.max_entries,
            &asked.starting_token,
            async |node, page| {
                let page = page.map(
                    |(max_entries, starting_token)| proto::ListSnapshotsRequest {
                        max_entries,
                        starting_token,
                        ..asked.clone()
                    },
                );
                let call = node.call(page, |mut client, request| async move {
                    client.list_snapshots(request).await
                });
                let list = call.await?.into_inner();
                Ok(Page::<list_snapshots_response::Entry> {
                    entries: list.entries,
                    next_token: list.next_token,
                })
            },
        );
        let Page {
            entries,
            next_token,
        } = page.await?;
        Ok(Response::new(proto::ListSnapshotsResponse {
            entries,
            next_token,
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<proto::GetSnapshotRequest>,
    ) -> Reply<proto::GetSnapshotResponse> {
        let id = snapshot_id(&request.get_ref().snapshot_id)?;
        let node = self.owner(&Key::Snapshot(id)).await?;
        node.call(request, |mut client, request| async move {
            client.get_snapshot(request).await
        })
        .await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<proto::ControllerExpandVolumeRequest>,
    ) -> Reply<proto::ControllerExpandVolumeResponse> {
        to_owner!(self, request, controller_expand_volume)
    }

    async fn controller_get_volume(
        &self,
        request: Request<proto::ControllerGetVolumeRequest>,
    ) -> Reply<proto::ControllerGetVolumeResponse> {
        to_owner!(self, request, controller_get_volume)
    }

    async fn controller_publish_volume(
        &self,
        request: Request<proto::ControllerPublishVolumeRequest>,
    ) -> Reply<proto::ControllerPublishVolumeResponse> {
        to_owner!(self, request, controller_publish_volume)
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<proto::ControllerUnpublishVolumeRequest>,
    ) -> Reply<proto::ControllerUnpublishVolumeResponse> {
        to_owner!(self, request, controller_unpublish_volume)
    }

    async fn controller_modify_volume(
        &self,
        request: Request<proto::ControllerModifyVolumeRequest>,
    ) -> Reply<proto::ControllerModifyVolumeResponse> {
        to_owner!(self, request, controller_modify_volume)
    }
}

/// The id, unless it is one that can not be of anything.
fn if_it_can_be<Id>(id: Result<Id>) -> Result<Option<Id>> {
    match id {
        Err(Error::NotFound(_)) => Ok(None),
        id => id.map(Some),
    }
}
