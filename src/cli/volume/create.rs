//! Volumes that begin: empty, cloned or restored.

use anyhow::Result;
use clap::Args;

use super::shown::Listed;
use crate::cli::client::watched;
use crate::cli::output::{Output, size};
use crate::client::{Connection, at_least, capability, wanted_size};
use crate::csi::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::csi::proto::{CreateVolumeRequest, VolumeContentSource};
use crate::volume::{Bytes, PoolName, SnapshotId, Source, VolumeId, VolumeName};

/// What a new volume is.
#[derive(Args, Debug)]
pub(super) struct Create {
    /// Its name.
    name: String,
    /// Its size, such as 10GiB.
    #[arg(long, value_parser = wanted_size)]
    size: Bytes,
    /// Its pool; if left out the only one, or the one called `default`.
    #[arg(long)]
    pool: Option<PoolName>,
    /// A directory of the pool, or a filesystem in an image file whose size always holds.
    #[arg(long, value_parser = ["tree", "image"])]
    layout: Option<String>,
    /// The filesystem in an image.
    #[arg(long, value_parser = ["ext4", "xfs", "btrfs"])]
    fs: Option<String>,
    /// A raw block device.
    #[arg(long, conflicts_with = "fs")]
    block: bool,
    /// Refuse a volume whose size nothing enforces.
    #[arg(long)]
    require_quota: bool,
    /// Encrypt it, with the key that its first mount gives.
    #[arg(long)]
    encryption: bool,
}

/// A volume that is to be made from another, or from a snapshot.
pub(in crate::cli) struct Copy {
    pub(in crate::cli) source: Source,
    pub(in crate::cli) name: String,
    pub(in crate::cli) size: Option<Bytes>,
    pub(in crate::cli) block: bool,
}

impl Create {
    pub(super) async fn run(self, node: &Connection, output: Output) -> Result<()> {
        let claimed = |it: bool| it.then(|| "true".to_owned());
        let quota = claimed(self.require_quota);
        let encryption = claimed(self.encryption);
        let parameters = [
            ("pool", self.pool.map(String::from)),
            ("layout", self.layout),
            ("requireQuota", quota),
            ("encryption", encryption),
        ];
        let parameters = parameters
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let request = CreateVolumeRequest {
            name: self.name,
            capacity_range: Some(at_least(self.size)),
            volume_capabilities: vec![capability(self.block, self.fs.unwrap_or_default())],
            parameters: parameters.collect(),
            ..CreateVolumeRequest::default()
        };
        let answer = node.controller().create_volume(request).await?.into_inner();
        let volume = Listed::of(answer.volume.unwrap_or_default());
        output.did(&volume, &format!("created: {}", size(volume.size_bytes)))
    }
}

impl Copy {
    /// Makes the volume, and shows how far it is.
    pub(in crate::cli) async fn run(self, node: &Connection, output: Output) -> Result<()> {
        let (pool, what, source) = match self.source {
            Source::Volume(id) => {
                let volume_id = id.to_string();
                let what = format!("cloned from {id}");
                (id.pool, what, Type::Volume(VolumeSource { volume_id }))
            }
            Source::Snapshot(id) => snapshot_source(id),
        };
        let id = VolumeId {
            pool,
            name: VolumeName::from_csi(&self.name),
        };
        let request = CreateVolumeRequest {
            name: self.name,
            capacity_range: self.size.map(at_least),
            volume_capabilities: vec![capability(self.block, String::new())],
            parameters: [("pool".to_owned(), id.pool.to_string())].into(),
            volume_content_source: Some(VolumeContentSource {
                r#type: Some(source),
            }),
            ..CreateVolumeRequest::default()
        };
        let mut controller = node.controller();
        let call = controller.create_volume(request);
        let answer = watched(node, &id.to_string(), call).await?.into_inner();
        let volume = Listed::of(answer.volume.unwrap_or_default());
        output.did(&volume, &format!("{what}: {}", size(volume.size_bytes)))
    }
}

fn snapshot_source(id: SnapshotId) -> (PoolName, String, Type) {
    let snapshot_id = id.to_string();
    let what = format!("restored from {id}");
    (
        id.volume.pool,
        what,
        Type::Snapshot(SnapshotSource { snapshot_id }),
    )
}
