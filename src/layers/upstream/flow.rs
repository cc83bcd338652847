//! The bytes of one blob from upstream, in order and without a gap, over as many connections as it takes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::Method;
use bytes::Bytes;
use reqwest::Response;

use super::token::Authorization;
use super::{Request, Upstream, extent};
use crate::layers::image::digest::Digest;
use crate::layers::image::name::Repository;
use crate::layers::miss::Miss;
use crate::layers::swarm::Offer;

/// How many connections in a row may end without a single byte.
const MOST_EMPTY: u32 = 3;

/// What a client asks for, by digest.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where the client says that it is.
    pub repository: Repository,
    /// Behind which of the registry's doors it is kept.
    pub kind: Kind,
    /// What it is called.
    pub digest: Digest,
    /// What the client has to show for itself.
    pub authorization: Option<Authorization>,
    /// Which nodes asked on the way here; none if the client is ours.
    pub via: Vec<SocketAddr>,
    /// What the last of them has of it.
    pub offer: Option<Arc<Offer>>,
}

/// The two doors of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/blobs/`.
    Blob,
    /// `/manifests/`.
    Manifest,
}

/// A stretch of a blob on its way from upstream.
#[derive(Debug)]
pub struct Flow {
    upstream: Arc<Upstream>,
    ask: Ask,
    at: u64,
    end: Option<u64>,
    size: Option<u64>,
    skip: u64,
    response: Response,
    empty: u32,
}

impl Ask {
    /// What stands behind the repository in a request for this.
    pub fn what(&self) -> String {
        match self.kind {
            Kind::Blob => format!("blobs/{}", self.digest),
            Kind::Manifest => format!("manifests/{}", self.digest),
        }
    }
}

impl Flow {
    /// Asks for the bytes from `at` on, to before `end` or to the blob's end.
    pub async fn open(
        upstream: Arc<Upstream>,
        ask: Ask,
        at: u64,
        end: Option<u64>,
    ) -> Result<Self, Miss> {
        let (response, skip, size) = request(&upstream, &ask, at, end).await?;
        Ok(Self {
            upstream,
            ask,
            at,
            end: end.or(size),
            size,
            skip,
            response,
            empty: 0,
        })
    }

    /// The length of the whole blob, if the registry says it.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Miss> {
        loop {
            if self.end.is_some_and(|end| self.at >= end) {
                return Ok(None);
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => {
                    self.upstream.may_take(bytes.len()).await;
                    if let Some(bytes) = self.wanted(bytes) {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) if self.end.is_none() => return Ok(None),
                Ok(None) => self.reconnect("it ended early").await?,
                Err(error) => {
                    let why = anyhow::Error::from(error.without_url());
                    self.reconnect(&format!("{why:#}")).await?;
                }
            }
        }
    }

    /// What is wanted of these bytes: a registry that ignores ranges sends them all again from the start.
    fn wanted(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let mut bytes = bytes.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
        if let Some(left) = self.end.map(|end| end - self.at) {
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.at += bytes.len() as u64;
        self.empty = if bytes.is_empty() { self.empty } else { 0 };
        (!bytes.is_empty()).then_some(bytes)
    }

    async fn reconnect(&mut self, why: &str) -> Result<(), Miss> {
        tracing::warn!(digest = %self.ask.digest, at = self.at, why, "lost upstream, resuming");
        if self.empty >= MOST_EMPTY {
            return Err(Miss::Unavailable(format!("upstream broke off: {why}")));
        }
        self.empty += 1;
        let (response, skip, size) = request(&self.upstream, &self.ask, self.at, self.end).await?;
        if size.is_some() && size != self.size {
            return Err(Miss::Unavailable(
                "upstream changed its mind on the length".to_owned(),
            ));
        }
        (self.response, self.skip) = (response, skip);
        Ok(())
    }
}

/// The answer, how many of its first bytes are not wanted, and the length of the whole blob.
async fn request(
    upstream: &Upstream,
    ask: &Ask,
    at: u64,
    end: Option<u64>,
) -> Result<(Response, u64, Option<u64>), Miss> {
    let whole = at == 0 && end.is_none();
    let response = upstream
        .send(Request {
            method: &Method::GET,
            repository: &ask.repository,
            what: &ask.what(),
            range: (!whole).then(|| (at, end.map(|end| end - 1))),
            authorization: ask.authorization.as_ref(),
        })
        .await?;
    let (first, size) = extent(&response);
    let skip = at.checked_sub(first).ok_or_else(|| {
        Miss::Unavailable(format!(
            "upstream sent bytes from {first} on, not from {at}"
        ))
    })?;
    Ok((response, skip, size))
}
