//! The quota calls of the kernel, `linux/dqblk_xfs.h` and `linux/fs.h` as far as it is used: XFS and ext4 both take them.
#![expect(unsafe_code, reason = "no crate has the quota calls")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::general::fsxattr;
use linux_raw_sys::ioctl::{FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR};
use rustix::io::{Errno, Result as IoResult};
use rustix::ioctl::{Getter, Opcode, Setter, ioctl};

/// What the limits of a project are, as the numbers of the calls.
pub(super) const SET_LIMIT: u32 = xfs(4);
pub(super) const GET: u32 = xfs(3);
pub(super) const GET_NEXT: u32 = xfs(9);
const GET_STATE: u32 = xfs(8);

const PROJECTS: u32 = 2;
const VERSION: u8 = 1;

/// Which fields of [`Quota`] a call sets.
const HARD_BLOCKS: u16 = 1 << 3;
const HARD_INODES: u16 = 1 << 1;

/// The unit of blocks, whatever those of the filesystem are.
pub(super) const BLOCK: u64 = 512;

/// The flags of [`state`] for projects.
pub(super) const COUNTED: u16 = 1 << 4;
pub(super) const ENFORCED: u16 = 1 << 5;

/// `fs_disk_quota`, with its tail as it is for a project.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quota {
    version: u8,
    flags: u8,
    fields: u16,
    pub(super) id: u32,
    pub(super) hard_blocks: u64,
    soft_blocks: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    pub(super) blocks: u64,
    pub(super) inodes: u64,
    timers_and_realtime: [u64; 7],
}

/// `fs_quota_statv`, of which only the flags are read.
#[repr(C)]
struct State {
    version: u8,
    unused: u8,
    flags: u16,
    in_memory: u32,
    files_and_limits: [u64; 19],
}

impl Quota {
    /// What sets the limits to so many blocks and inodes, none of them for no limit.
    pub(super) fn limited_to(blocks: u64, inodes: u64) -> Self {
        Self {
            fields: HARD_BLOCKS | HARD_INODES,
            hard_blocks: blocks,
            hard_inodes: inodes,
            ..Self::default()
        }
    }
}

/// What is counted and enforced on the filesystem of `directory`, as flags.
pub(super) fn state(directory: BorrowedFd<'_>) -> io::Result<u16> {
    let mut state = State {
        version: VERSION,
        unused: 0,
        flags: 0,
        in_memory: 0,
        files_and_limits: [0; 19],
    };
    control(directory, GET_STATE, 0, &mut state)?;
    Ok(state.flags)
}

/// Asks for, or sets, the quota of a project on the filesystem of `directory`.
pub(super) fn quota(
    directory: BorrowedFd<'_>,
    what: u32,
    id: u32,
    mut quota: Quota,
) -> io::Result<Quota> {
    quota.version = VERSION;
    // Bit 1 of the flags: it is of a project.
    quota.flags = 2;
    quota.id = id;
    control(directory, what, id, &mut quota)?;
    Ok(quota)
}

/// The attributes of an open directory: its project, and whether what is made in it inherits that.
pub(super) fn attributes(directory: BorrowedFd<'_>) -> IoResult<fsxattr> {
    const REQUEST: Opcode = FS_IOC_FSGETXATTR;
    // SAFETY: the number and the layout belong to each other.
    unsafe { ioctl(directory, Getter::<REQUEST, fsxattr>::new()) }
}

pub(super) fn set_attributes(directory: BorrowedFd<'_>, attributes: fsxattr) -> IoResult<()> {
    const REQUEST: Opcode = FS_IOC_FSSETXATTR;
    // SAFETY: the number and the layout belong to each other.
    unsafe { ioctl(directory, Setter::<REQUEST, fsxattr>::new(attributes)) }
}

/// By the descriptor, since Linux 5.14; before that by the device, which must then have a node.
fn control<T>(directory: BorrowedFd<'_>, what: u32, id: u32, argument: &mut T) -> io::Result<()> {
    let command = (what << 8) | PROJECTS;
    let address: *mut T = argument;
    // SAFETY: every caller, all of them above, passes the type that its command is defined with, with the true version
    // in it.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            directory.as_raw_fd(),
            command,
            id,
            address,
        )
    };
    if answer == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error);
    }
    // The filesystem says so too, when it has no quotas: then it will say it again.
    let device = device(directory)?;
    // SAFETY: as above, and the path ends with NUL.
    let answer =
        unsafe { libc::syscall(libc::SYS_quotactl, command, device.as_ptr(), id, address) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The node of the device that the filesystem of `directory` is on.
fn device(directory: BorrowedFd<'_>) -> io::Result<CString> {
    let number = rustix::fs::fstat(directory)?.st_dev;
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let told = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"));
    // A filesystem without a device, such as tmpfs, has no quotas that could be asked for.
    let told = told.map_err(|_| Errno::NOSYS)?;
    let name = told.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let path = format!("/dev/{}", name.ok_or(Errno::NOSYS)?);
    CString::new(path).map_err(|_| Errno::NOSYS.into())
}

const fn xfs(number: u32) -> u32 {
    ((b'X' as u32) << 8) + number
}
