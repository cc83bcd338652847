//! What is done to volumes and snapshots that are there, or are not, and lists of them all.

use orlop::csi::proto::{ControllerGetVolumeRequest, ListSnapshotsRequest, ListVolumesRequest};
use tonic::Code;

use crate::calls::MIB;
use crate::fleet::{Fleet, client_of, on};

#[tokio::test]
async fn a_call_reaches_the_node_of_its_volume_through_any_router() {
    let fleet = Fleet::of(3);
    let (one, other) = (fleet.router(), fleet.router());
    let (mut one, mut other) = (client_of(&one).await, client_of(&other).await);
    let id = one
        .create(on("data", &["c"]))
        .await
        .expect("there is room")
        .volume_id;

    let grown = other.grow(&id, 2 * MIB).await.expect("the other finds it");
    let taken = other.snapshot("kept", &id).await.expect("it is there");
    one.delete(&id).await.expect("it is not in use");
    let gone = ControllerGetVolumeRequest {
        volume_id: id.clone(),
    };
    let gone = one.controller.controller_get_volume(gone).await;
    let kept = ListSnapshotsRequest {
        snapshot_id: taken.snapshot_id.clone(),
        ..Default::default()
    };
    let kept = one
        .controller
        .list_snapshots(kept)
        .await
        .expect("it outlives its source");
    one.delete_snapshot(&taken.snapshot_id)
        .await
        .expect("it is there");
    one.delete(&id).await.expect("it is gone already");

    assert_eq!(grown, 2 * MIB);
    assert_eq!(gone.expect_err("it is gone").code(), Code::NotFound);
    assert_eq!(kept.into_inner().entries.len(), 1);
    assert!(other.snapshots().await.is_empty());
}

#[tokio::test]
async fn a_snapshot_name_is_one_in_the_cluster() {
    let fleet = Fleet::of(2);
    let router = fleet.router();
    let mut client = client_of(&router).await;
    let a = client
        .create(on("one", &["a"]))
        .await
        .expect("there is room");
    let b = client
        .create(on("two", &["b"]))
        .await
        .expect("there is room");
    client
        .snapshot("kept", &a.volume_id)
        .await
        .expect("it is there");

    let refused = client.snapshot("kept", &b.volume_id).await;

    assert_eq!(
        refused.expect_err("it is of another").code(),
        Code::AlreadyExists
    );
}

#[tokio::test]
async fn a_snapshot_without_a_name_is_invalid_whatever_it_is_of() {
    let fleet = Fleet::of(1);
    let router = fleet.router();
    let mut client = client_of(&router).await;

    let refused = client.snapshot("", "default/nothing").await;

    let refused = refused.expect_err("it has no name");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

#[tokio::test]
async fn an_id_that_two_nodes_have_is_not_guessed_at() {
    let fleet = Fleet::of(2);
    for at in 0..2 {
        let mut straight = fleet.client(at).await;
        straight
            .create(crate::calls::volume("data", MIB))
            .await
            .expect("there is room");
    }
    let router = fleet.router();
    let mut client = client_of(&router).await;

    let refusal = client.delete("default/data").await.expect_err("which one?");

    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("a, b"), "{refusal}");
    assert_eq!(fleet.counts().await, [1, 1]);
}

#[tokio::test]
async fn pages_join_to_the_list_of_all() {
    let fleet = Fleet::of(3);
    let router = fleet.router();
    let mut client = client_of(&router).await;
    for (at, node) in ["a", "a", "a", "c", "c"].into_iter().enumerate() {
        client
            .create(on(&format!("v{at}"), &[node]))
            .await
            .expect("there is room");
    }
    let all: Vec<_> = client
        .volumes()
        .await
        .into_iter()
        .map(|is| is.volume_id)
        .collect();

    for most in 1..=6 {
        let (mut joined, mut starting_token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = ListVolumesRequest {
                max_entries: most,
                starting_token,
            };
            let page = client.controller.list_volumes(request).await;
            let page = page.expect("the nodes answer").into_inner();
            assert!(page.entries.len() <= most.unsigned_abs() as usize);
            joined.extend(
                page.entries
                    .into_iter()
                    .filter_map(|is| Some(is.volume?.volume_id)),
            );
            starting_token = page.next_token;
            pages += 1;
            if starting_token.is_empty() {
                break;
            }
            assert!(pages < 20, "it does not end");
        }
        assert_eq!(joined, all);
    }
    assert_eq!(all.len(), 5);
    let wrong = ListVolumesRequest {
        starting_token: "nonsense".into(),
        ..Default::default()
    };
    let wrong = client.controller.list_volumes(wrong).await;
    assert_eq!(wrong.expect_err("nobody gave that").code(), Code::Aborted);
}
