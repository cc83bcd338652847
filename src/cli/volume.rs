//! `orlop volume`: what a person does with volumes, each command one or two calls of CSI.

mod create;
mod mounting;
mod shown;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::client::Remote;
use super::output::{Output, size};
use crate::client::{self, Connection, How, PAGE, at_least, wanted_size};
use crate::csi::proto::inspection::ListOrphansRequest;
use crate::csi::proto::{
    self, ControllerExpandVolumeRequest, ControllerGetVolumeRequest,
    ControllerListVolumeHealthRequest, DeleteVolumeRequest,
};
use crate::volume::{Bytes, Source, VolumeId};
use create::Create;
use mounting::Staging;
use shown::Inspected;

pub(super) use create::Copy;
pub(super) use shown::{Listed, exact_size};

#[derive(Args, Debug)]
pub(super) struct Volume {
    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    staging: Staging,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the volumes of all pools.
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that no `PersistentVolume` names, as the controller knows that leads.
        #[arg(long)]
        orphans: bool,
    },
    /// Create an empty volume. A second time with the same name and size changes nothing.
    Create(Create),
    /// Show all that is known of a volume.
    Inspect {
        /// The volume: POOL/NAME.
        id: VolumeId,
    },
    /// Remove volumes and all that they hold; their snapshots stay.
    Rm {
        /// The volumes: POOL/NAME.
        #[arg(required = true)]
        ids: Vec<VolumeId>,
    },
    /// Make a volume larger, also while it is mounted.
    Grow {
        /// The volume: POOL/NAME.
        id: VolumeId,
        /// The new size, such as 20GiB.
        #[arg(value_parser = wanted_size)]
        size: Bytes,
    },
    /// Copy a volume as it is now into a new one of the same pool.
    Clone {
        /// The volume to copy: POOL/NAME.
        source: VolumeId,
        /// The name of the new one.
        name: String,
        /// Its size, such as 20GiB; that of the source if left out.
        #[arg(long, value_parser = wanted_size)]
        size: Option<Bytes>,
    },
    /// Mount a volume: stage it, and publish it at a path.
    Mount {
        /// The volume: POOL/NAME.
        id: VolumeId,
        /// Where: a directory, or a file for a block volume. Its last component is made if it is missing.
        path: PathBuf,
        /// Allow no writing through this path.
        #[arg(long)]
        read_only: bool,
        /// The file with the key of an encrypted volume: 32 random bytes or more, as text.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
    /// Unmount a volume from a path, and remove that; the last one takes the staging back too.
    Unmount {
        /// The volume: POOL/NAME.
        id: VolumeId,
        /// Where it was mounted.
        path: PathBuf,
    },
}

impl Volume {
    pub(super) fn run(self) -> Result<()> {
        let (output, staging) = (self.output, self.staging);
        self.remote.with(async |node| match self.command {
            Command::Ls { orphans: false } => output.list(&list(&node).await?),
            Command::Ls { orphans: true } => output.list(&orphans(&node).await?),
            Command::Create(create) => create.run(&node, output).await,
            Command::Inspect { id } => output.one(&inspect(&node, &id).await?),
            Command::Rm { ids } => {
                output
                    .remove(&ids, async |id| remove(&node, id).await)
                    .await
            }
            Command::Grow { id, size } => grow(&node, &id, size, output).await,
            Command::Clone { source, name, size } => {
                let block = get(&node, &source).await?.is_block();
                let copy = Copy {
                    source: Source::Volume(source),
                    name,
                    size,
                    block,
                };
                copy.run(&node, output).await
            }
            Command::Mount {
                id,
                path,
                read_only,
                key_file,
            } => {
                let volume = get(&node, &id).await?;
                let how = How {
                    read_only,
                    ..match &key_file {
                        Some(file) => How::with_key_in(file)?,
                        None => How::default(),
                    }
                };
                let path = staging.mount(&node, &volume, &id, &path, how).await?;
                output.did(&volume, &format!("mounted at {}", path.display()))
            }
            Command::Unmount { id, path } => {
                let volume = get(&node, &id).await?;
                let path = staging.unmount(&node, &id, &path).await?;
                output.did(&volume, &format!("unmounted from {}", path.display()))
            }
        })
    }
}

