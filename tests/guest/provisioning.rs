//! The life of a volume: the first thing that must work on any kernel.

use std::fs;

use crate::client::{Client, From};
use crate::disk::Disk;
use crate::node::Node;

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_volume_on_ext4_lives_and_ends() {
    lives_and_ends(Disk::new("ext4", &[], "noatime"));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_volume_on_xfs_lives_and_ends() {
    lives_and_ends(Disk::new("xfs", &[], "noatime"));
}

fn lives_and_ends(disk: Option<Disk>) {
    let Some(disk) = disk else {
        return;
    };
    let node = Node::start(&["--pools", &disk.pools().display().to_string()]);
    let client = Client::of(&node);
    let (staging, target) = (
        node.dir.path().join("staging"),
        node.dir.path().join("target"),
    );

    let id = client
        .create("life", 16 << 20, &[], &From::Nothing)
        .expect("there is room");
    client.publish(&id, &staging, &target).expect("it is there");
    fs::write(target.join("file"), "kept").expect("it can be written");
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client
        .publish(&id, &staging, &target)
        .expect("it is still there");
    let kept = fs::read_to_string(target.join("file")).expect("it can be read");
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client.delete(&id).expect("it is mounted nowhere");

    assert_eq!(kept, "kept");
    let left = fs::read_dir(disk.pool().join("volumes")).expect("the pool is there");
    assert_eq!(left.count(), 0);
}
