//! Who may have what is cached: whoever has the same right upstream, as one question there has shown.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::http::Method;
use parking_lot::Mutex;
use serde_json::Value;

use crate::layers::image::digest::Digest;
use crate::layers::image::name::Repository;
use crate::layers::miss::Miss;
use crate::layers::upstream::flow::Ask;
use crate::layers::upstream::token::Authorization;
use crate::layers::upstream::{Request, Upstream};

/// How long a right is believed before it is shown again.
const LIFE: Duration = Duration::from_mins(5);
/// More rights, and more repositories, than this are not remembered.
const MOST: usize = 10_000;

/// A repository, and the hash of what was shown for it; nothing for those who show nothing.
type Right = (Repository, Option<Digest>);

/// The rights that were shown, and what each repository is known to list.
#[derive(Debug)]
pub struct Grants {
    anyone: bool,
    folder: PathBuf,
    shown: Mutex<HashMap<Right, Instant>>,
    lists: Mutex<HashMap<Repository, HashSet<Digest>>>,
    free: Mutex<HashSet<Digest>>,
}

impl Grants {
    /// Nothing shown yet, except that the public repositories which are noted in `folder` are public. With `anyone`,
    /// nothing ever needs to be shown.
    pub fn open(folder: PathBuf, anyone: bool) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self {
            anyone,
            folder,
            shown: Mutex::default(),
            lists: Mutex::default(),
            free: Mutex::default(),
        })
    }

    /// Lets pass who may have what `ask` asks for: they have shown, not long ago, a right to its repository, which is
    /// known to list it. Whoever has not is sent upstream with a `HEAD`.
    ///
    /// While upstream is down, a right that was ever shown goes on.
    pub async fn check(&self, upstream: &Upstream, ask: &Ask) -> Result<(), Miss> {
        if self.anyone || self.free.lock().contains(&ask.digest) {
            return Ok(());
        }
        let right = right(&ask.repository, ask.authorization.as_ref());
        let listed = self.lists(&ask.repository, &ask.digest);
        let shown = self.shown.lock().get(&right).copied();
        if listed && shown.is_some_and(|at| at.elapsed() < LIFE) {
            return Ok(());
        }
        let head = Request {
            method: &Method::HEAD,
            repository: &ask.repository,
            what: &ask.what(),
            range: None,
            authorization: ask.authorization.as_ref(),
        };
        match upstream.send(head).await {
            Ok(_) => {
                self.show(&ask.repository, ask.authorization.as_ref());
                self.list(&ask.repository, [ask.digest.clone()]);
                Ok(())
            }
            Err(miss @ (Miss::Unavailable(_) | Miss::Later(_))) => {
                let ever = shown.is_some() || (right.1.is_none() && self.note(&right.0).exists());
                if listed && ever { Ok(()) } else { Err(miss) }
            }
            Err(miss) => {
                self.shown.lock().remove(&right);
                Err(miss)
            }
        }
    }

    /// Somebody has shown a right to a repository.
    pub fn show(&self, repository: &Repository, authorization: Option<&Authorization>) {
        let right = right(repository, authorization);
        let public = right.1.is_none();
        let mut shown = self.shown.lock();
        if shown.len() >= MOST {
            shown.retain(|_, at| at.elapsed() < LIFE);
        }
        let new = shown.insert(right, Instant::now()).is_none();
        drop(shown);
        // What needs no secret may be kept, so that a restart during an outage does not end the service.
        if public
            && new
            && let Err(error) = fs::write(self.note(repository), b"")
        {
            tracing::warn!(%repository, %error, "a public repository was not noted");
        }
    }

    /// A repository lists these digests.
    pub fn list(&self, repository: &Repository, digests: impl IntoIterator<Item = Digest>) {
        let mut lists = self.lists.lock();
        if lists.len() >= MOST && !lists.contains_key(repository) {
            lists.clear();
        }
        let known = lists.entry(repository.clone()).or_default();
        if known.len() >= MOST {
            known.clear();
        }
        known.extend(digests);
    }

    /// Whoever reaches the mirror may have these: they were imported, and no registry is asked about them.
    pub fn free(&self, digests: impl IntoIterator<Item = Digest>) {
        self.free.lock().extend(digests);
    }

    /// A repository lists whatever this manifest of it names; if anyone may have the manifest, anyone may have those.
    pub fn read(&self, repository: &Repository, digest: &Digest, manifest: &[u8]) {
        let named = named(manifest);
        if self.free.lock().contains(digest) {
            self.free(named.clone());
        }
        self.list(repository, named);
    }

    fn lists(&self, repository: &Repository, digest: &Digest) -> bool {
        let lists = self.lists.lock();
        lists
            .get(repository)
            .is_some_and(|known| known.contains(digest))
    }

    fn note(&self, repository: &Repository) -> PathBuf {
        let name = Digest::of(repository.to_string().as_bytes());
        self.folder.join(name.hex())
    }
}

/// The digests that a manifest names.
pub fn named(manifest: &[u8]) -> Vec<Digest> {
    let mut named = Vec::new();
    if let Ok(manifest) = serde_json::from_slice(manifest) {
        collect(&manifest, &mut named);
    }
    named
}

/// The digests that a manifest names as content: those of its descriptors, not whatever looks like one.
fn collect(value: &Value, named: &mut Vec<Digest>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, named)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("digest" | "blobSum", Value::String(digest)) => {
                        named.extend(digest.parse().ok());
                    }
                    ("config" | "layers" | "manifests" | "blobs" | "fsLayers", value) => {
                        collect(value, named);
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn right(repository: &Repository, authorization: Option<&Authorization>) -> Right {
    let shown = authorization.map(|shown| Digest::of(shown.header().as_bytes()));
    (repository.clone(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_content_and_nothing_else() {
        let [config, layer, note] = [b"c", b"l", b"n"].map(|bytes| Digest::of(bytes));
        let manifest = format!(
            r#"{{"config":{{"digest":"{config}"}},"layers":[{{"digest":"{layer}"}}],"annotations":{{"digest":"{note}"}}}}"#
        );
        let mut named = Vec::new();

        collect(
            &serde_json::from_str(&manifest).expect("it is JSON"),
            &mut named,
        );

        named.sort();
        let mut expected = vec![config, layer];
        expected.sort();
        assert_eq!(named, expected);
    }
}
