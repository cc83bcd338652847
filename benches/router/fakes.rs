//! Nodes that keep nothing on a disk, thousands of them in this process, each with a port and a certificate of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use orlop::csi::proto::controller_server::{Controller, ControllerServer};
use orlop::csi::proto::inspection::inspection_server::{Inspection, InspectionServer};
use orlop::csi::proto::inspection::{
    ListMountsRequest, ListMountsResponse, ListPoolsRequest, ListPoolsResponse, ListUsageRequest,
    ListUsageResponse, ListWorkRequest, ListWorkResponse, Pool,
};
use orlop::csi::proto::list_volumes_response::Entry;
use orlop::csi::proto::{
    self, CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    GetCapacityRequest, GetCapacityResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, Topology, Volume,
};
use orlop::tls::{self, Credentials, Role};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// The key of the topology.
pub(crate) const TOPOLOGY: &str = "topology.orlop.dev/node";
/// The room of each.
const ROOM: u64 = 1 << 40;

/// What all of them have been asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// How often one was asked for what it has.
    pub(crate) lists: AtomicU64,
}

/// A node with some volumes.
#[derive(Clone, Debug)]
struct Fake {
    name: Arc<str>,
    volumes: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<Asked>,
}

/// Starts one that has so many volumes, and says where it listens.
pub(crate) async fn start(
    name: &str,
    volumes: usize,
    credentials: &Credentials,
    asked: &Arc<Asked>,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let ids = (0..volumes).map(|number| format!("default/pvc-{name}-{number}"));
    let fake = Fake {
        name: name.into(),
        volumes: Arc::new(Mutex::new(ids.collect())),
        asked: Arc::clone(asked),
    };
    let config = credentials.server(|role| *role == Role::Controller);
    let serving = Server::builder()
        .add_service(ControllerServer::new(fake.clone()))
        .add_service(InspectionServer::new(fake))
        .serve_with_incoming(tls::listen(listener, config));
    tokio::spawn(serving);
    Ok(address)
}

impl Fake {
    fn volume(&self, id: String) -> Volume {
        Volume {
            volume_id: id,
            capacity_bytes: 1 << 20,
            accessible_topology: vec![Topology {
                segments: [(TOPOLOGY.to_owned(), self.name.to_string())].into(),
            }],
            ..Default::default()
        }
    }
}

type Reply<T> = Result<Response<T>, Status>;

/// A service, of which some calls are never asked here.
macro_rules! service {
    (impl $service:ident { $($asked:tt)* } never { $($method:ident($request:ty) -> $response:ty;)* }) => {
        #[tonic::async_trait]
        impl $service for Fake {
            $($asked)*
            $(async fn $method(&self, _: Request<$request>) -> Reply<$response> {
                Err(Status::unimplemented(stringify!($method)))
            })*
        }
    };
}

service! { impl Controller {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Reply<CreateVolumeResponse> {
        let id = format!("default/{}", request.into_inner().name);
        self.volumes.lock().insert(id.clone());
        Ok(Response::new(CreateVolumeResponse {
            volume: Some(self.volume(id)),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Reply<DeleteVolumeResponse> {
        self.volumes.lock().remove(&request.into_inner().volume_id);
        Ok(Response::new(DeleteVolumeResponse::default()))
    }

    async fn list_volumes(&self, _: Request<ListVolumesRequest>) -> Reply<ListVolumesResponse> {
        self.asked.lists.fetch_add(1, Ordering::Relaxed);
        let entry = |id: &String| Entry {
            volume: Some(self.volume(id.clone())),
            status: None,
        };
        Ok(Response::new(ListVolumesResponse {
            entries: self.volumes.lock().iter().map(entry).collect(),
            next_token: String::new(),
        }))
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Reply<ListSnapshotsResponse> {
        Ok(Response::new(ListSnapshotsResponse::default()))
    }

    async fn get_capacity(&self, _: Request<GetCapacityRequest>) -> Reply<GetCapacityResponse> {
        Ok(Response::new(GetCapacityResponse {
            available_capacity: ROOM.cast_signed(),
            ..Default::default()
        }))
    }
} never {
        controller_publish_volume(proto::ControllerPublishVolumeRequest) -> proto::ControllerPublishVolumeResponse;
        controller_unpublish_volume(proto::ControllerUnpublishVolumeRequest) -> proto::ControllerUnpublishVolumeResponse;
        validate_volume_capabilities(proto::ValidateVolumeCapabilitiesRequest) -> proto::ValidateVolumeCapabilitiesResponse;
        controller_list_volume_health(proto::ControllerListVolumeHealthRequest) -> proto::ControllerListVolumeHealthResponse;
        controller_get_volume_health(proto::ControllerGetVolumeHealthRequest) -> proto::ControllerGetVolumeHealthResponse;
        controller_get_capabilities(proto::ControllerGetCapabilitiesRequest) -> proto::ControllerGetCapabilitiesResponse;
        create_snapshot(proto::CreateSnapshotRequest) -> proto::CreateSnapshotResponse;
        delete_snapshot(proto::DeleteSnapshotRequest) -> proto::DeleteSnapshotResponse;
        get_snapshot(proto::GetSnapshotRequest) -> proto::GetSnapshotResponse;
        controller_expand_volume(proto::ControllerExpandVolumeRequest) -> proto::ControllerExpandVolumeResponse;
        controller_get_volume(proto::ControllerGetVolumeRequest) -> proto::ControllerGetVolumeResponse;
        controller_modify_volume(proto::ControllerModifyVolumeRequest) -> proto::ControllerModifyVolumeResponse;
}}

service! { impl Inspection {
    async fn list_pools(&self, _: Request<ListPoolsRequest>) -> Reply<ListPoolsResponse> {
        Ok(Response::new(ListPoolsResponse {
            pools: vec![Pool {
                name: "default".into(),
                total_bytes: ROOM,
                available_bytes: ROOM,
                ..Default::default()
            }],
            silent: Vec::new(),
        }))
    }
} never {
        list_mounts(ListMountsRequest) -> ListMountsResponse;
        list_usage(ListUsageRequest) -> ListUsageResponse;
        list_work(ListWorkRequest) -> ListWorkResponse;
}}
