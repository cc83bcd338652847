//! Finding the members of the cluster: gossip over UDP (SWIM), seeded by names that resolve to some of them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use foca::{AccumulatingRuntime, Config, Foca, NoCustomBroadcast, PostcardCodec, Timer};
use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Member, Members};

/// How often the seeds are asked again, so that a cluster that was split finds together.
const SEEDING: Duration = Duration::from_secs(10);
/// The same while a node knows nobody.
const LONELY: Duration = Duration::from_millis(500);
/// More addresses of the seeds than this are not asked.
const MOST_SEEDS: usize = 5;
type Swim = Foca<Member, PostcardCodec, StdRng, NoCustomBroadcast>;

/// The protocol, its timers and its socket.
struct Gossip {
    swim: Swim,
    runtime: AccumulatingRuntime<Member>,
    timers: BTreeMap<(Instant, u64), Timer<Member>>,
    turn: u64,
    socket: UdpSocket,
    members: Arc<Members>,
}

impl Members {
    /// Takes part in the gossip until `shutdown`, and then takes its leave.
    ///
    /// `seeds` are names or addresses with a port; each may stand for several members, as a headless service does.
    pub async fn gossip(
        self: Arc<Self>,
        socket: UdpSocket,
        seeds: Vec<String>,
        shutdown: CancellationToken,
    ) -> Result<()> {
        let mut gossip = Gossip::new(socket, self);
        let mut packet = vec![0; 1 << 16];
        let mut seeding = Instant::now();
        loop {
            let timer = gossip.timers.keys().next().map_or(seeding, |(at, _)| *at);
            tokio::select! {
                () = shutdown.cancelled() => return gossip.leave().await,
                () = tokio::time::sleep_until(seeding) => {
                    gossip.announce(&seeds).await;
                    let lonely = gossip.members.heard.borrow().is_empty();
                    seeding = Instant::now() + if lonely { LONELY } else { SEEDING };
                }
                () = tokio::time::sleep_until(timer) => gossip.fire().await,
                received = gossip.socket.recv_from(&mut packet) => match received {
                    Ok((len, _)) => gossip.hear(&packet[..len]).await,
                    Err(error) => tracing::debug!(%error, "a peer is not there to hear our gossip"),
                },
            }
        }
    }
}

impl Gossip {
    fn new(socket: UdpSocket, members: Arc<Members>) -> Self {
        let size = NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN);
        let swim = Foca::new(
            members.me().clone(),
            Config::new_lan(size),
            rand::make_rng(),
            PostcardCodec,
        );
        Self {
            swim,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            turn: 0,
            socket,
            members,
        }
    }

    async fn hear(&mut self, packet: &[u8]) {
        if let Err(error) = self.swim.handle_data(packet, &mut self.runtime) {
            tracing::debug!(%error, "heard gossip that makes no sense");
        }
        self.act().await;
    }

    async fn fire(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.timers.first_entry() {
            if first.key().0 > now {
                break;
            }
            let timer = first.remove();
            if let Err(error) = self.swim.handle_timer(timer, &mut self.runtime) {
                tracing::debug!(%error, "a timer of the gossip makes no sense");
            }
            self.act().await;
        }
    }

    async fn announce(&mut self, seeds: &[String]) {
        let mut found = Vec::new();
        for seed in seeds {
            match tokio::net::lookup_host(seed).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => tracing::debug!(seed, %error, "a seed does not resolve"),
            }
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|address| *address != self.members.me().address);
        for address in found.into_iter().take(MOST_SEEDS) {
            let seed = Member {
                address,
                zone: String::new(),
                generation: 0,
            };
            if let Err(error) = self.swim.announce(seed, &mut self.runtime) {
                tracing::debug!(%address, %error, "a seed was not asked");
            }
            self.act().await;
        }
    }

    async fn leave(mut self) -> Result<()> {
        let left = self.swim.leave_cluster(&mut self.runtime);
        self.act().await;
        left.context("leaving the gossip")
    }

    /// Does what the protocol decided: sends, sets timers, tells who is there.
    async fn act(&mut self) {
        while let Some((to, packet)) = self.runtime.to_send() {
            // The protocol expects losses.
            let _ = self.socket.send_to(&packet, to.address).await;
        }
        let now = Instant::now();
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.turn += 1;
            self.timers.insert((now + after, self.turn), timer);
        }
        let mut changed = false;
        while let Some(news) = self.runtime.to_notify() {
            tracing::debug!(?news, "gossip");
            changed = true;
        }
        if changed {
            let known: Vec<Member> = self
                .swim
                .iter_members()
                .map(|member| member.id().clone())
                .collect();
            tracing::info!(others = known.len(), "the cluster changed");
            self.members.heard.send_replace(known.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::homes::Above;
    use super::*;

    async fn node(seeds: &[String], shutdown: &CancellationToken) -> Arc<Members> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("it is bound");
        let members = Members::alone(Member::new(address, String::new()));
        tokio::spawn(
            members
                .clone()
                .gossip(socket, seeds.to_vec(), shutdown.clone()),
        );
        let (believing, mut heard) = (members.clone(), members.heard());
        tokio::spawn(async move {
            while heard.changed().await.is_ok() {
                believing.believe(heard.borrow_and_update().clone());
            }
        });
        members
    }

    async fn sees(members: &Members, others: usize) {
        let mut known = members.others();
        let seen = known.wait_for(|known| known.len() == others);
        let limit = Duration::from_secs(20);
        let seen = tokio::time::timeout(limit, seen).await;
        seen.expect("it sees them in time")
            .expect("the sender is there");
    }

    #[tokio::test]
    async fn nodes_find_each_other_and_agree_on_homes_and_notice_who_leaves() {
        let shutdown = CancellationToken::new();
        let first = node(&[], &shutdown).await;
        let seeds = [first.me().address.to_string()];
        let second = node(&seeds, &shutdown).await;
        let leaving = CancellationToken::new();
        let third = node(&seeds, &leaving).await;

        for node in [&first, &second, &third] {
            sees(node, 2).await;
        }
        for seed in (1..50).map(|at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let homes = [&first, &second, &third].map(|node| match node.above(seed) {
                Above::Peer(home) => home.address,
                Above::Upstream => node.me().address,
            });
            assert!(homes[0] == homes[1] && homes[1] == homes[2], "{homes:?}");
        }
        leaving.cancel();

        sees(&first, 1).await;
        sees(&second, 1).await;
        shutdown.cancel();
    }
}
