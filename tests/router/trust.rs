//! Whom the nodes let in, and whom the router believes.

use tonic::Code;

use crate::authority::Authority;
use crate::calls::Client;
use crate::fleet::{Fleet, client_of, on, place, until_it};

#[tokio::test]
async fn a_router_of_another_authority_reaches_no_node() {
    let fleet = Fleet::of(1);
    let elsewhere = tempfile::tempdir().expect("the temporary directory can be written");
    let foreign = Authority::new().sign("controller.orlop.dev", elsewhere.path());
    let router = fleet.router_with(&foreign);
    let mut client = Client::new(router.channel().await);

    let refused = client
        .create(on("data", &["a"]))
        .await
        .expect_err("it is not ours");

    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(fleet.counts().await, [0]);
}

#[tokio::test]
async fn a_node_at_the_address_of_another_is_not_taken_for_it() {
    let mut fleet = Fleet::of(2);
    let router = fleet.router();
    let mut client = client_of(&router).await;
    fleet.nodes.clear();
    let _impostor = fleet.start_as(1, "a");

    let refused = client
        .create(on("data", &["b"]))
        .await
        .expect_err("it is a, not b");

    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn new_certificates_are_used_without_a_restart() {
    let mut fleet = Fleet::of(1);
    let router = fleet.router();
    let mut client = client_of(&router).await;

    fleet.authority = Authority::new();
    fleet.sign_all();
    // Only a new connection shows them.
    fleet.nodes[0].kill();
    fleet.nodes[0].start_again();
    let made = until_it(&mut client, async |client| {
        client.create(on("data", &["a"])).await
    })
    .await;

    assert_eq!(place(&made), "a");
}
