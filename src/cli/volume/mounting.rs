//! Mounting for people: staged at a path of our own, and published where they want it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::capability;
use super::shown::{Listed, Mounted, Usage};
use crate::cli::client::Connection;
use crate::csi::proto::inspection::ListMountsRequest;
use crate::csi::proto::volume_usage::Unit;
use crate::csi::proto::{
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use crate::volume::VolumeId;

/// Where volumes are staged that a person mounts.
#[derive(Args, Debug)]
pub(super) struct Staging {
    /// Where `mount` stages volumes, each below POOL/NAME.
    #[arg(
        long = "staging",
        env = "ORLOP_STAGING",
        default_value = "/run/orlop/staging",
        value_name = "DIR",
        global = true
    )]
    directory: PathBuf,
}

impl Staging {
    /// Stages the volume and publishes it at `path`, and gives that as the node knows it.
    pub(super) async fn mount(
        &self,
        node: &Connection,
        volume: &Listed,
        id: &VolumeId,
        path: &Path,
        read_only: bool,
    ) -> Result<PathBuf> {
        let (staging, target) = (self.of(id)?, as_the_node_knows_it(path)?);
        let capability = capability(volume.is_block(), String::new());
        let stage = NodeStageVolumeRequest {
            volume_id: id.to_string(),
            staging_target_path: text(&staging)?,
            volume_capability: Some(capability.clone()),
            ..NodeStageVolumeRequest::default()
        };
        let publish = NodePublishVolumeRequest {
            volume_id: id.to_string(),
            staging_target_path: text(&staging)?,
            target_path: text(&target)?,
            volume_capability: Some(capability),
            readonly: read_only,
            ..NodePublishVolumeRequest::default()
        };
        node.node().node_stage_volume(stage).await?;
        if let Err(refused) = node.node().node_publish_volume(publish).await {
            // What was asked for is the mount; a staging alone would only stand in the way of a removal.
            if let Err(error) = self.unstage_the_last(node, id, &staging).await {
                tracing::debug!(error = format!("{error:#}"), "left staged");
            }
            return Err(refused.into());
        }
        Ok(target)
    }

    /// Takes the volume from `path`, and its staging back if it is mounted nowhere else.
    pub(super) async fn unmount(
        &self,
        node: &Connection,
        id: &VolumeId,
        path: &Path,
    ) -> Result<PathBuf> {
        let (staging, target) = (self.of(id)?, as_the_node_knows_it(path)?);
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.to_string(),
            target_path: text(&target)?,
        };
        node.node().node_unpublish_volume(request).await?;
        self.unstage_the_last(node, id, &staging).await?;
        Ok(target)
    }

    async fn unstage_the_last(
        &self,
        node: &Connection,
        id: &VolumeId,
        staging: &Path,
    ) -> Result<()> {
        if mounts(node, id)
            .await?
            .iter()
            .any(|place| Path::new(place) != staging)
        {
            return Ok(());
        }
        let request = NodeUnstageVolumeRequest {
            volume_id: id.to_string(),
            staging_target_path: text(staging)?,
        };
        node.node().node_unstage_volume(request).await?;
        match fs::remove_dir(staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", staging.display()))
            }
            _ => Ok(()),
        }
    }

    /// Where the volume is staged; what that is in is made if it is missing, as a CSI client has to.
    fn of(&self, id: &VolumeId) -> Result<PathBuf> {
        let pool = std::path::absolute(&self.directory)?.join(id.pool.as_str());
        fs::create_dir_all(&pool).with_context(|| {
            format!("making {}: name another place by --staging", pool.display())
        })?;
        Ok(pool.canonicalize()?.join(id.name.as_str()))
    }
}

/// Where the volume is mounted, and what it holds there.
pub(super) async fn mounted(node: &Connection, volume: &Listed, id: &VolumeId) -> Result<Mounted> {
    let paths = mounts(node, id).await?;
    let Some(path) = paths.first().filter(|_| !volume.is_block()) else {
        return Ok(Mounted {
            paths,
            ..Mounted::default()
        });
    };
    let request = NodeGetVolumeStatsRequest {
        volume_id: id.to_string(),
        volume_path: path.clone(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = node.node().node_get_volume_stats(request).await?;
    let stats = stats.into_inner();
    let usage = |unit: Unit| {
        let of = stats.usage.iter().find(|usage| usage.unit() == unit)?;
        Some(Usage {
            total: of.total.unsigned_abs(),
            used: of.used.unsigned_abs(),
            available: of.available.unsigned_abs(),
        })
    };
    Ok(Mounted {
        bytes: usage(Unit::Bytes),
        inodes: usage(Unit::Inodes),
        paths,
    })
}

async fn mounts(node: &Connection, id: &VolumeId) -> Result<Vec<String>> {
    let request = ListMountsRequest {
        volume_id: id.to_string(),
    };
    Ok(node
        .inspection()
        .list_mounts(request)
        .await?
        .into_inner()
        .paths)
}

/// The path without anything in it that leads elsewhere than it says, which the node would refuse: a person's `..` and
/// symlinks are resolved by the person's own command.
fn as_the_node_knows_it(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        anyhow::bail!(
            "nothing can be mounted at {}: name a path below",
            path.display()
        );
    };
    let parent = parent.canonicalize().with_context(|| {
        format!(
            "looking for {}: make it first, or name another path",
            parent.display()
        )
    })?;
    Ok(parent.join(name))
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
