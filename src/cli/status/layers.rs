//! What layer caches did, as their metrics or their own socket tell it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use reqwest::Client;
use serde::Serialize;

use crate::cli::layers::remote::Remote;
use crate::cli::output::size;
use crate::layers::people::admin::Stats;

/// How long a cache may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Where layer caches are.
#[derive(Args, Debug, Default)]
pub(in crate::cli) struct At {
    /// Show also what these layer caches did, as their metrics tell it, such as orlop-layers.orlop.svc:5054: all of a name's addresses.
    #[arg(
        id = "layers_metrics",
        long = "layers-metrics",
        env = "ORLOP_LAYERS_METRICS",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    metrics: Vec<String>,
}

/// Those that are asked.
pub(in crate::cli) struct Caches {
    metrics: Vec<String>,
    /// That of this machine, if there is one.
    beside: Option<Remote>,
    http: Client,
}

/// What one cache did since it started.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cache {
    name: String,
    /// Why it did not tell, if it did not.
    silent: Option<String>,
    /// Blobs opened, by where they were.
    opened: BTreeMap<&'static str, u64>,
    received_bytes: BTreeMap<&'static str, u64>,
    used_bytes: u64,
    quota_bytes: u64,
}

impl At {
    /// With the cache of this machine, too, if there is one; else only these.
    pub(in crate::cli) fn caches(self, beside: Option<Remote>) -> Result<Caches> {
        // A second call finds the provider installed, which is what it wants.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Caches {
            metrics: self.metrics,
            beside,
            http: Client::builder().no_proxy().timeout(LIMIT).build()?,
        })
    }
}

impl Caches {
    /// What each did.
    pub(super) async fn look(&self) -> Vec<Cache> {
        let mut all = Vec::new();
        if let Some(beside) = self.beside.as_ref().filter(|beside| beside.is_there()) {
            let told = async { beside.connect()?.get::<Stats>("stats").await };
            all.push(told.await.map_or_else(
                |error| Cache::silent("this machine", &error),
                |stats| Cache::of(&stats),
            ));
        }
        for place in &self.metrics {
            match tokio::net::lookup_host(place).await {
                Ok(addresses) => {
                    for address in addresses {
                        all.push(self.scrape(address.to_string()).await);
                    }
                }
                Err(error) => all.push(Cache::silent(place, &error.into())),
            }
        }
        all
    }

    async fn scrape(&self, address: String) -> Cache {
        let told = async {
            let answer = self.http.get(format!("http://{address}/metrics")).send();
            let text = answer.await?.error_for_status()?.text().await?;
            Cache::read(&text).context("these are no metrics of a layer cache")
        };
        match told.await {
            Ok(cache) => Cache {
                name: address,
                ..cache
            },
            Err(error) => Cache::silent(&address, &error),
        }
    }
}

impl Cache {
    fn silent(name: &str, error: &anyhow::Error) -> Self {
        Self {
            name: name.to_owned(),
            silent: Some(format!("{error:#}")),
            ..Self::default()
        }
    }

    /// One line for a person.
    pub(super) fn told(&self) -> String {
        if let Some(why) = &self.silent {
            return format!("layer cache of {}: {why}", self.name);
        }
        let all: u64 = self.opened.values().sum();
        let fetched = self.opened.get("upstream").copied().unwrap_or_default();
        format!(
            "layer cache of {}: {} of {all} blobs were here or with a peer; {} of {} used",
            self.name,
            all - fetched,
            size(self.used_bytes),
            size(self.quota_bytes)
        )
    }

    fn of(stats: &Stats) -> Self {
        let [disk, runtime, peer, upstream] = stats.opened;
        let [from_peers, from_upstream] = stats.received_bytes;
        let opened = [
            ("disk", disk),
            ("runtime", runtime),
            ("peer", peer),
            ("upstream", upstream),
        ];
        Self {
            name: "this machine".to_owned(),
            silent: None,
            opened: opened.into(),
            received_bytes: [("peer", from_peers), ("upstream", from_upstream)].into(),
            used_bytes: stats.used_bytes,
            quota_bytes: stats.quota_bytes,
        }
    }

    /// From the text of `/metrics`; nothing, if it is of something else.
    fn read(text: &str) -> Option<Self> {
        let figure = |name: &str| {
            let told = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            told.and_then(|told| told.parse().ok())
        };
        let by_source = |name: &str, sources: &[&'static str]| {
            let one = |source: &&'static str| {
                let line = format!("orlop_layers_{name}_total{{source=\"{source}\"}}");
                Some((*source, figure(&line)?))
            };
            sources.iter().map(one).collect::<Option<BTreeMap<_, _>>>()
        };
        Some(Self {
            opened: by_source("blobs_opened", &["disk", "runtime", "peer", "upstream"])?,
            received_bytes: by_source("received_bytes", &["peer", "upstream"])?,
            used_bytes: figure("orlop_layers_used_bytes")?,
            quota_bytes: figure("orlop_layers_quota_bytes")?,
            ..Self::default()
        })
    }
}
