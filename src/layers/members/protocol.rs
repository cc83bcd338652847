//! The gossip (SWIM) of one node without its socket and its clock: what is heard goes in, what is to be sent comes out.

use std::collections::{BTreeMap, HashSet};
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

/// How soon a node that is silent counts as gone: as in a cluster of this size, whatever its own, as a home that does
/// not answer is passed over in the meantime.
const SUSPECTED_AS_OF: NonZeroU32 = NonZeroU32::new(64).unwrap();
/// How often a piece of news is passed on: as in a cluster of this size, the largest there may be. Of N nodes that each
/// tell it to k others, about N/eᵏ do not hear it, so what is enough for a small one leaves some out in a large one.
const TOLD_AS_IN: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
/// How often a seed is asked again, so that a cluster that was split finds together.
const SEEDING: Duration = Duration::from_secs(10);
/// The same while a node knows nobody.
const LONELY: Duration = Duration::from_millis(500);
/// A seed is asked no more often than this by all nodes together, as its answer is long.
const BETWEEN: Duration = Duration::from_secs(2);
/// How many seeds of which nothing is known are asked at once.
const AT_ONCE: usize = 5;
/// How long it is until the next of them are.
const PAUSE: Duration = Duration::from_millis(200);

/// What one node says and hears.
pub struct Protocol {
    me: SocketAddr,
    swim: Foca<Member, PostcardCodec, StdRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Member>,
    timers: BTreeMap<(Instant, u64), Timer<Member>>,
    turn: u64,
    /// Seeds of which nothing is known yet, and when the next of them are asked.
    strangers: Vec<SocketAddr>,
    strange: Option<Instant>,
    rng: StdRng,
    changed: bool,
}

impl Protocol {
    /// A node that knows nobody.
    pub fn new(me: Member, mut rng: StdRng) -> Self {
        let config = Config {
            max_transmissions: Config::new_lan(TOLD_AS_IN).max_transmissions,
            ..Config::new_lan(SUSPECTED_AS_OF)
        };
        let own = StdRng::seed_from_u64(rng.next_u64());
        Self {
            me: me.address,
            swim: Foca::new(me, config, rng, PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            turn: 0,
            strangers: Vec::new(),
            strange: None,
            rng: own,
            changed: false,
        }
    }

    /// When it wants to be woken next; not before it hears something, if nothing.
    pub fn next(&self) -> Option<Instant> {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        timer.into_iter().chain(self.strange).min()
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
        if self.strange.is_some_and(|at| at <= now) {
            self.meet(now);
        }
    }

    /// Asks one of the seeds who is there, so that a cluster that was split finds together, and, a few at a time, all of
    /// which nothing is known: an answer names no more members than a packet holds. When they are to be asked again; in
    /// a large cluster no seed is asked by all others at once.
    pub fn seed(&mut self, mut seeds: Vec<SocketAddr>, now: Instant) -> Duration {
        seeds.retain(|seed| *seed != self.me);
        seeds.shuffle(&mut self.rng);
        let count = seeds.len().max(1);
        if let Some(seed) = seeds.pop() {
            self.ask(seed, now);
        }
        self.strangers = seeds;
        self.meet(now);
        let others = self.swim.num_members();
        if others == 0 {
            return LONELY;
        }
        let each = u32::try_from(others / count).unwrap_or(u32::MAX);
        SEEDING.max(BETWEEN.saturating_mul(each))
    }

    /// Asks the next of those of which nothing is known.
    fn meet(&mut self, now: Instant) {
        let known = self.swim.iter_membership_state();
        let known: HashSet<_> = known.map(|member| member.id().address).collect();
        self.strangers.retain(|stranger| !known.contains(stranger));
        let rest = self.strangers.len().saturating_sub(AT_ONCE);
        for stranger in self.strangers.split_off(rest) {
            self.ask(stranger, now);
        }
        self.strange = (rest > 0).then(|| now + PAUSE);
    }

    fn ask(&mut self, address: SocketAddr, now: Instant) {
        let seed = Member {
            address,
            zone: String::new(),
            generation: 0,
        };
        if let Err(error) = self.swim.announce(seed, &mut self.runtime) {
            tracing::debug!(%address, %error, "a seed was not asked");
        }
        self.settle(now);
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
