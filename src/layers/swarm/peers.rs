//! The other nodes as this one talks to them: joining the swarm of a blob, and asking for chunks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use reqwest::{Client, Response};
use tokio::sync::Semaphore;

use super::Offer;
use super::lines::{Lines, NewsStream};
use super::wire::{CHUNK, HOLDERS, Hello, Join, News, ONLY_YOU, Offered, Resolved, SUM, miss};
use crate::layers::blob::bitmap::Bitmap;
use crate::layers::blob::layout::{LARGEST_CHUNK, whole_number};
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

/// What a peer answers that is asked for a chunk.
#[derive(Debug)]
pub enum Answer {
    /// The chunk.
    Chunk(Chunk),
    /// It has sent it to these, who have it as well.
    Others(Vec<SocketAddr>),
    /// It has none to give just now.
    Nothing,
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
        match self.chunk_of(request, comes).await? {
            Answer::Chunk(chunk) => Ok(Some(chunk)),
            Answer::Others(_) | Answer::Nothing => Ok(None),
        }
    }

    /// Chunk `at` from one who has it or is getting it; with `only_you` it is not to name others.
    pub async fn chunk(
        &self,
        holder: SocketAddr,
        digest: &Digest,
        at: usize,
        only_you: bool,
    ) -> Result<Answer, Trouble> {
        let me = self.members.me().address;
        let url = self.url(holder, format_args!("{digest}/chunks/{at}/{me}"));
        let mut request = self.client.get(url);
        if only_you {
            request = request.header(ONLY_YOU, "yes");
        }
        match self.chunk_of(request, |_| {}).await? {
            Answer::Chunk(chunk) if chunk.at != at => Ok(Answer::Nothing),
            answer => Ok(answer),
        }
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
    ) -> Result<Answer, Trouble> {
        let mut response = self.send(request).await?;
        let header = |name| response.headers().get(name)?.to_str().ok();
        if response.status() == StatusCode::NO_CONTENT {
            let others = header(HOLDERS).into_iter().flat_map(|all| all.split(','));
            let others: Vec<_> = others.filter_map(|one| one.parse().ok()).collect();
            return Ok(if others.is_empty() {
                Answer::Nothing
            } else {
                Answer::Others(others)
            });
        }
        let at = header(CHUNK).and_then(|at| at.parse().ok());
        let at =
            at.ok_or_else(|| Trouble::Gone("it does not say which chunk it sent".to_owned()))?;
        comes(at);
        let sum = header(SUM).and_then(|sum| sum.parse().ok());
        let _slot = self.slots.acquire().await.map_err(gone)?;
        let len = response.content_length().unwrap_or(0).min(LARGEST_CHUNK);
        let mut bytes = Vec::with_capacity(whole_number(len));
        while let Some(piece) = response.chunk().await.map_err(gone)? {
            if (bytes.len() + piece.len()) as u64 > LARGEST_CHUNK {
                return Err(Trouble::Gone("it sent more than a chunk".to_owned()));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Answer::Chunk(Chunk { at, sum, bytes }))
    }
}

pub(super) fn gone(error: impl Into<anyhow::Error>) -> Trouble {
    Trouble::Gone(format!("{:#}", error.into()))
}
