//! What several caches do together: one fetch from upstream, and nobody notices who fails.

use std::time::{Duration, Instant};

use crate::cache::{Doors, Seen, blob, eventually};
use crate::cluster::{Cluster, join_all};
use crate::noise::noise;
use crate::upstream::{Fault, Upstream};

const MIB: usize = 1 << 20;
const FROM_PEERS: &str = "layers_received_bytes_total{source=\"peer\"}";
const TO_PEERS: &str = "layers_sent_bytes_total{sink=\"peer\"}";

#[tokio::test]
async fn nodes_that_ask_together_share_one_fetch() {
    let upstream = Upstream::start().await;
    let layer = noise(1, 16 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let cluster = Cluster::of(&upstream, 5).await;

    let seen = cluster.all_get(&[0, 1, 2, 3, 4], &blob(&digest)).await;

    assert!(seen.iter().all(|seen| seen.bytes() == layer));
    cluster.fetched_once(&upstream, &layer);
}

#[tokio::test]
async fn what_one_node_holds_is_had_without_upstream() {
    let upstream = Upstream::start().await;
    let layers: Vec<_> = (0..6).map(|seed| noise(seed, MIB + 7)).collect();
    let digests: Vec<_> = layers
        .iter()
        .map(|layer| upstream.blob("a/b", layer))
        .collect();
    let mut cluster = Cluster::of(&upstream, 1).await;
    for digest in &digests {
        cluster.nodes[0].get(&blob(digest)).await;
        cluster.nodes[0].kept(digest).await;
    }
    let sent = upstream.sent();
    upstream.fail(
        "/v2/",
        usize::MAX,
        Fault::Status(500, "x-test", "down".to_owned()),
    );
    for _ in 0..3 {
        cluster.add(&upstream, "", Doors::new()).await;
    }
    cluster.meet().await;

    for (digest, layer) in digests.iter().zip(&layers) {
        for node in [1, 2, 3] {
            // The holder tells the homes as soon as it knows of them.
            let mut seen = cluster.nodes[node].get(&blob(digest)).await;
            let limit = Instant::now() + Duration::from_secs(20);
            while seen.status != 200 && Instant::now() < limit {
                seen = cluster.nodes[node].get(&blob(digest)).await;
            }
            assert!(seen.bytes() == layer, "{}", seen.status);
        }
    }
    assert_eq!(upstream.sent(), sent);
}

#[tokio::test]
#[expect(clippy::cast_precision_loss, reason = "a layer of a test is small")]
async fn what_one_node_holds_leaves_it_few_times_however_many_pull() {
    let upstream = Upstream::start().await;
    let layer = noise(7, 8 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let cluster = Cluster::sending(&upstream, 7, 8).await;
    let home = cluster.home(&digest);
    let holder = (home + 1) % 7;
    cluster.nodes[holder].get(&blob(&digest)).await;
    let sent = |at: usize| cluster.nodes[at].metric(TO_PEERS).unwrap_or_default();
    let before = [holder, home].map(sent);
    let rest: Vec<usize> = (0..7).filter(|at| ![home, holder].contains(at)).collect();

    let seen = cluster.all_get(&rest, &blob(&digest)).await;

    assert!(seen.iter().all(|seen| seen.bytes() == layer));
    for (node, before) in [holder, home].into_iter().zip(before) {
        let times = (sent(node) - before) / layer.len() as f64;
        assert!(times < 1.5, "{times} times");
    }
}

#[tokio::test]
#[expect(clippy::cast_precision_loss, reason = "a layer of a test is small")]
async fn a_killed_home_is_replaced_inside_the_answer() {
    let upstream = Upstream::start().await;
    let layer = noise(2, 16 * MIB);
    let digest = upstream.blob("a/b", &layer);
    upstream.fail("/blobs/", 1, Fault::StopAt(8 * MIB));
    let mut cluster = Cluster::of(&upstream, 4).await;
    let home = cluster.home(&digest);
    let others: Vec<usize> = (0..4).filter(|at| *at != home).collect();
    let mut answers = Vec::new();
    for at in &others {
        answers.push(cluster.nodes[*at].begin("GET", &blob(&digest), &[]).await);
    }
    eventually(|| {
        let mut others = others
            .iter()
            .map(|at| cluster.nodes[*at].metric(FROM_PEERS));
        others.all(|bytes| bytes >= Some(7.0 * MIB as f64))
    })
    .await;

    cluster.nodes[home].kill();
    let started = Instant::now();
    let seen = join_all(answers.into_iter().map(Seen::of)).await;

    assert!(seen.iter().all(|seen| seen.bytes() == layer));
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    // What the others had, and gave each other, was not fetched again.
    let twice = upstream.sent() - layer.len() as u64;
    assert!(twice <= 2 * MIB as u64, "{twice}");
}

#[tokio::test]
async fn a_killed_peer_is_replaced_inside_the_answer() {
    let upstream = Upstream::start().await;
    let layer = noise(3, 16 * MIB);
    let digest = upstream.blob("a/b", &layer);
    upstream.fail("/blobs/", 1, Fault::StopAt(8 * MIB));
    let mut cluster = Cluster::of(&upstream, 4).await;
    let home = cluster.home(&digest);
    let others: Vec<usize> = (0..4).filter(|at| *at != home).collect();
    let mut answers = Vec::new();
    for at in &others {
        answers.push(cluster.nodes[*at].begin("GET", &blob(&digest), &[]).await);
    }
    eventually(|| upstream.sent() >= 7 * MIB as u64).await;

    cluster.nodes[others[0]].kill();
    upstream.open_gate();
    let answers = answers.into_iter().skip(1);
    let seen = join_all(answers.map(Seen::of)).await;

    assert!(seen.iter().all(|seen| seen.bytes() == layer));
    assert_eq!(upstream.sent(), layer.len() as u64);
}

#[tokio::test]
async fn a_frozen_home_costs_little() {
    let upstream = Upstream::start().await;
    let layer = noise(4, 16 * MIB);
    let digest = upstream.blob("a/b", &layer);
    upstream.fail("/blobs/", 1, Fault::StopAt(8 * MIB));
    let cluster = Cluster::of(&upstream, 3).await;
    let home = cluster.home(&digest);
    let other = (home + 1) % 3;
    let answer = cluster.nodes[other].begin("GET", &blob(&digest), &[]).await;

    cluster.nodes[home].freeze(Duration::from_secs(10));
    let started = Instant::now();
    let seen = Seen::of(answer).await;

    assert!(seen.bytes() == layer);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_blob_crosses_the_border_of_a_zone_once() {
    let upstream = Upstream::start().await;
    let layer = noise(5, 8 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let cluster =
        Cluster::in_zones(&upstream, &["east", "east", "east", "west", "west", "west"]).await;

    let seen = cluster.all_get(&[0, 1, 2, 3, 4, 5], &blob(&digest)).await;

    assert!(seen.iter().all(|seen| seen.bytes() == layer));
    cluster.fetched_once(&upstream, &layer);
}

#[tokio::test]
async fn what_upstream_does_not_have_is_not_found_anywhere() {
    let upstream = Upstream::start().await;
    let cluster = Cluster::of(&upstream, 3).await;
    let path = blob(&format!("sha256:{}", "0".repeat(64)));

    let seen = cluster.all_get(&[0, 1, 2], &path).await;

    assert!(seen.iter().all(|seen| seen.status == 404));
}
