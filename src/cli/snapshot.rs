//! `orlop snapshot`: what a person does with snapshots.

use anyhow::Result;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::client::{Remote, watched};
use super::output::{Output, Shown, or_dash, size, time};
use super::volume::Copy;
use crate::client::{self, Connection, wanted_size};
use crate::csi::proto::{self, CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest};
use crate::volume::{Bytes, SnapshotId, SnapshotName, Source, VolumeId};

#[derive(Args, Debug)]
pub(super) struct Snapshot {
    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    output: Output,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the snapshots of all pools, or of one volume.
    Ls {
        /// Only those of this volume: POOL/NAME.
        #[arg(long)]
        volume: Option<VolumeId>,
    },
    /// Take a snapshot of a volume. A second time with the same name changes nothing.
    Create {
        /// The volume: POOL/NAME.
        volume: VolumeId,
        /// The name of the snapshot.
        name: String,
    },
    /// Remove snapshots.
    Rm {
        /// The snapshots: POOL/VOLUME@NAME.
        #[arg(required = true)]
        ids: Vec<SnapshotId>,
    },
    /// Make a new volume with the content of a snapshot.
    Restore {
        /// The snapshot: POOL/VOLUME@NAME.
        id: SnapshotId,
        /// The name of the new volume.
        name: String,
        /// Its size, such as 20GiB; that of the snapshot if left out.
        #[arg(long, value_parser = wanted_size)]
        size: Option<Bytes>,
        /// The snapshot is of a block volume, and so will the new one be.
        #[arg(long)]
        block: bool,
    },
}

/// A snapshot as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub(super) id: String,
    volume: String,
    size_bytes: u64,
    created: Option<Timestamp>,
    ready: bool,
}

impl Snapshot {
    pub(super) fn run(self) -> Result<()> {
        let output = self.output;
        self.remote.with(async |node| match self.command {
            Command::Ls { volume } => output.list(&list(&node, volume).await?),
            Command::Create { volume, name } => create(&node, &volume, name, output).await,
            Command::Rm { ids } => {
                output
                    .remove(&ids, async |id| remove(&node, id).await)
                    .await
            }
            Command::Restore {
                id,
                name,
                size,
                block,
            } => {
                let copy = Copy {
                    source: Source::Snapshot(id),
                    name,
                    size,
                    block,
                };
                copy.run(&node, output).await
            }
        })
    }
}

/// The snapshots of the node, or of one volume.
pub(super) async fn list(node: &Connection, volume: Option<VolumeId>) -> Result<Vec<Listed>> {
    let snapshots = client::snapshots(node, volume.as_ref()).await?;
    Ok(snapshots.into_iter().map(Listed::of).collect())
}

async fn create(node: &Connection, volume: &VolumeId, name: String, output: Output) -> Result<()> {
    let id = SnapshotId {
        volume: volume.clone(),
        name: SnapshotName::from_csi(&name),
    };
    let request = CreateSnapshotRequest {
        source_volume_id: volume.to_string(),
        name,
        ..CreateSnapshotRequest::default()
    };
    let mut controller = node.controller();
    let call = controller.create_snapshot(request);
    let answer = watched(node, &id.to_string(), call).await?.into_inner();
    let snapshot = Listed::of(answer.snapshot.unwrap_or_default());
    output.did(&snapshot, &format!("taken: {}", size(snapshot.size_bytes)))
}

async fn remove(node: &Connection, id: &SnapshotId) -> Result<()> {
    // The wire takes a snapshot that is not there for deleted, a person takes it for a slip.
    let found = GetSnapshotRequest {
        snapshot_id: id.to_string(),
        ..GetSnapshotRequest::default()
    };
    node.controller().get_snapshot(found).await?;
    let request = DeleteSnapshotRequest {
        snapshot_id: id.to_string(),
        ..DeleteSnapshotRequest::default()
    };
    node.controller().delete_snapshot(request).await?;
    Ok(())
}

impl Listed {
    fn of(snapshot: proto::Snapshot) -> Self {
        let created = snapshot.creation_time.unwrap_or_default();
        Self {
            id: snapshot.snapshot_id,
            volume: snapshot.source_volume_id,
            size_bytes: snapshot.size_bytes.unsigned_abs(),
            created: Timestamp::new(created.seconds, created.nanos).ok(),
            ready: snapshot.ready_to_use,
        }
    }
}

impl Shown for Listed {
    const COLUMNS: &'static [&'static str] = &["ID", "VOLUME", "SIZE", "CREATED", "READY"];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        let ready = if self.ready { "yes" } else { "no" };
        vec![
            self.id.clone(),
            self.volume.clone(),
            size(self.size_bytes),
            self.created.map_or_else(|| or_dash(None), time),
            ready.to_owned(),
        ]
    }
}
