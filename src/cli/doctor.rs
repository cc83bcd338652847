//! `orlop doctor`: whether this machine has what Orlop needs, each line with what to do.

mod machine;
mod pools;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::client::{Failed, Remote};
use super::node::PoolsArgs;
use super::output::{Output, Shown};
use super::pool;

/// How long a node may take to tell of its pools.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(super) struct Doctor {
    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    pools: PoolsArgs,

    /// Where the kubelet keeps its state.
    #[arg(
        long,
        env = "KUBELET_ROOT",
        default_value = "/var/lib/kubelet",
        value_name = "DIR"
    )]
    kubelet: PathBuf,
}

/// One look, and what it found.
#[derive(Debug, Serialize)]
struct Finding {
    status: Status,
    check: String,
    found: String,
    advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Bad,
}

impl Doctor {
    pub(super) fn run(self) -> Result<()> {
        let mut findings = machine::kernel();
        findings.extend(machine::tools());
        findings.extend(self.node_and_pools());
        findings.extend(kubelet(&self.kubelet));
        self.output.list(&findings)?;
        let bad = findings.iter().filter(|one| one.status == Status::Bad);
        match bad.count() {
            0 => Ok(()),
            count => Err(Failed {
                message: format!("bad: {count} of {} checks", findings.len()),
                exit: 1,
            }
            .into()),
        }
    }

    /// The node with the pools that it tells of, or if nobody serves the pools that it would open.
    fn node_and_pools(&self) -> Vec<Finding> {
        let told = self.remote.with(async |node| {
            let told = tokio::time::timeout(LIMIT, pool::list(&node)).await;
            let late = |_| anyhow::anyhow!("no answer within {LIMIT:?}");
            Ok(told.map_err(late).flatten())
        });
        let (socket, check) = (self.remote.endpoint.path().display(), "socket");
        match told {
            Ok(Ok(told)) => {
                let served = Finding::ok(check, format!("a node serves on {socket}"));
                let pools = told.iter().flat_map(pools::served);
                std::iter::once(served).chain(pools).collect()
            }
            Ok(Err(error)) => {
                let advice = "look at its log, and whether its disks hang; restart it";
                let found = format!("{socket}: {error:#}");
                vec![Finding::bad(check, found, advice)]
            }
            Err(error) => {
                let silent = Finding {
                    status: Status::Warn,
                    ..Finding::ok(check, format!("{error:#}"))
                };
                let pools = pools::of_config(&self.pools);
                std::iter::once(silent).chain(pools).collect()
            }
        }
    }
}

impl Finding {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            status: Status::Ok,
            check: check.into(),
            found: found.into(),
            advice: None,
        }
    }

    fn warn(check: impl Into<String>, found: impl Into<String>, advice: &str) -> Self {
        Self {
            status: Status::Warn,
            advice: Some(advice.to_owned()),
            ..Self::ok(check, found)
        }
    }

    fn bad(check: impl Into<String>, found: impl Into<String>, advice: &str) -> Self {
        Self {
            status: Status::Bad,
            ..Self::warn(check, found, advice)
        }
    }
}

impl Shown for Finding {
    const COLUMNS: &'static [&'static str] = &["STATUS", "CHECK", "FOUND"];

    fn name(&self) -> &str {
        &self.check
    }

    fn cells(&self) -> Vec<String> {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Bad => "bad",
        };
        let found = match &self.advice {
            Some(advice) => format!("{}: {advice}", self.found),
            None => self.found.clone(),
        };
        vec![status.to_owned(), self.check.clone(), found]
    }
}

fn kubelet(root: &Path) -> Vec<Finding> {
    let check = "kubelet";
    let registry = root.join("plugins_registry");
    vec![if !root.is_dir() {
        Finding::ok(
            check,
            format!("none here: {} does not exist", root.display()),
        )
    } else if registry.is_dir() {
        Finding::ok(check, format!("it watches {}", registry.display()))
    } else {
        let found = format!("{} does not exist", registry.display());
        Finding::warn(check, found, "start the kubelet, which makes it")
    }]
}
