//! Nouns become replies here.

use std::path::PathBuf;

use super::proto;
use super::request::TOKEN;
use crate::driver::health::Inspected;
use crate::driver::leftovers::{self, Leftover};
use crate::driver::stats::{Held, Stats};
use crate::driver::work::Work;
use crate::host::space::Count;
use crate::names::{CLAIM_NAME, CLAIM_NAMESPACE, EPHEMERAL, TOPOLOGY_NODE};
use crate::pool::{Fault, Level, Severity};
use crate::volume::{Bytes, Error, Snapshot, Source, Volume};

/// Where the volumes of this node can be reached from.
pub(super) fn topology(node: &str) -> proto::Topology {
    proto::Topology {
        segments: [(TOPOLOGY_NODE.to_owned(), node.to_owned())].into(),
    }
}

/// A volume. Its context is for people and for lists: the node itself reads only the record.
pub(super) fn volume(volume: Volume, node: &str) -> proto::Volume {
    let record = volume.record;
    let capacity_bytes = record.usable().as_wire();
    let claim = record.claim;
    let context = [
        ("layout", Some(record.layout.name().to_owned())),
        (
            "fsType",
            record
                .filesystem
                .map(|filesystem| filesystem.name().to_owned()),
        ),
        ("encryption", record.encryption.then(|| "true".to_owned())),
        ("created", Some(record.created.to_string())),
        (CLAIM_NAMESPACE, claim.namespace),
        (CLAIM_NAME, claim.name),
        ("csi.storage.k8s.io/pv/name", claim.volume),
        (EPHEMERAL, record.ephemeral.then(|| "true".to_owned())),
    ];
    proto::Volume {
        capacity_bytes,
        volume_id: volume.id.to_string(),
        volume_context: context
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect(),
        content_source: record.source.as_ref().map(content_source),
        accessible_topology: vec![topology(node)],
    }
}

fn content_source(source: &Source) -> proto::VolumeContentSource {
    use proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
    let r#type = match source {
        Source::Volume(id) => Type::Volume(VolumeSource {
            volume_id: id.to_string(),
        }),
        Source::Snapshot(id) => Type::Snapshot(SnapshotSource {
            snapshot_id: id.to_string(),
        }),
    };
    proto::VolumeContentSource {
        r#type: Some(r#type),
    }
}

/// A snapshot.
pub(super) fn snapshot(snapshot: &Snapshot, node: &str) -> proto::Snapshot {
    let record = &snapshot.record;
    proto::Snapshot {
        size_bytes: record.usable().as_wire(),
        snapshot_id: snapshot.id.to_string(),
        source_volume_id: record.volume.to_string(),
        creation_time: Some(timestamp(record.created)),
        ready_to_use: !snapshot.lost,
        group_snapshot_id: String::new(),
        accessible_topology: vec![topology(node)],
    }
}

/// The answer to a `ValidateVolumeCapabilitiesRequest`: all that was asked for confirmed, or why not.
pub(super) fn validated(
    asked: proto::ValidateVolumeCapabilitiesRequest,
    refusal: Option<Error>,
) -> proto::ValidateVolumeCapabilitiesResponse {
    use proto::validate_volume_capabilities_response::Confirmed;
    match refusal {
        Some(refusal) => proto::ValidateVolumeCapabilitiesResponse {
            confirmed: None,
            message: refusal.to_string(),
        },
        None => proto::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: asked.volume_context,
                volume_capabilities: asked.volume_capabilities,
                parameters: asked.parameters,
                mutable_parameters: asked.mutable_parameters,
            }),
            message: String::new(),
        },
    }
}

/// The room for new volumes of a class: one can have all that is available.
pub(super) fn capacity(available: Bytes, least: Option<Bytes>) -> proto::GetCapacityResponse {
    proto::GetCapacityResponse {
        available_capacity: available.as_wire(),
        maximum_volume_size: Some(available.as_wire()),
        minimum_volume_size: least.map(Bytes::as_wire),
    }
}

