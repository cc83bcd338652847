//! Tags: which digest each one is, fresh from upstream or, while upstream is down, the last one known.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::http::Method;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::layers::fetch::Fetches;
use crate::layers::image::digest::Digest;
use crate::layers::image::name::{Reference, Repository};
use crate::layers::members::homes::Above;
use crate::layers::miss::Miss;
use crate::layers::swarm::peers::Trouble;
use crate::layers::upstream::token::Authorization;
use crate::layers::upstream::{Request, Upstream};

/// More tags than this are not remembered in memory.
const MOST: usize = 10_000;

/// A tag's digest and, where this node asked upstream itself, when.
type Slot = Arc<tokio::sync::Mutex<Option<(Digest, Option<Instant>)>>>;

/// The whole name of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Name {
    /// Where it is.
    pub repository: Repository,
    /// The tag itself.
    pub tag: String,
}

/// What a tag stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The digest.
    pub digest: Digest,
    /// Who says so.
    pub by: By,
}

/// Who says what a tag stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Its registry, just now, to the client's own authorization.
    Upstream,
    /// This node or the tag's home, from memory.
    Memory,
    /// Whoever imported it into the cluster.
    Import,
}

/// The tags that were asked for, and those that were imported.
#[derive(Debug)]
pub struct Tags {
    folder: PathBuf,
    fresh_for: Duration,
    slots: Mutex<HashMap<Name, Slot>>,
    imported: Mutex<HashMap<Name, Import>>,
    changed: Notify,
}

/// A tag that needs no registry.
#[derive(Debug)]
struct Import {
    digest: Digest,
    /// By this node, not by one that told us as the tag's home.
    here: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    name: Name,
    digest: Digest,
    /// It needs no registry.
    #[serde(default)]
    imported: bool,
}

