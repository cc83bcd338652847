//! Filling a blob that is not here: from its home and everybody around it or, where this node is the home, from those
//! who hold it and from upstream; and from the next of them when one fails.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Fetches;
use super::connect::{Feed, MOST_HOMES};
use super::disk::blocking;
use crate::layers::blob::{Blob, Refused, Standing};
use crate::layers::metrics::Source;
use crate::layers::miss::Miss;
use crate::layers::swarm::Swarm;
use crate::layers::swarm::lines::NewsStream;
use crate::layers::swarm::peers::Peers;
use crate::layers::upstream::flow::{Ask, Flow};

/// Requests that wait for whatever the home gives, for each blob.
const TAKERS: usize = 2;
/// Requests for chunks that others have, for each blob.
const FETCHERS: usize = 6;
/// How long a new home waits to hear what the others have before it asks upstream.
const TAKEOVER: Duration = Duration::from_millis(300);

/// Why a blob does not come any more from where it came from.
pub(super) enum Lost {
    /// That node failed; another may do.
    Peer(String),
    /// Nobody will do.
    All(String),
}

/// One blob that is being filled.
#[derive(Clone)]
pub(super) struct Filling {
    pub(super) fetches: Arc<Fetches>,
    pub(super) peers: Option<Arc<Peers>>,
    pub(super) ask: Ask,
    pub(super) swarm: Arc<Swarm>,
}

/// Fills the blob of `swarm`, from `feed` first; why not, if it can not be had.
pub async fn fill(
    fetches: Arc<Fetches>,
    ask: Ask,
    swarm: Arc<Swarm>,
    mut feed: Feed,
) -> Result<(), String> {
    let mut filling = Filling {
        peers: fetches.peers().cloned(),
        fetches,
        ask,
        swarm,
    };
    for _ in 0..MOST_HOMES {
        filling.swarm.start_over();
        let (from, lost) = match feed {
            Feed::Peer(from, news) => (Some(from), filling.follow(from, news).await),
            Feed::Upstream(flow) => (None, filling.fetch_upstream(flow).await),
        };
        match (lost, from) {
            (Ok(()), _) => return Ok(()),
            (Err(Lost::Peer(why)), Some(from)) => filling.leave(from, &why),
            (Err(Lost::Peer(why) | Lost::All(why)), _) => return Err(why),
        }
        let next = filling
            .fetches
            .connect(&mut filling.ask, Some(&filling.swarm))
            .await;
        feed = next.map_err(|miss| miss.to_string())?.1;
    }
    Err("too many homes failed".to_owned())
}

impl Filling {
    /// From one home and all the others that it tells of, until the blob is whole.
    async fn follow(&self, home: SocketAddr, news: NewsStream) -> Result<(), Lost> {
        let mut workers = JoinSet::new();
        workers.spawn(self.clone().listen(home, news));
        for _ in 0..TAKERS {
            workers.spawn(self.clone().take(home));
        }
        for _ in 0..FETCHERS {
            workers.spawn(self.clone().fetch_placed(Some(home)));
        }
        tokio::select! {
            whole = self.swarm.blob.whole() => whole.map_err(|why| Lost::All(why.to_string())),
            Some(ended) = workers.join_next() => match ended {
                Ok(lost) => Err(lost),
                Err(panic) => Err(Lost::All(panic.to_string())),
            },
        }
    }

    /// From upstream what no peer has, and from those who offered it the rest.
    async fn fetch_upstream(&self, mut flow: Option<Flow>) -> Result<(), Lost> {
        let mut workers = JoinSet::new();
        if flow.is_none() {
            tokio::time::sleep(TAKEOVER).await;
            for _ in 0..FETCHERS {
                workers.spawn(self.clone().fetch_placed(None));
            }
        }
        loop {
            match self.swarm.blob.standing() {
                Standing::Whole => return Ok(()),
                Standing::Broken(why) => return Err(Lost::All(why.to_string())),
                Standing::Arriving => {}
            }
            if let Some(gap) = self.swarm.gap(self.usable()) {
                let poured = self.pour(gap, flow.take()).await;
                poured.map_err(Lost::All)?;
                continue;
            }
            let mut changes = self.swarm.changes();
            // A chunk that was asked for may fail, or its holder be banned: then there is a gap again.
            let _ = tokio::time::timeout(TAKEOVER, changes.changed()).await;
        }
    }

    /// The chunks of a gap from upstream, in order.
    async fn pour(&self, gap: Range<usize>, flow: Option<Flow>) -> Result<(), String> {
        let blob = &self.swarm.blob;
        let mut flow = match flow {
            Some(flow) => flow,
            None => self.open(&gap).await.map_err(|miss| miss.to_string())?,
        };
        let mut buffer = Vec::new();
        for at in gap {
            let span = blob.span(at);
            let len = usize::try_from(span.end - span.start).unwrap_or(usize::MAX);
            while buffer.len() < len {
                let Some(bytes) = flow.next().await.map_err(|miss| miss.to_string())? else {
                    return Err("upstream ended early".to_owned());
                };
                self.fetches
                    .metrics()
                    .received(Source::Upstream, bytes.len());
                buffer.extend_from_slice(&bytes);
            }
            let rest = buffer.split_off(len);
            let chunk = std::mem::replace(&mut buffer, rest);
            put(blob, at, chunk)
                .await
                .map_err(|refused| self.note(&refused).to_string())?;
        }
        Ok(())
    }

    async fn open(&self, gap: &Range<usize>) -> Result<Flow, Miss> {
        let blob = &self.swarm.blob;
        let start = blob.span(gap.start).start;
        let end = Some(blob.span(gap.end - 1).end).filter(|end| start > 0 || *end < blob.size());
        Flow::open(
            self.fetches.upstream().clone(),
            self.ask.clone(),
            start,
            end,
        )
        .await
    }

    /// Before anybody looks for another source, it must be known that none can be kept.
    pub(super) fn note<'a>(&self, refused: &'a Refused) -> &'a Refused {
        if let Refused::Disk(error) = refused {
            self.fetches.disk_failed(error);
        }
        refused
    }

    /// Turns away from a home, or holder, that failed.
    fn leave(&mut self, from: SocketAddr, why: &str) {
        self.ask.via.push(from);
        tracing::warn!(digest = %self.ask.digest, peer = %from, why, "lost a peer, others go on");
        self.fetches.holders().forget(from, &self.ask.digest);
        self.fetches.avoid(from);
    }
}

/// Puts a chunk in, off the threads that serve connections.
pub(in crate::layers) async fn put(
    blob: &Arc<Blob>,
    at: usize,
    bytes: Vec<u8>,
) -> Result<(), Refused> {
    let blob = blob.clone();
    blocking(move || blob.put(at, &bytes))
        .await
        .unwrap_or_else(|panic| Err(Refused::Disk(panic)))
}
