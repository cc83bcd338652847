//! `orlop status`: all that is there at a glance, in the terminal or as a page that keeps itself up to date.

mod layers;
mod look;
mod serve;
mod token;

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use super::client::Remote;
use super::leftovers::Leftover;
use super::output::{Output, size};
use super::{Log, pool, snapshot, volume};
use crate::client::{Connection, PAGE};
use crate::csi::proto::inspection::{self, ListUsageRequest};
use crate::{shutdown, telemetry};

pub(super) use layers::At as LayersAt;
pub(super) use look::{Of, Watched};
pub(super) use serve::serve;
pub(super) use token::Token;

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
    layers: LayersAt,

    #[command(flatten)]
    cache: super::layers::remote::Remote,

    #[command(flatten)]
    log: Log,
}

/// All that is there.
#[derive(Debug, Default, Serialize)]
pub(super) struct Shown {
    pools: Vec<pool::Listed>,
    volumes: Vec<Used>,
    snapshots: Vec<snapshot::Listed>,
    /// The nodes that do not answer, and why; what they have is not here.
    silent: Vec<String>,
    /// What nobody needs, where that is known.
    orphans: Option<Vec<Orphan>>,
    layers: Vec<layers::Cache>,
}

/// What nobody needs, as far as is known.
#[derive(Debug, Serialize)]
struct Orphan {
    name: String,
    node: Option<String>,
    message: String,
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
        let caches = self.layers.caches(Some(self.cache))?;
        let Some(address) = self.serve else {
            let watched = async |node| {
                let of = Of::Node(node);
                Watched { of, caches }.look().await
            };
            let shown = self.remote.with(watched)?;
            return self.output.summary(&shown, summary);
        };
        ensure!(
            address.ip().is_loopback() || self.token.is_some(),
            "{address} can be reached from elsewhere: give a --token too, or serve on 127.0.0.1"
        );
        self.log.start()?;
        let token = self.token.map(Token::Text);
        self.remote.with(async |node| {
            let port = telemetry::http::bind(address).await?;
            let of = Of::Node(node);
            let watched = Watched { of, caches };
            serve(port, token, watched, shutdown::on_signal()?).await
        })
    }
}

impl Shown {
    /// Adds what another node has.
    fn add(&mut self, other: Self) {
        self.pools.extend(other.pools);
        self.volumes.extend(other.volumes);
        self.snapshots.extend(other.snapshots);
    }

    /// The same in the same order, whoever answered first.
    fn sort(&mut self) {
        // Those of one node stay in its own order.
        self.pools.sort_by(|one, other| one.node.cmp(&other.node));
        self.volumes
            .sort_by(|one, other| one.volume.id.cmp(&other.volume.id));
        self.snapshots.sort_by(|one, other| one.id.cmp(&other.id));
        self.silent.sort_unstable();
    }
}

impl Orphan {
    /// A volume that the cluster has no record of.
    fn of(orphan: inspection::Orphan) -> Self {
        Self {
            message: format!(
                "no PersistentVolume names it: `orlop volume rm {}` on its node, if nobody needs it",
                orphan.volume_id
            ),
            name: orphan.volume_id,
            node: Some(orphan.node),
        }
    }

    /// What a node has left over.
    fn left(leftover: Leftover) -> Self {
        Self {
            name: leftover.name,
            node: None,
            message: leftover.message,
        }
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
        ..Shown::default()
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
    let left = shown.orphans.iter().flatten();
    lines.extend(left.map(|orphan| orphan.message.clone()));
    lines.extend(shown.layers.iter().map(layers::Cache::told));
    if volumes == 0 {
        lines.push("make one by `orlop volume create NAME --size 10GiB`".to_owned());
    }
    lines.join("\n") + "\n"
}
