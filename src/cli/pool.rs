//! `orlop pool`: which pools there are, how full, and how well.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::client::{Failed, Remote};
use super::output::{Output, Shown, size};
use super::volume::exact_size;
use crate::client::Connection;
use crate::csi::proto::inspection::{self, ListPoolsRequest, fault::Severity};
use crate::volume::PoolName;

#[derive(Args, Debug)]
pub(super) struct Pool {
    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    output: Output,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the pools of the node.
    Ls,
    /// Show all that is known of a pool.
    Inspect {
        /// The pool.
        name: PoolName,
    },
}

/// A pool as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) kind: String,
    pub(super) place: String,
    pub(super) total_bytes: u64,
    pub(super) promised_bytes: u64,
    pub(super) available_bytes: u64,
    pub(super) enforces_tree_size: bool,
    pub(super) levels: Vec<Level>,
    pub(super) health: Vec<Fault>,
}

/// How full a part of a pool is.
#[derive(Debug, Serialize)]
pub(super) struct Level {
    pub(super) part: String,
    used: u64,
    total: u64,
}

/// What is wrong with something.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fault {
    /// `degraded`, `inaccessible` or `dataLoss`.
    pub(super) severity: &'static str,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Pool {
    pub(super) fn run(self) -> Result<()> {
        let (pools, silent) = self.remote.with(async |node| ask(&node).await)?;
        let Command::Inspect { name } = self.command else {
            self.output.list(&pools)?;
            return all_answered(&silent);
        };
        let mut named = pools;
        named.retain(|pool| pool.name == name.as_str());
        match &named[..] {
            [pool] => self.output.one(pool),
            // A controller knows one on each node.
            [_, ..] => self.output.list(&named).and(all_answered(&silent)),
            [] if !silent.is_empty() => all_answered(&silent),
            [] => Err(Failed {
                message: format!("pool {name} does not exist: `orlop pool ls` shows those that do"),
                exit: 3,
            }
            .into()),
        }
    }
}

/// The pools of the node, or of all nodes.
pub(super) async fn list(node: &Connection) -> Result<Vec<Listed>> {
    let (pools, silent) = ask(node).await?;
    all_answered(&silent)?;
    Ok(pools)
}

/// The pools of those nodes that answer, and why the others do not.
async fn ask(node: &Connection) -> Result<(Vec<Listed>, Vec<String>)> {
    let answer = node.inspection().list_pools(ListPoolsRequest {}).await?;
    let answer = answer.into_inner();
    let pools = answer.pools.into_iter().map(Listed::of).collect();
    Ok((pools, answer.silent))
}

fn all_answered(silent: &[String]) -> Result<()> {
    if silent.is_empty() {
        return Ok(());
    }
    let message = format!("not all pools are here: {}", silent.join("; "));
    Err(Failed { message, exit: 4 }.into())
}

impl Level {
    /// The part and how full it is.
    fn told(&self) -> String {
        format!("{}: {} %", self.part, self.percent())
    }

    /// How many percent of it are in use.
    pub(super) fn percent(&self) -> u128 {
        u128::from(self.used) * 100 / u128::from(self.total.max(1))
    }
}

impl Listed {
    fn of(pool: inspection::Pool) -> Self {
        let fault = |fault: inspection::Fault| Fault {
            severity: match fault.severity() {
                Severity::Degraded => "degraded",
                Severity::DataLoss => "dataLoss",
                Severity::Inaccessible | Severity::Unspecified => "inaccessible",
            },
            reason: fault.reason,
            message: fault.message,
        };
        let level = |level: inspection::Level| Level {
            part: level.part,
            used: level.used,
            total: level.total,
        };
        Self {
            name: pool.name,
            node: pool.node,
            kind: pool.kind,
            place: pool.place,
            total_bytes: pool.total_bytes,
            promised_bytes: pool.promised_bytes,
            available_bytes: pool.available_bytes,
            enforces_tree_size: pool.enforces_tree_size,
            levels: pool.levels.into_iter().map(level).collect(),
            health: pool.faults.into_iter().map(fault).collect(),
        }
    }
}

impl Shown for Listed {
    const COLUMNS: &'static [&'static str] = &[
        "NAME",
        "NODE",
        "KIND",
        "TOTAL",
        "PROMISED",
        "AVAILABLE",
        "HEALTH",
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.node.clone(),
            self.kind.clone(),
            size(self.total_bytes),
            size(self.promised_bytes),
            size(self.available_bytes),
            health(&self.health),
        ]
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let enforced = if self.enforces_tree_size {
            "enforced"
        } else {
            "not enforced: use `layout: image` where a size must hold"
        };
        let mut details = vec![
            ("Name", self.name.clone()),
            ("Node", self.node.clone()),
            ("Kind", self.kind.clone()),
            ("Place", self.place.clone()),
            ("Total", exact_size(self.total_bytes)),
            ("Promised", exact_size(self.promised_bytes)),
            ("Available", exact_size(self.available_bytes)),
            ("Sizes of trees", enforced.to_owned()),
        ];
        details.extend(self.levels.iter().map(|level| ("Full", level.told())));
        details.extend(health_lines(&self.health));
        details
    }
}

/// Health in one cell: `ok`, or one word for each fault.
pub(super) fn health(faults: &[Fault]) -> String {
    let words: Vec<_> = faults.iter().map(|fault| fault.reason.as_str()).collect();
    match words[..] {
        [] => "ok".to_owned(),
        _ => words.join(","),
    }
}

/// Health in lines: `ok`, or what is wrong and what to do.
pub(super) fn health_lines(faults: &[Fault]) -> Vec<(&'static str, String)> {
    let line = |fault: &Fault| ("Health", format!("{}: {}", fault.severity, fault.message));
    match faults {
        [] => vec![("Health", "ok".to_owned())],
        _ => faults.iter().map(line).collect(),
    }
}
