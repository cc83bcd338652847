//! Project quotas of XFS and ext4: what is counted for a directory with all beneath it, and its limit.

mod kernel;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use linux_raw_sys::general::FS_XFLAG_PROJINHERIT;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::gate::Gate;
use crate::volume::Bytes;
use kernel::Quota;

/// The ids that are given out: far above those that people write into `/etc/projects`, which begin at 1, and those of
/// the kubelet, which begin at 1,048,577.
pub const IDS: RangeInclusive<u32> = 1 << 30..=(1 << 31) - 1;

/// How many ids are tried before giving up: of so many, two taken ones in a row are an accident.
const TRIES: usize = 64;

/// Held from finding a free id until it is taken.
static TAKING: Mutex<()> = Mutex::new(());

/// What a filesystem does with projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Nothing.
    Off,
    /// It counts, and no limit holds: ext4 with the features, mounted without the option.
    Counted,
    /// Limits hold.
    Enforced,
}

/// What is counted for a project, and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The most that it may hold.
    pub limit: Option<Bytes>,
    /// What it holds.
    pub used: Bytes,
    /// Its files, directories and other entries, the topmost directory included.
    pub inodes: u64,
}

/// The most that a project may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// How much data; none of it for any amount.
    pub bytes: Bytes,
    /// How many files, directories and other entries, where that is limited.
    pub inodes: Option<NonZero<u64>>,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes)?;
        match self.inodes {
            Some(inodes) => write!(f, " and {inodes} inodes"),
            None => Ok(()),
        }
    }
}

impl Usage {
    /// Whether the project is known for nothing.
    pub fn is_empty(&self) -> bool {
        self.limit.is_none() && self.used == Bytes(0) && self.inodes == 0
    }
}

/// What the filesystem of `directory` does with projects, now.
pub fn enforcement(directory: BorrowedFd<'_>) -> Result<Enforcement> {
    let state = match kernel::state(directory) {
        Ok(state) => state,
        Err(error) if off(&error) => return Ok(Enforcement::Off),
        Err(error) => return Err(error).context("asking a filesystem for its project quotas"),
    };
    Ok(if state & kernel::COUNTED == 0 {
        Enforcement::Off
    } else if state & kernel::ENFORCED == 0 {
        Enforcement::Counted
    } else {
        Enforcement::Enforced
    })
}

/// Gives `directory`, new and empty, a project of its own, which all that is made in it inherits, and says its id.
///
/// Its filesystem must count: an id is free that nothing is counted for, and that has no limit.
///
/// # Errors
/// What the kernel or the gate said.
pub fn assign(gate: &Gate, directory: BorrowedFd<'_>) -> Result<u32> {
    let random = || {
        // The standard library's own source of keys for hash tables.
        let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
        IDS.start() | (u32::from_ne_bytes([a, b, c, d]) & (IDS.start() - 1))
    };
    assign_among(gate, directory, std::iter::repeat_with(random).take(TRIES))
}

/// As [`assign`], with the first of these ids that is free.
pub fn assign_among(
    gate: &Gate,
    directory: BorrowedFd<'_>,
    ids: impl IntoIterator<Item = u32>,
) -> Result<u32> {
    let _taking = TAKING.lock();
    let id = first_free(directory, ids)?;
    gate.pass(format_args!("chattr -p {id} +P"))?;
    let give = || {
        let mut attributes = kernel::attributes(directory)?;
        attributes.fsx_projid = id;
        attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
        kernel::set_attributes(directory, attributes)
    };
    give().with_context(|| format!("giving a directory the project {id}"))?;
    Ok(id)
}

/// The project of `directory`.
pub fn project(directory: BorrowedFd<'_>) -> Result<u32> {
    let attributes = kernel::attributes(directory).context("asking a directory for its project")?;
    Ok(attributes.fsx_projid)
}