/// The token of the page after this one, if there is one: `found` holds one entry more than was asked for then, and
/// gives it back.
pub(super) fn next_token<T, Id: ToString>(
    found: &mut Vec<T>,
    most: Option<usize>,
    id: impl Fn(&T) -> Id,
) -> String {
    match most {
        Some(most) if found.len() > most => {
            found.truncate(most);
            found
                .last()
                .map(|last| format!("{TOKEN}{}", id(last).to_string()))
                .unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// The figures of a volume.
pub(super) fn stats(stats: &Stats) -> proto::NodeGetVolumeStatsResponse {
    use proto::volume_usage::Unit;
    let usage = |count: Count, unit: Unit| proto::VolumeUsage {
        available: wire(count.available),
        total: wire(count.total),
        used: wire(count.used),
        unit: unit.into(),
    };
    let inodes = stats.inodes.map(|inodes| usage(inodes, Unit::Inodes));
    proto::NodeGetVolumeStatsResponse {
        usage: std::iter::once(usage(stats.bytes, Unit::Bytes))
            .chain(inodes)
            .collect(),
    }
}

/// The health of a volume; without entries it is well.
pub(super) fn volume_health(volume_id: String, faults: Vec<Fault>) -> proto::VolumeHealth {
    use proto::VolumeHealthErrorType as Status;
    let entry = |fault: Fault| proto::volume_health::VolumeHealthEntry {
        status: match fault.severity {
            Severity::Degraded => Status::Degraded,
            Severity::Inaccessible => Status::Inaccessible,
            Severity::DataLoss => Status::DataLoss,
        }
        .into(),
        reason: fault.reason.to_owned(),
        message: fault.message,
    };
    proto::VolumeHealth {
        volume_id,
        health_statuses: faults.into_iter().map(entry).collect(),
    }
}

/// The health of the pools; without entries they are well.
pub(super) fn storage_health(faults: Vec<Fault>) -> proto::NodeGetStorageHealthResponse {
    use proto::StorageHealthErrorType as Status;
    let entry = |fault: Fault| proto::node_get_storage_health_response::StorageBackendHealth {
        status: match fault.severity {
            Severity::Degraded => Status::StorageDegraded,
            Severity::Inaccessible | Severity::DataLoss => Status::StorageUnreachable,
        }
        .into(),
        reason: fault.reason.to_owned(),
        message: fault.message,
        volume_capability: None,
    };
    proto::NodeGetStorageHealthResponse {
        backend_health: faults.into_iter().map(entry).collect(),
    }
}

/// A pool.
pub(super) fn pool(pool: Inspected, node: &str) -> proto::inspection::Pool {
    use proto::inspection::fault::Severity as Wire;
    let fault = |fault: Fault| proto::inspection::Fault {
        severity: match fault.severity {
            Severity::Degraded => Wire::Degraded,
            Severity::Inaccessible => Wire::Inaccessible,
            Severity::DataLoss => Wire::DataLoss,
        }
        .into(),
        reason: fault.reason.to_owned(),
        message: fault.message,
    };
    proto::inspection::Pool {
        node: node.to_owned(),
        name: pool.name.to_string(),
        kind: pool.kind.to_owned(),
        place: pool.place,
        total_bytes: pool.capacity.total.0,
        promised_bytes: pool.capacity.promised.0,
        available_bytes: pool.capacity.available.0,
        enforces_tree_size: pool.enforces,
        faults: pool.faults.into_iter().map(fault).collect(),
        levels: pool.levels.into_iter().map(level).collect(),
    }
}

fn level(level: Level) -> proto::inspection::Level {
    proto::inspection::Level {
        part: level.part.to_owned(),
        used: level.used,
        total: level.total,
    }
}

/// What a volume holds.
pub(super) fn usage(held: Held) -> proto::inspection::Usage {
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    proto::inspection::Usage {
        volume_id: held.id.to_string(),
        paths: held.paths.into_iter().map(path).collect(),
        used_bytes: held.used.map(|bytes| bytes.0),
    }
}

/// What is left over.
pub(super) fn leftover(left: Leftover) -> proto::inspection::Leftover {
    use proto::inspection::leftover::Kind;
    proto::inspection::Leftover {
        kind: match left.kind {
            leftovers::Kind::Stuck => Kind::Stuck,
            leftovers::Kind::Idle => Kind::Idle,
            leftovers::Kind::Unreadable => Kind::Unreadable,
            leftovers::Kind::Mount => Kind::Mount,
        }
        .into(),
        pool: left.pool.to_string(),
        name: left.name,
        bytes: left.bytes.map(|bytes| bytes.0),
        message: left.message,
    }
}

/// A copy that is running.
pub(super) fn work(work: Work) -> proto::inspection::Work {
    proto::inspection::Work {
        id: work.id,
        done_bytes: work.progress.done().0,
        total_bytes: work.progress.total().0,
        since: Some(timestamp(work.since)),
    }
}

fn timestamp(at: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

fn wire(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
