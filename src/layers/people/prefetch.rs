//! Fetching whole images before anybody asks for them: on this node, or on all, a few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::layers::image::content::{Content, for_this_machine};
use crate::layers::image::digest::Digest;
use crate::layers::image::name::{Repository, image};
use crate::layers::mirror::http::Mirror;
use crate::layers::mirror::manifest;
use crate::layers::miss::Miss;
use crate::layers::upstream::flow::{Ask, Kind};

/// How often it is told how far a prefetch is.
const TELLING: Duration = Duration::from_millis(200);
/// Blobs of one image that are fetched at a time, as containerd has it.
const BLOBS_AT_ONCE: usize = 3;
/// More images are not ordered in one call.
const MOST_IMAGES: usize = 1000;

/// What is to be fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Names of images, as people write them.
    pub images: Vec<String>,
    /// On all nodes, not just on this one.
    pub everywhere: bool,
    /// How many prefetches run at a time, over all images and nodes.
    pub at_once: usize,
}

/// How far one image is on one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The address of the node for its peers; empty on a node without.
    pub node: String,
    /// The image as it was ordered.
    pub image: String,
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes of all; 0 until the manifest is read.
    pub total_bytes: u64,
    /// What became of it.
    pub state: Outcome,
}

/// What became of a prefetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It goes on.
    Going,
    /// All of the image is here.
    Done,
    /// It can not be had, for this reason.
    Failed(String),
}

/// Bytes of a prefetch.
#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    total: AtomicU64,
}

/// Takes an order, and tells of it a line at a time until it is carried out. When the caller hangs up, what was not begun is not.
pub async fn take(State(mirror): State<Arc<Mirror>>, body: Bytes) -> Response {
    let Ok(order) = serde_json::from_slice::<Order>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if order.images.len() > MOST_IMAGES {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let (steps, told) = mpsc::channel(16);
    tokio::spawn(carry_out(mirror, order, steps));
    let lines = ReceiverStream::new(told).map(|step: Step| {
        let mut line = serde_json::to_vec(&step).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, std::convert::Infallible>(line)
    });
    Response::new(Body::from_stream(lines))
}

async fn carry_out(mirror: Arc<Mirror>, order: Order, steps: mpsc::Sender<Step>) {
    let others = match mirror.fetches.peers() {
        Some(peers) if order.everywhere => peers.members.others().borrow().to_vec(),
        _ => Vec::new(),
    };
    let slots = Arc::new(Semaphore::new(order.at_once.clamp(1, 1000)));
    let mut running = JoinSet::new();
    for image in &order.images {
        let targets = others.iter().map(|member| Some(member.address));
        for target in std::iter::once(None).chain(targets) {
            let (mirror, image, steps) = (mirror.clone(), image.clone(), steps.clone());
            let slots = slots.clone();
            running.spawn(async move {
                let Ok(_slot) = slots.acquire().await else {
                    return;
                };
                if steps.is_closed() {
                    return;
                }
                match target {
                    None => here(&mirror, &image, &steps).await,
                    Some(peer) => there(&mirror, peer, &image, &steps).await,
                }
            });
        }
    }
    running.join_all().await;
}

/// Has a peer fetch an image, and passes on what it tells.
async fn there(
    mirror: &Mirror,
    peer: std::net::SocketAddr,
    image: &str,
    steps: &mpsc::Sender<Step>,
) {
    let Some(peers) = mirror.fetches.peers() else {
        return;
    };
    let order = Order {
        images: vec![image.to_owned()],
        everywhere: false,
        at_once: 1,
    };
    let failed = |why: String| Step {
        node: peer.to_string(),
        image: image.to_owned(),
        done_bytes: 0,
        total_bytes: 0,
        state: Outcome::Failed(why),
    };
    let mut lines = peers.prefetch(peer, &order).await;
    loop {
        let step = match &mut lines {
            Ok(lines) => lines.next().await.map_err(|trouble| trouble.to_string()),
            Err(trouble) => Err(trouble.to_string()),
        };
        let step = step.unwrap_or_else(failed);
        let ended = step.state != Outcome::Going;
        if steps.send(step).await.is_err() || ended {
            return;
        }
    }
}

/// Fetches an image on this node.
async fn here(mirror: &Arc<Mirror>, image: &str, steps: &mpsc::Sender<Step>) {
    let tally = Arc::new(Tally::default());
    let peers = mirror.fetches.peers();
    let node = peers.map(|peers| peers.members.me().address.to_string());
    let node = node.unwrap_or_default();
    let step = |state| Step {
        node: node.clone(),
        image: image.to_owned(),
        done_bytes: tally.done.load(Ordering::Relaxed),
        total_bytes: tally.total.load(Ordering::Relaxed),
        state,
    };
    let mut fetching = std::pin::pin!(fetch(mirror, image, &tally));
    loop {
        let state = match tokio::time::timeout(TELLING, &mut fetching).await {
            Err(_) => Outcome::Going,
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(miss)) => Outcome::Failed(miss.to_string()),
        };
        let ended = state != Outcome::Going;
        if steps.send(step(state)).await.is_err() || ended {
            return;
        }
    }
}

