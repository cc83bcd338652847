//! Bad lines to a peer: slow, silent, or cut between two halves of the cluster. None of them costs an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::cache::{Doors, blob};
use crate::cluster::Cluster;
use crate::noise::noise;
use crate::upstream::Upstream;

const MIB: usize = 1 << 20;

/// What the line to a node lets through.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Line {
    Open,
    /// So many bytes a second of each connection.
    Slow(u32),
    /// It is accepted, and nothing comes.
    Silent,
    /// What is open breaks, and nothing new is accepted.
    Cut,
}

/// The line to a node.
struct LineTo {
    told: watch::Sender<Line>,
    /// How many bytes came to it while it was not open.
    tried: Arc<AtomicUsize>,
}

impl LineTo {
    fn become_now(&self, line: Line) {
        self.told.send_replace(line);
    }

    fn was_tried(&self) -> bool {
        self.tried.load(Ordering::Relaxed) > 0
    }
}

/// A cluster of as many nodes as there are lines; what is told to a line holds from then on.
async fn cluster_behind(upstream: &Upstream, count: usize) -> (Cluster, Vec<LineTo>) {
    let mut cluster = Cluster::of(upstream, 0).await;
    let mut lines = Vec::new();
    for _ in 0..count {
        let (front, inner) = (Doors::new(), Doors::new());
        let (told, line) = watch::channel(Line::Open);
        let tried = Arc::default();
        tokio::spawn(relay(
            front.chunks,
            inner.address(),
            line,
            Arc::clone(&tried),
        ));
        let doors = Doors {
            chunks: inner.chunks,
            gossip: front.gossip,
        };
        cluster.add(upstream, "", doors).await;
        lines.push(LineTo { told, tried });
    }
    cluster.meet().await;
    (cluster, lines)
}

async fn relay(
    front: std::net::TcpListener,
    inner: SocketAddr,
    line: watch::Receiver<Line>,
    tried: Arc<AtomicUsize>,
) {
    front.set_nonblocking(true).expect("it is a socket");
    let front = TcpListener::from_std(front).expect("it is a socket");
    while let Ok((outside, _)) = front.accept().await {
        if *line.borrow() == Line::Cut {
            tried.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let Ok(inside) = TcpStream::connect(inner).await else {
            continue;
        };
        let (from_outside, to_outside) = outside.into_split();
        let (from_inside, to_inside) = inside.into_split();
        tokio::spawn(pass(
            from_outside,
            to_inside,
            line.clone(),
            Arc::clone(&tried),
        ));
        tokio::spawn(pass(from_inside, to_outside, line.clone(), Arc::default()));
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut line: watch::Receiver<Line>,
    tried: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let is = *line.borrow();
        if is != Line::Open {
            tried.fetch_add(read, Ordering::Relaxed);
        }
        match is {
            Line::Open => {}
            Line::Slow(rate) => {
                let pause = Duration::from_secs(1) * u32::try_from(read).expect("a buffer");
                tokio::time::sleep(pause / rate).await;
            }
            Line::Silent => {
                let _ = line.wait_for(|line| *line != Line::Silent).await;
            }
            Line::Cut => return,
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// A layer whose home is none of these.
fn layer(upstream: &Upstream, cluster: &Cluster, homes: &[usize]) -> (Vec<u8>, String) {
    let mut layers = (0..100).map(|seed| noise(seed, 8 * MIB));
    let found = layers.find_map(|layer| {
        let digest = upstream.blob("a/b", &layer);
        (!homes.contains(&cluster.home(&digest))).then_some((layer, digest))
    });
    found.expect("one of a hundred")
}

#[tokio::test]
async fn a_peer_on_a_slow_line_holds_up_nobody() {
    // One of its chunks alone takes a second, a whole layer eight.
    costs_little(Line::Slow(128 << 10)).await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_soon_left() {
    costs_little(Line::Silent).await;
}

/// Layers that two nodes have, of which one is on such a line, are pulled by others until it was asked, too.
async fn costs_little(line: Line) {
    let upstream = Upstream::start().await;
    let (cluster, lines) = cluster_behind(&upstream, 4).await;
    let layers: Vec<_> = (0..40).map(|seed| noise(seed, MIB)).collect();
    let digests: Vec<_> = layers
        .iter()
        .map(|layer| upstream.blob("a/b", layer))
        .collect();
    for digest in &digests {
        for node in [2, 3] {
            cluster.nodes[node].get(&blob(digest)).await;
            cluster.nodes[node].kept(digest).await;
        }
    }
    lines[3].become_now(line);

    for (digest, layer) in digests.iter().zip(&layers) {
        let begun = Instant::now();
        let seen = cluster.all_get(&[0, 1], &blob(digest)).await;

        assert!(seen.iter().all(|seen| seen.bytes() == *layer));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(6), "{took:?}");
        if lines[3].was_tried() {
            return;
        }
    }
    panic!("it was never asked");
}

/// Only what carries blobs is cut; that they still hear of each other makes it harder.
#[tokio::test]
async fn two_halves_that_can_not_reach_each_other_need_two_copies_at_most_and_heal() {
    let upstream = Upstream::start().await;
    let (cluster, lines) = cluster_behind(&upstream, 4).await;
    let (first, digest) = layer(&upstream, &cluster, &[2, 3]);
    for line in &lines[..2] {
        line.become_now(Line::Cut);
    }

    // Those of the other half can not reach its home, nor anybody of its half.
    let seen = cluster.all_get(&[2, 3], &blob(&digest)).await;

    assert!(seen.iter().all(|seen| seen.bytes() == first));
    assert!(lines[..2].iter().any(LineTo::was_tried));
    assert!(
        upstream.sent() <= 2 * first.len() as u64,
        "{}",
        upstream.sent()
    );
    for line in &lines {
        line.become_now(Line::Open);
    }
    let (second, digest) = layer(&upstream, &cluster, &[0, 1]);
    let before = upstream.sent();
    let seen = cluster.all_get(&[0, 1, 2, 3], &blob(&digest)).await;
    assert!(seen.iter().all(|seen| seen.bytes() == second));
    let more = upstream.sent() - before;
    assert!(more <= 2 * second.len() as u64, "{more}");
}
