//! A node in a container has the devices of its machine, and sees nothing of its udev: no tool may wait for that.

use std::fs;

use orlop::host::namespace;

use crate::client::{Client, From};
use crate::node::Node;
use crate::support::form::KEY;
use crate::support::home::Ground;
use crate::support::{run, until};

const MIB: u64 = 1 << 20;
const EXT4: (&str, &str) = ("csi.storage.k8s.io/fstype", "ext4");

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn thin_volumes_need_no_udev() {
    lives_without_udev(Ground::Lvm { thin: true }, &[]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn encrypted_thick_volumes_need_no_udev() {
    lives_without_udev(Ground::Lvm { thin: false }, &[("encryption", "true")]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn zvols_need_no_udev() {
    lives_without_udev(Ground::Zfs, &[EXT4]);
}

fn lives_without_udev(ground: Ground, parameters: &[(&'static str, &'static str)]) {
    let desk = tempfile::tempdir().expect("a temporary directory can be made");
    namespace::in_own_mounts(|| {
        let Some(home) = ground.make() else {
            return;
        };
        run("mount", ["-t", "tmpfs", "tmpfs", "/run/udev"]).expect("root may");
        let (pools, place) = (desk.path().join("pools.yaml"), desk.path().join("pool"));
        fs::write(&pools, home.pools("pool", &place)).expect("there is room");
        {
            let node = Node::start(&["--pools", &pools.display().to_string()]);
            let mut client = Client::of(&node);
            client.key = Some(KEY);
            live(&node, &client, parameters);
        }
        assert!(until(|| home.contents(&place).is_empty()));
    })
    .expect("root may make a mount namespace");
}

/// A life with all that makes, grows or removes a device.
fn live(node: &Node, client: &Client, parameters: &[(&'static str, &'static str)]) {
    let at = |name: &str| node.dir.path().join(name);
    let read = |id: &str| {
        let (staging, target) = (at("other.staging"), at("other"));
        client.publish(id, &staging, &target).expect("it is there");
        let content = fs::read_to_string(target.join("content"));
        let taken_back = client.unpublish(id, &staging, &target);
        taken_back.expect("nobody uses it");
        content.expect("it was written")
    };
    let create = |name: &str, size: u64, from: &From<'_>| {
        let created = client.create(name, size * MIB, parameters, from);
        created.expect("there is room")
    };
    let (staging, target) = (at("staging"), at("target"));

    let id = create("data", 64, &From::Nothing);
    client.publish(&id, &staging, &target).expect("it is there");
    fs::write(target.join("content"), "rows").expect("there is room");
    client.grow(&id, 96 * MIB).expect("there is room");
    let snapshot = client.snapshot(&id, "kept").expect("there is room");
    let restored = create("restored", 128, &From::Snapshot(&snapshot));
    let clone = create("clone", 96, &From::Volume(&id));
    let rows = [&restored, &clone].map(|id| read(id));
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    for id in [&restored, &clone] {
        client.delete(id).expect("nobody uses it");
    }
    client.delete_snapshot(&snapshot).expect("nobody uses it");
    client.delete(&id).expect("nobody uses it");

    assert_eq!(rows, ["rows", "rows"]);
}
