//! `orlop prune`: removes what a node alone can be sure that nobody needs.

use std::io::{IsTerminal, Write, stderr, stdin};

use anyhow::{Context, Result};
use clap::Args;

use super::client::{Failed, Remote, fail};
use super::kubelet::Kubelet;
use super::leftovers::{self, Leftover};
use super::output::{Output, size};
use crate::client::Connection;
use crate::csi::proto::DeleteVolumeRequest;
use crate::csi::proto::inspection::PurgeRequest;
use crate::csi::proto::inspection::leftover::Kind;

/// How the name of a volume begins that stands for a handle which was too long: the handle is not known from it.
const REPLACED: &str = "x-";

#[derive(Args, Debug)]
pub(super) struct Prune {
    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    kubelet: Kubelet,

    /// Remove without asking.
    #[arg(long)]
    yes: bool,
}

impl Prune {
    pub(super) fn run(self) -> Result<()> {
        self.remote.with(async |node| {
            let found = self.prunable(&node).await?;
            self.output.list(&found)?;
            if found.is_empty() {
                eprintln!("orlop: nothing is left over");
                return Ok(());
            }
            if !self.agreed(&found)? {
                eprintln!("orlop: nothing was removed; `orlop prune --yes` removes it");
                return Ok(());
            }
            self.remove(&node, &found).await
        })
    }

    /// What may go: what is deleted already, and inline volumes of pods that the kubelet no longer knows.
    async fn prunable(&self, node: &Connection) -> Result<Vec<Leftover>> {
        let mut found = leftovers::list(node).await?;
        found.retain(|one| matches!(one.wire, Kind::Stuck | Kind::Idle));
        if !found.iter().any(|one| one.wire == Kind::Idle) {
            return Ok(found);
        }
        match self.kubelet.handles() {
            Ok(handles) => found.retain(|one| one.wire == Kind::Stuck || is_lost(one, &handles)),
            Err(error) => {
                eprintln!(
                    "orlop: inline volumes stay, for nobody knows if their pods are gone: {error:#}"
                );
                found.retain(|one| one.wire == Kind::Stuck);
            }
        }
        Ok(found)
    }

    fn agreed(&self, found: &[Leftover]) -> Result<bool> {
        if self.yes || !stdin().is_terminal() {
            return Ok(self.yes);
        }
        let bytes = found.iter().filter_map(|one| one.bytes).sum();
        eprint!("Remove these {} ({})? [y/N] ", found.len(), size(bytes));
        stderr().flush()?;
        let mut answer = String::new();
        stdin()
            .read_line(&mut answer)
            .context("reading the answer")?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Removes each; one that stays does not keep the others.
    async fn remove(&self, node: &Connection, found: &[Leftover]) -> Result<()> {
        let mut failed = 0;
        for one in found {
            if let Err(error) = self.remove_one(node, one).await {
                fail(&error);
                failed += 1;
            }
        }
        if failed > 0 {
            let message = format!("{failed} of {} stay", found.len());
            return Err(Failed { message, exit: 1 }.into());
        }
        eprintln!("orlop: removed {}", found.len());
        Ok(())
    }

    async fn remove_one(&self, node: &Connection, one: &Leftover) -> Result<()> {
        let (pool, name) = (one.pool.clone(), one.name.clone());
        if one.wire == Kind::Stuck {
            node.upkeep().purge(PurgeRequest { pool, name }).await?;
            return Ok(());
        }
        // A person may have thought about it for long: what the kubelet knows now is what counts.
        if is_lost(one, &self.kubelet.handles()?) {
            let request = DeleteVolumeRequest {
                volume_id: format!("{pool}/{name}"),
                ..DeleteVolumeRequest::default()
            };
            node.controller().delete_volume(request).await?;
        }
        Ok(())
    }
}

/// Whether no pod has this inline volume.
fn is_lost(one: &Leftover, handles: &[String]) -> bool {
    !one.name.starts_with(REPLACED) && !handles.contains(&one.name)
}
