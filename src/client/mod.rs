//! What every client of a node's socket does alike: to connect, to ask for volumes, and to mount them.

mod mounting;

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, anyhow};
use tonic::transport::{self, Channel};

use crate::csi::endpoint::Endpoint;
use crate::csi::proto::controller_client::ControllerClient;
use crate::csi::proto::inspection::inspection_client::InspectionClient;
use crate::csi::proto::inspection::oversight_client::OversightClient;
use crate::csi::proto::inspection::upkeep_client::UpkeepClient;
use crate::csi::proto::node_client::NodeClient;
use crate::csi::proto::volume_capability::{
    AccessMode, AccessType, BlockVolume, MountVolume, access_mode,
};
use crate::csi::proto::{
    CapacityRange, ListSnapshotsRequest, ListVolumesRequest, Snapshot, Volume, VolumeCapability,
};
use crate::volume::{Bytes, VolumeId};

pub use mounting::{How, Staging, mounts};

/// How many entries of a list are asked for at a time: their answer stays far below what a client accepts.
pub const PAGE: i32 = 1000;

/// A node that answered.
#[derive(Clone, Debug)]
pub struct Connection(Channel);

impl Connection {
    /// Connects to the node that serves there.
    ///
    /// # Errors
    /// Nobody serves there, with what to do.
    pub async fn to(endpoint: &Endpoint) -> Result<Self> {
        // Asked first, because its errors say more than those of the transport.
        if let Err(error) = UnixStream::connect(endpoint.path()) {
            let path = endpoint.path().display();
            return Err(match error.kind() {
                ErrorKind::PermissionDenied => {
                    anyhow!("{path} may not be opened ({error}): run this as root")
                }
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
                    "nobody serves on {path} ({error}): is `orlop node` running? Name another socket by --endpoint"
                ),
                _ => anyhow!("{path} can not be connected to: {error}"),
            });
        }
        let channel = transport::Endpoint::from_shared(endpoint.to_string())?
            .connect()
            .await
            .with_context(|| format!("what serves on {endpoint} does not speak gRPC"))?;
        Ok(Self(channel))
    }

    /// A node at the other end of a channel that is kept by others.
    pub fn over(channel: Channel) -> Self {
        Self(channel)
    }

    /// Its controller service.
    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.0.clone())
    }

    /// Its node service.
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.0.clone())
    }

    /// Its inspection service.
    pub fn inspection(&self) -> InspectionClient<Channel> {
        InspectionClient::new(self.0.clone())
    }

    /// What a leading controller has noticed.
    pub fn oversight(&self) -> OversightClient<Channel> {
        OversightClient::new(self.0.clone())
    }

    /// What removes leftovers.
    pub fn upkeep(&self) -> UpkeepClient<Channel> {
        UpkeepClient::new(self.0.clone())
    }
}

/// All volumes of the node, in the order of their ids.
pub async fn volumes(node: &Connection) -> Result<Vec<Volume>> {
    let mut controller = node.controller();
    let (mut volumes, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListVolumesRequest {
            max_entries: PAGE,
            starting_token: token,
        };
        let page = controller.list_volumes(request).await?.into_inner();
        volumes.extend(page.entries.into_iter().filter_map(|entry| entry.volume));
        token = page.next_token;
        if token.is_empty() {
            return Ok(volumes);
        }
    }
}

/// All snapshots of the node, or of one volume, in the order of their ids.
pub async fn snapshots(node: &Connection, of: Option<&VolumeId>) -> Result<Vec<Snapshot>> {
    let mut controller = node.controller();
    let (mut snapshots, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListSnapshotsRequest {
            max_entries: PAGE,
            starting_token: token,
            source_volume_id: of.map(VolumeId::to_string).unwrap_or_default(),
            ..ListSnapshotsRequest::default()
        };
        let page = controller.list_snapshots(request).await?.into_inner();
        snapshots.extend(page.entries.into_iter().filter_map(|entry| entry.snapshot));
        token = page.next_token;
        if token.is_empty() {
            return Ok(snapshots);
        }
    }
}

/// How people use a volume: from any number of places on this node.
pub fn capability(block: bool, fs_type: String) -> VolumeCapability {
    let access_type = if block {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume {
            fs_type,
            ..MountVolume::default()
        })
    };
    VolumeCapability {
        access_type: Some(access_type),
        access_mode: Some(AccessMode {
            mode: access_mode::Mode::SingleNodeMultiWriter.into(),
        }),
    }
}

/// A volume of at least this size.
pub fn at_least(size: Bytes) -> CapacityRange {
    CapacityRange {
        required_bytes: size.as_wire(),
        limit_bytes: 0,
    }
}

/// Reads a size that a volume can have: on the wire, nothing would mean any.
///
/// # Errors
/// What is no size, or none of a volume, in words for a person.
pub fn wanted_size(text: &str) -> Result<Bytes, String> {
    match text.parse::<Bytes>() {
        Ok(Bytes(0)) => Err("a volume has at least one byte".into()),
        Ok(size) if i64::try_from(size.0).is_err() => Err("no volume is that large".into()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}
