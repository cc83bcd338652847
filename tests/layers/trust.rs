//! Peers that prove who they are, and strangers who can not.

use std::sync::Arc;
use std::time::Duration;

use orlop::layers::members::{Member, Members};
use orlop::layers::swarm::wire::Hello;
use orlop::tls::{Credentials, Role, connect};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::cluster::Cluster;
use crate::noise::noise;
use crate::upstream::Upstream;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn nodes_with_certificates_share_one_fetch_and_refuse_all_others() {
    let upstream = Upstream::start().await;
    let layer = noise(1, 8 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let authority = Authority::new();
    let own = authority.credentials("other.node.orlop.dev");
    let controller = authority.credentials("controller.orlop.dev");
    let foreign = Authority::new().credentials("other.node.orlop.dev");
    let cluster = Cluster::known_to(Some(authority), &upstream, &[""; 3]).await;
    let path = format!("/v2/a/b/blobs/{digest}?ns=registry.test");

    let seen = cluster.all_get(&[0, 1, 2], &path).await;

    assert!(seen.iter().all(|seen| seen.bytes() == layer));
    cluster.fetched_once(&upstream, &layer);
    let plain = format!("http://{}/v1/hello", cluster.address(0));
    reqwest::get(plain)
        .await
        .expect_err("it is not told anything");
    assert!(may_talk(&cluster, own).await);
    assert!(!may_talk(&cluster, controller).await);
    assert!(!may_talk(&cluster, foreign).await);
}

/// Whether a node answers one who has these credentials.
async fn may_talk(cluster: &Cluster, credentials: Credentials) -> bool {
    hello(cluster, credentials).await.is_some()
}

/// What the first node says of itself to one who has these credentials.
async fn hello(cluster: &Cluster, credentials: Credentials) -> Option<Hello> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let config = credentials.client(|role| matches!(role, Role::Node(_)));
    let connected = connect(cluster.address(0), Arc::new(config)).await;
    let mut connection = connected.ok()?;
    let asked = b"GET /v1/hello HTTP/1.0\r\n\r\n";
    let mut answer = String::new();
    // The server may refuse only after we think that all is well.
    connection.write_all(asked).await.ok()?;
    connection.read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

#[tokio::test]
async fn one_who_gossips_but_can_not_prove_to_be_a_node_is_not_believed() {
    let upstream = Upstream::start().await;
    let authority = Authority::new();
    let insider = authority.credentials("other.node.orlop.dev");
    let cluster = Cluster::known_to(Some(authority), &upstream, &[""; 2]).await;
    let key = hello(&cluster, insider).await.expect("it is a node").key;
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("it listens");
    let gossip = UdpSocket::bind(address).await.expect("the same port");
    let stranger = Members::alone(Member::new(address, String::new()));
    // Somebody gave it away.
    stranger.keys.learn(cluster.address(0), key);
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let seeds = vec![cluster.address(0).to_string()];
    tokio::spawn(stranger.gossip(gossip, seeds, shutdown));

    // The node has heard of it, and asks it who it is; it hangs up, and is asked again.
    for _ in 0..4 {
        let asked = tokio::time::timeout(Duration::from_secs(20), port.accept()).await;
        asked.expect("it is asked").expect("the port is open");
    }

    for node in &cluster.nodes {
        assert_eq!(node.metric("layers_peers"), Some(1.0));
    }
}
