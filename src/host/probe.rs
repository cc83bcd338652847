//! What this machine can do, asked without changing anything that anyone could see.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result};
use linux_raw_sys::general::mount_attr;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::command::{Command, Runner};
use super::gate::Gate;
use super::kernel;
use super::subvolume::{self, QuotaMode};

pub use rustix::thread::CapabilitySet;

/// What a filesystem does about project quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectQuota {
    /// Nothing: it has none, or they are off.
    Off,
    /// It counts, and lets everyone write on.
    Counted,
    /// It holds writers to their limits.
    Enforced,
}

/// The release of the kernel.
pub fn kernel_release() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
}

/// Whether a mount can be prepared where nobody sees it: `open_tree` and `mount_setattr` (Linux 5.12).
pub fn has_mount_calls() -> bool {
    let Ok(tree) = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC) else {
        return false;
    };
    let nothing = mount_attr {
        attr_set: 0,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let asked = kernel::mount_setattr(&tree, &nothing);
    asked.map_or_else(
        |error| error.raw_os_error() != Some(libc::ENOSYS),
        |()| true,
    )
}

/// Whether the kernel says of one path if it is a mount: `statx` (Linux 5.8).
pub fn tells_mounts() -> bool {
    rustix::fs::statx(CWD, "/", AtFlags::empty(), StatxFlags::MNT_ID).is_ok_and(|found| {
        found
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
    })
}

/// Whether a path can be opened without following any symlink: `openat2` (Linux 5.6).
pub fn has_openat2() -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    opened.is_ok()
}

/// Asks for the door to the loop devices.
///
/// # Errors
/// It is not there, or not for this process.
pub fn loop_control() -> Result<()> {
    let path = "/dev/loop-control";
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map(drop).context(path)
}

/// Whether this process has a capability in effect.
pub fn may(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|has| has.effective.contains(capability))
}

/// What a tool says of its own version.
///
/// # Errors
/// It is not there, or does not run.
pub fn version(runner: &dyn Runner, tool: &str) -> Result<String> {
    let asked = Command::query(tool).with_errors();
    let said = runner.run(&match tool {
        // It tells its version, and then that it wants a device.
        "resize2fs" => asked.accept(1),
        "btrfs" | "lvm" | "zfs" => asked.arg("version"),
        _ => asked.arg("-V"),
    })?;
    let is_version = |word: &&str| {
        word.trim_start_matches('v')
            .starts_with(|c: char| c.is_ascii_digit())
    };
    let version = said.split_whitespace().find(is_version);
    Ok(version
        .unwrap_or("of an unknown version")
        .trim_start_matches('v')
        .to_owned())
}

/// Whether files below `directory` can share their blocks: `FICLONE`.
///
/// Tried with two empty files without a name, which are gone when this returns.
///
/// # Errors
/// A directory in which no such file can be made, or what the gate said.
pub fn shares_blocks(gate: &Gate, directory: &Path) -> Result<bool> {
    gate.pass("make two files without a name")?;
    let nameless = || -> Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
        Ok(opened
            .with_context(|| format!("trying {}", directory.display()))?
            .into())
    };
    match rustix::fs::ioctl_ficlone(nameless()?, nameless()?) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => Ok(false),
        Err(errno) => {
            Err(errno).with_context(|| format!("sharing blocks in {}", directory.display()))
        }
    }
}

/// What the filesystem of `directory` does about project quotas.
///
/// # Errors
/// A directory that can not be opened.
pub fn project_quota(directory: &Path) -> Result<ProjectQuota> {
    const COUNTS: u16 = 1 << 4;
    const ENFORCES: u16 = 1 << 5;
    let opened =
        File::open(directory).with_context(|| format!("opening {}", directory.display()))?;
    // A filesystem that has none, and one on which they are off, say so by the same error.
    let flags = kernel::project_quota(&opened).unwrap_or_default();
    Ok(match (flags & COUNTS != 0, flags & ENFORCES != 0) {
        (_, true) => ProjectQuota::Enforced,
        (true, false) => ProjectQuota::Counted,
        (false, false) => ProjectQuota::Off,
    })
}

/// How the btrfs of `directory` counts; nothing where it is on none.
pub fn btrfs_quota(directory: &Path) -> Result<Option<QuotaMode>> {
    use std::os::fd::AsFd;
    let opened =
        File::open(directory).with_context(|| format!("opening {}", directory.display()))?;
    if subvolume::ensure_btrfs(opened.as_fd()).is_err() {
        return Ok(None);
    }
    subvolume::quota_mode(opened.as_fd()).map(Some)
}
