//! What a router tells to whoever watches it.

use crate::fleet::{Fleet, client_of, on};
use crate::node::Node;

/// The port that the router was given, once it is open.
pub(crate) async fn port(router: &Node) -> String {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let log = router.log();
        let line = log.lines().find(|line| line.contains("serving metrics"));
        if let Some((_, rest)) = line.and_then(|line| line.split_once("127.0.0.1:")) {
            return rest.chars().take_while(char::is_ascii_digit).collect();
        }
        assert!(std::time::Instant::now() < limit, "no port is open:\n{log}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_router_tells_how_many_nodes_were_heard_and_what_is_known() {
    let mut fleet = Fleet::of(3);
    let router = fleet.router_and(&["--metrics", "127.0.0.1:0"]);
    let mut client = client_of(&router).await;
    let id = client
        .create(on("data", &["a"]))
        .await
        .expect("there is room")
        .volume_id;
    client.snapshot("before", &id).await.expect("it is there");
    fleet.nodes[2].kill();
    client
        .create(on("other", &["c"]))
        .await
        .expect_err("c is away");

    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://127.0.0.1:{}/metrics", port(&router).await);
    let text = reqwest::get(url).await.expect("it serves").text().await;
    let text = text.expect("it is text");

    for line in [
        "orlop_nodes{state=\"heard\"} 2",
        "orlop_nodes{state=\"silent\"} 1",
        "orlop_nodes{state=\"new\"} 0",
        "orlop_known_volumes 1",
        "orlop_known_snapshots 1",
        "orlop_rpc_running 0",
    ] {
        assert!(
            text.lines().any(|told| told == line),
            "{line} is not in\n{text}"
        );
    }
    let looks = text
        .lines()
        .find_map(|told| told.strip_prefix("orlop_node_look_duration_seconds_count "));
    assert!(looks.is_some_and(|looks| looks != "0"), "{text}");
}
