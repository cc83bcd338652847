//! Where new volumes go.

use orlop::csi::proto::{CreateVolumeRequest, GetCapacityRequest, Topology};
use tonic::Code;

use crate::calls::{MIB, mounted, of_snapshot, of_volume, volume};
use crate::fleet::{Fleet, client_of, on, place};

#[tokio::test]
async fn a_volume_goes_where_its_topology_says_and_is_there_the_second_time() {
    let fleet = Fleet::of(3);
    let router = fleet.router();
    let mut client = client_of(&router).await;

    for node in ["a", "b", "c"] {
        let name = format!("data-{node}");
        let made = client
            .create(on(&name, &[node]))
            .await
            .expect("there is room");
        let again = client
            .create(on(&name, &[node]))
            .await
            .expect("it is there");

        assert_eq!(place(&made), node);
        assert_eq!(made, again);
    }
    assert_eq!(fleet.counts().await, [1, 1, 1]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_the_answer_whatever_node_is_asked_for() {
    let fleet = Fleet::of(2);
    let (one, other) = (fleet.router(), fleet.router());
    let (mut one, mut other) = (client_of(&one).await, client_of(&other).await);
    one.create(on("data", &["a"])).await.expect("there is room");

    let same = one.create(on("data", &["b"])).await.expect("it is there");
    let through_the_other = other.create(on("data", &["b"])).await.expect("it is there");

    assert_eq!((place(&same), place(&through_the_other)), ("a", "a"));
    assert_eq!(fleet.counts().await, [1, 0]);
}

#[tokio::test]
async fn ten_callers_at_once_make_one_volume() {
    let fleet = Fleet::of(3);
    let router = fleet.router();
    let client = client_of(&router).await;

    let callers: Vec<_> = (0..10)
        .map(|at| {
            let mut client = client.clone();
            let node = ["a", "b", "c"][at % 3];
            tokio::spawn(async move { client.create(on("data", &[node])).await })
        })
        .collect();
    let mut made = 0;
    for caller in callers {
        match caller.await.expect("no panic") {
            Ok(_) => made += 1,
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
    }

    assert!(made > 0);
    assert_eq!(fleet.counts().await.iter().sum::<usize>(), 1);
}

#[tokio::test]
async fn what_fits_nowhere_is_told_so_and_the_next_node_is_tried() {
    let fleet = Fleet::of(2);
    let router = fleet.router();
    let mut client = client_of(&router).await;
    let huge = |request: CreateVolumeRequest| CreateVolumeRequest {
        capacity_range: volume("", 1 << 50).capacity_range,
        ..request
    };

    let nowhere = client.create(huge(on("huge", &["a", "b"]))).await;
    let free = client.create(huge(volume("huge", 0))).await;
    let stranger = client.create(on("data", &["a", "stranger"])).await;
    let only_stranger = client.create(on("other", &["stranger"])).await;

    assert_eq!(
        nowhere.expect_err("no disk is so large").code(),
        Code::ResourceExhausted
    );
    assert_eq!(
        free.expect_err("no disk is so large").code(),
        Code::ResourceExhausted
    );
    assert_eq!(place(&stranger.expect("a has room")), "a");
    let away = only_stranger.expect_err("it is no node");
    assert_eq!(away.code(), Code::Unavailable);
    assert!(away.message().contains("stranger"), "{away}");
}

#[tokio::test]
async fn copies_are_made_where_their_source_is() {
    let fleet = Fleet::of(3);
    let router = fleet.router();
    let mut client = client_of(&router).await;
    let source = client
        .create(on("source", &["b"]))
        .await
        .expect("there is room");
    let snapshot = client
        .snapshot("kept", &source.volume_id)
        .await
        .expect("it is there");
    let from = |request: CreateVolumeRequest, source| CreateVolumeRequest {
        volume_content_source: Some(source),
        ..request
    };

    let clone = from(volume("clone", MIB), of_volume(&source.volume_id));
    let restored = from(
        on("restored", &["a", "b"]),
        of_snapshot(&snapshot.snapshot_id),
    );
    let elsewhere = from(on("elsewhere", &["a"]), of_volume(&source.volume_id));

    assert_eq!(
        place(&client.create(clone).await.expect("the source is there")),
        "b"
    );
    assert_eq!(
        place(&client.create(restored).await.expect("it is there")),
        "b"
    );
    let followed = client.create(elsewhere).await.expect("it is on b");
    assert_eq!(place(&followed), "b", "whatever node was chosen for it");
}

#[tokio::test]
async fn capacity_is_of_a_node_or_of_all() {
    let fleet = Fleet::of(2);
    let router = fleet.router();
    let mut client = client_of(&router).await;
    let mut room = async |node: Option<&str>| {
        let topology = |node: &str| Topology {
            segments: [("topology.orlop.dev/node".to_owned(), node.to_owned())].into(),
        };
        let request = GetCapacityRequest {
            volume_capabilities: vec![mounted()],
            accessible_topology: node.map(topology),
            ..Default::default()
        };
        let answer = client.controller.get_capacity(request).await;
        answer.map(|answer| answer.into_inner().available_capacity)
    };

    let one = room(Some("a")).await.expect("a is there");
    let all = room(None).await.expect("they are there");
    let stranger = room(Some("stranger")).await.expect_err("it is no node");

    assert!(one > 0 && all > one + one / 2, "{one} on one, {all} on two");
    assert_eq!(stranger.code(), Code::Unavailable);
}
