//! The gossip (SWIM) of one node without its socket and its clock: what is heard goes in, what is to be sent comes out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use foca::{AccumulatingRuntime, Config, Foca, NoCustomBroadcast, PostcardCodec, Timer};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::Member;

/// How often a seed is asked again, so that a cluster that was split finds together.
const SEEDING: Duration = Duration::from_secs(10);
/// The same while a node knows nobody.
const LONELY: Duration = Duration::from_millis(500);
/// A seed is asked no more often than this by all nodes together, as its answer is long.
const BETWEEN: Duration = Duration::from_secs(2);
/// A node that knows nobody asks no more seeds at once.
const MOST_SEEDS: usize = 5;

/// What one node says and hears.
pub struct Protocol {
    me: SocketAddr,
    swim: Foca<Member, PostcardCodec, StdRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Member>,
    timers: BTreeMap<(Instant, u64), Timer<Member>>,
    turn: u64,
    rng: StdRng,
    changed: bool,
}

impl Protocol {
    /// A node that knows nobody.
    pub fn new(me: Member, mut rng: StdRng) -> Self {
        let size = NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN);
        let own = StdRng::seed_from_u64(rng.next_u64());
        Self {
            me: me.address,
            swim: Foca::new(me, Config::new_lan(size), rng, PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            turn: 0,
            rng: own,
            changed: false,
        }
    }

    /// When it wants to be woken next; not before it hears something, if nothing.
    pub fn next(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    /// Takes in what another node sent.
    pub fn hear(&mut self, packet: &[u8], now: Instant) {
        if let Err(error) = self.swim.handle_data(packet, &mut self.runtime) {
            tracing::debug!(%error, "heard gossip that makes no sense");
        }
        self.settle(now);
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Instant) {
        while let Some(first) = self.timers.first_entry() {
            if first.key().0 > now {
                break;
            }
            let timer = first.remove();
            if let Err(error) = self.swim.handle_timer(timer, &mut self.runtime) {
                tracing::debug!(%error, "a timer of the gossip makes no sense");
            }
            self.settle(now);
        }
    }

    /// Asks some of the seeds who is there: a few while it knows nobody, then one now and then, so that in a large
    /// cluster no seed is asked by all others at once. When they are to be asked again.
    pub fn seed(&mut self, mut seeds: Vec<SocketAddr>, now: Instant) -> Duration {
        seeds.retain(|seed| *seed != self.me);
        seeds.shuffle(&mut self.rng);
        let others = self.swim.num_members();
        let count = if others == 0 { MOST_SEEDS } else { 1 };
        for address in seeds.iter().take(count) {
            let seed = Member {
                address: *address,
                zone: String::new(),
                generation: 0,
            };
            if let Err(error) = self.swim.announce(seed, &mut self.runtime) {
                tracing::debug!(%address, %error, "a seed was not asked");
            }
            self.settle(now);
        }
        if others == 0 {
            return LONELY;
        }
        let each = u32::try_from(others / seeds.len().max(1)).unwrap_or(u32::MAX);
        SEEDING.max(BETWEEN.saturating_mul(each))
    }

    /// Tells some of the others that this node goes.
    pub fn leave(&mut self, now: Instant) -> Result<()> {
        let left = self.swim.leave_cluster(&mut self.runtime);
        self.settle(now);
        left.context("leaving the gossip")
    }

    /// The next packet that is to be sent, and where to.
    pub fn to_send(&mut self) -> Option<(SocketAddr, Bytes)> {
        let (to, packet) = self.runtime.to_send()?;
        Some((to.address, packet))
    }

    /// All others, if they are other ones than at the last call.
    pub fn news(&mut self) -> Option<Vec<Member>> {
        let members = self.swim.iter_members();
        std::mem::take(&mut self.changed)
            .then(|| members.map(|member| member.id().clone()).collect())
    }

    fn settle(&mut self, now: Instant) {
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.turn += 1;
            self.timers.insert((now + after, self.turn), timer);
        }
        while let Some(news) = self.runtime.to_notify() {
            tracing::debug!(?news, "gossip");
            self.changed = true;
        }
    }
}

#[cfg(test)]
#[path = "simulation.rs"]
mod simulation;
