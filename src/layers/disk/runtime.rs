//! The container runtime of this node: blobs that it keeps already, and half-written ones that stand in its way.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::containerd::Api;
use crate::layers::image::digest::Digest;

/// How often full ingests are looked for: one that is seen twice is not being committed, since containerd does that as
/// soon as it is full.
const ROUND: Duration = Duration::from_secs(5);
/// More bad blobs than this are not remembered; they are looked at again then.
const MOST_BAD: usize = 1000;
/// What containerd puts before a digest to name the ingest of it (`remotes.MakeRefKey`).
const KINDS: [&str; 4] = ["layer", "manifest", "index", "config"];

/// containerd's content store on this node: a folder to read, and perhaps its socket.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    pub(super) blobs: Option<PathBuf>,
    /// Blobs that it keeps, and that can not be read, or are not what they are called.
    bad: Arc<Mutex<HashSet<Digest>>>,
    pub(super) api: Option<Api>,
}

impl Runtime {
    /// The content folder, which must hold `blobs/`, and the socket, of which nothing is asked yet.
    pub fn new(content: Option<PathBuf>, socket: Option<PathBuf>, namespace: &str) -> Result<Self> {
        let api = socket
            .map(|socket| Api::new(&socket, namespace))
            .transpose()?;
        let blobs = content.map(|content| content.join("blobs"));
        let bad = Arc::default();
        Ok(Self { blobs, bad, api })
    }

    /// The blob's file, if the runtime keeps it. It can be read even after the runtime drops it.
    pub fn find(&self, digest: &Digest) -> Option<File> {
        let path = self.blobs.as_ref()?.join(digest.path());
        (!self.is_bad(digest)).then(|| File::open(path).ok())?
    }

    /// Does not take this blob for one that the runtime keeps, until the next start.
    pub fn distrust(&self, digest: &Digest) {
        let mut bad = self.bad.lock();
        if bad.len() >= MOST_BAD {
            bad.clear();
        }
        bad.insert(digest.clone());
    }

    fn is_bad(&self, digest: &Digest) -> bool {
        let bad = self.bad.lock();
        bad.contains(digest)
    }

    /// The blobs that the runtime keeps.
    pub fn list(&self) -> Vec<Digest> {
        let folder = self.blobs.as_ref().map(|blobs| blobs.join("sha256"));
        let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
        let names = entries.into_iter().flatten().flatten();
        names
            .filter_map(|entry| {
                format!("sha256:{}", entry.file_name().to_str()?)
                    .parse()
                    .ok()
            })
            .filter(|digest| !self.is_bad(digest))
            .collect()
    }

    /// Makes containerd forget what it has written of a blob: some of it is wrong, and it would go on from there.
    pub async fn abort(&self, digest: &Digest) {
        let Some(api) = &self.api else { return };
        for kind in KINDS {
            match api.abort(format!("{kind}-{digest}")).await {
                Ok(()) => {
                    tracing::warn!(%digest, kind, "made containerd forget a half-written blob");
                }
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => {
                    tracing::warn!(%digest, %status, "containerd could not be told of wrong bytes");
                }
            }
        }
    }

    /// Until `shutdown`, aborts every ingest that is full but was not committed: its bytes are wrong, whoever sent
    /// them, and containerd up to 1.7 and 2.3 tries to commit it again at each pull instead of fetching it anew.
    pub async fn keep_clean(self, shutdown: CancellationToken) {
        let Some(api) = &self.api else { return };
        let mut before = HashSet::new();
        let mut rounds = tokio::time::interval(ROUND);
        while shutdown.run_until_cancelled(rounds.tick()).await.is_some() {
            match api.full_ingests().await {
                Ok(full) => {
                    for name in full.intersection(&before) {
                        let aborted = api.abort(name.to_owned()).await;
                        tracing::warn!(
                            ingest = name,
                            ?aborted,
                            "aborted a full ingest that containerd did not commit"
                        );
                    }
                    before = full;
                }
                Err(status) => tracing::debug!(%status, "containerd does not answer"),
            }
        }
    }
}
