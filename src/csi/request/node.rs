//! Requests of the node service.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::capability::{capability, class_of, read_only_if};
use super::parameters::Parameters;
use super::{LONGEST_STRING, name, path, proto, short, volume_id};
use crate::driver::Handle;
use crate::driver::mounts::{EphemeralSpec, PublishSpec, StageSpec};
use crate::names::EPHEMERAL;
use crate::volume::{
    CapacityRange, Error, Result, Secret, VolumeId, VolumeName, VolumeSpec, Wishes,
};

/// A volume that is to be published.
#[derive(Debug)]
pub(in crate::csi) enum Publication {
    /// One that was created and staged.
    Persistent(PublishSpec),
    /// One that is created for this one consumer.
    Ephemeral(Box<EphemeralSpec>),
}

/// Reads a `NodeStageVolumeRequest`.
pub(in crate::csi) fn stage(mut wire: proto::NodeStageVolumeRequest) -> Result<StageSpec> {
    let staging = path(&wire.staging_target_path, "staging_target_path")?;
    let capability = capability(wire.volume_capability.ok_or_else(no_capability)?)?;
    Ok(StageSpec {
        volume: volume_id(&wire.volume_id)?,
        capability,
        staging,
        key: Secret::key_among(&mut wire.secrets)?,
    })
}

/// Reads the id and the path of a `NodeUnstageVolumeRequest`.
pub(in crate::csi) fn unstage(
    wire: &proto::NodeUnstageVolumeRequest,
) -> Result<(VolumeId, PathBuf)> {
    let staging = path(&wire.staging_target_path, "staging_target_path")?;
    Ok((volume_id(&wire.volume_id)?, staging))
}

/// Reads a `NodePublishVolumeRequest`.
pub(in crate::csi) fn publish(mut wire: proto::NodePublishVolumeRequest) -> Result<Publication> {
    if wire.volume_id.is_empty() {
        return Err(Error::Invalid(
            "volume_id is missing: give the id that CreateVolume answered".into(),
        ));
    }
    let target = path(&wire.target_path, "target_path")?;
    let wire_capability = wire.volume_capability.ok_or_else(no_capability)?;
    let mut capability = capability(wire_capability.clone())?;
    capability.options = read_only_if(wire.readonly, capability.options);
    if wire
        .volume_context
        .get(EPHEMERAL)
        .is_some_and(|value| value == "true")
    {
        let volume = ephemeral(wire.volume_id, wire_capability, &wire.volume_context)?;
        return Ok(Publication::Ephemeral(Box::new(EphemeralSpec {
            volume,
            capability,
            target,
            key: Secret::key_among(&mut wire.secrets)?,
        })));
    }
    let volume = volume_id(&wire.volume_id)?;
    if wire.staging_target_path.is_empty() {
        return Err(Error::NotStaged(format!(
            "staging_target_path is missing: stage volume {volume} first, and say where"
        )));
    }
    let staging = path(&wire.staging_target_path, "staging_target_path")?;
    Ok(Publication::Persistent(PublishSpec {
        volume,
        capability,
        staging,
        target,
    }))
}

fn ephemeral(
    id: String,
    capability: proto::VolumeCapability,
    context: &BTreeMap<String, String>,
) -> Result<VolumeSpec> {
    let parameters = Parameters::read(context)?;
    let range = CapacityRange::new(parameters.size, None)?;
    let class = class_of(vec![capability], &parameters)?;
    let csi_name = name(id, "volume_id")?;
    Ok(VolumeSpec {
        mutable: Wishes::default(),
        csi_name,
        class,
        range,
        source: None,
        claim: parameters.claim(),
        ephemeral: true,
    })
}

/// Reads the handle and the path of a `NodeUnpublishVolumeRequest`.
pub(in crate::csi) fn unpublish(
    wire: &proto::NodeUnpublishVolumeRequest,
) -> Result<(Handle, PathBuf)> {
    let target = path(&wire.target_path, "target_path")?;
    name(wire.volume_id.clone(), "volume_id")?;
    Ok((handle(&wire.volume_id)?, target))
}

/// Reads the handle of a volume on its node: our own id, or that of an inline volume, which the kubelet made up.
fn handle(text: &str) -> Result<Handle> {
    match volume_id(text) {
        Err(Error::NotFound(_)) if text.len() <= LONGEST_STRING => {
            Ok(Handle::Inline(VolumeName::from_csi(text)))
        }
        id => id.map(Handle::Id),
    }
}

/// Reads the id and the path of a request about a volume that should be there. A path that none could be at is one
/// where it is not.
pub(in crate::csi) fn volume_at(id: &str, at: &str) -> Result<(Handle, PathBuf)> {
    if at.is_empty() {
        return Err(Error::Invalid(
            "volume_path is missing: give the path where it is staged or published".into(),
        ));
    }
    let volume = handle(id)?;
    let path = path(at, "volume_path")
        .map_err(|_| Error::NotFound(format!("volume {} at {}", short(id), short(at))))?;
    Ok((volume, path))
}

/// Reads a `NodeGetVolumeHealthRequest`: the volume, and the paths where it should be, as far as they are given.
pub(in crate::csi) fn health_at(
    wire: &proto::NodeGetVolumeHealthRequest,
) -> Result<(Handle, Vec<PathBuf>)> {
    let given = [
        (&wire.staging_target_path, "staging_target_path"),
        (&wire.volume_publish_path, "volume_publish_path"),
    ];
    let paths = given
        .into_iter()
        .filter(|(text, _)| !text.is_empty())
        .map(|(text, field)| path(text, field));
    let paths = paths.collect::<Result<Vec<_>>>()?;
    Ok((handle(&wire.volume_id)?, paths))
}

fn no_capability() -> Error {
    Error::Invalid(
        "volume_capability is missing: give the one that the volume was created with".into(),
    )
}
