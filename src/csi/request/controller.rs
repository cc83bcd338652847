//! Requests of the controller service.

use std::collections::BTreeMap;

use super::capability::{capability, class_of};
use super::parameters::{Parameters, RESERVED};
use super::{allows, name, proto, snapshot_id, volume_id};
use crate::driver::snapshots::{Only, SnapshotSpec};
use crate::volume::{
    Bytes, Capability, CapacityRange, Class, Error, Result, SnapshotId, Source, VolumeId,
    VolumeSpec, Wishes,
};

/// A page that is asked for.
#[derive(Clone, Debug)]
pub(in crate::csi) struct Page<Id> {
    /// Only what comes after this.
    pub(in crate::csi) after: Option<Id>,
    /// As many entries, or all.
    pub(in crate::csi) most: Option<usize>,
}

/// What is to be confirmed of a volume.
pub(in crate::csi) struct Validation {
    pub(in crate::csi) volume: VolumeId,
    pub(in crate::csi) capabilities: Vec<Result<Capability>>,
}

/// Reads a `CreateVolumeRequest` as it concerns the node `node`.
pub(in crate::csi) fn create_volume(
    wire: proto::CreateVolumeRequest,
    node: &str,
) -> Result<VolumeSpec> {
    let csi_name = name(wire.name, "name")?;
    if wire.volume_capabilities.is_empty() {
        return Err(no_capabilities());
    }
    let parameters = Parameters::read(&wire.parameters)?;
    let class = class_of(wire.volume_capabilities, &parameters)?;
    if parameters.size.is_some() {
        return Err(Error::Invalid(
            "parameters: `size` is for inline volumes; a claim asks for its storage".into(),
        ));
    }
    let range = capacity_range(wire.capacity_range)?;
    let source = wire.volume_content_source.map(content_source).transpose()?;
    require_node(wire.accessibility_requirements, node)?;
    Ok(VolumeSpec {
        csi_name,
        class,
        mutable: mutable(wire.mutable_parameters),
        range,
        source,
        claim: parameters.claim(),
        ephemeral: false,
    })
}

/// Refuses what is asked for on other nodes only.
fn require_node(asked: Option<proto::TopologyRequirement>, node: &str) -> Result<()> {
    let requisite = asked.unwrap_or_default().requisite;
    if requisite.is_empty() || requisite.iter().any(|one| allows(one, node)) {
        return Ok(());
    }
    Err(Error::Full(format!(
        "what is made here is on node {node}, which the topology asked for leaves out"
    )))
}

fn content_source(wire: proto::VolumeContentSource) -> Result<Source> {
    use proto::volume_content_source::Type;
    match wire.r#type {
        Some(Type::Volume(source)) => volume_id(&source.volume_id).map(Source::Volume),
        Some(Type::Snapshot(source)) => snapshot_id(&source.snapshot_id).map(Source::Snapshot),
        None => Err(Error::Invalid(
            "volume_content_source is empty: name a volume or a snapshot".into(),
        )),
    }
}

/// Reads a `CapacityRange`; zero means that it is left open.
pub(in crate::csi) fn capacity_range(wire: Option<proto::CapacityRange>) -> Result<CapacityRange> {
    let wire = wire.unwrap_or_default();
    let size = |field: &str, bytes: i64| match u64::try_from(bytes) {
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(Bytes(bytes))),
        Err(_) => Err(Error::Invalid(format!(
            "{field} is {bytes}: a size is not negative"
        ))),
    };
    CapacityRange::new(
        size("required_bytes", wire.required_bytes)?,
        size("limit_bytes", wire.limit_bytes)?,
    )
}

/// Reads a `ControllerExpandVolumeRequest` or the like: which volume, and how large.
pub(in crate::csi) fn expand(
    id: &str,
    range: Option<proto::CapacityRange>,
) -> Result<(VolumeId, CapacityRange)> {
    let id = volume_id(id)?;
    if range.is_none() {
        return Err(Error::Invalid(
            "capacity_range is missing: give required_bytes".into(),
        ));
    }
    Ok((id, capacity_range(range)?))
}

/// Reads a `ValidateVolumeCapabilitiesRequest`; a capability that never can be is no error here, but an answer.
pub(in crate::csi) fn validate(
    wire: proto::ValidateVolumeCapabilitiesRequest,
) -> Result<Validation> {
    if wire.volume_capabilities.is_empty() {
        return Err(no_capabilities());
    }
    let capabilities = wire
        .volume_capabilities
        .into_iter()
        .map(capability)
        .collect();
    Ok(Validation {
        volume: volume_id(&wire.volume_id)?,
        capabilities,
    })
}

