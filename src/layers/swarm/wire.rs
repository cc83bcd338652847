//! What peers say to each other.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::layers::image::digest::Digest;
use crate::layers::image::name::Repository;
use crate::layers::members::Member;
use crate::layers::members::keys::Key;
use crate::layers::miss::Miss;

/// The header that tells which chunk an answer brings.
pub const CHUNK: &str = "orlop-chunk";
/// The header that tells the chunk's sum.
pub const SUM: &str = "orlop-sum";
/// The header that tells who else has a chunk, from one who would rather not give it again.
pub const HOLDERS: &str = "orlop-holders";
/// The header of one who knows of nobody else to ask for a chunk.
pub const ONLY_YOU: &str = "orlop-only-you";

/// How a node joins the swarm of a blob.
#[derive(Debug, Serialize, Deserialize)]
pub struct Join {
    /// Who joins.
    pub from: SocketAddr,
    /// Where the client says that the blob is.
    pub repository: Repository,
    /// Whether it is a manifest.
    pub manifest: bool,
    /// Who asked on the way here: none of them is asked again.
    pub via: Vec<SocketAddr>,
    /// Whether only a blob that is here already is wanted.
    pub here_only: bool,
    /// What the joiner has already.
    pub offer: Option<Offered>,
}

/// An offer on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offered {
    /// The length of the blob.
    pub size: u64,
    /// The chunks that the joiner has, in hex.
    pub have: String,
    /// The sums that it knows.
    pub sums: Vec<(usize, String)>,
}

/// What a joiner hears, one JSON value a line, until it has what it wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum News {
    /// Nothing, but we are there.
    Alive,
    /// The length of the blob.
    Size(u64),
    /// Sums of chunks that are here.
    Sums(Vec<(usize, String)>),
    /// Chunks that were given to others, who relay them.
    Placed(Vec<(usize, SocketAddr)>),
    /// It can not be had: a status, and a challenge or the seconds to wait.
    Miss(u16, Option<String>),
    /// It broke off.
    Broken(String),
}

/// What a home says of a tag.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resolved {
    /// What it stands for.
    Digest(Digest),
    /// What it was imported as.
    Imported(Digest),
    /// It can not be had: a status, and a challenge or the seconds to wait.
    Miss(u16, Option<String>),
}

/// How a node answers for itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Who it is.
    pub member: Member,
    /// What gossip for it is sealed with.
    pub key: Key,
}

/// Addresses as they travel in a header.
pub fn addresses(of: &[SocketAddr]) -> String {
    let texts: Vec<_> = of.iter().map(SocketAddr::to_string).collect();
    texts.join(",")
}

/// A miss as it travels between peers.
pub fn as_text(miss: &Miss) -> (u16, Option<String>) {
    let headers = miss.headers();
    let detail = headers
        .values()
        .next()
        .and_then(|value| value.to_str().ok());
    let status = match miss {
        Miss::Later(_) => StatusCode::TOO_MANY_REQUESTS,
        other => other.status(),
    };
    (status.as_u16(), detail.map(str::to_owned))
}

/// Reads what [`as_text`] wrote.
pub fn miss(status: u16, detail: Option<String>) -> Miss {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let name = match status {
        StatusCode::UNAUTHORIZED => axum::http::header::WWW_AUTHENTICATE,
        _ => axum::http::header::RETRY_AFTER,
    };
    let value = detail.and_then(|detail| HeaderValue::try_from(detail).ok());
    let headers = HeaderMap::from_iter(value.map(|value| (name, value)));
    Miss::of(status, &headers).unwrap_or(Miss::NotFound)
}
