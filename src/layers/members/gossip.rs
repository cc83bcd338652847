//! Finding the members of the cluster: gossip over UDP, seeded by names that resolve to some of them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Members;
use super::protocol::Protocol;

/// The protocol and its socket.
struct Gossip {
    protocol: Protocol,
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
        let mut gossip = Gossip {
            protocol: Protocol::new(self.me().clone(), rand::make_rng()),
            socket,
            members: self,
        };
        let mut packet = vec![0; 1 << 16];
        let mut seeding = Instant::now();
        loop {
            let timer = gossip.protocol.next().unwrap_or(seeding);
            tokio::select! {
                () = shutdown.cancelled() => {
                    let left = gossip.protocol.leave(Instant::now());
                    gossip.act().await;
                    return left;
                }
                () = tokio::time::sleep_until(seeding) => {
                    let found = resolve(&seeds).await;
                    let now = Instant::now();
                    seeding = now + gossip.protocol.seed(found, now);
                }
                waited = gossip.members.keys.learned() => gossip.send(waited).await,
                () = tokio::time::sleep_until(timer) => gossip.protocol.wake(Instant::now()),
                received = gossip.socket.recv_from(&mut packet) => match received {
                    Ok((len, from)) => gossip.hear(&packet[..len], from),
                    Err(error) => tracing::debug!(%error, "a peer is not there to hear our gossip"),
                },
            }
            gossip.act().await;
        }
    }
}

impl Gossip {
    fn hear(&mut self, sealed: &[u8], from: SocketAddr) {
        if let Some(packet) = self.members.keys.open(sealed) {
            self.protocol.hear(packet, Instant::now());
        } else {
            tracing::debug!(%from, "heard gossip that is not sealed for this node, or once more");
        }
    }

    async fn send(&self, packets: Vec<(SocketAddr, impl AsRef<[u8]>)>) {
        for (to, packet) in packets {
            if let Some(sealed) = self.members.keys.seal(to, packet.as_ref()) {
                // The protocol expects losses.
                let _ = self.socket.send_to(&sealed, to).await;
            }
        }
    }

    /// Does what the protocol decided: sends, and tells who is there.
    async fn act(&mut self) {
        let packets: Vec<_> = std::iter::from_fn(|| self.protocol.to_send()).collect();
        self.send(packets).await;
        if let Some(known) = self.protocol.news() {
            tracing::info!(others = known.len(), "the cluster changed");
            self.members.heard.send_replace(known.into());
        }
    }
}

/// All addresses that the seeds stand for.
async fn resolve(seeds: &[String]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for seed in seeds {
        match tokio::net::lookup_host(seed).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => tracing::debug!(seed, %error, "a seed does not resolve"),
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layers::members::Member;
    use crate::layers::members::homes::Above;

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

        // What they wanted to say to each other waits for this.
        for one in [&first, &second, &third] {
            for other in [&first, &second, &third] {
                one.keys.learn(other.me().address, other.keys.hand_out());
            }
        }

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

    #[tokio::test]
    async fn gossip_that_is_played_again_is_not_heard() {
        let here = |port| Member::new(([127, 0, 0, 1], port).into(), String::new());
        let members = Members::alone(here(1));
        let mut gossip = Gossip {
            protocol: Protocol::new(here(1), rand::make_rng()),
            socket: UdpSocket::bind("127.0.0.1:0").await.expect("a port"),
            members: members.clone(),
        };
        let other = Members::alone(here(2));
        let mut protocol = Protocol::new(here(2), rand::make_rng());
        other
            .keys
            .learn(members.me().address, members.keys.hand_out());
        protocol.seed(vec![members.me().address], Instant::now());
        let (to, packet) = protocol.to_send().expect("it asks a seed");
        let sealed = other.keys.seal(to, &packet).expect("it has the key");

        gossip.hear(&sealed, other.me().address);
        let answers = std::iter::from_fn(|| gossip.protocol.to_send()).count();
        gossip.hear(&sealed, other.me().address);

        assert!(answers > 0);
        assert_eq!(gossip.protocol.to_send(), None);
    }
}
