//! `orlop doctor`: whether this machine has what Orlop needs, each line with what to do.

mod bundle;
mod certificates;
mod machine;
mod node;
mod pools;
mod redact;
mod sockets;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::client::{Failed, Remote};
use super::kubelet::Kubelet;
use super::node::PoolsArgs;
use super::output::{Output, Shown};
use crate::names::DRIVER;

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  something is bad, or it failed
  2  the command line is wrong
  5  nothing is bad, and a person should look at something";

/// That a person should look at something.
const LOOK: u8 = 5;

#[derive(Args, Debug)]
pub(super) struct Doctor {
    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    pools: PoolsArgs,

    #[command(flatten)]
    kubelet: Kubelet,

    /// Look how long the certificates in this folder are good for: its tls.crt and ca.crt. Several times for several.
    #[arg(
        long = "certificates",
        env = "ORLOP_CERTIFICATES",
        value_delimiter = ':',
        value_name = "DIR"
    )]
    certificates: Vec<PathBuf>,

    /// Write all that helps to find a fault into this new .tar.gz, without secrets.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,

    /// The node's log for the bundle; without it what systemd's journal has of `orlop*`.
    #[arg(long, requires = "bundle", value_name = "FILE")]
    node_log: Option<PathBuf>,
}

/// One look, and what it found.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Finding {
    status: Status,
    check: String,
    found: String,
    advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Bad,
}

impl Doctor {
    pub(super) fn run(self) -> Result<()> {
        let mut findings = machine::kernel();
        let served = node::findings(&self.remote, &self.pools);
        findings.extend(machine::tools(&served.kinds));
        findings.extend(served.findings);
        findings.extend(sockets::findings());
        findings.extend(kubelet(&self.kubelet, served.answers));
        let folders = self.certificates.iter();
        findings.extend(folders.flat_map(|folder| certificates::of_folder(folder)));
        self.output.list(&findings)?;
        if let Some(file) = &self.bundle {
            bundle::write(file, &self, &findings)?;
            eprintln!("orlop: read {} before you give it away", file.display());
        }
        verdict(findings.iter())
    }
}

/// Fails as badly as the worst of these.
pub(super) fn verdict<'a>(findings: impl Iterator<Item = &'a Finding>) -> Result<()> {
    let all: Vec<_> = findings.map(|one| one.status).collect();
    let count = |status| all.iter().filter(|one| **one == status).count();
    let (exit, word, count) = match (count(Status::Bad), count(Status::Warn)) {
        (0, 0) => return Ok(()),
        (0, warnings) => (LOOK, "to look at", warnings),
        (bad, _) => (1, "bad", bad),
    };
    let message = format!("{word}: {count} of {} checks", all.len());
    Err(Failed { message, exit }.into())
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

    pub(super) fn bad(check: impl Into<String>, found: impl Into<String>, advice: &str) -> Self {
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

/// Whether the kubelet is where we look, and knows of us.
fn kubelet(kubelet: &Kubelet, served: bool) -> Vec<Finding> {
    let (check, root) = ("kubelet", &kubelet.root);
    let registry = root.join("plugins_registry");
    let socket = registry.join(format!("{DRIVER}-reg.sock"));
    vec![if !root.is_dir() {
        let found = format!("none here: {} does not exist", root.display());
        Finding::ok(check, found)
    } else if !registry.is_dir() {
        let found = format!("{} does not exist", registry.display());
        Finding::warn(
            check,
            found,
            "start the kubelet, which makes it: `systemctl start kubelet`",
        )
    } else if served && !socket.exists() {
        let found = format!(
            "it does not know of this driver: {} is missing",
            socket.display()
        );
        let advice = format!(
            "run `orlop node --kubelet-registration {}`",
            registry.display()
        );
        Finding::warn(check, found, &advice)
    } else {
        Finding::ok(check, format!("it watches {}", registry.display()))
    }]
}
