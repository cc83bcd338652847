//! Chunks on their way to peers: few at a time, so that each is soon where it can be relayed from.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Swarm;
use super::wire::{CHUNK, HOLDERS, ONLY_YOU, SUM, addresses};
use crate::layers::blob::Blob;
use crate::layers::blob::bitmap::Bitmap;
use crate::layers::fetch::Fetches;
use crate::layers::image::digest::Digest;
use crate::layers::metrics::Sink;
use crate::layers::mirror::http::Mirror;
use crate::layers::pace::{Sending, Turn};
use futures_util::stream;

/// How long a request for a chunk waits for one.
const PATIENCE: Duration = Duration::from_secs(1);

/// A chunk of our choice.
pub(super) async fn next(
    State(mirror): State<Arc<Mirror>>,
    Path((digest, from)): Path<(Digest, SocketAddr)>,
    coming: String,
) -> Response {
    let Some(swarm) = mirror.fetches.here(&digest) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(coming) = Bitmap::from_hex(&coming, swarm.blob.chunks()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut progress = swarm.blob.progress();
    let egress = &mirror.fetches.sources.egress;
    let waiting = async {
        loop {
            progress.borrow_and_update();
            if swarm.has_for(from, &coming) {
                let turn = egress.turn().await;
                if let Some(chunk) = swarm.give(from, &coming) {
                    return Some((turn, chunk));
                }
            } else if swarm.has_given_all(from, &coming) {
                return None;
            }
            progress.changed().await.ok()?;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        // It was promised to this one, and others are told so.
        Ok(Some((turn, chunk))) => send(&mirror, &swarm, chunk, from, turn, PATIENCE * 2).await,
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

/// A chunk that the peer knows to be here or to come here. While others are being sent theirs, one who asks for a chunk
/// that somebody was sent already is told to ask there: so each leaves this node few times, however many want it.
pub(super) async fn chunk(
    State(mirror): State<Arc<Mirror>>,
    Path((digest, chunk, from)): Path<(Digest, usize, SocketAddr)>,
    headers: HeaderMap,
) -> Response {
    let Some(swarm) = mirror.fetches.here(&digest) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if chunk >= swarm.blob.chunks() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let mut progress = swarm.blob.progress();
    let egress = &mirror.fetches.sources.egress;
    let only_you = headers.contains_key(ONLY_YOU);
    let others =
        || Some(swarm.receivers(chunk, from)).filter(|others| !only_you && !others.is_empty());
    let turn = async {
        progress.wait_for(|now| now.have.has(chunk)).await.ok()?;
        if let Some(turn) = egress.free_turn() {
            return Some(Ok(turn));
        }
        if let Some(others) = others() {
            return Some(Err(others));
        }
        let turn = egress.turn().await;
        // While this one waited, somebody else may have been sent the chunk.
        Some(others().map_or(Ok(turn), Err))
    };
    match tokio::time::timeout(PATIENCE, turn).await {
        Ok(Some(Ok(turn))) => send(&mirror, &swarm, chunk, from, turn, PATIENCE / 2).await,
        Ok(Some(Err(others))) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            if let Ok(others) = HeaderValue::try_from(addresses(&others)) {
                response.headers_mut().insert(HOLDERS, others);
            }
            response
        }
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Sends a chunk, unless that would have to wait for longer than `limit`.
async fn send(
    mirror: &Mirror,
    swarm: &Swarm,
    chunk: usize,
    to: SocketAddr,
    turn: Turn,
    limit: Duration,
) -> Response {
    let blob = swarm.blob.clone();
    let span = blob.span(chunk);
    let len = span.end - span.start;
    let egress = &mirror.fetches.sources.egress;
    if !egress.take_soon(to, len, limit).await {
        return StatusCode::NO_CONTENT.into_response();
    }
    swarm.goes(chunk, to);
    let sum = blob.progress().borrow().sums[chunk];
    mirror.fetches.metrics().sent(Sink::Peer, len);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CONTENT_LENGTH, len.into());
    headers.insert(CHUNK, chunk.into());
    if let Some(sum) = sum.and_then(|sum| sum.to_string().try_into().ok()) {
        headers.insert(SUM, sum);
    }
    *response.body_mut() = in_pieces(mirror.fetches.clone(), blob, span, Sending::of(turn));
    response
}

/// A body that keeps its turn until all of it is handed over to the connection.
fn in_pieces(fetches: Arc<Fetches>, blob: Arc<Blob>, span: Range<u64>, sending: Sending) -> Body {
    let pieces = stream::try_unfold(
        (fetches, blob, span, sending),
        async |(fetches, blob, span, sending)| {
            if span.is_empty() {
                return Ok(None);
            }
            let piece = fetches.read_some(&blob, span.clone()).await?;
            let rest = span.start + piece.len() as u64..span.end;
            Ok::<_, io::Error>(Some((piece, (fetches, blob, rest, sending))))
        },
    );
    Body::from_stream(pieces)
}
