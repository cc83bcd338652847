//! Finding who has a blob that is not here: its home, whoever holds it, or upstream.

use std::net::SocketAddr;

use super::Fetches;
use crate::layers::members::homes::Above;
use crate::layers::miss::Miss;
use crate::layers::swarm::Swarm;
use crate::layers::swarm::lines::NewsStream;
use crate::layers::swarm::peers::{Peers, Trouble};
use crate::layers::upstream::flow::{Ask, Flow};

/// How many homes may fail, one after the other.
pub const MOST_HOMES: usize = 5;

/// Where a blob comes from.
#[derive(Debug)]
pub enum Feed {
    /// Another node, which tells the news of the swarm.
    Peer(SocketAddr, NewsStream),
    /// The registry, perhaps already answering.
    Upstream(Option<Flow>),
}

impl Fetches {
    /// Finds who has the blob of `ask` or, with nobody, asks upstream; its length, if that is known already.
    ///
    /// A node that does not answer is added to those who are not asked again.
    pub async fn connect(
        &self,
        ask: &mut Ask,
        swarm: Option<&Swarm>,
    ) -> Result<(Option<u64>, Feed), Miss> {
        if let Some(peers) = self.peers() {
            for _ in 0..MOST_HOMES {
                let above = peers.members.above(ask.digest.seed());
                let (from, here_only) = match above {
                    Above::Peer(home) if !ask.via.contains(&home.address) => (home.address, false),
                    _ => match self.holder(peers, ask) {
                        Some(holder) => (holder, true),
                        None => break,
                    },
                };
                let offer = swarm.map(|swarm| swarm.offer(peers.members.me().address));
                match peers.join(from, ask, here_only, offer).await {
                    Ok((size, news)) => return Ok((Some(size), Feed::Peer(from, news))),
                    Err(_) if here_only => self.holders().forget(from, &ask.digest),
                    Err(Trouble::Gone(why)) => {
                        tracing::warn!(peer = %from, why, "a home does not answer");
                        self.avoid(from);
                        ask.via.push(from);
                    }
                    // The home asked without the client's credentials, or can not keep the blob: we can do better.
                    Err(Trouble::Miss(Miss::Challenge(_) | Miss::Denied))
                        if ask.authorization.is_some() =>
                    {
                        break;
                    }
                    Err(Trouble::Miss(Miss::NoRoom)) => break,
                    Err(Trouble::Miss(miss)) => return Err(miss),
                }
            }
        }
        if swarm.is_some() || ask.offer.is_some() {
            return Ok((
                ask.offer.as_ref().map(|offer| offer.size),
                Feed::Upstream(None),
            ));
        }
        let flow = Flow::open(self.upstream().clone(), ask.clone(), 0, None).await?;
        Ok((flow.size(), Feed::Upstream(Some(flow))))
    }

    fn holder(&self, peers: &Peers, ask: &Ask) -> Option<SocketAddr> {
        let mut holders = self.holders().of(&ask.digest).into_iter();
        holders.find(|holder| !ask.via.contains(holder) && !peers.members.shuns(*holder))
    }
}
