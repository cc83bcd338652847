//! The form that a volume gets in a pool of folders: tree or image, and with which filesystem.

use std::num::NonZero;

use serde::Deserialize;

use super::Origin;
use crate::volume::{Access, Bytes, Class, Error, Filesystem, Layout, PoolName, Result, Shape};

/// What a class may ask of a pool of folders alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Wishes {
    max_inodes: Option<String>,
}

impl Wishes {
    /// The key of [`Wishes::max_inodes`].
    pub(super) const MAX_INODES: &str = "maxInodes";

    /// How many files, directories and other entries a tree may hold, itself included.
    ///
    /// # Errors
    /// `Invalid`, when that is no number of them.
    pub(super) fn max_inodes(&self) -> Result<Option<NonZero<u64>>> {
        let Some(text) = &self.max_inodes else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Error::Invalid(format!(
                "parameters: {}: {text:?} is no number of inodes: give one such as 100000",
                Self::MAX_INODES
            ))
        })
    }
}

/// Loop devices and filesystems work in blocks of this size.
const GRAIN: Bytes = Bytes(4096);

/// The form of a new, empty volume, in a pool that is on the filesystem `home`.
///
/// A block volume is an image, and so is one with a filesystem other than the pool's own.
pub(super) fn of_empty(class: &Class, pool: &PoolName, home: &str) -> Result<Shape> {
    let foreign = class.filesystem.filter(|asked| asked.name() != home);
    let layout = match (class.access, class.layout, foreign) {
        (_, Some(Layout::Device), _) => {
            return Err(Error::Invalid(format!(
                "pool {pool} has no devices of its own: say `layout: image`, or use an LVM or ZFS pool"
            )));
        }
        (Access::Block, Some(Layout::Tree), _) => {
            return Err(Error::Invalid(
                "a tree is no block device: leave `layout` out, or say `layout: image`".into(),
            ));
        }
        (Access::Mount, Some(Layout::Tree), Some(asked)) => {
            return Err(Error::Invalid(format!(
                "a tree in pool {pool} is on {home}, not on {asked}: say `layout: image`, or leave fsType out"
            )));
        }
        (Access::Mount, layout, None) => layout.unwrap_or(Layout::Tree),
        (Access::Block, _, _) | (Access::Mount, _, Some(_)) => Layout::Image,
    };
    let filesystem = match (layout, class.access) {
        (Layout::Image, Access::Mount) => Some(class.filesystem.unwrap_or(Filesystem::Ext4)),
        _ => None,
    };
    Ok(sized(layout, filesystem))
}

/// The form of a volume made from `origin`: the same, or it is refused.
pub(super) fn of_copy(class: &Class, origin: &Origin, home: &str) -> Result<Shape> {
    let (layout, filesystem) = of_origin(class, origin, home)?;
    Ok(sized(layout, filesystem))
}

/// The layout and the filesystem of `origin`, if they are those that the class asks for.
pub(super) fn of_origin(
    class: &Class,
    origin: &Origin,
    home: &str,
) -> Result<(Layout, Option<Filesystem>)> {
    let (what, access, layout, filesystem) = match origin {
        Origin::Volume(volume, _) => {
            let record = &volume.record;
            (
                format!("volume {}", volume.id),
                record.access,
                record.layout,
                record.filesystem,
            )
        }
        Origin::Snapshot(snapshot) => {
            let record = &snapshot.record;
            (
                format!("snapshot {}", snapshot.id),
                record.access,
                record.layout,
                record.filesystem,
            )
        }
    };
    if class.access != access {
        return Err(Error::Invalid(format!(
            "{what} has another access type (block or mount): ask for the same one"
        )));
    }
    if class.layout.is_some_and(|asked| asked != layout) {
        return Err(Error::Invalid(format!(
            "{what} has another layout: ask for the same one, or leave it out"
        )));
    }
    let is = filesystem.map_or(home, |filesystem| filesystem.name());
    match class.filesystem {
        Some(asked) if access == Access::Mount && asked.name() != is => Err(Error::Invalid(
            format!("{what} is on {is}, not on {asked}: ask for {is}, or leave fsType out"),
        )),
        _ => Ok((layout, filesystem)),
    }
}

fn sized(layout: Layout, filesystem: Option<Filesystem>) -> Shape {
    let (least, grain) = match layout {
        Layout::Tree => (Bytes(1), Bytes(1)),
        Layout::Image | Layout::Device => (filesystem.map_or(GRAIN, Filesystem::least), GRAIN),
    };
    Shape {
        layout,
        filesystem,
        least,
        grain,
    }
}
