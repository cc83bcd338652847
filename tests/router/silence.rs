//! What is answered while a node can not be asked.

use std::time::Duration;

use orlop::csi::proto::ControllerGetVolumeRequest;
use tonic::{Code, Request};

use crate::fleet::{Fleet, client_of, on, place, until_it};

#[tokio::test]
async fn what_a_dead_node_may_have_is_neither_missing_nor_deleted() {
    let mut fleet = Fleet::of(2);
    let first = fleet.router();
    let mut client = client_of(&first).await;
    let id = client
        .create(on("data", &["b"]))
        .await
        .expect("there is room")
        .volume_id;
    fleet.nodes[1].kill();
    let fresh = fleet.router();
    let fresh = crate::calls::Client::new(fresh.channel().await);

    for mut client in [client.clone(), fresh] {
        let refused = client.delete(&id).await.expect_err("b has it");
        let request = ControllerGetVolumeRequest {
            volume_id: id.clone(),
        };
        let unknown = client.controller.controller_get_volume(request).await;
        let unknown = unknown.expect_err("b has it");
        let elsewhere = until_it(&mut client, async |client| {
            client.create(on("other", &["a"])).await
        });

        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.message().contains(" b"), "{refused}");
        assert_eq!(unknown.code(), Code::Unavailable);
        assert_eq!(place(&elsewhere.await), "a");
    }

    fleet.nodes[1].start_again();
    until_it(&mut client, async |client| client.delete(&id).await).await;
    assert_eq!(fleet.counts().await, [1, 0]);
}

#[tokio::test]
async fn a_create_that_a_slow_node_has_begun_is_not_begun_on_another() {
    let fleet = Fleet::of(2);
    let router = fleet.router();
    let mut client = client_of(&router).await;
    client
        .create(on("first", &["a"]))
        .await
        .expect("there is room");
    fleet.freeze(0, true);

    let mut slow = Request::new(on("data", &["a"]));
    slow.set_timeout(Duration::from_millis(300));
    let slow = client.controller.create_volume(slow).await;
    let mut changed = Request::new(on("data", &["b"]));
    changed.set_timeout(Duration::from_millis(300));
    let changed = client.controller.create_volume(changed).await;
    let meanwhile = client.create(on("other", &["b"])).await;
    fleet.freeze(0, false);
    let made = until_it(&mut client, async |client| {
        client.create(on("data", &["b"])).await
    })
    .await;

    for unclear in [slow, changed] {
        let code = unclear.expect_err("a does not answer").code();
        let running = [Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable];
        assert!(running.contains(&code), "{code}");
    }
    assert_eq!(place(&meanwhile.expect("b answers")), "b");
    assert_eq!(place(&made), "a");
    assert_eq!(fleet.counts().await, [2, 1]);
}

#[tokio::test]
async fn the_pools_of_those_that_answer_are_listed_and_the_silent_one_named() {
    let mut fleet = Fleet::of(2);
    let router = fleet.router();
    client_of(&router).await;
    fleet.nodes[1].kill();

    #[expect(
        clippy::disallowed_methods,
        reason = "what it prints when it fails is looked at"
    )]
    let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"));
    list.args(["pool", "ls", "--output=name", "--endpoint"])
        .arg(&router.socket);
    let listed = list.output().expect("cargo built it");

    let told = String::from_utf8_lossy(&listed.stderr);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "default\n");
    assert!(told.contains("node b can not be reached"), "{told}");
    assert_eq!(listed.status.code(), Some(4), "{told}");
}

#[tokio::test]
async fn of_many_nodes_that_are_away_an_error_names_a_few() {
    let fleet = Fleet::of(1);
    let away: Vec<_> = (0..400).map(|n| format!("away-{n}=127.0.0.1:1")).collect();
    let away: Vec<_> = away.iter().flat_map(|node| ["--node", node]).collect();
    let router = fleet.router_and(&away);
    let mut client = crate::calls::Client::new(router.channel().await);

    let may_be_there = client.delete("default/nothing").await;
    let nowhere = client.create(on("data", &["away-0", "away-1"])).await;

    let may_be_there = may_be_there.expect_err("one that is away may have it");
    assert_eq!(may_be_there.code(), Code::Unavailable, "{may_be_there}");
    assert!(
        may_be_there.message().contains("; and 39"),
        "{may_be_there}"
    );
    assert_eq!(
        nowhere.expect_err("both are away").code(),
        Code::Unavailable
    );
}

/// A rack whose power is off: connections to it are neither made nor refused.
#[tokio::test]
async fn many_nodes_that_say_nothing_do_not_hold_up_the_others() {
    let fleet = Fleet::of(1);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let nobody = nobody.local_addr().expect("it is bound");
    let off: Vec<_> = (0..400).map(|n| format!("off-{n}={nobody}")).collect();
    let off: Vec<_> = off.iter().flat_map(|node| ["--node", node]).collect();
    let router = fleet.router_and(&off);
    let mut client = crate::calls::Client::new(router.channel().await);

    until_it(&mut client, async |client| {
        client.create(on("data", &["a"])).await
    })
    .await;
}
