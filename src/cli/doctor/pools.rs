//! The pools: as the node tells of them, or as they lie there while nobody serves them.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;

use super::{Finding, Status};
use crate::cli::node::PoolsArgs;
use crate::cli::output::size;
use crate::cli::pool::{Level, Listed};
use crate::config::{self, Kind, Pools};
use crate::host::gate::Gate;
use crate::host::probe::{self, ProjectQuota};
use crate::host::space;
use crate::host::subvolume::QuotaMode;

/// From how many percent on a person should look, as the alerts have it.
const NEARLY_FULL_PERCENT: u128 = 85;
/// From how many percent on it is bad.
const FULL_PERCENT: u128 = 95;

/// A pool that a node serves.
pub(super) fn served(pool: &Listed) -> Vec<Finding> {
    let check = format!("pool {}", pool.name);
    let mut findings: Vec<_> = pool
        .health
        .iter()
        .map(|fault| {
            let status = if fault.severity == "degraded" {
                Status::Warn
            } else {
                Status::Bad
            };
            Finding {
                status,
                ..Finding::ok(&check, &fault.message)
            }
        })
        .collect();
    if findings.is_empty() {
        let (total, available) = (size(pool.total_bytes), size(pool.available_bytes));
        findings.push(Finding::ok(
            &check,
            format!(
                "{} on {}, {available} of {total} available",
                pool.kind, pool.place
            ),
        ));
    }
    let full = pool
        .levels
        .iter()
        .filter_map(|level| nearly_full(&check, level));
    findings.extend(full);
    if Path::new(&pool.place).is_absolute() {
        findings.extend(filesystem(&check, Path::new(&pool.place)));
        findings.push(sizes(&check, pool.enforces_tree_size));
    }
    findings
}

/// That a part of a pool will not do for long.
fn nearly_full(check: &str, level: &Level) -> Option<Finding> {
    let (part, percent) = (&level.part, level.percent());
    let found = format!("{percent} % of its {part} are in use");
    let advice = match part.as_str() {
        "data" => "delete volumes or snapshots, or extend it: `lvextend -L +SIZE VG/THINPOOL`",
        "metadata" => {
            "delete snapshots, or extend it: `lvextend --poolmetadatasize +SIZE VG/THINPOOL`"
        }
        _ => "delete volumes or snapshots (`orlop status` shows them), or add space",
    };
    let check = format!("{check}: {part}");
    match percent {
        FULL_PERCENT.. => Some(Finding::bad(check, found, advice)),
        NEARLY_FULL_PERCENT.. => Some(Finding::warn(check, found, advice)),
        _ => None,
    }
}

/// The pools that a node with these arguments would open, and their kinds.
pub(super) fn of_config(args: &PoolsArgs) -> (Vec<Finding>, BTreeSet<String>) {
    let (pools, made) = match &args.file {
        Some(file) => (Pools::read(file), false),
        None => (Pools::to_be_embedded(&args.data), true),
    };
    match pools {
        Ok(Pools { pools }) => (
            pools.iter().flat_map(|pool| unserved(pool, made)).collect(),
            pools
                .iter()
                .map(|pool| pool.kind.name().to_owned())
                .collect(),
        ),
        Err(error) => {
            let advice = "mend it until `orlop doctor --pools FILE` finds nothing";
            let wrong = Finding::bad("pools file", format!("{error:#}"), advice);
            (vec![wrong], BTreeSet::new())
        }
    }
}

fn unserved(pool: &config::Pool, made: bool) -> Vec<Finding> {
    let check = format!("pool {}", pool.name);
    let Some(path) = pool.kind.directory() else {
        return Vec::new();
    };
    let looked = look(&check, pool, path, made);
    if looked.status == Status::Bad || !path.exists() {
        return vec![looked];
    }
    let mut findings = vec![looked];
    findings.extend(filesystem(&check, path));
    findings.push(sizes(&check, matches!(pool.kind, Kind::Btrfs(_))));
    findings
}

fn look(check: &str, pool: &config::Pool, path: &Path, made: bool) -> Finding {
    let kind = pool.kind.name();
    let place = path.display();
    let bad = |found: String, advice| Finding::bad(check, found, advice);
    match path.metadata() {
        Err(error) if made && error.kind() == ErrorKind::NotFound => {
            let found = format!("{place} is made when `orlop node` first starts");
            return Finding::ok(check, found);
        }
        Err(error) => {
            let advice = "`mkdir -p` it, or `mount` the disk that holds it";
            return bad(format!("{place}: {error}"), advice);
        }
        Ok(found) if !found.is_dir() => {
            return bad(
                format!("{place} is no directory"),
                "name one as `path` in the pools file",
            );
        }
        Ok(_) => {}
    }
    if matches!(pool.kind, Kind::Btrfs(_)) && matches!(probe::btrfs_quota(path), Ok(None)) {
        let advice = "say `directory` in the pools file, or name a path on btrfs: `stat -f -c %T PATH` tells";
        return bad(format!("{place} is not on btrfs"), advice);
    }
    match space::of(path) {
        Err(error) => bad(format!("{error:#}"), "look by `dmesg` what its disk says"),
        Ok(space) if space.read_only => {
            let advice = "look by `dmesg` why, check its filesystem, and `mount -o remount,rw` it";
            bad(format!("{place} is read-only"), advice)
        }
        Ok(space) => {
            let (free, total) = (size(space.bytes.available), size(space.bytes.total));
            Finding::ok(check, format!("{kind} on {place}, {free} of {total} free"))
        }
    }
}

/// What the filesystem below a pool can.
fn filesystem(check: &str, path: &Path) -> Vec<Finding> {
    vec![
        cloning(format!("{check}: FICLONE"), path),
        match quota(format!("{check}: quotas"), path) {
            Ok(finding) => finding,
            Err(error) => Finding::warn(check, format!("{error:#}"), "look at its disk"),
        },
    ]
}

fn cloning(check: String, path: &Path) -> Finding {
    match probe::shares_blocks(&Gate::open(), path) {
        Ok(true) => Finding::ok(check, "snapshots and clones share their blocks"),
        Ok(false) => Finding::warn(
            check,
            "snapshots and clones copy everything",
            "put the pool on XFS or btrfs, which share",
        ),
        Err(error) => Finding::warn(
            check,
            format!("not known: {error:#}"),
            "run this as root where the pool is mounted",
        ),
    }
}

fn quota(check: String, path: &Path) -> Result<Finding> {
    if let Some(mode) = probe::btrfs_quota(path)? {
        return Ok(match mode {
            QuotaMode::Full => Finding::ok(check, "btrfs counts what each subvolume refers to"),
            QuotaMode::Off => Finding::ok(
                check,
                "btrfs does not count yet: a btrfs pool turns that on when it opens",
            ),
            QuotaMode::Simple => Finding::warn(
                check,
                "btrfs counts the simple way, which charges clones for nothing that they share",
                "turn simple quotas off and restart the node where sizes must hold strictly",
            ),
        });
    }
    Ok(match probe::project_quota(path)? {
        ProjectQuota::Enforced => Finding::ok(check, "project quotas are enforced"),
        ProjectQuota::Counted => Finding::ok(check, "project quotas are counted, not enforced"),
        ProjectQuota::Off => Finding::ok(check, "the filesystem has no project quotas on"),
    })
}

fn sizes(check: &str, enforced: bool) -> Finding {
    let check = format!("{check}: sizes of trees");
    if enforced {
        return Finding::ok(check, "enforced");
    }
    let advice = "say `layout: image` where a size must hold, or use a btrfs pool";
    Finding::warn(check, "not enforced", advice)
}
