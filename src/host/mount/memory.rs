//! Filesystems that live in memory, for what is not kept.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::MountFlags;

use super::Mounts;

impl Mounts {
    /// Covers the directory `target` with an empty one that anybody may write in, as in `/tmp`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn cover(&self, target: &Path) -> Result<()> {
        let doing = || format!("covering {} with an empty directory", target.display());
        self.gate.pass(doing())?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", target, "tmpfs", flags, c"mode=1777").with_context(doing)
    }
}
