//! The other nodes as this one talks to them: joining the swarm of a blob, and asking for chunks.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use reqwest::{Client, Response};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::Offer;
use super::wire::{CHUNK, Hello, Join, News, Offered, Resolved, SUM, miss};
use crate::layers::blob::bitmap::Bitmap;
use crate::layers::image::digest::{ChunkSum, Digest};
use crate::layers::members::trust::Trust;
use crate::layers::members::{Member, Members};
use crate::layers::mirror::tags::{self, By, Name};
use crate::layers::miss::Miss;
use crate::layers::people::prefetch::{Order, Step};
use crate::layers::upstream::flow::{Ask, Kind};

/// A peer that can not be reached in this time is down.
const DIAL: Duration = Duration::from_millis(500);
/// A peer that says nothing for this long, though it should, is down.
pub const SILENCE: Duration = Duration::from_millis(1500);
/// Chunks that are received at the same time, over all blobs: what bounds the memory.
const CHUNKS_AT_ONCE: usize = 24;
/// No line of news is longer.
const LONGEST_LINE: usize = 8 << 20;
/// A chunk as it came.
#[derive(Debug)]
pub struct Chunk {
    /// Which one.
    pub at: usize,
    /// The sum that its sender vouches for.
    pub sum: Option<ChunkSum>,
    /// Its bytes, not verified.
    pub bytes: Vec<u8>,
}

/// Why a peer gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It does not answer, or not with sense.
    #[error("{0}")]
    Gone(String),
    /// It answered that it can not be had.
    #[error(transparent)]
    Miss(#[from] Miss),
}

/// A client for all peers.
#[derive(Debug)]
pub struct Peers {
    client: Client,
    scheme: &'static str,
    slots: Semaphore,
    /// Who is there.
    pub members: Arc<Members>,
}

/// What a peer tells, one JSON value a line.
#[derive(Debug)]
pub struct Lines<T> {
    response: Response,
    buffer: Vec<u8>,
    kind: PhantomData<fn() -> T>,
}

/// The news of a swarm.
pub type NewsStream = Lines<News>;

impl Peers {
    /// A client for the members of a cluster.
    pub fn new(members: Arc<Members>, trust: &Trust) -> reqwest::Result<Self> {
        let client = trust
            .client(Client::builder())
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(DIAL)
            .read_timeout(SILENCE * 2)
            .build()?;
        Ok(Self {
            client,
            scheme: trust.scheme(),
            slots: Semaphore::new(CHUNKS_AT_ONCE),
            members,
        })
    }

    /// Joins the swarm of a blob at `home`; the blob's length, and the news to come.
    pub async fn join(
        &self,
        home: SocketAddr,
        ask: &Ask,
        here_only: bool,
        offer: Option<Offer>,
    ) -> Result<(u64, NewsStream), Trouble> {
        let me = self.members.me().address;
        let mut via = ask.via.clone();
        via.push(me);
        let offer = offer.map(|offer| {
            let sums = offer.sums.iter().map(|(at, sum)| (*at, sum.to_string()));
            Offered {
                size: offer.size,
                have: offer.have.to_hex(),
                sums: sums.collect(),
            }
        });
        let join = Join {
            from: me,
            repository: ask.repository.clone(),
            manifest: ask.kind == Kind::Manifest,
            via,
            here_only,
            offer,
        };
        let body = serde_json::to_vec(&join).map_err(gone)?;
        let url = self.url(home, format_args!("{}/join", ask.digest));
        let sent = self.send(self.client.post(url).body(body));
        let response = tokio::time::timeout(SILENCE, sent).await.map_err(gone)??;
        let mut news = Lines::of(response);
        loop {
            match news.next().await? {
                News::Size(size) => return Ok((size, news)),
                News::Miss(status, detail) => return Err(miss(status, detail).into()),
                News::Broken(why) => return Err(Miss::Unavailable(why).into()),
                News::Alive | News::Sums(_) | News::Placed(_) => {}
            }
        }
    }

    /// Whatever chunk `home` likes to give to one who has or expects `coming`; nothing if it has none just now. Which
    /// one it is, `comes` hears before its bytes are here.
    pub async fn next(
        &self,
        home: SocketAddr,
        digest: &Digest,
        coming: &Bitmap,
        comes: impl FnOnce(usize),
    ) -> Result<Option<Chunk>, Trouble> {
        let me = self.members.me().address;
        let url = self.url(home, format_args!("{digest}/next/{me}"));
        let request = self.client.post(url).body(coming.to_hex());
        self.chunk_of(request, comes).await
    }

    /// Chunk `at` from one who has it or is getting it.
    pub async fn chunk(
        &self,
        holder: SocketAddr,
        digest: &Digest,
        at: usize,
    ) -> Result<Chunk, Trouble> {
        let me = self.members.me().address;
        let url = self.url(holder, format_args!("{digest}/chunks/{at}/{me}"));
        let chunk = self.chunk_of(self.client.get(url), |_| {}).await?;
        chunk
            .filter(|chunk| chunk.at == at)
            .ok_or(Trouble::Miss(Miss::NotFound))
    }

