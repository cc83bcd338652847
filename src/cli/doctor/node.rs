//! The node: whether it answers, and what it tells of its pools, its volumes and what is left over.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use super::{Finding, Status, pools};
use crate::cli::client::Remote;
use crate::cli::leftovers::{self, Leftover};
use crate::cli::node::PoolsArgs;
use crate::cli::pool::{self, Fault};
use crate::cli::volume;
use crate::client::Connection;

/// How long a node may take to tell of its pools.
const LIMIT: Duration = Duration::from_secs(5);

/// What was found.
pub(super) struct Served {
    pub(super) findings: Vec<Finding>,
    /// The kinds of pools that there are.
    pub(super) kinds: BTreeSet<String>,
    /// Whether a node answers.
    pub(super) answers: bool,
}

/// What a node tells.
struct Told {
    pools: Vec<pool::Listed>,
    volumes: Vec<volume::Listed>,
    leftovers: Vec<Leftover>,
}

/// The node with all that it tells, or if nobody serves the pools that it would open.
pub(super) fn findings(remote: &Remote, args: &PoolsArgs) -> Served {
    let told = remote.with(async |node| {
        let told = tokio::time::timeout(LIMIT, ask(&node)).await;
        let late = |_| anyhow::anyhow!("no answer within {LIMIT:?}");
        Ok(told.map_err(late).flatten())
    });
    let (socket, check) = (remote.endpoint.path().display(), "socket");
    match told {
        Ok(Ok(told)) => {
            let mut findings = vec![Finding::ok(check, format!("a node serves on {socket}"))];
            findings.extend(told.pools.iter().flat_map(pools::served));
            findings.extend(volumes(&told.volumes));
            findings.extend(left(&told.leftovers));
            Served {
                findings,
                kinds: told.pools.into_iter().map(|pool| pool.kind).collect(),
                answers: true,
            }
        }
        Ok(Err(error)) => {
            let advice = "look by `dmesg` whether its disks hang; then `systemctl restart orlop-node`, or `kubectl delete pod` of it";
            let found = format!("{socket}: {error:#}");
            Served {
                findings: vec![Finding::bad(check, found, advice)],
                kinds: BTreeSet::new(),
                answers: false,
            }
        }
        Err(error) => {
            let silent = Finding {
                status: Status::Warn,
                ..Finding::ok(check, format!("{error:#}"))
            };
            let (found, kinds) = pools::of_config(args);
            Served {
                findings: std::iter::once(silent).chain(found).collect(),
                kinds,
                answers: false,
            }
        }
    }
}

async fn ask(node: &Connection) -> Result<Told> {
    Ok(Told {
        pools: pool::list(node).await?,
        volumes: volume::list(node).await?,
        leftovers: leftovers::list(node).await?,
    })
}

/// Each volume with which something is wrong; one line if nothing is.
fn volumes(all: &[volume::Listed]) -> Vec<Finding> {
    let finding = |id: &str, fault: &Fault| {
        let status = if fault.severity == "degraded" {
            Status::Warn
        } else {
            Status::Bad
        };
        Finding {
            status,
            ..Finding::ok(format!("volume {id}"), &fault.message)
        }
    };
    let faults = all
        .iter()
        .flat_map(|volume| volume.health.iter().map(|fault| finding(&volume.id, fault)));
    let found: Vec<_> = faults.collect();
    if found.is_empty() {
        return vec![Finding::ok("volumes", format!("{} are well", all.len()))];
    }
    found
}

/// Each leftover; one line if there is none.
fn left(all: &[Leftover]) -> Vec<Finding> {
    if all.is_empty() {
        let found = "no mount without a record, no data without one";
        return vec![Finding::ok("leftovers", found)];
    }
    let finding = |one: &Leftover| Finding {
        status: Status::Warn,
        ..Finding::ok(format!("pool {}: {}", one.pool, one.kind), &one.message)
    };
    all.iter().map(finding).collect()
}
