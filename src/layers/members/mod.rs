//! Who is in the cluster, and who of them is not to be asked just now.

pub mod gossip;
pub mod homes;
pub mod keys;
pub mod protocol;
pub mod prove;
pub mod trust;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foca::Identity;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use self::homes::{Above, above, homes};
use self::keys::Keys;

/// How long a member that did not answer is not asked, whatever the gossip says.
const AVOIDED: Duration = Duration::from_secs(10);
/// How long a member that sent a wrong byte is not asked.
const BANNED: Duration = Duration::from_mins(10);

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Where it serves its peers: TCP for chunks, UDP for gossip.
    pub address: SocketAddr,
    /// The zone that it lies in; empty if zones do not matter.
    pub zone: String,
    /// Grows with each start, so that a node which comes back is told from its past self.
    pub generation: u64,
}

/// The cluster as this node sees it.
#[derive(Debug)]
pub struct Members {
    me: Member,
    /// Those that the gossip tells of.
    pub(super) heard: watch::Sender<Arc<[Member]>>,
    /// Those of them who proved to be what the gossip says.
    known: watch::Sender<Arc<[Member]>>,
    shunned: Mutex<HashMap<SocketAddr, Instant>>,
    /// What the gossip is sealed with.
    pub keys: Keys,
}

impl Member {
    /// This node, started now.
    pub fn new(address: SocketAddr, zone: String) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let generation = now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        Self {
            address,
            zone,
            generation,
        }
    }
}

impl Identity for Member {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        let next = Self::new(self.address, self.zone.clone()).generation;
        Some(Self {
            generation: next.max(self.generation + 1),
            ..self.clone()
        })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}

impl Members {
    /// A cluster of which only this node is known.
    pub fn alone(me: Member) -> Arc<Self> {
        Arc::new(Self {
            me,
            heard: watch::Sender::new(Arc::new([])),
            known: watch::Sender::new(Arc::new([])),
            shunned: Mutex::default(),
            keys: Keys::default(),
        })
    }

    /// This node.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// The other nodes that the gossip tells of, whoever they are.
    pub fn heard(&self) -> watch::Receiver<Arc<[Member]>> {
        self.heard.subscribe()
    }

    /// These are the other nodes.
    pub fn believe(&self, members: Arc<[Member]>) {
        self.known.send_if_modified(|known| {
            let changed = **known != *members;
            *known = members;
            changed
        });
    }

    /// The other nodes.
    pub fn others(&self) -> watch::Receiver<Arc<[Member]>> {
        self.known.subscribe()
    }

    /// Whom this node asks for what hashes to `seed`. Members that did not answer lately, or that sent wrong bytes,
    /// are passed over.
    pub fn above(&self, seed: u64) -> Above {
        let known = self.known.borrow().clone();
        let usable: Vec<Member> = known
            .iter()
            .filter(|member| !self.shuns(member.address))
            .cloned()
            .collect();
        above(seed, &self.me, &usable)
    }

    /// The homes of what hashes to `seed`, in this zone and of all zones, without this node.
    pub fn homes(&self, seed: u64) -> Vec<Member> {
        homes(seed, &self.me, &self.known.borrow())
    }

    /// For how long yet each member is not asked that is shunned.
    pub fn shunned(&self) -> HashMap<SocketAddr, Duration> {
        let shunned = self.shunned.lock();
        let now = Instant::now();
        let left = shunned.iter();
        let left = left.map(|(address, until)| (*address, until.saturating_duration_since(now)));
        left.filter(|(_, left)| !left.is_zero()).collect()
    }

    /// Whether a member is not to be asked.
    pub fn shuns(&self, address: SocketAddr) -> bool {
        let shunned = self.shunned.lock();
        shunned
            .get(&address)
            .is_some_and(|until| *until > Instant::now())
    }

    /// Does not ask a member for a while, because it did not answer.
    pub fn avoid(&self, address: SocketAddr) {
        tracing::warn!(peer = %address, "a peer does not answer, others are asked for a while");
        self.shun(address, AVOIDED);
    }

    /// Does not ask a member for long, because it sent a wrong byte.
    pub fn ban(&self, address: SocketAddr) {
        tracing::error!(peer = %address, "a peer sent wrong bytes, and is banned");
        self.shun(address, BANNED);
    }

    fn shun(&self, address: SocketAddr, time: Duration) {
        let until = Instant::now() + time;
        let mut shunned = self.shunned.lock();
        shunned.retain(|_, until| *until > Instant::now());
        let longest = shunned.entry(address).or_insert(until);
        *longest = until.max(*longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shunned_member_is_nobodys_home() {
        let me = Member::new(([127, 0, 0, 1], 1).into(), String::new());
        let members = Members::alone(me);
        let other = Member::new(([127, 0, 0, 1], 2).into(), String::new());
        members.believe([other.clone()].into());
        let seed = (0..1000).find(|seed| members.above(*seed) != Above::Upstream);
        let seed = seed.expect("one of them");

        members.avoid(other.address);

        assert_eq!(members.above(seed), Above::Upstream);
    }
}
