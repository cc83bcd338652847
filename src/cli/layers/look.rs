//! `orlop layers ls|peers|stats|rm`: what the cache has, whom it knows, what it did, and what it should not have.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use reqwest::Url;

use super::remote::Remote;
use crate::cli::output::{Output, Shown, size};
use crate::layers::image::digest::Digest;
use crate::layers::people::admin::{HeldBlob, Peer, Stats};

#[derive(Args, Debug)]
pub(super) struct Look {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(super) struct Remove {
    /// Digests of blobs, as `orlop layers ls` shows them, and names of images that were imported.
    #[arg(required = true, value_name = "DIGEST|IMAGE")]
    what: Vec<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: Output,
}

impl Look {
    pub(super) fn blobs(self) -> Result<()> {
        let blobs: Vec<Blob> = self
            .remote
            .with(async |cache| cache.get::<Vec<HeldBlob>>("blobs").await)?
            .into_iter()
            .map(|held| Blob {
                id: held.digest.to_string(),
                held,
            })
            .collect();
        self.output.list(&blobs)
    }

    pub(super) fn peers(self) -> Result<()> {
        let peers: Vec<Peer> = self.remote.with(async |cache| cache.get("peers").await)?;
        self.output.list(&peers)
    }

    pub(super) fn stats(self) -> Result<()> {
        let stats: Stats = self.remote.with(async |cache| cache.get("stats").await)?;
        self.output.one(&stats)
    }
}

impl Remove {
    pub(super) fn run(self) -> Result<()> {
        let output = self.output;
        self.remote.with(async |cache| {
            let remove = async |what: &String| cache.delete(&path(what)).await;
            output.remove(&self.what, remove).await
        })
    }
}

/// Where the cache has what a person means.
fn path(what: &str) -> String {
    if what.parse::<Digest>().is_ok() {
        return format!("blobs/{what}");
    }
    // An image's name is one part of the path, whatever is in it.
    let mut url = Url::parse("http://cache/").expect("it is a URL");
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.push(what);
    }
    format!("images{}", url.path())
}

/// A blob with the text of its digest.
#[derive(serde::Serialize)]
struct Blob {
    #[serde(skip)]
    id: String,
    #[serde(flatten)]
    held: HeldBlob,
}

impl Shown for Blob {
    const COLUMNS: &'static [&'static str] = &["DIGEST", "SIZE", "LAST USED"];

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        let ago = Duration::from_secs(self.held.unused_seconds);
        let ago = format!("{ago:?} ago");
        vec![self.id.clone(), size(self.held.size_bytes), ago]
    }
}

impl Shown for Peer {
    const COLUMNS: &'static [&'static str] = &["ADDRESS", "ZONE", "STANDING"];

    fn name(&self) -> &str {
        &self.address
    }

    fn cells(&self) -> Vec<String> {
        let standing = match self.shunned_seconds {
            0 => "good".to_owned(),
            left => format!("not asked for {left}s"),
        };
        vec![self.address.clone(), self.zone.clone(), standing]
    }
}

impl Shown for Stats {
    const COLUMNS: &'static [&'static str] = &[
        "BLOBS",
        "USED",
        "QUOTA",
        "FROM DISK",
        "FROM RUNTIME",
        "FROM PEERS",
        "FROM UPSTREAM",
        "BYTES OF PEERS",
        "BYTES OF UPSTREAM",
        "BANS",
    ];

    fn name(&self) -> &'static str {
        "layers"
    }

    fn cells(&self) -> Vec<String> {
        let opened = self.opened.iter().map(u64::to_string);
        let received = self.received_bytes.iter().map(|bytes| size(*bytes));
        [
            self.blobs.to_string(),
            size(self.used_bytes),
            size(self.quota_bytes),
        ]
        .into_iter()
        .chain(opened)
        .chain(received)
        .chain([self.bans.to_string()])
        .collect()
    }
}
