//! Docker's volumes: created, found, listed, told of and removed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use super::Plugin;
use super::name::Name;
use super::options::{Origin, Whose, Wish};
use super::places::if_there;
use crate::client::{self, Connection, at_least, capability};
use crate::csi::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::csi::proto::{
    ControllerGetVolumeHealthRequest, ControllerGetVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, GetSnapshotRequest, Volume, VolumeContentSource,
};
use crate::names::{self, CLAIM_NAME, CLAIM_NAMESPACE};
use crate::volume::{Bytes, PoolName, SnapshotId, SnapshotName, VolumeId};

/// A volume as Docker reads it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Shown {
    name: String,
    /// Empty while it is not mounted.
    mountpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    status: Map<String, Value>,
}

impl Plugin {
    /// Creates the volume, or finds the one that was created with the same options before.
    pub(super) async fn create(&self, name: Name, options: BTreeMap<String, String>) -> Result<()> {
        let wish = Wish::read(&name, options, self.key_file.is_some())?;
        let node = Connection::to(&self.node).await?;
        let _turn = self.turns.take(&name).await;
        let source = match wish.from {
            Some(origin) => Some(self.source(&node, origin).await?),
            None => None,
        };
        let request = CreateVolumeRequest {
            name: name.as_str().to_owned(),
            capacity_range: wish.size.map(at_least),
            volume_capabilities: vec![capability(false, wish.fs_type)],
            parameters: wish.parameters,
            volume_content_source: source,
            ..CreateVolumeRequest::default()
        };
        let answer = node.controller().create_volume(request).await?;
        let volume = answer.into_inner().volume.unwrap_or_default();
        ensure!(
            dockers_name(&volume) == Some(name.as_str()),
            "volume {} exists already, and Docker did not create it: choose another name",
            volume.volume_id
        );
        tracing::info!(
            volume.id = volume.volume_id,
            name = name.as_str(),
            "volume created"
        );
        Ok(())
    }

    /// Removes the volume and all that it holds; its snapshots stay.
    ///
    /// # Errors
    /// It is mounted, for whom, and what to do.
    pub(super) async fn remove(&self, name: Name) -> Result<()> {
        let node = Connection::to(&self.node).await?;
        let _turn = self.turns.take(&name).await;
        let id = self.find(&node, &name).await?.0;
        // A mount that was cut off may have left it staged.
        self.staging.unstage_unused(&node, &id).await?;
        let request = DeleteVolumeRequest {
            volume_id: id.to_string(),
            ..DeleteVolumeRequest::default()
        };
        match node.controller().delete_volume(request).await {
            Err(status) if status.code() == Code::FailedPrecondition => {
                Err(self.users(&node, &name, &id, status).await)
            }
            Err(status) => Err(status.into()),
            Ok(_) => {
                tracing::info!(volume.id = %id, name = name.as_str(), "volume removed");
                Ok(())
            }
        }
    }

    /// All volumes that Docker created, without what it takes time to find out.
    pub(super) async fn list(&self) -> Result<Vec<Shown>> {
        let node = Connection::to(&self.node).await?;
        let volumes = client::volumes(&node).await?;
        let shown = |volume: &Volume| {
            Some(Shown {
                name: dockers_name(volume)?.to_owned(),
                created_at: volume.volume_context.get("created").cloned(),
                ..Shown::default()
            })
        };
        Ok(volumes.iter().filter_map(shown).collect())
    }

    /// All that is known of the volume.
    pub(super) async fn get(&self, name: Name) -> Result<Shown> {
        let node = Connection::to(&self.node).await?;
        let (id, volume) = self.find(&node, &name).await?;
        let mounted = self.mounted(&node, &id).await?;
        let told = |key: &str| volume.volume_context.get(key).cloned();
        let size = Bytes(volume.capacity_bytes.unsigned_abs());
        let used = match mounted.first_path() {
            Some(path) => self.used(&node, &id, path, size).await?,
            None => None,
        };
        let status = [
            ("id", Some(json!(id.to_string()))),
            ("pool", Some(json!(id.pool.as_str()))),
            ("layout", told("layout").map(Value::from)),
            ("filesystem", told("fsType").map(Value::from)),
            ("size", Some(json!(size.to_string()))),
            ("used", used.map(|used| json!(used.to_string()))),
            ("snapshots", Some(json!(snapshots(&node, &id).await?))),
            ("health", Some(health(&node, &id).await?)),
            ("mounts", Some(json!(mounted.ids()))),
        ];
        let status = status.into_iter();
        Ok(Shown {
            name: name.as_str().to_owned(),
            mountpoint: mounted.mountpoint(),
            created_at: told("created"),
            status: status
                .filter_map(|(key, value)| Some((key.to_owned(), value?)))
                .collect(),
        })
    }

