//! A pool that can not be opened when the node starts: its disk is dead, or not mounted.

use std::fmt::Debug;
use std::fs;

use orlop::csi::proto::{CreateVolumeRequest, ListVolumesRequest, NodeGetStorageHealthRequest};
use tonic::{Code, Status};

use crate::calls::{self, Client, MIB, text};
use crate::node::Node;

fn within(pool: &str, name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        parameters: [("pool".to_owned(), pool.to_owned())].into(),
        ..calls::volume(name, MIB)
    }
}

/// Neither that it is done nor that there is none.
fn assert_unknown<T: Debug>(answer: Result<T, Status>) {
    let status = answer.expect_err("nobody can know");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("pool away"), "{status}");
}

// Connections that are dropped are closed while the test waits for the end of the node.
#[tokio::test(flavor = "multi_thread")]
async fn the_volumes_of_other_pools_are_served_and_those_of_a_missing_one_waited_for() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let [here, away, elsewhere] = ["here", "away", "elsewhere"].map(|name| dir.path().join(name));
    for place in [&here, &away] {
        fs::create_dir(place).expect("the name is free");
    }
    let pool = |name, place| {
        format!(
            "  - {{ name: {name}, directory: {{ path: {} }} }}\n",
            text(place)
        )
    };
    let file = dir.path().join("pools.yaml");
    let pools = pool("here", &here) + &pool("away", &away);
    fs::write(&file, format!("pools:\n{pools}")).expect("the directory can be written");
    let mut node = Node::start(&["--pools", &text(&file)]);
    let mut client = Client::new(node.channel().await);
    let mut ids = Vec::new();
    for (pool, name) in [("away", "kept"), ("here", "other")] {
        let made = client.create(within(pool, name)).await;
        ids.push(made.expect("there is room").volume_id);
    }
    let [kept, other] = &ids[..] else {
        unreachable!("two were made");
    };
    drop(client);
    node.stop();
    fs::rename(&away, &elsewhere).expect("nobody uses it");
    node.start_again();
    let mut client = Client::new(node.channel().await);

    let staging = node.dir.path().join("staging");
    let staged = client.stage(other, &staging, calls::mounted()).await;
    staged.expect("that pool is well");
    let unstaged = client.unstage(other, &staging).await;
    unstaged.expect("that pool is well");
    client.delete(other).await.expect("that pool is well");
    assert_unknown(client.stage(kept, &staging, calls::mounted()).await);
    assert_unknown(client.delete(kept).await);
    assert_unknown(client.snapshot("snapshot", kept).await);
    // The name may be taken there, whatever pool is asked for now.
    assert_unknown(client.create(within("here", "kept")).await);
    let request = ListVolumesRequest::default();
    assert_unknown(client.controller.list_volumes(request).await);
    let health = NodeGetStorageHealthRequest::default();
    let health = client.node.node_get_storage_health(health).await;
    let health = format!("{:?}", health.expect("it answers"));
    assert!(
        health.contains("pool away: it could not be opened"),
        "{health}"
    );

    drop(client);
    fs::rename(&elsewhere, &away).expect("the name is free");
    let ended = node.end();
    assert!(!ended.success(), "who keeps it must start it anew");
    node.start_again();
    let mut client = Client::new(node.channel().await);
    assert_eq!(client.volumes().await.len(), 1);
    client.delete(kept).await.expect("it is back");
}
