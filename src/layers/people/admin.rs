//! The door for people: a socket beside the cache, which only its owner may open.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path as Part, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::import;
use super::prefetch;
use crate::layers::image::digest::Digest;
use crate::layers::image::name::{Reference, image};
use crate::layers::mirror::answer;
use crate::layers::mirror::http::Mirror;
use crate::layers::mirror::tags::Name;
use crate::layers::miss::Miss;

/// The name of the socket in the folder of the cache.
pub const SOCKET: &str = "admin.sock";
/// The header that tells how many bytes a blob has that is put.
pub const SIZE: &str = "orlop-size";

/// A blob of the cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldBlob {
    /// What it is called.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
    /// For how many seconds nobody asked for it.
    pub unused_seconds: u64,
}

/// Another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Where it is.
    pub address: String,
    /// In which zone.
    pub zone: String,
    /// For how many seconds yet it is not asked, because it did not answer or sent wrong bytes.
    pub shunned_seconds: u64,
}

/// What the cache did since it started, and has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Blobs that are kept.
    pub blobs: usize,
    /// Bytes that they take.
    pub used_bytes: u64,
    /// Bytes that they may take.
    pub quota_bytes: u64,
    /// Blobs opened from our disk, the runtime's store, peers and upstream.
    pub opened: [u64; 4],
    /// Bytes received from peers and upstream.
    pub received_bytes: [u64; 2],
    /// Peers that were banned for wrong bytes.
    pub bans: u64,
}

/// A tag for an image that was put.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Named {
    /// The name of the image, with its tag.
    pub image: String,
    /// Its manifest.
    pub digest: Digest,
}

/// Opens the socket at `path`, and serves it in the background until `shutdown`. A cache whose folder is read-only
/// goes on without.
pub fn serve(mirror: Arc<Mirror>, path: &Path, shutdown: CancellationToken) {
    let listener = match open(path) {
        Ok(listener) => listener,
        Err(error) => {
            let error = format!("{error:#}");
            return tracing::warn!(error, "`orlop layers ls` and its like will not work");
        }
    };
    let serving =
        axum::serve(listener, router(mirror)).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "stopped serving people");
        }
    });
}

/// The socket has its mode before it has its name.
fn open(path: &Path) -> Result<UnixListener> {
    let new = path.with_extension("new");
    let opening = || format!("listening on {}", path.display());
    // One that a crash left.
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new).with_context(opening)?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600)).with_context(opening)?;
    std::fs::rename(&new, path).with_context(opening)?;
    Ok(listener)
}

fn router(mirror: Arc<Mirror>) -> Router {
    Router::new()
        .route("/v1/blobs", get(blobs))
        .route(
            "/v1/blobs/{digest}",
            put(put_blob).get(has_blob).delete(delete_blob),
        )
        .route("/v1/images", put(put_image))
        .route("/v1/images/{image}", delete(delete_image))
        .route("/v1/peers", get(peers))
        .route("/v1/stats", get(stats))
        .route("/v1/prefetch", post(prefetch::take))
        .layer(DefaultBodyLimit::disable())
        .with_state(mirror)
}

async fn blobs(State(mirror): State<Arc<Mirror>>) -> Response {
    let held = match mirror.fetches.sources.store.list() {
        Ok(held) => held,
        Err(error) => return refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    };
    let leased = mirror.fetches.runtime().leased().await;
    let mut blobs: Vec<_> = held
        .into_iter()
        .chain(leased)
        .map(|held| HeldBlob {
            digest: held.digest,
            size_bytes: held.size,
            unused_seconds: held.used.elapsed().unwrap_or_default().as_secs(),
        })
        .collect();
    blobs.sort_by_key(|blob| (blob.unused_seconds, blob.digest.clone()));
    json(&blobs)
}

async fn has_blob(State(mirror): State<Arc<Mirror>>, Part(digest): Part<Digest>) -> StatusCode {
    if mirror.fetches.sources.store.holds(&digest) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn put_blob(
    State(mirror): State<Arc<Mirror>>,
    Part(digest): Part<Digest>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let size = headers
        .get(SIZE)
        .and_then(|size| size.to_str().ok()?.parse().ok());
    let Some(size) = size else {
        return refused(StatusCode::BAD_REQUEST, "the size is missing");
    };
    match import::take(&mirror.fetches, digest, size, body.into_data_stream()).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(Miss::NoRoom) => refused(
            StatusCode::INSUFFICIENT_STORAGE,
            "the quota of the cache has no room for it: start the cache with a larger --quota-mib",
        ),
        Err(miss) => refused(StatusCode::BAD_REQUEST, &miss.to_string()),
    }
}

async fn delete_blob(State(mirror): State<Arc<Mirror>>, Part(digest): Part<Digest>) -> Response {
    let ours = mirror.fetches.sources.store.remove(&digest);
    if !mirror.fetches.runtime().release(&digest).await && !ours {
        return refused(StatusCode::NOT_FOUND, &format!("{digest} is not here"));
    }
    mirror.fetches.let_go_of_dropped();
    StatusCode::NO_CONTENT.into_response()
}

async fn put_image(State(mirror): State<Arc<Mirror>>, body: Bytes) -> Response {
    let Ok(Named { image, digest }) = serde_json::from_slice(&body) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "it is no name of an image and a digest",
        );
    };
    let Some(name) = tag(&image) else {
        return refused(
            StatusCode::BAD_REQUEST,
            &format!("{image} is no name with a tag"),
        );
    };
    match import::name(&mirror, &name, &digest) {
        Ok(missing) if missing.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(missing) => {
            let missing: Vec<_> = missing.iter().map(Digest::to_string).collect();
            let why = format!("{image} lacks {}", missing.join(", "));
            refused(StatusCode::CONFLICT, &why)
        }
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

async fn delete_image(State(mirror): State<Arc<Mirror>>, Part(image): Part<String>) -> Response {
    match tag(&image) {
        Some(name) if import::forget(&mirror, &name) => StatusCode::NO_CONTENT.into_response(),
        Some(name) => refused(
            StatusCode::NOT_FOUND,
            &format!("{name} was not imported here"),
        ),
        None => refused(
            StatusCode::BAD_REQUEST,
            &format!("{image} is no name with a tag"),
        ),
    }
}

async fn peers(State(mirror): State<Arc<Mirror>>) -> Response {
    let Some(peers) = mirror.fetches.peers() else {
        return json(&[(); 0]);
    };
    let shunned = peers.members.shunned();
    let known = peers.members.others().borrow().clone();
    let mut all: Vec<_> = known
        .iter()
        .map(|member| Peer {
            address: member.address.to_string(),
            zone: member.zone.clone(),
            shunned_seconds: shunned
                .get(&member.address)
                .map_or(0, std::time::Duration::as_secs),
        })
        .collect();
    all.sort_by(|one, other| one.address.cmp(&other.address));
    json(&all)
}

async fn stats(State(mirror): State<Arc<Mirror>>) -> Response {
    let store = &mirror.fetches.sources.store;
    json(&Stats {
        blobs: store.list().map_or(0, |held| held.len()),
        used_bytes: store.used(),
        quota_bytes: store.quota(),
        ..mirror.fetches.metrics().stats()
    })
}

/// A name of an image by tag.
fn tag(text: &str) -> Option<Name> {
    match image(text)? {
        (repository, Reference::Tag(tag)) => Some(Name { repository, tag }),
        (_, Reference::Digest(_)) => None,
    }
}

fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).unwrap_or_default();
    answer::json_body(text, "application/json")
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, why.to_owned()).into_response()
}
