//! Mounting for people: where they want it, as they write it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::shown::{Listed, Mounted, Usage};
use crate::client::{self, Connection, How, capability, mounts};
use crate::csi::proto::NodeGetVolumeStatsRequest;
use crate::csi::proto::volume_usage::Unit;
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
        how: How,
    ) -> Result<PathBuf> {
        let target = as_the_node_knows_it(path)?;
        let capability = capability(volume.is_block(), String::new());
        client::Staging::at(self.directory.clone())
            .mount(node, id, capability, &target, how)
            .await?;
        Ok(target)
    }

    /// Takes the volume from `path`, and its staging back if it is mounted nowhere else.
    pub(super) async fn unmount(
        &self,
        node: &Connection,
        id: &VolumeId,
        path: &Path,
    ) -> Result<PathBuf> {
        let target = as_the_node_knows_it(path)?;
        client::Staging::at(self.directory.clone())
            .unmount(node, id, &target)
            .await?;
        Ok(target)
    }
}

/// Where the volume is mounted, and what it holds there.
pub(super) async fn mounted(node: &Connection, volume: &Listed, id: &VolumeId) -> Result<Mounted> {
    let paths = mounts(node, id).await?;
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let paths: Vec<_> = paths.iter().map(text).collect();
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
