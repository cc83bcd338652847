//! Volumes as they are printed.

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::output::{Shown, or_dash, size, time};
use crate::cli::pool::{Fault, health};
use crate::csi::proto::volume_content_source::Type;
use crate::csi::proto::{self, VolumeHealthErrorType};
use crate::names::{CLAIM_NAME, CLAIM_NAMESPACE, EPHEMERAL, TOPOLOGY_NODE};

/// A volume in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Listed {
    pub(in crate::cli) id: String,
    pub(super) size_bytes: u64,
    access: &'static str,
    layout: Option<String>,
    fs_type: Option<String>,
    claim: Option<Claim>,
    ephemeral: bool,
    created: Option<Timestamp>,
    source: Option<Source>,
    pub(in crate::cli) node: Option<String>,
    pub(in crate::cli) health: Vec<Fault>,
}

/// Whose it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    namespace: Option<String>,
    name: Option<String>,
    persistent_volume: Option<String>,
}

/// What it was made from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Source {
    Volume(String),
    Snapshot(String),
}

/// A volume with where it is, and what it holds there.
#[derive(Debug, Serialize)]
pub(super) struct Inspected {
    #[serde(flatten)]
    pub(super) volume: Listed,
    #[serde(flatten)]
    pub(super) mounted: Mounted,
}

/// Where a volume is mounted; what it holds is known only while it is, and of a block device never.
#[derive(Debug, Default, Serialize)]
pub(super) struct Mounted {
    #[serde(rename = "mounts")]
    pub(super) paths: Vec<String>,
    pub(super) bytes: Option<Usage>,
    pub(super) inodes: Option<Usage>,
}

/// How much of it is used.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Usage {
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) available: u64,
}

impl Listed {
    /// The volume as the wire tells it.
    pub(super) fn of(volume: proto::Volume) -> Self {
        let mut context = volume.volume_context;
        let mut told = |key: &str| context.remove(key);
        let claim = Claim {
            namespace: told(CLAIM_NAMESPACE),
            name: told(CLAIM_NAME),
            persistent_volume: told("csi.storage.k8s.io/pv/name"),
        };
        let named = claim.name.is_some() || claim.persistent_volume.is_some();
        let (layout, fs_type) = (told("layout"), told("fsType"));
        // Only a raw device is no tree and has no filesystem in it.
        let block = layout.as_deref() != Some("tree") && fs_type.is_none();
        let source = volume.content_source.and_then(|source| source.r#type);
        let topology = volume.accessible_topology.into_iter().next();
        Self {
            id: volume.volume_id,
            size_bytes: volume.capacity_bytes.unsigned_abs(),
            access: if block { "block" } else { "mount" },
            layout,
            fs_type,
            claim: named.then_some(claim),
            ephemeral: told(EPHEMERAL).is_some(),
            created: told("created").and_then(|text| text.parse().ok()),
            source: source.map(|source| match source {
                Type::Volume(source) => Source::Volume(source.volume_id),
                Type::Snapshot(source) => Source::Snapshot(source.snapshot_id),
            }),
            node: topology.and_then(|mut topology| topology.segments.remove(TOPOLOGY_NODE)),
            health: Vec::new(),
        }
    }

    /// The same with its health.
    pub(super) fn with_health(self, health: proto::VolumeHealth) -> Self {
        let fault = |entry: proto::volume_health::VolumeHealthEntry| Fault {
            severity: match entry.status() {
                VolumeHealthErrorType::Degraded => "degraded",
                VolumeHealthErrorType::DataLoss => "dataLoss",
                _ => "inaccessible",
            },
            reason: entry.reason,
            message: entry.message,
        };
        Self {
            health: health.health_statuses.into_iter().map(fault).collect(),
            ..self
        }
    }

    /// Whether it is a raw block device.
    pub(super) fn is_block(&self) -> bool {
        self.access == "block"
    }

    fn claimed_by(&self) -> Option<String> {
        let claim = self.claim.as_ref()?;
        let name = claim.name.as_ref()?;
        Some(match &claim.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.clone(),
        })
    }

    fn filesystem(&self) -> Option<&str> {
        self.fs_type
            .as_deref()
            .or_else(|| self.is_block().then_some("(block)"))
    }
}

impl Shown for Listed {
    const COLUMNS: &'static [&'static str] = &[
        "ID", "NODE", "SIZE", "LAYOUT", "FS", "CLAIM", "CREATED", "HEALTH",
    ];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            or_dash(self.node.as_deref()),
            size(self.size_bytes),
            or_dash(self.layout.as_deref()),
            or_dash(self.filesystem()),
            or_dash(self.claimed_by().as_deref()),
            self.created.map_or_else(|| or_dash(None), time),
            health(&self.health),
        ]
    }
}

impl Shown for Inspected {
    const COLUMNS: &'static [&'static str] = Listed::COLUMNS;

    fn name(&self) -> &str {
        self.volume.name()
    }

    fn cells(&self) -> Vec<String> {
        self.volume.cells()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let volume = &self.volume;
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let source = match &volume.source {
            None => String::new(),
            Some(Source::Volume(id)) => format!("volume {id}"),
            Some(Source::Snapshot(id)) => format!("snapshot {id}"),
        };
        let claim = volume.claim.as_ref();
        let mut details = vec![
            ("ID", volume.id.clone()),
            ("Size", exact_size(volume.size_bytes)),
            ("Access", volume.access.to_owned()),
            ("Layout", text(volume.layout.as_ref())),
            ("Filesystem", text(volume.fs_type.as_ref())),
            ("Claim", volume.claimed_by().unwrap_or_default()),
            (
                "Persistent volume",
                text(claim.and_then(|claim| claim.persistent_volume.as_ref())),
            ),
            (
                "Ephemeral",
                if volume.ephemeral { "yes" } else { "" }.to_owned(),
            ),
            ("Created", volume.created.map(time).unwrap_or_default()),
            ("Source", source),
            ("Node", text(volume.node.as_ref())),
        ];
        details.extend(crate::cli::pool::health_lines(&volume.health));
        let mounted = &self.mounted;
        let place = |path: &String| ("Mounted at", path.clone());
        details.extend(mounted.paths.iter().map(place));
        if let Some(Usage { used, total, .. }) = mounted.bytes {
            // Where nothing limits a tree, its writers meet the limits of what it is on.
            let shared = if total > volume.size_bytes {
                ", the whole filesystem of the pool"
            } else {
                ""
            };
            let text = format!("{} of {}{shared}", size(used), size(total));
            details.push(("Bytes used", text));
        }
        if let Some(Usage { used, total, .. }) = mounted.inodes {
            details.push(("Inodes used", format!("{used} of {total}")));
        }
        details
    }
}

/// A size for people who may need every byte of it.
pub(in crate::cli) fn exact_size(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", size(bytes))
}
