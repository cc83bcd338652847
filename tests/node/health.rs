//! What the health calls tell, when all is well and when it is not.

use std::fs::{self, File};
use std::io::Write;

use orlop::csi::proto::{
    ControllerGetVolumeHealthRequest, ControllerListVolumeHealthRequest,
    NodeGetStorageHealthRequest, NodeGetVolumeHealthRequest, ProbeRequest, StorageHealthErrorType,
    VolumeHealth, VolumeHealthErrorType,
};

use crate::calls::{self, Client, MIB, text};
use crate::node::Node;
use crate::support::LoopFs;

fn told(health: Option<VolumeHealth>) -> Vec<(VolumeHealthErrorType, String)> {
    let entries = health.expect("a health is told").health_statuses;
    entries
        .into_iter()
        .map(|entry| (entry.status(), entry.reason))
        .collect()
}

async fn of_volume(client: &mut Client, id: &str) -> Vec<(VolumeHealthErrorType, String)> {
    let request = ControllerGetVolumeHealthRequest {
        volume_id: id.to_owned(),
        ..Default::default()
    };
    let answer = client
        .controller
        .controller_get_volume_health(request)
        .await;
    told(
        answer
            .expect("the volume is there")
            .into_inner()
            .volume_health,
    )
}

#[tokio::test]
async fn a_volume_that_lost_its_data_says_so() {
    let node = Node::start(&[]);
    let mut client = Client::new(node.channel().await);
    let [tree, well] = ["tree", "well"].map(|name| calls::volume(name, MIB));
    let id = client.create(tree).await.expect("there is room").volume_id;
    client.create(well).await.expect("there is room");

    let before = of_volume(&mut client, &id).await;
    fs::remove_dir(node.dir.path().join("data/default/volumes/tree/data")).expect("it is empty");
    let after = of_volume(&mut client, &id).await;
    let all = client
        .controller
        .controller_list_volume_health(ControllerListVolumeHealthRequest::default())
        .await;

    let lost = (VolumeHealthErrorType::DataLoss, "DataMissing".to_owned());
    assert_eq!((before, &after[..]), (vec![], &[lost][..]));
    let all = all.expect("it lists").into_inner().entries;
    let ill: Vec<_> = all
        .iter()
        .map(|one| (&*one.volume_id, one.health_statuses.len()))
        .collect();
    assert_eq!(ill, [("default/tree", 1), ("default/well", 0)]);
}

#[tokio::test]
async fn a_volume_that_is_not_where_it_should_be_says_so() {
    if !rustix::process::geteuid().is_root() {
        return crate::support::skipped("health of a staged volume", "mounting needs root");
    }
    let node = Node::start(&[]);
    let mut client = Client::new(node.channel().await);
    let id = client
        .create(calls::volume("tree", MIB))
        .await
        .expect("there is room")
        .volume_id;
    let staging = node.dir.path().join("staging");
    client
        .stage(&id, &staging, calls::mounted())
        .await
        .expect("it can be staged");
    let at = |path: &std::path::Path| NodeGetVolumeHealthRequest {
        volume_id: id.clone(),
        staging_target_path: text(path),
        ..Default::default()
    };

    let there = client
        .node
        .node_get_volume_health(at(&staging))
        .await
        .expect("it answers");
    let nowhere = client
        .node
        .node_get_volume_health(at(&node.dir.path().join("nowhere")))
        .await
        .expect("it answers");

    assert_eq!(told(there.into_inner().volume_health), []);
    let missing = (VolumeHealthErrorType::Inaccessible, "NotMounted".to_owned());
    assert_eq!(told(nowhere.into_inner().volume_health), [missing]);
}

#[tokio::test]
async fn a_pool_that_is_nearly_full_says_so_and_still_serves() {
    let Some(disk) = LoopFs::new("ext4") else {
        return;
    };
    let node = Node::start(&["--data", &text(disk.path())]);
    let mut client = Client::new(node.channel().await);

    let before = client
        .node
        .node_get_storage_health(NodeGetStorageHealthRequest::default())
        .await;
    let mut ballast = File::create(disk.path().join("ballast")).expect("the disk is new");
    let chunk = vec![0x5a; 1 << 20];
    while ballast.write_all(&chunk).is_ok() {}
    let after = client
        .node
        .node_get_storage_health(NodeGetStorageHealthRequest::default())
        .await;
    let probe = client.identity.probe(ProbeRequest {}).await;

    assert_eq!(before.expect("it answers").into_inner().backend_health, []);
    let after = after.expect("it answers").into_inner().backend_health;
    let full = after.first().expect("it is full");
    assert_eq!(
        (full.status(), &*full.reason),
        (StorageHealthErrorType::StorageDegraded, "NearlyFull")
    );
    assert!(
        full.message.contains("pool default") && full.message.contains("add space"),
        "{}",
        full.message
    );
    assert_eq!(probe.expect("it answers").into_inner().ready, Some(true));
}
