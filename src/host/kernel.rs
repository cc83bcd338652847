//! The kernel's calls that rustix lacks, each made safe.

use std::ffi::{OsStr, c_void};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::{io, mem};

use linux_raw_sys::btrfs::btrfs_ioctl_dev_info_args;
use linux_raw_sys::general::mount_attr;
use linux_raw_sys::ioctl::{BLKROGET, BLKROSET, BTRFS_IOC_DEV_INFO, FIFREEZE, FITHAW};
use linux_raw_sys::loop_device::{
    LOOP_CLR_FD, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LOOP_GET_STATUS64, LOOP_SET_CAPACITY,
    loop_config, loop_info64,
};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

/// Sets attributes and propagation of the mount at the root of `tree`, and of no other.
pub(super) fn mount_setattr(tree: &OwnedFd, attributes: &mount_attr) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix has no mount_setattr")]
    // SAFETY: the path is a literal that ends with NUL, the attributes live through the call, and their true size is
    // given beside them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            mem::size_of::<mount_attr>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What the filesystem that an open directory is in does about project quotas, as `FS_QUOTA_PDQ_…` flags.
pub(super) fn project_quota(directory: impl AsFd) -> io::Result<u16> {
    const GET_STATE: i32 = (('X' as i32) << 8) + 5;
    const PROJECTS: i32 = 2;
    // `struct fs_quota_stat` of linux/dqblk_xfs.h has the flags behind its version byte.
    let mut state = [0_u16; 64];
    #[expect(unsafe_code, reason = "rustix has no quotactl_fd")]
    // SAFETY: the kernel writes a structure of 80 bytes, for which there is room, and the descriptor is open.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            directory.as_fd().as_raw_fd(),
            (GET_STATE << 8) | PROJECTS,
            0,
            state.as_mut_ptr(),
        )
    };
    if answer == 0 {
        Ok(state[1])
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Holds back all writers of the filesystem that an open directory is in, and brings it to rest on its device.
pub(super) fn freeze(directory: impl AsFd) -> io::Result<()> {
    ioctl(directory, FIFREEZE, &mut 0_i32).map(drop)
}

/// Lets its writers go on.
pub(super) fn thaw(directory: impl AsFd) -> io::Result<()> {
    ioctl(directory, FITHAW, &mut 0_i32).map(drop)
}

/// The number of a loop device that was free just now.
pub(super) fn free_loop(control: &File) -> io::Result<u32> {
    let number = ioctl(control, LOOP_CTL_GET_FREE, &mut ())?;
    u32::try_from(number).map_err(io::Error::other)
}

/// Attaches what `config` says to a free loop device.
pub(super) fn configure_loop(device: &File, config: &mut loop_config) -> io::Result<()> {
    ioctl(device, LOOP_CONFIGURE, config).map(drop)
}

/// What is attached to a loop device.
pub(super) fn loop_status(device: &File) -> io::Result<loop_info64> {
    let mut status = no_loop_info();
    ioctl(device, LOOP_GET_STATUS64, &mut status)?;
    Ok(status)
}

/// Gives a loop device the size that its file has now.
pub(super) fn set_loop_capacity(device: &File) -> io::Result<()> {
    ioctl(device, LOOP_SET_CAPACITY, &mut ()).map(drop)
}

/// Detaches a loop device, at once or when its last user closes it.
pub(super) fn clear_loop(device: &File) -> io::Result<()> {
    ioctl(device, LOOP_CLR_FD, &mut ()).map(drop)
}

/// Whether a block device refuses to be written.
pub(super) fn device_is_read_only(device: &File) -> io::Result<bool> {
    let mut answer = 0_i32;
    ioctl(device, BLKROGET, &mut answer)?;
    Ok(answer != 0)
}

/// Makes a block device refuse to be written, or allows it.
pub(super) fn set_device_read_only(device: &File, read_only: bool) -> io::Result<()> {
    ioctl(device, BLKROSET, &mut i32::from(read_only)).map(drop)
}

/// The path of the first device of the btrfs that an open directory is in.
pub(super) fn btrfs_device(directory: impl AsFd) -> io::Result<PathBuf> {
    let mut info = btrfs_ioctl_dev_info_args {
        devid: 1,
        uuid: [0; 16],
        bytes_used: 0,
        total_bytes: 0,
        fsid: [0; 16],
        unused: [0; 377],
        path: [0; 1024],
    };
    ioctl(directory, BTRFS_IOC_DEV_INFO, &mut info)?;
    let path = info
        .path
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}

/// The name of the volume that a device of ZFS is.
pub(super) fn zvol_name(device: &File) -> io::Result<String> {
    /// `BLKZNAME`, `_IOR(0x12, 125, char[256])` of zvol's fs.h.
    const GET_NAME: Opcode = (2 << 30) | (256 << 16) | (0x12 << 8) | 0x7d;
    let mut name = [0_u8; 256];
    ioctl(device, GET_NAME, &mut name)?;
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// A request to the device mapper and its answer: `struct dm_ioctl` of linux/dm-ioctl.h, with room for what follows it.
#[repr(C)]
pub(super) struct Mapping {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    /// How many have it open, or mapped below a device of theirs.
    pub(super) open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    /// The number of the device.
    pub(super) dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    align: [u8; 7],
    data: [u8; 4096],
}

impl Mapping {
    /// What the kernel takes for the request itself.
    const HEAD: usize = mem::offset_of!(Self, data);

    /// One that names a device.
    fn of(name: &str) -> io::Result<Self> {
        let mut mapping = Self {
            version: [4, 0, 0],
            data_size: u32::try_from(mem::size_of::<Self>()).map_err(io::Error::other)?,
            data_start: u32::try_from(Self::HEAD).map_err(io::Error::other)?,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: [0; 128],
            uuid: [0; 129],
            align: [0; 7],
            data: [0; 4096],
        };
        // The last byte stays NUL.
        if name.len() >= mapping.name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        mapping.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(mapping)
    }

    /// The first target: its length in sectors, its type, and what the type says of it.
    pub(super) fn first_target(&self) -> Option<(u64, String, String)> {
        // `struct dm_target_spec` is 40 bytes, of which the last 16 are the type.
        let start = usize::try_from(self.data_start)
            .ok()?
            .checked_sub(Self::HEAD)?;
        let spec = self.data.get(start..)?;
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0);
            String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
        };
        let length = u64::from_ne_bytes(*spec.get(8..)?.first_chunk()?);
        let (kind, status) = (spec.get(24..40)?, spec.get(40..)?);
        (self.target_count > 0).then(|| (length, text(kind), text(status)))
    }
}

