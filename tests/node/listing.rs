//! Lists in pages, while others create and delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orlop::csi::proto::{
    ControllerListVolumeHealthRequest, ListSnapshotsRequest, ListVolumesRequest,
};

use crate::calls::{self, Client, MIB};
use crate::node::Node;

const FIXED: usize = 40;

/// All ids, in pages of this many.
async fn walk(client: &mut Client, list: &str, max_entries: i32) -> Vec<String> {
    let (mut ids, mut starting_token) = (Vec::new(), String::new());
    loop {
        let (page, next) = page(client, list, max_entries, starting_token).await;
        assert!(
            page.len() <= usize::try_from(max_entries).expect("it is positive"),
            "{page:?}"
        );
        ids.extend(page);
        assert!(ids.len() < 10 * FIXED, "it does not end: {ids:?}");
        if next.is_empty() {
            return ids;
        }
        starting_token = next;
    }
}

async fn page(
    client: &mut Client,
    list: &str,
    max_entries: i32,
    starting_token: String,
) -> (Vec<String>, String) {
    let controller = &mut client.controller;
    match list {
        "volumes" => {
            let page = controller
                .list_volumes(ListVolumesRequest {
                    max_entries,
                    starting_token,
                })
                .await;
            let page = page.expect("the token is theirs").into_inner();
            (
                page.entries
                    .into_iter()
                    .filter_map(|entry| Some(entry.volume?.volume_id))
                    .collect(),
                page.next_token,
            )
        }
        "snapshots" => {
            let request = ListSnapshotsRequest {
                max_entries,
                starting_token,
                ..Default::default()
            };
            let page = controller
                .list_snapshots(request)
                .await
                .expect("the token is theirs")
                .into_inner();
            (
                page.entries
                    .into_iter()
                    .filter_map(|entry| Some(entry.snapshot?.snapshot_id))
                    .collect(),
                page.next_token,
            )
        }
        _ => {
            let request = ControllerListVolumeHealthRequest {
                max_entries,
                starting_token,
                ..Default::default()
            };
            let page = controller
                .controller_list_volume_health(request)
                .await
                .expect("the token is theirs")
                .into_inner();
            (
                page.entries
                    .into_iter()
                    .map(|entry| entry.volume_id)
                    .collect(),
                page.next_token,
            )
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_entry_is_lost_or_doubled_while_others_come_and_go() {
    let node = Node::start(&["--log", "warn"]);
    let mut client = Client::new(node.channel().await);
    let (mut volumes, mut snapshots) = (Vec::new(), Vec::new());
    for number in 0..FIXED {
        let made = client
            .create(calls::volume(&format!("k{number:02}"), MIB))
            .await;
        let id = made.expect("there is room").volume_id;
        snapshots.push(
            client
                .snapshot(&format!("k{number:02}"), &id)
                .await
                .expect("there is room")
                .snapshot_id,
        );
        volumes.push(id);
    }
    let enough = Arc::new(AtomicBool::new(false));
    let (done, mut other) = (Arc::clone(&enough), Client::new(node.channel().await));
    let churn = tokio::spawn(async move {
        let mut rounds = 0;
        while !done.load(Ordering::Relaxed) {
            // Before, between and after those that stay.
            for name in ["a-first", "k17-between", "z-last"] {
                let id = other
                    .create(calls::volume(name, MIB))
                    .await
                    .expect("there is room")
                    .volume_id;
                let snapshot = other
                    .snapshot(name, &id)
                    .await
                    .expect("there is room")
                    .snapshot_id;
                other.delete(&id).await.expect("nobody uses it");
                other
                    .delete_snapshot(&snapshot)
                    .await
                    .expect("nobody uses it");
            }
            rounds += 1;
        }
        rounds
    });

    for round in 0..60 {
        for (list, fixed) in [
            ("volumes", &volumes),
            ("snapshots", &snapshots),
            ("health", &volumes),
        ] {
            let ids = walk(&mut client, list, 1 + round % 9).await;
            // Ids of snapshots begin with their volume; the order is that of their own names.
            let name = |id: &String| id.rsplit(['/', '@']).next().map(str::to_owned);
            assert!(
                ids.is_sorted_by(|one, next| name(one) < name(next)),
                "{list}: {ids:?}"
            );
            let kept: Vec<_> = ids.iter().filter(|id| fixed.contains(id)).collect();
            assert_eq!(kept.len(), FIXED, "{list}: {ids:?}");
        }
    }

    enough.store(true, Ordering::Relaxed);
    assert!(churn.await.expect("no panic") > 0, "nothing came and went");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_after_a_restart_and_after_its_entry_is_gone() {
    let mut node = Node::start(&[]);
    let mut client = Client::new(node.channel().await);
    for name in ["a", "b", "c", "d"] {
        client
            .create(calls::volume(name, MIB))
            .await
            .expect("there is room");
    }

    let (first, token) = page(&mut client, "volumes", 2, String::new()).await;
    client.delete("default/b").await.expect("nobody uses it");
    drop(client);
    node.stop();
    node.start_again();
    let (second, end) = page(&mut Client::new(node.channel().await), "volumes", 2, token).await;

    assert_eq!(
        (&*first.join(" "), &*second.join(" "), &*end),
        ("default/a default/b", "default/c default/d", "")
    );
}