async fn fetch(mirror: &Arc<Mirror>, name: &str, tally: &Arc<Tally>) -> Result<(), Miss> {
    let (repository, reference) =
        image(name).ok_or_else(|| Miss::Unavailable(format!("{name:?} is no name of an image")))?;
    let resolving = mirror
        .tags
        .digest_of(&mirror.fetches, &repository, reference, None);
    let (digest, _) = resolving.await?;
    let blobs = match content(mirror, &repository, digest).await? {
        Content::Image(blobs) => blobs,
        Content::Index(manifests) => {
            let mut blobs = Vec::new();
            let fitting = for_this_machine(manifests);
            if fitting.is_empty() {
                let why = "its index has no manifest for this kind of machine";
                return Err(Miss::Unavailable(why.to_owned()));
            }
            for manifest in fitting {
                match content(mirror, &repository, manifest.digest).await? {
                    Content::Image(listed) => blobs.extend(listed),
                    Content::Index(_) => {}
                }
            }
            blobs
        }
    };
    let total = blobs.iter().map(|blob| blob.size).sum();
    tally.total.store(total, Ordering::Relaxed);
    let slots = Arc::new(Semaphore::new(BLOBS_AT_ONCE));
    let mut running = JoinSet::new();
    for blob in blobs {
        let ask = ask(&repository, Kind::Blob, blob.digest);
        let (mirror, tally, slots) = (mirror.clone(), tally.clone(), slots.clone());
        running.spawn(async move {
            let _slot = slots.acquire().await;
            fetch_blob(&mirror, &ask, &tally).await
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|panic| Miss::Unavailable(panic.to_string()))??;
    }
    Ok(())
}

/// Fetches a blob to its end.
async fn fetch_blob(mirror: &Arc<Mirror>, ask: &Ask, tally: &Tally) -> Result<(), Miss> {
    let blob = mirror.fetches.get(ask).await?;
    let mut progress = blob.progress();
    let mut counted = 0;
    loop {
        let standing = {
            let now = progress.borrow_and_update();
            let new = now.order[counted..].iter().map(|at| blob.span(*at));
            let bytes = new.map(|span| span.end - span.start).sum();
            tally.done.fetch_add(bytes, Ordering::Relaxed);
            counted = now.order.len();
            now.standing.clone()
        };
        match standing {
            crate::layers::blob::Standing::Whole => return Ok(()),
            crate::layers::blob::Standing::Broken(why) => {
                return Err(Miss::Unavailable(why.to_string()));
            }
            crate::layers::blob::Standing::Arriving => _ = progress.changed().await,
        }
    }
}

async fn content(
    mirror: &Arc<Mirror>,
    repository: &Repository,
    digest: Digest,
) -> Result<Content, Miss> {
    let ask = ask(repository, Kind::Manifest, digest);
    let bytes = manifest::read(&mirror.fetches, &ask).await?;
    Content::of(&bytes).map_err(|error| Miss::Unavailable(format!("{error:#}")))
}

fn ask(repository: &Repository, kind: Kind, digest: Digest) -> Ask {
    Ask {
        repository: repository.clone(),
        kind,
        digest,
        authorization: None,
        via: Vec::new(),
        offer: None,
    }
}