impl Tags {
    /// Tags that are kept over a restart in `folder`, and believed for `fresh_for` after upstream was asked.
    pub fn open(folder: PathBuf, fresh_for: Duration) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let listing = || format!("listing {}", folder.display());
        let entries = fs::read_dir(&folder).with_context(listing)?;
        let records = entries.flatten().filter_map(|entry| {
            let record: Record = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
            let digest = record.digest;
            record
                .imported
                .then_some((record.name, Import { digest, here: true }))
        });
        Ok(Self {
            imported: Mutex::new(records.collect()),
            folder,
            fresh_for,
            slots: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// The tags that were imported by this node.
    pub fn imported(&self) -> HashMap<Name, Digest> {
        let imports = self.imported.lock();
        let ours = imports.iter().filter(|(_, import)| import.here);
        ours.map(|(name, import)| (name.clone(), import.digest.clone()))
            .collect()
    }

    /// Waits until a tag is imported by this node, or is forgotten.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// From now on a tag stands for what was imported, whatever its registry says; kept over restarts if `here`.
    pub fn import(&self, name: &Name, digest: &Digest, here: bool) -> Result<()> {
        if here {
            let record = Record {
                name: name.clone(),
                digest: digest.clone(),
                imported: true,
            };
            write(&self.path(name), &record).with_context(|| format!("keeping {name}"))?;
        }
        let digest = digest.clone();
        self.imported
            .lock()
            .insert(name.clone(), Import { digest, here });
        self.changed.notify_one();
        Ok(())
    }

    /// Forgets a tag; what it was imported as, if it was.
    pub fn forget(&self, name: &Name) -> Option<Digest> {
        let mut slots = self.slots.lock();
        slots.remove(name);
        // It may never have been kept.
        let _ = fs::remove_file(self.path(name));
        let gone = self.imported.lock().remove(name)?;
        self.changed.notify_one();
        Some(gone.digest)
    }

    /// The digest that a reference stands for and, of a tag, who says so.
    ///
    /// # Errors
    /// As those of [`Tags::resolve`].
    pub async fn digest_of(
        &self,
        fetches: &Fetches,
        repository: &Repository,
        reference: Reference,
        shown: Option<&Authorization>,
    ) -> Result<(Digest, Option<By>), Miss> {
        match reference {
            Reference::Digest(digest) => Ok((digest, None)),
            Reference::Tag(tag) => {
                let name = Name {
                    repository: repository.clone(),
                    tag,
                };
                let resolved = self.resolve(fetches, &name, shown, &[]).await?;
                Ok((resolved.digest, Some(resolved.by)))
            }
        }
    }

    /// The digest that a tag stands for: as its home says or, where this node is the home, upstream, of which one
    /// question is asked however many ask. `via` are the nodes that asked on the way here.
    ///
    /// When nobody answers, the last digest known, however old.
    pub async fn resolve(
        &self,
        fetches: &Fetches,
        name: &Name,
        authorization: Option<&Authorization>,
        via: &[SocketAddr],
    ) -> Result<Resolved, Miss> {
        if let Some(import) = self.imported.lock().get(name) {
            let digest = import.digest.clone();
            let by = By::Import;
            return Ok(Resolved { digest, by });
        }
        let slot = self.slot(name);
        let mut known = slot.lock().await;
        if let Some((digest, Some(asked))) = &*known
            && asked.elapsed() < self.fresh_for
        {
            return Ok(Resolved::remembered(digest.clone()));
        }
        let path = self.path(name);
        let home = ask_home(fetches, name, authorization, via).await;
        // What a home says is as fresh as it should be, and not believed any longer here.
        let asked = home.is_none().then(Instant::now);
        let answer = match home {
            Some(answer) => answer,
            None => ask(fetches.upstream(), name, authorization)
                .await
                .map(Resolved::upstream),
        };
        match answer {
            Ok(resolved) => {
                let digest = &resolved.digest;
                if known.as_ref().is_none_or(|(last, _)| last != digest) {
                    let record = Record {
                        name: name.clone(),
                        digest: digest.clone(),
                        imported: false,
                    };
                    if let Err(error) = write(&path, &record) {
                        tracing::warn!(%error, "a tag was not kept");
                    }
                }
                *known = Some((digest.clone(), asked));
                Ok(resolved)
            }
            Err(Miss::NotFound) => {
                *known = None;
                // It may never have been kept.
                let _ = fs::remove_file(&path);
                Err(Miss::NotFound)
            }
            Err(miss @ (Miss::Unavailable(_) | Miss::Later(_))) => {
                let last = known.as_ref().map(|(digest, _)| digest.clone());
                let last = last.or_else(|| read(&path, name)).ok_or(miss)?;
                tracing::warn!(%name, digest = %last, "upstream is down, using the last digest of a tag");
                // Asked again only after a while: an outage must not cost each pull its time-out.
                *known = Some((last.clone(), Some(Instant::now())));
                Ok(Resolved::remembered(last))
            }
            Err(miss) => Err(miss),
        }
    }

    fn slot(&self, name: &Name) -> Slot {
        let mut slots = self.slots.lock();
        if slots.len() >= MOST {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry(name.clone()).or_default().clone()
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(name.hash().hex())
    }
}

impl Resolved {
    fn upstream(digest: Digest) -> Self {
        let by = By::Upstream;
        Self { digest, by }
    }

    /// What is known without asking anybody.
    pub fn remembered(digest: Digest) -> Self {
        let by = By::Memory;
        Self { digest, by }
    }
}

impl Name {
    /// What its home is chosen by.
    pub fn seed(&self) -> u64 {
        self.hash().seed()
    }

    fn hash(&self) -> Digest {
        Digest::of(self.to_string().as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// What the home of a tag says; nothing if that is this node, or if this node can do better.
async fn ask_home(
    fetches: &Fetches,
    name: &Name,
    authorization: Option<&Authorization>,
    via: &[SocketAddr],
) -> Option<Result<Resolved, Miss>> {
    let peers = fetches.peers()?;
    let Above::Peer(home) = peers.members.above(name.seed()) else {
        return None;
    };
    if via.contains(&home.address) {
        return None;
    }
    match peers.resolve(home.address, name, via).await {
        Ok(resolved) => Some(Ok(resolved)),
        Err(Trouble::Gone(_)) => {
            fetches.avoid(home.address);
            None
        }
        // The home asked without the client's credentials.
        Err(Trouble::Miss(Miss::Challenge(_) | Miss::Denied)) if authorization.is_some() => None,
        Err(Trouble::Miss(miss)) => Some(Err(miss)),
    }
}

async fn ask(
    upstream: &Upstream,
    name: &Name,
    authorization: Option<&Authorization>,
) -> Result<Digest, Miss> {
    let what = format!("manifests/{}", name.tag);
    let request = |method| Request {
        method,
        repository: &name.repository,
        what: &what,
        range: None,
        authorization,
    };
    let head = upstream.send(request(&Method::HEAD)).await?;
    let named = head
        .headers()
        .get("docker-content-digest")
        .and_then(|digest| digest.to_str().ok()?.parse().ok());
    if let Some(digest) = named {
        return Ok(digest);
    }
    let whole = upstream.send(request(&Method::GET)).await?;
    let bytes = crate::layers::upstream::body(whole).await?;
    Ok(Digest::of(&bytes))
}

fn write(path: &Path, record: &Record) -> Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, serde_json::to_vec(record)?)?;
    fs::File::open(&aside)?.sync_all()?;
    fs::rename(&aside, path)?;
    Ok(())
}

fn read(path: &Path, name: &Name) -> Option<Digest> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (record.name == *name).then_some(record.digest)
}
