//! Images that come from a file instead of a registry: taken in blob by blob, named, pinned, and told to their homes.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::layers::blob::Blob;
use crate::layers::fetch::Fetches;
use crate::layers::fetch::fill::put;
use crate::layers::image::content::Content;
use crate::layers::image::digest::Digest;
use crate::layers::mirror::grants::named;
use crate::layers::mirror::http::Mirror;
use crate::layers::mirror::tags::Name;
use crate::layers::miss::Miss;
use crate::layers::swarm::peers::Peers;

/// No manifest is larger.
const LARGEST_MANIFEST: u64 = 8 << 20;

/// Takes in a blob of `size` bytes; nothing is kept of one that is cut off or wrong.
pub async fn take<E: std::fmt::Display>(
    fetches: &Arc<Fetches>,
    digest: Digest,
    size: u64,
    mut bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(), Miss> {
    let (file, partial) = fetches.clone().begin(digest.clone(), size).await?;
    let blob = Blob::new(digest, size, file);
    let unavailable = |why: &dyn std::fmt::Display| Miss::Unavailable(why.to_string());
    let mut buffer = Vec::new();
    for at in 0..blob.chunks() {
        let span = blob.span(at);
        let len = usize::try_from(span.end - span.start).unwrap_or(usize::MAX);
        while buffer.len() < len {
            let more = bytes.next().await;
            let more = more.ok_or_else(|| Miss::Unavailable("it ended early".to_owned()))?;
            buffer.extend_from_slice(&more.map_err(|error| unavailable(&error))?);
        }
        let rest = buffer.split_off(len);
        let chunk = std::mem::replace(&mut buffer, rest);
        let taken = put(&blob, at, chunk).await;
        taken.map_err(|refused| unavailable(&refused))?;
    }
    let whole = blob.whole().await;
    whole.map_err(|why| unavailable(&why))?;
    fetches.clone().keep(blob, partial).await;
    Ok(())
}

/// Names an image whose blobs are here; those that are missing, if any are.
pub fn name(mirror: &Mirror, name: &Name, digest: &Digest) -> anyhow::Result<Vec<Digest>> {
    let missing = missing(&mirror.fetches, digest);
    if missing.is_empty() {
        mirror.tags.import(name, digest, true)?;
        pin(mirror);
    }
    Ok(missing)
}

/// Forgets a tag and, if it was imported, what no other import needs of it.
pub fn forget(mirror: &Mirror, name: &Name) -> bool {
    let Some(digest) = mirror.tags.forget(name) else {
        return false;
    };
    let before = all(&mirror.fetches, &digest);
    let kept = pin(mirror);
    for gone in before.difference(&kept) {
        mirror.fetches.sources.store.remove(gone);
    }
    mirror.fetches.let_go_of_dropped();
    true
}

/// Keeps everything that was imported from being dropped, and lets anyone have it; those blobs.
pub fn pin(mirror: &Mirror) -> HashSet<Digest> {
    let imported = mirror.tags.imported();
    let images = imported.values();
    let pinned: HashSet<_> = images
        .flat_map(|digest| all(&mirror.fetches, digest))
        .collect();
    mirror.grants.free(pinned.clone());
    mirror.fetches.sources.store.pin(pinned.clone());
    pinned
}

/// Tells the homes of all tags that were imported, and again when a tag or a home is new, until `shutdown`.
pub async fn announce(mirror: Arc<Mirror>, peers: Arc<Peers>, shutdown: CancellationToken) {
    let mut others = peers.members.others();
    let mut told: HashMap<Name, (Digest, Vec<SocketAddr>)> = HashMap::new();
    loop {
        others.mark_unchanged();
        let ours = mirror.tags.imported();
        for (gone, (_, homes)) in told.iter().filter(|(name, _)| !ours.contains_key(name)) {
            for home in homes {
                // One that is down forgets by itself.
                let _ = peers.tell_imported(*home, gone, None).await;
            }
        }
        told.retain(|name, (digest, _)| ours.get(name) == Some(digest));
        for (name, digest) in ours {
            let homes = peers.members.homes(name.seed());
            let (_, known) = told
                .entry(name.clone())
                .or_insert((digest.clone(), Vec::new()));
            for home in homes.into_iter().map(|home| home.address) {
                if known.contains(&home) {
                    continue;
                }
                match peers.tell_imported(home, &name, Some(&digest)).await {
                    Ok(()) => known.push(home),
                    Err(trouble) => {
                        tracing::debug!(%home, %trouble, "a home was not told of an import");
                    }
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = others.changed() => {}
            () = mirror.tags.changed() => {}
        }
    }
}

/// A manifest and all that it names, as far as that is here.
fn all(fetches: &Fetches, root: &Digest) -> HashSet<Digest> {
    let mut found = HashSet::new();
    let mut open = vec![root.clone()];
    while let Some(digest) = open.pop() {
        if !found.contains(&digest) {
            open.extend(
                manifest(fetches, &digest)
                    .map(|text| named(&text))
                    .unwrap_or_default(),
            );
            found.insert(digest);
        }
    }
    found
}

/// What an image needs and is not here. An index may list platforms that are not.
fn missing(fetches: &Fetches, root: &Digest) -> Vec<Digest> {
    let store = &fetches.sources.store;
    let content = manifest(fetches, root).and_then(|text| Content::of(&text).ok());
    match content {
        None => vec![root.clone()],
        Some(Content::Image(listed)) => {
            let digests = listed.into_iter().map(|listed| listed.digest);
            digests.filter(|digest| !store.holds(digest)).collect()
        }
        Some(Content::Index(listed)) => {
            let here: Vec<_> = listed
                .iter()
                .filter(|one| store.holds(&one.digest))
                .collect();
            if here.is_empty() {
                return listed.into_iter().map(|one| one.digest).collect();
            }
            here.into_iter()
                .flat_map(|one| missing(fetches, &one.digest))
                .collect()
        }
    }
}

/// The bytes of a manifest that is here; nothing of what is too large for one, or something else.
fn manifest(fetches: &Fetches, digest: &Digest) -> Option<Vec<u8>> {
    let file = fetches.sources.store.find(digest)?;
    if file.metadata().ok()?.len() > LARGEST_MANIFEST {
        return None;
    }
    let mut text = Vec::new();
    file.take(LARGEST_MANIFEST).read_to_end(&mut text).ok()?;
    let mut sum = digest.sum();
    sum.update(&text);
    (text.first() == Some(&b'{') && sum.is(digest)).then_some(text)
}
