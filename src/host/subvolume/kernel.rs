//! The btrfs calls of the kernel, `linux/btrfs.h` as far as it is used.
#![expect(unsafe_code, reason = "no crate has the btrfs calls")]

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, ensure};
use rustix::io::Result as IoResult;
use rustix::ioctl::{Getter, NoArg, Opcode, Setter, Updater, ioctl, opcode};

const GROUP: u8 = 0x94;
const SUBVOL_CREATE_V2: Opcode = opcode::write::<Named>(GROUP, 24);
const SNAP_CREATE_V2: Opcode = opcode::write::<Named>(GROUP, 23);
const SNAP_DESTROY_V2: Opcode = opcode::write::<Named>(GROUP, 63);
const INO_LOOKUP: Opcode = opcode::read_write::<Lookup>(GROUP, 18);
const TREE_SEARCH: Opcode = opcode::read_write::<Search>(GROUP, 17);
const FS_INFO: Opcode = opcode::read::<FsInfo>(GROUP, 31);
const QUOTA_CTL: Opcode = opcode::read_write::<QuotaControl>(GROUP, 40);
const QGROUP_CREATE: Opcode = opcode::write::<QgroupCreate>(GROUP, 42);
const QGROUP_LIMIT: Opcode = opcode::read::<QgroupLimit>(GROUP, 43);
const QUOTA_RESCAN_WAIT: Opcode = opcode::none(GROUP, 46);

const READ_ONLY: u64 = 1 << 1;
const BY_ID: u64 = 1 << 4;
const ROOT_TREE: u64 = 1;
const ROOT_ITEM: u32 = 132;
const ROOT_REF: u32 = 156;
const FIRST_FREE: u64 = 256;
const MAX_REFERENCED: u64 = 1;

/// How the kernel is to count, as the numbers of its call.
pub(super) const ENABLE: u64 = 1;
pub(super) const ENABLE_SIMPLE: u64 = 4;

/// `btrfs_ioctl_vol_args_v2`.
#[repr(C)]
pub(super) struct Named {
    source: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    /// A name that ends with NUL, or an id.
    name: [u8; 4040],
}

/// `btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct Lookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `btrfs_ioctl_search_args`.
#[repr(C)]
struct Search {
    tree: u64,
    objects: [u64; 2],
    offsets: [u64; 2],
    transactions: [u64; 2],
    kinds: [u32; 2],
    items: u32,
    unused: u32,
    reserved: [u64; 4],
    found: [u8; 4096 - 104],
}

/// `btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FsInfo {
    devices: [u64; 2],
    id: [u8; 16],
    rest: [u64; 124],
}

/// `btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

/// `btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct QgroupCreate {
    create: u64,
    id: u64,
}

/// `btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct QgroupLimit {
    id: u64,
    flags: u64,
    referenced: u64,
    exclusive: u64,
    reserved: [u64; 2],
}

impl Named {
    pub(super) fn new(name: &OsStr) -> Result<Self> {
        let bytes = name.as_bytes();
        ensure!(
            !bytes.is_empty() && bytes.len() <= 255 && !bytes.contains(&b'/'),
            "{} is no name for a subvolume",
            name.display()
        );
        Ok(Self::holding(bytes))
    }

    fn holding(bytes: &[u8]) -> Self {
        let mut name = [0; 4040];
        name[..bytes.len()].copy_from_slice(bytes);
        Self {
            source: 0,
            transaction: 0,
            flags: 0,
            unused: [0; 4],
            name,
        }
    }
}

pub(super) fn create(parent: BorrowedFd<'_>, args: Named) -> IoResult<()> {
    // SAFETY: the number and the layout belong to each other.
    unsafe { ioctl(parent, Setter::<SUBVOL_CREATE_V2, _>::new(args)) }
}

pub(super) fn snapshot(
    source: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    mut args: Named,
    read_only: bool,
) -> IoResult<()> {
    args.source = source.as_raw_fd().into();
    args.flags = if read_only { READ_ONLY } else { 0 };
    // SAFETY: the number and the layout belong to each other; `source` is open during the call.
    unsafe { ioctl(parent, Setter::<SNAP_CREATE_V2, _>::new(args)) }
}

pub(super) fn delete(parent: BorrowedFd<'_>, args: Named) -> IoResult<()> {
    // SAFETY: the number and the layout belong to each other.
    unsafe { ioctl(parent, Setter::<SNAP_DESTROY_V2, _>::new(args)) }
}

