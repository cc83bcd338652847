//! The kernel's calls that rustix lacks, each made safe.

use std::os::fd::{AsRawFd, OwnedFd};
use std::{io, mem};

use linux_raw_sys::general::mount_attr;

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
