//! Volume capabilities: directory or device, filesystem, mount options, and how many may use it.

use super::parameters::Parameters;
use super::proto::VolumeCapability;
use super::proto::volume_capability::access_mode::Mode;
use super::proto::volume_capability::{AccessType, MountVolume};
use crate::volume::{Access, Capability, Class, Error, Filesystem, MountOptions, Result, Use};

/// Reads one capability (CSI 1.13, `VolumeCapability`).
pub(super) fn capability(wire: VolumeCapability) -> Result<Capability> {
    let mode = wire.access_mode.map_or(Mode::Unknown, |mode| mode.mode());
    let usage = match mode {
        Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter => Use::Writers,
        Mode::SingleNodeSingleWriter => Use::OneWriter,
        Mode::SingleNodeReaderOnly => Use::Readers,
        Mode::Unknown => {
            return Err(Error::Invalid(
                "access_mode is missing: give one of a single node".into(),
            ));
        }
        Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter => {
            return Err(Error::Invalid(format!(
                "access mode {}: a volume lives on one node; use ReadWriteOnce or ReadWriteOncePod",
                mode.as_str_name()
            )));
        }
    };
    let mount = match wire.access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            let options = read_only_if(usage == Use::Readers, MountOptions::default());
            return Ok(Capability {
                access: Access::Block,
                filesystem: None,
                options,
                usage,
            });
        }
        None => {
            return Err(Error::Invalid(
                "access_type is missing: say mount or block".into(),
            ));
        }
    };
    let MountVolume {
        fs_type,
        mount_flags,
        volume_mount_group,
    } = mount;
    if !volume_mount_group.is_empty() {
        return Err(Error::Invalid(
            "volume_mount_group is not offered: let the kubelet apply fsGroup".into(),
        ));
    }
    let filesystem = (!fs_type.is_empty())
        .then(|| Filesystem::parse(&fs_type))
        .transpose()?;
    let options = read_only_if(usage == Use::Readers, MountOptions::parse(&mount_flags)?);
    Ok(Capability {
        access: Access::Mount,
        filesystem,
        options,
        usage,
    })
}

/// The same options, read-only where that is asked beside them.
pub(super) fn read_only_if(asked: bool, mut options: MountOptions) -> MountOptions {
    options.attributes.read_only |= asked;
    options
}

/// The class of volume that all these capabilities and the parameters ask for together.
pub(super) fn class_of(wire: Vec<VolumeCapability>, parameters: &Parameters) -> Result<Class> {
    let capabilities = wire
        .into_iter()
        .map(capability)
        .collect::<Result<Vec<_>>>()?;
    let access = capabilities
        .first()
        .map_or(Access::Mount, |first| first.access);
    let by_class = parameters
        .fs_type
        .as_deref()
        .filter(|name| !name.is_empty())
        .map(Filesystem::parse)
        .transpose()?;
    let mut asked = capabilities
        .iter()
        .filter_map(|capability| capability.filesystem);
    let filesystem = asked.next().or(by_class);
    if capabilities
        .iter()
        .any(|capability| capability.access != access)
        || asked.any(|other| Some(other) != filesystem)
    {
        return Err(Error::Invalid(
            "the capabilities contradict each other: ask for one access type and one fsType".into(),
        ));
    }
    Ok(Class {
        pool: parameters.pool.clone(),
        access,
        filesystem: filesystem.filter(|_| access == Access::Mount),
        layout: parameters.layout,
        require_quota: parameters.require_quota,
        encryption: parameters.encryption,
        wishes: parameters.wishes.clone(),
    })
}