/// Reads a `GetCapacityRequest`; nothing, if it is about another node.
pub(in crate::csi) fn get_capacity(
    wire: proto::GetCapacityRequest,
    node: &str,
) -> Result<Option<Class>> {
    let class = class_of(
        wire.volume_capabilities,
        &Parameters::read(&wire.parameters)?,
    )?;
    Ok(wire
        .accessible_topology
        .is_none_or(|topology| allows(&topology, node))
        .then_some(class))
}

impl<Id> Page<Id> {
    /// How many entries to look for: the one beyond the page tells whether another follows.
    pub(in crate::csi) fn and_one_more(&self) -> usize {
        self.most.map_or(usize::MAX, |most| most + 1)
    }
}

/// Reads a `ListSnapshotsRequest`: the page, and the one snapshot or the one source that it is about.
pub(in crate::csi) fn list_snapshots(
    wire: &proto::ListSnapshotsRequest,
) -> Result<(Page<SnapshotId>, Only)> {
    // An id that we never could have given is of something that does not exist: a list of nothing, not an error.
    let snapshot = (!wire.snapshot_id.is_empty()).then(|| wire.snapshot_id.parse().ok());
    let volume = (!wire.source_volume_id.is_empty()).then(|| wire.source_volume_id.parse().ok());
    Ok((
        page(wire.max_entries, &wire.starting_token)?,
        Only { snapshot, volume },
    ))
}

/// Reads which page of a list is asked for.
///
/// A token is the id of the last entry given: nothing is kept for it, entries that come and go meanwhile neither
/// double nor hide others, and it stays good over a restart.
pub(in crate::csi) fn page<Id: std::str::FromStr>(
    max_entries: i32,
    starting_token: &str,
) -> Result<Page<Id>> {
    let most = usize::try_from(max_entries).map_err(|_| {
        Error::Invalid(format!(
            "max_entries is {max_entries}: a number of entries is not negative"
        ))
    })?;
    let bad = || {
        Error::BadToken(
            "starting_token is none that was given here: list again from the start".into(),
        )
    };
    let after = match starting_token {
        "" => None,
        token => Some(
            token
                .strip_prefix(TOKEN)
                .and_then(|id| id.parse().ok())
                .ok_or_else(bad)?,
        ),
    };
    Ok(Page {
        after,
        most: (most > 0).then_some(most),
    })
}

/// What a page token begins with.
pub(in crate::csi) const TOKEN: &str = "after:";

/// Reads a `CreateSnapshotRequest` as it concerns the node `node`.
pub(in crate::csi) fn create_snapshot(
    wire: proto::CreateSnapshotRequest,
    node: &str,
) -> Result<SnapshotSpec> {
    let csi_name = name(wire.name, "name")?;
    if wire.source_volume_id.is_empty() {
        return Err(Error::Invalid(
            "source_volume_id is missing: name the volume to take a snapshot of".into(),
        ));
    }
    if let Some(key) = wire
        .parameters
        .keys()
        .find(|key| !key.starts_with(RESERVED))
    {
        return Err(Error::Invalid(format!(
            "parameters: unknown field `{key}`: a snapshot has none"
        )));
    }
    let volume = volume_id(&wire.source_volume_id)?;
    require_node(wire.accessibility_requirements, node)?;
    Ok(SnapshotSpec { csi_name, volume })
}

/// Reads a `ControllerModifyVolumeRequest`: which volume, and what is asked of it.
pub(in crate::csi) fn modify(
    wire: proto::ControllerModifyVolumeRequest,
) -> Result<(VolumeId, Wishes)> {
    Ok((
        volume_id(&wire.volume_id)?,
        mutable(wire.mutable_parameters),
    ))
}

/// The parameters of a `VolumeAttributesClass`: which of them a volume has, its pool says.
fn mutable(parameters: BTreeMap<String, String>) -> Wishes {
    let asked = parameters.into_iter();
    asked
        .filter(|(key, _)| !key.starts_with(RESERVED))
        .collect()
}

fn no_capabilities() -> Error {
    Error::Invalid("volume_capabilities are missing: give at least one".into())
}
