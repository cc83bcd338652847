//! The sizes of subvolumes: what btrfs counts in their quota groups, and its limits.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::io::Errno;

use super::{kernel, opened};
use crate::host::gate::Gate;
use crate::volume::Bytes;

/// How a btrfs filesystem counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaMode {
    /// Not at all: no limit holds.
    Off,
    /// What a subvolume refers to, be it shared or not: the size that its user sees.
    Full,
    /// What was first written in a subvolume, for as long as anything keeps it: cheap, but a snapshot keeps what its
    /// source overwrites on the source's account, and a clone starts at nothing.
    Simple,
}

/// What a subvolume holds and may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The most it may refer to.
    pub limit: Option<Bytes>,
    /// What it refers to, with what was written and is not on the disk yet.
    pub used: Bytes,
}

/// How the filesystem of `directory` counts.
pub fn quota_mode(directory: BorrowedFd<'_>) -> Result<QuotaMode> {
    let groups = groups_of(directory)?;
    match text(&groups.join("mode"))?.as_deref() {
        Some("qgroup") => Ok(QuotaMode::Full),
        Some("squota") => Ok(QuotaMode::Simple),
        // Kernels before 6.7 know one way only, and do not name it.
        None if text(&groups.join("enabled"))?.as_deref() == Some("1") => Ok(QuotaMode::Full),
        _ => Ok(QuotaMode::Off),
    }
}

/// Makes the filesystem of `directory` count as `mode` says, unless it counts already, and gives how it counts then.
///
/// What is there is counted before this returns. A filesystem that ever counted the simple way can no longer be
/// mounted by kernels before 6.7.
pub fn enable_quota(gate: &Gate, directory: BorrowedFd<'_>, mode: QuotaMode) -> Result<QuotaMode> {
    let before = quota_mode(directory)?;
    let command = match mode {
        QuotaMode::Off => return Ok(before),
        QuotaMode::Full => kernel::ENABLE,
        QuotaMode::Simple => kernel::ENABLE_SIMPLE,
    };
    if before != QuotaMode::Off {
        return Ok(before);
    }
    gate.pass("enable btrfs quotas")?;
    kernel::count(opened(directory)?.as_fd(), command).context("enabling btrfs quotas")?;
    Ok(mode)
}

/// Limits the subvolume of `directory`; a second call sets another limit.
///
/// # Errors
/// Quotas are off, or what else the kernel or the gate said.
pub fn set_limit(gate: &Gate, directory: BorrowedFd<'_>, limit: Bytes) -> Result<()> {
    let directory = opened(directory)?;
    let id = kernel::id(directory.as_fd()).context("looking at a subvolume")?;
    gate.pass(format_args!("limit the subvolume {id} to {limit}"))?;
    kernel::limit(directory.as_fd(), id, limit.0)
        .with_context(|| format!("limiting the subvolume {id} to {limit}: are quotas enabled?"))
}

/// What the subvolume of `directory` holds and may hold; nothing where nothing is counted.
pub fn usage(directory: BorrowedFd<'_>) -> Result<Option<Usage>> {
    let directory = opened(directory)?;
    let id = kernel::id(directory.as_fd()).context("looking at a subvolume")?;
    let group = groups_of(directory.as_fd())?.join(format!("0_{id}"));
    let figure = |name| -> Result<Option<u64>> {
        let Some(text) = text(&group.join(name))? else {
            return Ok(None);
        };
        let figure = text.parse().with_context(|| format!("reading {name}"))?;
        Ok(Some(figure))
    };
    let Some(referenced) = figure("referenced")? else {
        return Ok(None);
    };
    let unwritten = figure("rsv_data")?.unwrap_or_default();
    let limited = figure("limit_flags")?.is_some_and(|flags| flags & 1 != 0);
    Ok(Some(Usage {
        limit: figure("max_referenced")?.filter(|_| limited).map(Bytes),
        used: Bytes(referenced).plus(Bytes(unwritten)),
    }))
}

/// Removes the quota groups that deleted subvolumes left on the filesystem of `directory`.
///
/// Those in which the kernel still counts stay.
pub fn sweep_quotas(gate: &Gate, directory: BorrowedFd<'_>) -> Result<()> {
    let directory = opened(directory)?;
    let groups = match fs::read_dir(groups_of(directory.as_fd())?) {
        Ok(groups) => groups,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("listing quota groups"),
    };
    for group in groups {
        let name = group.context("listing quota groups")?.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("0_"));
        if let Some(id) = id.and_then(|id| id.parse().ok())
            && !kernel::exists(directory.as_fd(), id).context("looking for a subvolume")?
        {
            forget(gate, directory.as_fd(), id)?;
        }
    }
    Ok(())
}

/// Removes the quota group of a deleted subvolume, if the kernel lets go of it.
pub(super) fn forget(gate: &Gate, directory: BorrowedFd<'_>, id: u64) -> Result<()> {
    gate.pass(format_args!("remove the quota group of subvolume {id}"))?;
    match kernel::forget(directory, id) {
        Ok(()) | Err(Errno::BUSY | Errno::NOENT | Errno::NOTCONN | Errno::INVAL) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("removing the quota group of subvolume {id}"))
        }
    }
}

/// Where the kernel shows the quota groups; their files are as fresh as its memory, unlike the tree on the disk.
fn groups_of(directory: BorrowedFd<'_>) -> Result<PathBuf> {
    let directory = opened(directory)?;
    let id = kernel::filesystem(directory.as_fd()).context("asking for the id of a filesystem")?;
    let hex = id.map(|byte| format!("{byte:02x}")).concat();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Ok(format!("/sys/fs/btrfs/{}/qgroups", parts.join("-")).into())
}

fn text(path: &std::path::Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
