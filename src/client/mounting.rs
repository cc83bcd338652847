//! Mounting without an orchestrator: staged at a path of our own, and published where it is wanted.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Connection;
use crate::csi::proto::inspection::ListMountsRequest;
use crate::csi::proto::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use crate::names::ENCRYPTION_KEY;
use crate::volume::VolumeId;

/// The directory in which volumes are staged, each at POOL/NAME.
#[derive(Clone, Debug)]
pub struct Staging(PathBuf);

/// How a volume is mounted.
#[derive(Default)]
pub struct How {
    /// Whether nothing can be written through this path.
    pub read_only: bool,
    /// What the staging needs to know and nobody else may.
    pub secrets: BTreeMap<String, String>,
}

impl How {
    /// With the key in a file, by which an encrypted volume opens; a line feed at its end is none of it.
    pub fn with_key_in(file: &Path) -> Result<Self> {
        let read = fs::read_to_string(file);
        let text = read.with_context(|| format!("reading the key in {}", file.display()))?;
        let key = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        Ok(Self {
            read_only: false,
            secrets: [(ENCRYPTION_KEY.to_owned(), key)].into(),
        })
    }
}

impl Staging {
    /// That directory, which is made when it is needed.
    pub fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Stages the volume, unless it is, and publishes it at `target`.
    pub async fn mount(
        &self,
        node: &Connection,
        id: &VolumeId,
        capability: VolumeCapability,
        target: &Path,
        how: How,
    ) -> Result<()> {
        let staging = self.of(id)?;
        let stage = NodeStageVolumeRequest {
            volume_id: id.to_string(),
            staging_target_path: text(&staging)?,
            volume_capability: Some(capability.clone()),
            secrets: how.secrets,
            ..NodeStageVolumeRequest::default()
        };
        let publish = NodePublishVolumeRequest {
            volume_id: id.to_string(),
            staging_target_path: text(&staging)?,
            target_path: text(target)?,
            volume_capability: Some(capability),
            readonly: how.read_only,
            ..NodePublishVolumeRequest::default()
        };
        node.node().node_stage_volume(stage).await?;
        if let Err(refused) = node.node().node_publish_volume(publish).await {
            // What was asked for is the mount; a staging alone would only stand in the way of a removal.
            if let Err(error) = self.unstage_unused(node, id).await {
                tracing::debug!(error = format!("{error:#}"), "left staged");
            }
            return Err(refused.into());
        }
        Ok(())
    }

    /// Takes the volume from `target`, and its staging back if it is mounted nowhere else.
    pub async fn unmount(&self, node: &Connection, id: &VolumeId, target: &Path) -> Result<()> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.to_string(),
            target_path: text(target)?,
        };
        node.node().node_unpublish_volume(request).await?;
        self.unstage_unused(node, id).await
    }

    /// Takes the staging of the volume back, unless it is mounted elsewhere too.
    pub async fn unstage_unused(&self, node: &Connection, id: &VolumeId) -> Result<()> {
        let staging = self.of(id)?;
        if mounts(node, id)
            .await?
            .iter()
            .any(|place| *place != staging)
        {
            return Ok(());
        }
        let request = NodeUnstageVolumeRequest {
            volume_id: id.to_string(),
            staging_target_path: text(&staging)?,
        };
        node.node().node_unstage_volume(request).await?;
        match fs::remove_dir(&staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", staging.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether a path is one at which volumes are staged.
    pub fn holds(&self, path: &Path) -> bool {
        self.0
            .canonicalize()
            .is_ok_and(|directory| path.starts_with(directory))
    }

    /// Where the volume is staged; what that is in is made if it is missing, as a CSI client has to.
    fn of(&self, id: &VolumeId) -> Result<PathBuf> {
        let pool = std::path::absolute(&self.0)?.join(id.pool.as_str());
        fs::create_dir_all(&pool).with_context(|| {
            format!("making {}: name another place by --staging", pool.display())
        })?;
        Ok(pool.canonicalize()?.join(id.name.as_str()))
    }
}

/// Where the volume is mounted now, staged or published, in the order of the paths.
pub async fn mounts(node: &Connection, id: &VolumeId) -> Result<Vec<PathBuf>> {
    let request = ListMountsRequest {
        volume_id: id.to_string(),
    };
    let answer = node.inspection().list_mounts(request).await?;
    let paths = answer.into_inner().paths;
    Ok(paths.into_iter().map(PathBuf::from).collect())
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| {
        format!(
            "{} is not UTF-8: the wire carries no other paths",
            path.display()
        )
    })?;
    Ok(text.to_owned())
}
