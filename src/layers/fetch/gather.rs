//! Gathering the chunks of a blob from its home and from everybody around it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::fill::{Filling, Lost, put};
use crate::layers::blob::Refused;
use crate::layers::metrics::Source;
use crate::layers::swarm::Pick;
use crate::layers::swarm::lines::NewsStream;
use crate::layers::swarm::peers::{Answer, Chunk, Trouble};
use crate::layers::swarm::wire::News;

/// A chunk that takes longer is asked from the home as well.
const SLOW: Duration = Duration::from_secs(1);

/// Whoever had nothing to give is not asked again sooner.
const PAUSE: Duration = Duration::from_millis(200);

impl Filling {
    /// Hears the news of the swarm.
    pub(super) async fn listen(self, home: SocketAddr, mut news: NewsStream) -> Lost {
        let Some(peers) = &self.peers else {
            return Lost::All("there are no peers".to_owned());
        };
        loop {
            match news.next().await {
                Ok(News::Sums(sums)) => {
                    for (at, sum) in sums {
                        if let Ok(sum) = sum.parse() {
                            self.swarm.blob.learn(at, sum);
                        }
                    }
                    self.swarm.wake();
                }
                Ok(News::Placed(mut placed)) => {
                    placed.retain(|(_, holder)| *holder != peers.members.me().address);
                    self.swarm.placed(&placed);
                }
                Ok(News::Alive | News::Size(_)) => {}
                // What it vouched for may be wrong, and nobody can tell which part of it.
                Ok(News::Broken(why)) => {
                    self.fetches.avoid(home);
                    return Lost::All(why);
                }
                Ok(News::Miss(status, _)) => return Lost::Peer(format!("it answered {status}")),
                Err(trouble) => return Lost::Peer(trouble.to_string()),
            }
        }
    }

    /// Takes what the home gives.
    pub(super) async fn take(self, home: SocketAddr) -> Lost {
        let Some(peers) = &self.peers else {
            return Lost::All("there are no peers".to_owned());
        };
        loop {
            let (asked, coming) = (Instant::now(), self.swarm.coming());
            let comes = |at| self.swarm.comes(at);
            match peers.next(home, &self.ask.digest, &coming, comes).await {
                // It has given all that there is, and may yet have to give some of it again.
                Ok(None) if asked.elapsed() < PAUSE => tokio::time::sleep(PAUSE).await,
                Ok(None) => {}
                Ok(Some(chunk)) => {
                    if let Some(sum) = chunk.sum {
                        self.swarm.blob.learn(chunk.at, sum);
                    }
                    let at = chunk.at;
                    let put = self.put(home, Some(home), chunk).await;
                    self.swarm.settled(at, None);
                    if let Err(lost) = put {
                        return lost;
                    }
                }
                Err(trouble) => return Lost::Peer(trouble.to_string()),
            }
        }
    }

    /// Fetches what others have, and from the home what no other gives.
    pub(super) async fn fetch_placed(self, home: Option<SocketAddr>) -> Lost {
        let mut changes = self.swarm.changes();
        loop {
            changes.mark_unchanged();
            let Some(pick) = self.swarm.pick(home.is_some(), self.usable()) else {
                // The sender is as old as we are.
                let _ = changes.changed().await;
                continue;
            };
            let Some(first) = pick.holder.or(home) else {
                return Lost::All("there is nobody to ask".to_owned());
            };
            let (from, got) = self.fastest(pick, first, home).await;
            let taken = self.answered(pick.chunk, from, home, got).await;
            // Whoever was slower than the home counts as asked on: others are asked before it.
            let holder = pick.holder.filter(|holder| *holder == from);
            self.swarm.settled(pick.chunk, holder);
            if let Err(lost) = taken {
                return lost;
            }
        }
    }

    /// What comes from whom was picked or, if that takes long, from the home.
    async fn fastest(
        &self,
        pick: Pick,
        first: SocketAddr,
        home: Option<SocketAddr>,
    ) -> (SocketAddr, Result<Answer, Trouble>) {
        let only_you = pick.holder.is_none();
        let mut got = std::pin::pin!(self.ask(first, pick.chunk, only_you));
        let Some(home) = home.filter(|home| *home != first) else {
            return got.await;
        };
        if let Ok(got) = tokio::time::timeout(SLOW, &mut got).await {
            return got;
        }
        tokio::select! {
            got = &mut got => got,
            got = self.ask(home, pick.chunk, true) => got,
        }
    }

    async fn answered(
        &self,
        chunk: usize,
        from: SocketAddr,
        home: Option<SocketAddr>,
        got: Result<Answer, Trouble>,
    ) -> Result<(), Lost> {
        match got {
            Ok(Answer::Chunk(chunk)) => return self.put(from, home, chunk).await,
            Ok(Answer::Others(mut others)) => {
                let me = self.peers.as_ref().map(|peers| peers.members.me().address);
                others.retain(|other| Some(*other) != me);
                self.swarm.failed(chunk, from, &others);
            }
            Err(Trouble::Gone(why)) if Some(from) == home => return Err(Lost::Peer(why)),
            // It is on its way to the home, too.
            Ok(Answer::Nothing) | Err(Trouble::Miss(_)) if Some(from) == home => {}
            Ok(Answer::Nothing) | Err(Trouble::Miss(_)) => {
                self.swarm.failed(chunk, from, &[]);
            }
            Err(Trouble::Gone(_)) => {
                self.swarm.failed(chunk, from, &[]);
                self.fetches.avoid(from);
            }
        }
        Ok(())
    }

    async fn ask(
        &self,
        from: SocketAddr,
        chunk: usize,
        only_you: bool,
    ) -> (SocketAddr, Result<Answer, Trouble>) {
        let Some(peers) = &self.peers else {
            return (from, Ok(Answer::Nothing));
        };
        (
            from,
            peers.chunk(from, &self.ask.digest, chunk, only_you).await,
        )
    }

    async fn put(
        &self,
        from: SocketAddr,
        home: Option<SocketAddr>,
        chunk: Chunk,
    ) -> Result<(), Lost> {
        let at = chunk.at;
        self.fetches
            .metrics()
            .received(Source::Peer, chunk.bytes.len());
        match put(&self.swarm.blob, at, chunk.bytes).await {
            Ok(()) => Ok(()),
            Err(refused @ Refused::NotTheBlob(_)) => {
                // The home vouched for the sums; who wakes up now must not ask it again.
                if let Some(home) = home {
                    self.fetches.ban(home);
                }
                Err(Lost::All(refused.to_string()))
            }
            Err(Refused::Wrong(_)) => {
                self.swarm.failed(at, from, &[]);
                self.fetches.ban(from);
                if Some(from) == home {
                    return Err(Lost::Peer("it sent wrong bytes".to_owned()));
                }
                Ok(())
            }
            Err(refused @ Refused::Disk(_)) => Err(Lost::All(self.note(&refused).to_string())),
        }
    }

    /// Whether a holder may be asked, as of now.
    pub(super) fn usable(&self) -> impl Fn(SocketAddr) -> bool + use<> {
        let peers = self.peers.as_ref();
        let shunned = peers.map(|peers| peers.members.shunned());
        move |holder| {
            shunned
                .as_ref()
                .is_some_and(|not| !not.contains_key(&holder))
        }
    }
}
