//! The door for peers: they join the swarm of a blob, are given chunks, and fetch those that they know to be here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::uplink::{chunk, next};
use super::wire::{Hello, Join, News, Offered, Resolved, as_text};
use super::{Offer, Swarm};
use crate::layers::blob::Standing;
use crate::layers::blob::bitmap::Bitmap;
use crate::layers::blob::layout::Layout;
use crate::layers::fetch::Fetches;
use crate::layers::image::digest::Digest;
use crate::layers::mirror::answer;
use crate::layers::mirror::http::Mirror;
use crate::layers::mirror::tags::{By, Name};
use crate::layers::miss::Miss;
use crate::layers::people::prefetch;
use crate::layers::upstream::flow::{Ask, Kind};

/// How often a joiner hears that we are there, at the least.
const HEARTBEAT: Duration = Duration::from_millis(400);
/// How long the blob itself may take to be found, before a joiner is told to look elsewhere.
const FINDING: Duration = Duration::from_secs(20);

type Lines = mpsc::Sender<News>;

/// The routes for peers.
pub fn router(mirror: Arc<Mirror>) -> Router {
    Router::new()
        .route("/v1/{digest}/join", post(join))
        .route("/v1/{digest}/next/{from}", post(next))
        .route("/v1/{digest}/chunks/{chunk}/{from}", get(chunk))
        .route("/v1/hello", get(hello))
        .route("/v1/held", post(held))
        .route("/v1/tag", post(tag))
        .route("/v1/imported", post(imported))
        .route("/v1/prefetch", post(prefetch::take))
        .layer(axum::extract::DefaultBodyLimit::max(8 << 20))
        .with_state(mirror)
}

async fn join(
    State(mirror): State<Arc<Mirror>>,
    Path(digest): Path<Digest>,
    body: Bytes,
) -> Response {
    let Ok(join) = serde_json::from_slice::<Join>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (lines, news) = mpsc::channel(4);
    tokio::spawn(async move {
        let find = find(&mirror.fetches, digest, join);
        let Some(found) = beating(&lines, tokio::time::timeout(FINDING, find)).await else {
            return;
        };
        match found.unwrap_or_else(|_| Err(Miss::Unavailable("it takes too long".to_owned()))) {
            Ok(swarm) => tell(&swarm, &lines).await,
            // A joiner that hung up does not mind.
            Err(miss) => {
                let (status, detail) = as_text(&miss);
                _ = lines.send(News::Miss(status, detail)).await;
            }
        }
    });
    let lines = ReceiverStream::new(news).map(|news| {
        let mut line = serde_json::to_vec(&news).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(line)
    });
    Response::new(Body::from_stream(lines))
}

async fn find(fetches: &Arc<Fetches>, digest: Digest, join: Join) -> Result<Arc<Swarm>, Miss> {
    if join.here_only {
        let here = fetches.here(&digest).ok_or(Miss::NotFound)?;
        here.joins(join.from);
        return Ok(here);
    }
    let kind = if join.manifest {
        Kind::Manifest
    } else {
        Kind::Blob
    };
    let offer = join.offer.and_then(|Offered { size, have, sums }| {
        let count = Layout::of(size).count();
        let sums = sums
            .into_iter()
            .map(|(at, sum)| Some((at, sum.parse().ok()?)));
        Some(Offer {
            from: join.from,
            size,
            have: Bitmap::from_hex(&have, count)?,
            sums: sums.collect::<Option<_>>()?,
        })
    });
    let ask = Ask {
        repository: join.repository,
        kind,
        digest,
        authorization: None,
        via: join.via,
        offer: offer.map(Arc::new),
    };
    let swarm = fetches.swarm(&ask).await?;
    swarm.joins(join.from);
    if let Some(offer) = &ask.offer {
        swarm.accept(offer);
    }
    Ok(swarm)
}

/// Waits for something while the joiner hears that we are there; nothing if it hung up.
async fn beating<T>(lines: &Lines, awaited: impl Future<Output = T>) -> Option<T> {
    let mut awaited = std::pin::pin!(awaited);
    loop {
        match tokio::time::timeout(HEARTBEAT, &mut awaited).await {
            Ok(done) => return Some(done),
            Err(_) => lines.send(News::Alive).await.ok()?,
        }
    }
}

/// Tells a joiner of each chunk that comes, and of each that is given away, until it hangs up.
async fn tell(swarm: &Swarm, lines: &Lines) {
    let mut progress = swarm.blob.progress();
    let mut changes = swarm.changes();
    let (mut told, mut placed) = (0, 0);
    let mut news = vec![News::Size(swarm.blob.size())];
    loop {
        let standing = {
            let now = progress.borrow_and_update();
            let sum = |at: &usize| Some((*at, now.sums[*at]?.to_string()));
            let sums: Vec<_> = now.order[told..].iter().filter_map(sum).collect();
            told = now.order.len();
            if !sums.is_empty() {
                news.push(News::Sums(sums));
            }
            now.standing.clone()
        };
        changes.mark_unchanged();
        let given;
        (given, placed) = swarm.given_since(placed);
        if !given.is_empty() {
            news.push(News::Placed(given));
        }
        if let Standing::Broken(why) = standing {
            news.push(News::Broken(why.to_string()));
        }
        for line in news.drain(..) {
            let end = matches!(line, News::Broken(_));
            if lines.send(line).await.is_err() || end {
                return;
            }
        }
        let change = async {
            tokio::select! {
                _ = progress.changed() => {}
                _ = changes.changed() => {}
            }
        };
        if beating(lines, change).await.is_none() {
            return;
        }
    }
}

async fn hello(State(mirror): State<Arc<Mirror>>) -> Response {
    let hello = mirror.fetches.peers().map(|peers| Hello {
        member: peers.members.me().clone(),
        key: peers.members.keys.hand_out(),
    });
    let text = serde_json::to_vec(&hello).unwrap_or_default();
    answer::json_body(text, "application/json")
}

async fn held(State(mirror): State<Arc<Mirror>>, body: Bytes) -> StatusCode {
    let Ok((from, digests)) = serde_json::from_slice::<(SocketAddr, Vec<Digest>)>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    mirror.fetches.holders().note(from, digests);
    StatusCode::NO_CONTENT
}

async fn imported(State(mirror): State<Arc<Mirror>>, body: Bytes) -> StatusCode {
    let Ok((name, digest)) = serde_json::from_slice::<(Name, Option<Digest>)>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    match digest {
        Some(digest) => _ = mirror.tags.import(&name, &digest, false),
        None => _ = mirror.tags.forget(&name),
    }
    StatusCode::NO_CONTENT
}

async fn tag(State(mirror): State<Arc<Mirror>>, body: Bytes) -> Response {
    let Ok((name, via)) = serde_json::from_slice::<(Name, Vec<SocketAddr>)>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let found = mirror.tags.resolve(&mirror.fetches, &name, None, &via);
    let answer = match found.await {
        Ok(tag) if tag.by == By::Import => Resolved::Imported(tag.digest),
        Ok(tag) => Resolved::Digest(tag.digest),
        Err(miss) => {
            let (status, detail) = as_text(&miss);
            Resolved::Miss(status, detail)
        }
    };
    let bytes = serde_json::to_vec(&answer).unwrap_or_default();
    answer::json_body(bytes, "application/json")
}