/// What the device mapper knows of the device of this name.
pub(super) fn mapped_device(control: &File, name: &str) -> io::Result<Mapping> {
    const DEV_STATUS: u32 = 7;
    mapping(control, DEV_STATUS, name)
}

/// The same, with the status of what it is mapped to.
pub(super) fn mapped_status(control: &File, name: &str) -> io::Result<Mapping> {
    const TABLE_STATUS: u32 = 12;
    mapping(control, TABLE_STATUS, name)
}

fn mapping(control: &File, number: u32, name: &str) -> io::Result<Mapping> {
    const DM: u32 = 0xfd;
    const NO_FLUSH: u32 = 1 << 11;
    // `_IOWR` of the fixed part.
    let opcode = (3 << 30) | (312 << 16) | (DM << 8) | number;
    let mut mapping = Mapping::of(name)?;
    // To flush can wait for ever where the storage does not answer.
    mapping.flags = NO_FLUSH;
    ioctl(control, opcode, &mut mapping)?;
    Ok(mapping)
}

/// Nothing: no offset, no limit, no flags.
pub(super) fn no_loop_info() -> loop_info64 {
    loop_info64 {
        lo_device: 0,
        lo_inode: 0,
        lo_rdevice: 0,
        lo_offset: 0,
        lo_sizelimit: 0,
        lo_number: 0,
        lo_encrypt_type: 0,
        lo_encrypt_key_size: 0,
        lo_flags: 0,
        lo_file_name: [0; 64],
        lo_crypt_name: [0; 64],
        lo_encrypt_key: [0; 32],
        lo_init: [0; 2],
    }
}

/// A request to a driver, with the argument that it is defined with.
struct Request<'a, T> {
    opcode: Opcode,
    argument: &'a mut T,
}

#[expect(
    unsafe_code,
    reason = "rustix has none of these requests, and none of its patterns gives back the answer itself"
)]
// SAFETY: the pointer is that of a live argument, which may be written; only the answer is made into the output.
unsafe impl<T> Ioctl for Request<'_, T> {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.argument).cast()
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(answer)
    }
}

fn ioctl<T>(file: impl AsFd, opcode: Opcode, argument: &mut T) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "what a request does with memory is its own")]
    // SAFETY: every caller, all of them above, passes the type that its request is defined with, or a request that
    // takes no argument.
    let answer = unsafe { rustix::ioctl::ioctl(file, Request { opcode, argument }) };
    Ok(answer?)
}