pub(super) fn delete_by_id(directory: BorrowedFd<'_>, id: u64) -> IoResult<()> {
    let mut args = Named::holding(&id.to_ne_bytes());
    args.flags = BY_ID;
    delete(directory, args)
}

/// The number of the subvolume that `directory` is in.
pub(super) fn id(directory: BorrowedFd<'_>) -> IoResult<u64> {
    let mut lookup = Lookup {
        tree: 0,
        object: FIRST_FREE,
        name: [0; 4080],
    };
    // SAFETY: the number and the layout belong to each other.
    unsafe { ioctl(directory, Updater::<INO_LOOKUP, _>::new(&mut lookup)) }?;
    Ok(lookup.tree)
}

/// The subvolumes directly inside the subvolume `parent`.
pub(super) fn children(directory: BorrowedFd<'_>, parent: u64) -> IoResult<Vec<u64>> {
    let mut children = Vec::new();
    search(directory, [parent, parent], ROOT_REF, |[_, child]| {
        children.push(child);
    })?;
    Ok(children)
}

/// Whether the filesystem of `directory` has a subvolume `id`, be it one that is still being deleted.
pub(super) fn exists(directory: BorrowedFd<'_>, id: u64) -> IoResult<bool> {
    let mut exists = false;
    search(directory, [id, id], ROOT_ITEM, |_| exists = true)?;
    Ok(exists)
}

/// Visits object and offset of the root tree's items of one kind.
fn search(
    directory: BorrowedFd<'_>,
    objects: [u64; 2],
    kind: u32,
    mut visit: impl FnMut([u64; 2]),
) -> IoResult<()> {
    let mut first = 0;
    loop {
        let mut search = Search {
            tree: ROOT_TREE,
            objects,
            offsets: [first, u64::MAX],
            transactions: [0, u64::MAX],
            kinds: [kind, kind],
            items: u32::MAX,
            unused: 0,
            reserved: [0; 4],
            found: [0; 4096 - 104],
        };
        // SAFETY: the number and the layout belong to each other.
        unsafe { ioctl(directory, Updater::<TREE_SEARCH, _>::new(&mut search)) }?;
        let mut rest = &search.found[..];
        let mut last = None;
        for _ in 0..search.items {
            let Some((header, data)) = rest.split_at_checked(32) else {
                break;
            };
            let word = |at: usize| {
                header[at..]
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
            };
            let length = usize::try_from(word(24) >> 32).unwrap_or(usize::MAX);
            visit([word(8), word(16)]);
            last = Some(word(16));
            rest = data.get(length..).unwrap_or_default();
        }
        match last.and_then(|last| last.checked_add(1)) {
            Some(next) => first = next,
            None => return Ok(()),
        }
    }
}

/// The id of the filesystem.
pub(super) fn filesystem(directory: BorrowedFd<'_>) -> IoResult<[u8; 16]> {
    // SAFETY: the number and the layout belong to each other, and every bit pattern is an `FsInfo`.
    let info = unsafe { ioctl(directory, Getter::<FS_INFO, FsInfo>::new()) }?;
    Ok(info.id)
}

/// Switches counting on, and waits until what there is has been counted.
pub(super) fn count(directory: BorrowedFd<'_>, command: u64) -> IoResult<()> {
    let mut control = QuotaControl { command, status: 0 };
    // SAFETY: the numbers and the layout belong to each other; waiting takes no argument.
    unsafe {
        ioctl(directory, Updater::<QUOTA_CTL, _>::new(&mut control))?;
        ioctl(directory, NoArg::<QUOTA_RESCAN_WAIT>::new())
    }
}

/// Limits what the subvolume `id` may refer to.
pub(super) fn limit(directory: BorrowedFd<'_>, id: u64, referenced: u64) -> IoResult<()> {
    let limit = QgroupLimit {
        id,
        flags: MAX_REFERENCED,
        referenced,
        exclusive: 0,
        reserved: [0; 2],
    };
    // SAFETY: the number and the layout belong to each other.
    unsafe { ioctl(directory, Setter::<QGROUP_LIMIT, _>::new(limit)) }
}

/// Removes the quota group of the subvolume `id`.
pub(super) fn forget(directory: BorrowedFd<'_>, id: u64) -> IoResult<()> {
    // SAFETY: the number and the layout belong to each other.
    unsafe {
        ioctl(
            directory,
            Setter::<QGROUP_CREATE, _>::new(QgroupCreate { create: 0, id }),
        )
    }
}
