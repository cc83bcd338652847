//! The form that a volume gets in ZFS: a dataset, or a zvol with a filesystem or without.

use super::wishes::Wishes;
use crate::pool::{Origin, shape};
use crate::volume::{Access, Bytes, Class, Error, Filesystem, Layout, PoolName, Result, Shape};

/// The form of a new volume of this class, or of one made from `origin`.
///
/// # Errors
/// `Invalid`, when there can be no such volume.
pub(super) fn of(class: &Class, origin: Option<&Origin>, pool: &PoolName) -> Result<Shape> {
    let (layout, filesystem) = match origin {
        Some(origin) => shape::of_origin(class, origin, "zfs")?,
        None => of_empty(class, pool)?,
    };
    let wishes = Wishes::of(class, layout)?;
    let (least, grain) = match layout {
        Layout::Tree => (Bytes::MIB, Bytes(1)),
        Layout::Image | Layout::Device => {
            let block = wishes.block().max(Bytes(4096));
            (filesystem.map_or(block, Filesystem::least), block)
        }
    };
    Ok(Shape {
        layout,
        filesystem,
        least,
        grain,
    })
}

/// The form of a new, empty volume: a dataset, or a zvol where a filesystem or a device is asked for.
fn of_empty(class: &Class, pool: &PoolName) -> Result<(Layout, Option<Filesystem>)> {
    match (class.access, class.layout) {
        (_, Some(Layout::Image)) => Err(Error::Invalid(format!(
            "pool {pool} has no images: say `layout: device` for a zvol, or leave `layout` out"
        ))),
        (Access::Block, Some(Layout::Tree)) => Err(Error::Invalid(
            "a tree is no block device: leave `layout` out, or say `layout: device`".into(),
        )),
        (Access::Mount, Some(Layout::Tree)) if let Some(asked) = class.filesystem => {
            Err(Error::Invalid(format!(
                "a tree in pool {pool} is on zfs, not on {asked}: say `layout: device`, or leave fsType out"
            )))
        }
        (Access::Block, _) => Ok((Layout::Device, None)),
        (Access::Mount, None) if class.filesystem.is_none() => Ok((Layout::Tree, None)),
        (Access::Mount, Some(Layout::Tree)) => Ok((Layout::Tree, None)),
        (Access::Mount, _) => {
            let filesystem = class.filesystem.unwrap_or(Filesystem::Ext4);
            Ok((Layout::Device, Some(filesystem)))
        }
    }
}
