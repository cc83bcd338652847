//! `orlop status`: all that is there at a glance, in the terminal or as a page that keeps itself up to date.

mod serve;

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use super::client::Remote;
use super::output::{Output, size};
use super::{Log, pool, snapshot, volume};
use crate::client::{Connection, PAGE};
use crate::csi::proto::inspection::ListUsageRequest;

#[derive(Args, Debug)]
pub(super) struct Status {
    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    output: Output,

    /// Serve the status as a page on this address, such as 127.0.0.1:9097.
    #[arg(long, env = "ORLOP_STATUS_SERVE", value_name = "ADDRESS")]
    serve: Option<SocketAddr>,

    /// What whoever opens the page has to know; needed on any address that is not loopback.
    #[arg(
        long,
        env = "ORLOP_STATUS_TOKEN",
        hide_env_values = true,
        requires = "serve"
    )]
    token: Option<String>,

    #[command(flatten)]
    log: Log,
}

/// All that is there.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pools: Vec<pool::Listed>,
    volumes: Vec<Used>,
    snapshots: Vec<snapshot::Listed>,
}

/// A volume and what it holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Used {
    #[serde(flatten)]
    volume: volume::Listed,
    mounts: Vec<String>,
    #[serde(rename = "usedBytes")]
    bytes: Option<u64>,
}

impl Status {
    pub(super) fn run(self) -> Result<()> {
        let Some(address) = self.serve else {
            let shown = self.remote.with(async |node| shown(&node).await)?;
            return self.output.summary(&shown, summary);
        };
        ensure!(
            address.ip().is_loopback() || self.token.is_some(),
            "{address} can be reached from elsewhere: give a --token too, or serve on 127.0.0.1"
        );
        self.log.start()?;
        self.remote
            .with(async |node| serve::serve(address, self.token, node).await)
    }
}

/// Asks the node for everything.
pub(super) async fn shown(node: &Connection) -> Result<Shown> {
    let (pools, volumes) = (pool::list(node).await?, volume::list(node).await?);
    let (snapshots, mut usage) = (snapshot::list(node, None).await?, usage(node).await?);
    let used = |volume: volume::Listed| {
        let (mounts, bytes) = usage.remove(&volume.id).unwrap_or_default();
        Used {
            volume,
            mounts,
            bytes,
        }
    };
    Ok(Shown {
        pools,
        volumes: volumes.into_iter().map(used).collect(),
        snapshots,
    })
}

/// Where all volumes are mounted and what they hold, by their ids.
async fn usage(node: &Connection) -> Result<HashMap<String, (Vec<String>, Option<u64>)>> {
    let (mut inspection, mut all, mut after) = (node.inspection(), HashMap::new(), String::new());
    loop {
        let request = ListUsageRequest {
            after: after.clone(),
            most: PAGE.unsigned_abs(),
        };
        let page = inspection.list_usage(request).await?.into_inner().usage;
        let Some(last) = page.last() else {
            return Ok(all);
        };
        after.clone_from(&last.volume_id);
        all.extend(
            page.into_iter()
                .map(|usage| (usage.volume_id, (usage.paths, usage.used_bytes))),
        );
    }
}

/// A few lines for a person: the pools, how many volumes there are, and what is wrong.
fn summary(shown: &Shown) -> String {
    let pool = |pool: &pool::Listed| {
        format!(
            "{}: {} of {} available, {} promised, {}",
            pool.name,
            size(pool.available_bytes),
            size(pool.total_bytes),
            size(pool.promised_bytes),
            pool::health(&pool.health)
        )
    };
    let sick = |Used { volume, .. }: &Used| {
        let told = format!("{}: {}", volume.id, pool::health(&volume.health));
        (!volume.health.is_empty()).then_some(told)
    };
    let is_mounted = |volume: &&Used| !volume.mounts.is_empty();
    let mounted = shown.volumes.iter().filter(is_mounted).count();
    let (volumes, snapshots) = (shown.volumes.len(), shown.snapshots.len());
    let mut lines: Vec<_> = shown.pools.iter().map(pool).collect();
    lines.push(format!(
        "{volumes} volumes, {mounted} of them mounted; {snapshots} snapshots"
    ));
    lines.extend(shown.volumes.iter().filter_map(sick));
    if volumes == 0 {
        lines.push("make one by `orlop volume create NAME --size 10GiB`".to_owned());
    }
    lines.join("\n") + "\n"
}
