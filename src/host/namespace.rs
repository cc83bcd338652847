//! Work in a mount namespace of its own, whose mounts nobody else sees and which end with it.

use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `work` on a thread of its own, in a new mount namespace that begins as a private copy of this one.
///
/// Threads and tools that `work` starts are in that namespace too. It ends, with all its mounts, with the last of them.
///
/// # Errors
/// Without the right to make namespaces; and when `work` panics, which is passed on as the panic that it is.
pub fn in_own_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let own = scope.spawn(|| {
            leave_mounts_and(UnshareFlags::empty()).context("making a mount namespace")?;
            Ok::<T, anyhow::Error>(work())
        });
        own.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Takes this thread alone into a mount namespace that begins as a private copy of its own, and into those of `others`
/// (of processes: what it starts from now on).
pub(super) fn leave_mounts_and(others: UnshareFlags) -> Result<()> {
    #[expect(unsafe_code, reason = "rustix marks every form of unshare as unsafe")]
    // SAFETY: what is unsafe is to part with the table of descriptors; none of the callers names FILES.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | others) }.map_err(|errno| anyhow!(errno))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("making its mounts private")
}