/// All volumes of the node, each with its health.
pub(super) async fn list(node: &Connection) -> Result<Vec<Listed>> {
    let volumes = client::volumes(node).await?;
    let mut health = all_health(node).await?;
    let listed = |volume: proto::Volume| {
        let health = health.remove(&volume.volume_id).unwrap_or_default();
        Listed::of(volume).with_health(health)
    };
    Ok(volumes.into_iter().map(listed).collect())
}

/// Those that the leading controller calls orphans.
async fn orphans(controller: &Connection) -> Result<Vec<Listed>> {
    let mut oversight = controller.oversight();
    let told = oversight.list_orphans(ListOrphansRequest {}).await?;
    let orphans = told.into_inner().orphans.into_iter();
    let at: HashSet<_> = orphans
        .map(|orphan| (orphan.volume_id, Some(orphan.node)))
        .collect();
    let mut volumes = list(controller).await?;
    volumes.retain(|volume| at.contains(&(volume.id.clone(), volume.node.clone())));
    Ok(volumes)
}

/// The health of all volumes by their ids.
async fn all_health(node: &Connection) -> Result<HashMap<String, proto::VolumeHealth>> {
    let mut controller = node.controller();
    let (mut all, mut token) = (HashMap::new(), String::new());
    loop {
        let request = ControllerListVolumeHealthRequest {
            max_entries: PAGE,
            starting_token: token,
            ..ControllerListVolumeHealthRequest::default()
        };
        let page = controller.controller_list_volume_health(request).await?;
        let page = page.into_inner();
        let by_id = |health: proto::VolumeHealth| (health.volume_id.clone(), health);
        all.extend(page.entries.into_iter().map(by_id));
        token = page.next_token;
        if token.is_empty() {
            return Ok(all);
        }
    }
}

async fn get(node: &Connection, id: &VolumeId) -> Result<Listed> {
    let request = ControllerGetVolumeRequest {
        volume_id: id.to_string(),
    };
    let answer = node.controller().controller_get_volume(request).await?;
    Ok(Listed::of(answer.into_inner().volume.unwrap_or_default()))
}

async fn inspect(node: &Connection, id: &VolumeId) -> Result<Inspected> {
    let volume = get(node, id).await?;
    let request = proto::ControllerGetVolumeHealthRequest {
        volume_id: id.to_string(),
        ..proto::ControllerGetVolumeHealthRequest::default()
    };
    let mut controller = node.controller();
    let health = controller.controller_get_volume_health(request).await?;
    let health = health.into_inner().volume_health.unwrap_or_default();
    Ok(Inspected {
        mounted: mounting::mounted(node, &volume, id).await?,
        volume: volume.with_health(health),
    })
}

async fn grow(node: &Connection, id: &VolumeId, to: Bytes, output: Output) -> Result<()> {
    let request = ControllerExpandVolumeRequest {
        volume_id: id.to_string(),
        capacity_range: Some(at_least(to)),
        ..ControllerExpandVolumeRequest::default()
    };
    node.controller().controller_expand_volume(request).await?;
    let volume = get(node, id).await?;
    output.did(&volume, &format!("has {}", size(volume.size_bytes)))
}

async fn remove(node: &Connection, id: &VolumeId) -> Result<()> {
    // The wire takes a volume that is not there for deleted, a person takes it for a slip.
    get(node, id).await?;
    let request = DeleteVolumeRequest {
        volume_id: id.to_string(),
        ..DeleteVolumeRequest::default()
    };
    node.controller().delete_volume(request).await?;
    Ok(())
}