/// Limits the project, or takes its limit away; a second call sets another one.
///
/// XFS holds every writer to it, with ENOSPC. ext4 does with EDQUOT, but not those with `CAP_SYS_RESOURCE`.
///
/// # Errors
/// The filesystem does not count, or what else the kernel or the gate said.
pub fn set_limit(
    gate: &Gate,
    directory: BorrowedFd<'_>,
    project: u32,
    limit: Option<Limit>,
) -> Result<()> {
    let limit = limit.unwrap_or_default();
    gate.pass(format_args!("limit the project {project} to {limit}"))?;
    let inodes = limit.inodes.map_or(0, NonZero::get);
    let quota = Quota::limited_to(limit.bytes.0.div_ceil(kernel::BLOCK), inodes);
    kernel::quota(directory, kernel::SET_LIMIT, project, quota)
        .with_context(|| format!("limiting the project {project} to {limit}"))?;
    Ok(())
}

/// What is counted for the project, on the filesystem of `directory`.
///
/// # Errors
/// The filesystem does not count.
pub fn usage(directory: BorrowedFd<'_>, project: u32) -> Result<Usage> {
    match kernel::quota(directory, kernel::GET, project, Quota::default()) {
        Ok(quota) => Ok(usage_of(&quota)),
        // XFS forgets a project when nothing is left to know of it, and ext4 answers with nothing but zeroes.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {
            Ok(usage_of(&Quota::default()))
        }
        Err(error) => Err(error).with_context(|| format!("asking for the project {project}")),
    }
}

/// The projects out of [`IDS`] that the filesystem of `directory` knows something of.
pub fn projects(directory: BorrowedFd<'_>) -> Result<Vec<(u32, Usage)>> {
    let mut projects = Vec::new();
    let mut from = *IDS.start();
    while IDS.contains(&from) {
        let quota = match kernel::quota(directory, kernel::GET_NEXT, from, Quota::default()) {
            Ok(quota) => quota,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => break,
            Err(error) => return Err(error).context("listing the projects of a filesystem"),
        };
        let usage = usage_of(&quota);
        if IDS.contains(&quota.id) && !usage.is_empty() {
            projects.push((quota.id, usage));
        }
        from = quota.id + 1;
    }
    Ok(projects)
}

/// Takes the limits away that nothing is left of, so that their ids are free again.
///
/// A limit is set only after its directory has the project, which counts as one entry of it.
pub fn sweep(gate: &Gate, directory: BorrowedFd<'_>) -> Result<()> {
    for (project, usage) in projects(directory)? {
        if usage.inodes == 0 && usage.limit.is_some() {
            set_limit(gate, directory, project, None)?;
        }
    }
    Ok(())
}

fn first_free(directory: BorrowedFd<'_>, ids: impl IntoIterator<Item = u32>) -> Result<u32> {
    for id in ids {
        if usage(directory, id)?.is_empty() {
            return Ok(id);
        }
    }
    bail!("no free project id was found")
}

fn usage_of(quota: &Quota) -> Usage {
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(kernel::BLOCK));
    Usage {
        limit: (quota.hard_blocks > 0).then(|| bytes(quota.hard_blocks)),
        used: bytes(quota.blocks),
        inodes: quota.inodes,
    }
}

/// Whether this is how a filesystem says that it has no project quotas, or that they are off.
fn off(error: &io::Error) -> bool {
    let off = [
        Errno::NOSYS,
        Errno::SRCH,
        Errno::INVAL,
        Errno::NODEV,
        Errno::OPNOTSUPP,
        Errno::NOTBLK,
    ];
    Errno::from_io_error(error).is_some_and(|errno| off.contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_layouts_are_those_of_the_kernel() {
        assert_eq!(size_of::<Quota>(), 112);
    }

    #[test]
    fn a_filesystem_without_quotas_says_so() {
        let memory = std::fs::File::open("/proc").expect("it is mounted");

        assert_eq!(
            enforcement(memory.as_fd()).expect("it answers"),
            Enforcement::Off
        );
    }
}