    /// The digest that a tag stands for, as its home knows it.
    pub async fn resolve(
        &self,
        home: SocketAddr,
        name: &Name,
        via: &[SocketAddr],
    ) -> Result<tags::Resolved, Trouble> {
        let mut via = via.to_vec();
        via.push(self.members.me().address);
        let body = serde_json::to_vec(&(name, via)).map_err(gone)?;
        let request = self.client.post(self.url(home, "tag")).body(body);
        let answer = self.send(request).await?.bytes().await.map_err(gone)?;
        match serde_json::from_slice(&answer).map_err(gone)? {
            Resolved::Digest(digest) => Ok(tags::Resolved::remembered(digest)),
            Resolved::Imported(digest) => {
                let by = By::Import;
                Ok(tags::Resolved { digest, by })
            }
            Resolved::Miss(status, detail) => Err(miss(status, detail).into()),
        }
    }

    /// Tells a home which blobs this node holds.
    pub async fn tell_held(&self, home: SocketAddr, digests: &[Digest]) -> Result<(), Trouble> {
        let body = serde_json::to_vec(&(self.members.me().address, digests)).map_err(gone)?;
        let url = self.url(home, "held");
        self.send(self.client.post(url).body(body)).await?;
        Ok(())
    }

    /// Tells a home that a tag was imported as this digest, or with none that it is no more.
    pub async fn tell_imported(
        &self,
        home: SocketAddr,
        name: &Name,
        digest: Option<&Digest>,
    ) -> Result<(), Trouble> {
        let body = serde_json::to_vec(&(name, digest)).map_err(gone)?;
        let url = self.url(home, "imported");
        self.send(self.client.post(url).body(body)).await?;
        Ok(())
    }

    /// Has a peer prefetch what is ordered; what it tells of it.
    pub async fn prefetch(&self, peer: SocketAddr, order: &Order) -> Result<Lines<Step>, Trouble> {
        let body = serde_json::to_vec(order).map_err(gone)?;
        let url = self.url(peer, "prefetch");
        let response = self.send(self.client.post(url).body(body)).await?;
        Ok(Lines::of(response))
    }

    /// Who answers at an address; the key that it hands over is kept.
    pub async fn hello(&self, address: SocketAddr) -> Result<Member, Trouble> {
        // Few of those who are asked are needed soon.
        let request = self.client.get(self.url(address, "hello"));
        let answer = self.send(request.header(CONNECTION, "close"));
        let answer = tokio::time::timeout(SILENCE, answer)
            .await
            .map_err(gone)??;
        let hello = serde_json::from_slice(&answer.bytes().await.map_err(gone)?);
        let Hello { member, key } = hello.map_err(gone)?;
        self.members.keys.learn(address, key);
        Ok(member)
    }

    fn url(&self, peer: SocketAddr, what: impl std::fmt::Display) -> String {
        format!("{}://{peer}/v1/{what}", self.scheme)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Trouble> {
        let response = request.send().await.map_err(gone)?;
        match Miss::of(response.status(), response.headers()) {
            Some(Miss::Unavailable(why)) => Err(Trouble::Gone(why)),
            Some(miss) => Err(miss.into()),
            None => Ok(response),
        }
    }

    async fn chunk_of(
        &self,
        request: reqwest::RequestBuilder,
        comes: impl FnOnce(usize),
    ) -> Result<Option<Chunk>, Trouble> {
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let header = |name| response.headers().get(name)?.to_str().ok();
        let at = header(CHUNK).and_then(|at| at.parse().ok());
        let at =
            at.ok_or_else(|| Trouble::Gone("it does not say which chunk it sent".to_owned()))?;
        comes(at);
        let sum = header(SUM).and_then(|sum| sum.parse().ok());
        let _slot = self.slots.acquire().await.map_err(gone)?;
        let bytes = response.bytes().await.map_err(gone)?.into();
        Ok(Some(Chunk { at, sum, bytes }))
    }
}

impl<T: DeserializeOwned> Lines<T> {
    fn of(response: Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
            kind: PhantomData,
        }
    }

    /// The next line. A peer that is silent for too long is gone.
    pub async fn next(&mut self) -> Result<T, Trouble> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return serde_json::from_slice(&line).map_err(gone);
            }
            let more = tokio::time::timeout(SILENCE, self.response.chunk()).await;
            match more.map_err(gone)?.map_err(gone)? {
                Some(bytes) if self.buffer.len() < LONGEST_LINE => {
                    self.buffer.extend_from_slice(&bytes);
                }
                _ => return Err(Trouble::Gone("it hung up".to_owned())),
            }
        }
    }
}

fn gone(error: impl Into<anyhow::Error>) -> Trouble {
    Trouble::Gone(format!("{:#}", error.into()))
}
