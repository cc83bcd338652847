//! Several caches that know each other, on loopback.

use std::net::SocketAddr;
use std::path::PathBuf;

use orlop::layers::members::Member;
use orlop::layers::members::homes::{Above, above};
use tempfile::TempDir;

use crate::authority::Authority;
use crate::cache::{Cache, Doors, Seen, eventually, settings};
use crate::upstream::Upstream;

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Cache>,
    addresses: Vec<SocketAddr>,
    zones: Vec<String>,
    folders: Vec<TempDir>,
    authority: Option<Authority>,
    mib_per_second: Option<u64>,
    /// The runtime of all nodes that come from now on.
    pub(crate) containerd: Option<PathBuf>,
}

impl Cluster {
    /// `count` caches that have found each other.
    pub(crate) async fn of(upstream: &Upstream, count: usize) -> Self {
        Self::in_zones(upstream, &vec![""; count]).await
    }

    /// The same, of which each sends so much to others in a second.
    pub(crate) async fn sending(upstream: &Upstream, count: usize, mib_per_second: u64) -> Self {
        let mut cluster = Self::of(upstream, 0).await;
        cluster.mib_per_second = Some(mib_per_second);
        for _ in 0..count {
            cluster.add(upstream, "", Doors::new()).await;
        }
        cluster.meet().await;
        cluster
    }

    /// One cache in each of these zones, which may repeat.
    pub(crate) async fn in_zones(upstream: &Upstream, zones: &[&str]) -> Self {
        Self::known_to(None, upstream, zones).await
    }

    /// The same, each with a certificate of this authority.
    pub(crate) async fn known_to(
        authority: Option<Authority>,
        upstream: &Upstream,
        zones: &[&str],
    ) -> Self {
        let mut cluster = Self {
            authority,
            mib_per_second: None,
            containerd: None,
            nodes: Vec::new(),
            addresses: Vec::new(),
            zones: Vec::new(),
            folders: Vec::new(),
        };
        for zone in zones {
            cluster.add(upstream, zone, Doors::new()).await;
        }
        cluster.meet().await;
        cluster
    }

    /// One more, which the others have yet to meet.
    pub(crate) async fn add(&mut self, upstream: &Upstream, zone: &str, doors: Doors) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut settings = settings(upstream, folder.path().to_owned());
        settings.seeds = self.addresses.iter().map(SocketAddr::to_string).collect();
        // Rights are a matter of each node alone, and of other tests.
        settings.anyone = true;
        settings.peers_mib_per_second = self.mib_per_second;
        zone.clone_into(&mut settings.zone);
        settings.containerd = self.containerd.clone();
        let name = format!("n{}.node.orlop.dev", self.nodes.len());
        let authority = self.authority.as_ref();
        settings.certificates = authority.map(|authority| authority.sign(&name, folder.path()));
        settings.advertise = Some(doors.address());
        self.addresses.push(doors.address());
        self.zones.push(zone.to_owned());
        self.folders.push(folder);
        self.nodes.push(Cache::behind(settings, Some(doors)).await);
    }

    /// Where a node serves the others.
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.addresses[node]
    }

    /// Waits until everybody knows everybody.
    #[expect(clippy::cast_precision_loss, reason = "a cluster on loopback is small")]
    pub(crate) async fn meet(&self) {
        let others = self.nodes.len().saturating_sub(1) as f64;
        eventually(|| {
            let mut peers = self.nodes.iter().map(|node| node.metric("layers_peers"));
            peers.all(|peers| peers == Some(others))
        })
        .await;
    }

    /// Which node is the home of a digest.
    pub(crate) fn home(&self, digest: &str) -> usize {
        let member = |(address, zone): (&SocketAddr, &String)| Member {
            address: *address,
            zone: zone.clone(),
            generation: 0,
        };
        let members: Vec<_> = self.addresses.iter().zip(&self.zones).map(member).collect();
        let seed = digest
            .parse::<orlop::layers::image::digest::Digest>()
            .expect("a digest")
            .seed();
        let mut at = members[0].clone();
        while let Above::Peer(next) = above(seed, &at, &members) {
            at = next;
        }
        let home = self
            .addresses
            .iter()
            .position(|address| *address == at.address);
        home.expect("it is one of them")
    }

    /// Makes sure that these bytes came from upstream once, for all nodes.
    ///
    /// A node that takes another for dead is right to go there, too, and on a machine that stands still for seconds it
    /// does: then this says so, and no more.
    pub(crate) fn fetched_once(&self, upstream: &Upstream, bytes: &[u8]) {
        let silences = |node: &Cache| node.metric("layers_silences_total");
        if self.nodes.iter().any(|node| silences(node) != Some(0.0)) {
            eprintln!(
                "SKIPPED: whether one fetch is shared, because nodes took each other for dead: free this machine"
            );
            return;
        }
        assert_eq!(upstream.asked(&["GET", "/blobs/"]).len(), 1);
        assert_eq!(upstream.sent(), bytes.len() as u64);
    }

    /// What these nodes answer to the same request at the same time.
    pub(crate) async fn all_get(&self, nodes: &[usize], path: &str) -> Vec<Seen> {
        let answers = nodes.iter().map(|at| {
            let answer = self.nodes[*at].begin("GET", path, &[]);
            async move { Seen::of(answer.await).await }
        });
        join_all(answers).await
    }
}

/// Waits for several answers at once.
pub(crate) async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, done) in waiting.iter_mut().filter(|(_, done)| done.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *done = Some(value),
                std::task::Poll::Pending => pending = true,
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}