    /// The volume of this name that Docker created.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn find(&self, node: &Connection, name: &Name) -> Result<(VolumeId, Volume)> {
        let found = match volume_in(node, self.places.known(), name).await? {
            None => volume_in(node, self.places.ask(node).await?, name).await?,
            found => found,
        };
        let dockers = found.filter(|(_, volume)| dockers_name(volume) == Some(name.as_str()));
        dockers.with_context(|| {
            let name = name.as_str();
            format!("there is no volume {name}: `docker volume ls` shows those that there are")
        })
    }

    async fn source(&self, node: &Connection, origin: Origin) -> Result<VolumeContentSource> {
        let source = match (origin.volume, origin.snapshot) {
            (Whose::Any(id), None) => Type::Volume(VolumeSource {
                volume_id: id.to_string(),
            }),
            (Whose::Docker(name), None) => {
                let found = self.find(node, &name).await.context("option from")?;
                Type::Volume(VolumeSource {
                    volume_id: found.0.to_string(),
                })
            }
            (Whose::Any(volume), Some(name)) => Type::Snapshot(SnapshotSource {
                snapshot_id: SnapshotId { volume, name }.to_string(),
            }),
            // The volume may be gone: its snapshots are not.
            (Whose::Docker(volume), Some(snapshot)) => {
                let pools = self.places.ask(node).await?;
                let found = snapshot_in(node, pools, &volume, &snapshot).await?;
                let snapshot_id = found.with_context(|| {
                    let volume = volume.as_str();
                    format!(
                        "option from: volume {volume} has no snapshot {snapshot}: `orlop snapshot ls` shows those that there are"
                    )
                })?;
                Type::Snapshot(SnapshotSource { snapshot_id })
            }
        };
        Ok(VolumeContentSource {
            r#type: Some(source),
        })
    }

    /// Why the volume was not removed: the node's word for it, and who has it.
    async fn users(
        &self,
        node: &Connection,
        name: &Name,
        id: &VolumeId,
        refused: Status,
    ) -> anyhow::Error {
        match self.mounted(node, id).await {
            Ok(mounted) if !mounted.is_empty() => {
                let (name, users) = (name.as_str(), mounted.told(name.as_str(), id));
                anyhow!("volume {name} is in use by {users}")
            }
            Ok(_) | Err(_) => refused.into(),
        }
    }
}

/// Docker's name of a volume, if Docker created it.
fn dockers_name(volume: &Volume) -> Option<&str> {
    let context = &volume.volume_context;
    let whose = context.get(CLAIM_NAMESPACE)?;
    (whose == names::DOCKER)
        .then(|| context.get(CLAIM_NAME))?
        .map(String::as_str)
}

/// The volume of this name, in one of these pools.
async fn volume_in(
    node: &Connection,
    pools: Vec<PoolName>,
    name: &Name,
) -> Result<Option<(VolumeId, Volume)>> {
    for pool in pools {
        let id = VolumeId {
            pool,
            name: name.in_pool(),
        };
        let request = ControllerGetVolumeRequest {
            volume_id: id.to_string(),
        };
        let answer = if_there(node.controller().controller_get_volume(request).await)?;
        if let Some(volume) = answer.and_then(|answer| answer.volume) {
            return Ok(Some((id, volume)));
        }
    }
    Ok(None)
}

/// The id of the snapshot of this name, in one of these pools.
async fn snapshot_in(
    node: &Connection,
    pools: Vec<PoolName>,
    volume: &Name,
    snapshot: &SnapshotName,
) -> Result<Option<String>> {
    for pool in pools {
        let volume = VolumeId {
            pool,
            name: volume.in_pool(),
        };
        let name = snapshot.clone();
        let snapshot_id = SnapshotId { volume, name }.to_string();
        let request = GetSnapshotRequest {
            snapshot_id: snapshot_id.clone(),
            ..GetSnapshotRequest::default()
        };
        if if_there(node.controller().get_snapshot(request).await)?.is_some() {
            return Ok(Some(snapshot_id));
        }
    }
    Ok(None)
}

/// The names of the snapshots of a volume.
async fn snapshots(node: &Connection, id: &VolumeId) -> Result<Vec<String>> {
    let snapshots = client::snapshots(node, Some(id)).await?;
    let name = |snapshot: &str| snapshot.split_once('@').map(|(_, name)| name.to_owned());
    Ok(snapshots
        .iter()
        .filter_map(|snapshot| name(&snapshot.snapshot_id))
        .collect())
}

/// `ok`, or what is wrong and what to do.
async fn health(node: &Connection, id: &VolumeId) -> Result<Value> {
    let request = ControllerGetVolumeHealthRequest {
        volume_id: id.to_string(),
        ..ControllerGetVolumeHealthRequest::default()
    };
    let answer = node
        .controller()
        .controller_get_volume_health(request)
        .await?;
    let health = answer.into_inner().volume_health.unwrap_or_default();
    let messages: Vec<_> = health
        .health_statuses
        .into_iter()
        .map(|entry| entry.message)
        .collect();
    Ok(if messages.is_empty() {
        json!("ok")
    } else {
        json!(messages)
    })
}
