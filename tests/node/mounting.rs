//! Volumes that are published read-only, and inline volumes.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use orlop::csi::proto::{CreateVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest};
use orlop::host::freeze::thaw_leftover;
use orlop::host::gate::Gate;
use orlop::host::loop_device::{LoopDevice, LoopDevices};
use orlop::host::namespace;

use crate::calls::{self, Client, MIB, text};
use crate::node::Node;
use crate::support::{run, skipped};

/// A publication of an inline volume of 16 MiB.
fn inline(name: &str, layout: &str, target: &Path) -> NodePublishVolumeRequest {
    let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let context = [
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.storage.k8s.io/pod.name", "web-0"),
        ("size", "16Mi"),
        ("layout", layout),
    ];
    NodePublishVolumeRequest {
        staging_target_path: String::new(),
        volume_context: context.map(pair).into(),
        ..calls::publication(name, Path::new("/unused"), target)
    }
}

fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(what, "mounting needs root");
    }
    root
}

#[tokio::test]
async fn an_inline_volume_lives_as_long_as_it_is_published() {
    if !is_root("inline volumes") {
        return;
    }
    for layout in ["tree", "image"] {
        let node = Node::start(&[]);
        let mut client = Client::new(node.channel().await);
        // As the kubelet makes them up.
        let name = "csi-3c2d9f0d6ad1f0f9dd5bc52b2a02b5ab3fb0f1b8c8a2a1e7c0cbd0b9c7f1d9aa";
        let target = node.dir.path().join("pod");

        client
            .publish(inline(name, layout, &target))
            .await
            .expect("there is room");
        fs::write(target.join("row"), "kept").expect("it can be written");
        client
            .publish(inline(name, layout, &target))
            .await
            .expect("it is the same");
        let listed = client.volumes().await;
        let stats = NodeGetVolumeStatsRequest {
            volume_id: listed[0].volume_id.clone(),
            volume_path: text(&target),
            ..Default::default()
        };
        let stats = client
            .node
            .node_get_volume_stats(stats)
            .await
            .expect("it is there")
            .into_inner();

        assert_eq!(fs::read(target.join("row")).expect("it was kept"), b"kept");
        assert_eq!((listed.len(), listed[0].capacity_bytes), (1, 16 * MIB));
        assert_eq!(
            listed[0].volume_context["csi.storage.k8s.io/ephemeral"],
            "true"
        );
        assert!(
            layout == "tree" || stats.usage[0].total <= 16 * MIB,
            "{stats:?}"
        );
        for _ in 0..2 {
            client
                .unpublish(name, &target)
                .await
                .expect("nobody is in it");
            assert!(!target.exists() && client.volumes().await.is_empty());
        }
        let volumes = node.dir.path().join("data/default/volumes");
        assert_eq!(fs::read_dir(volumes).expect("it is there").count(), 0);
    }
}

#[tokio::test]
async fn what_is_published_read_only_can_not_be_written() {
    if !is_root("read-only publications") {
        return;
    }
    let node = Node::start(&[]);
    let mut client = Client::new(node.channel().await);
    let wanted = [
        calls::volume("tree", MIB),
        calls::image("image", 16 * MIB, "ext4"),
        calls::device("device", 16 * MIB),
    ];

    for request in wanted {
        let at = node.dir.path().join(&request.name);
        fs::create_dir(&at).expect("the name is free");
        let (staging, target) = (at.join("staging"), at.join("target"));
        let capability = request.volume_capabilities[0].clone();
        let block = capability == calls::block();
        let id = client
            .create(request)
            .await
            .expect("there is room")
            .volume_id;
        client
            .stage(&id, &staging, capability.clone())
            .await
            .expect("it can be staged");
        let publish = NodePublishVolumeRequest {
            volume_capability: Some(capability),
            readonly: true,
            ..calls::publication(&id, &staging, &target)
        };
        for _ in 0..2 {
            client.publish(publish.clone()).await.expect("it is staged");
        }

        let written = if block {
            let device = OpenOptions::new().write(true).open(&target);
            device.and_then(|mut device| device.write_all(b"row").and(device.sync_all()))
        } else {
            fs::write(target.join("row"), "")
        };

        let refused = written.expect_err("it is read-only").kind();
        assert!(
            matches!(
                refused,
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
            ),
            "{id}: {refused}"
        );
        let rdev = fs::metadata(&target).expect("it is published").rdev();
        client.unpublish(&id, &target).await.expect("it is ours");
        client.unstage(&id, &staging).await.expect("it is ours");
        if block {
            let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
            let flag = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/ro"));
            assert_eq!(
                flag.expect("it is a device").trim(),
                "0",
                "its next user could not write"
            );
        }
    }
}

#[tokio::test]
async fn a_volume_is_staged_again_while_a_consumer_has_it() {
    if !is_root("staging again") {
        return;
    }
    let node = Node::start(&[]);
    let mut client = Client::new(node.channel().await);
    let (staging, target) = (
        node.dir.path().join("staging"),
        node.dir.path().join("target"),
    );
    let id = client
        .create(calls::image("image", 16 * MIB, "ext4"))
        .await
        .expect("there is room")
        .volume_id;
    client
        .stage(&id, &staging, calls::mounted())
        .await
        .expect("it can be staged");
    client
        .publish(calls::publication(&id, &staging, &target))
        .await
        .expect("it is staged");
    fs::write(target.join("row"), "kept").expect("it can be written");

    client
        .unstage(&id, &staging)
        .await
        .expect("the consumer keeps it");
    let again = client.stage(&id, &staging, calls::mounted()).await;

    again.expect("its filesystem is not checked while it is mounted");
    assert_eq!(
        fs::read(staging.join("row")).expect("it is the same"),
        b"kept"
    );
}

#[tokio::test]
async fn an_image_that_a_container_which_is_gone_had_attached_is_found_and_thawed() {
    if !is_root("a container's loop device") {
        return;
    }
    let mut node = Node::start(&[]);
    let (pool, staging) = (
        node.dir.path().join("data/default"),
        node.dir.path().join("staging"),
    );
    let id = Client::new(node.channel().await)
        .create(calls::image("image", 16 * MIB, "ext4"))
        .await
        .expect("there is room")
        .volume_id;
    node.kill();
    let device = attached_in_a_container(&pool, "volumes/image/image");
    let told = format!("/sys/block/loop{}/loop/backing_file", device.number);
    let told = fs::read_to_string(told).expect("it is attached");
    assert!(
        !Path::new(told.trim()).exists(),
        "{told} should lead nowhere"
    );
    fs::create_dir(&staging).expect("the name is free");
    run("mount", [&device.path, &staging]).expect("it has a filesystem");
    run("fsfreeze", [Path::new("-f"), &staging]).expect("it is mounted");
    drop(device);

    node.start_again();
    let still_frozen = thaw_leftover(&Gate::open(), &staging).expect("it is mounted");
    let mut client = Client::new(node.channel().await);
    let staged = client.stage(&id, &staging, calls::mounted()).await;

    assert!(!still_frozen, "{}", node.log());
    staged.expect("it is staged there already");
    // What only the page cache holds is in a snapshot because the filesystem stands still for it.
    fs::write(staging.join("row"), "kept").expect("it was thawed");
    let snapshot = client.snapshot("held", &id).await.expect("there is room");
    let restored = CreateVolumeRequest {
        volume_content_source: Some(calls::of_snapshot(&snapshot.snapshot_id)),
        ..calls::image("restored", 16 * MIB, "ext4")
    };
    let restored = client.create(restored).await.expect("there is room");
    let beside = node.dir.path().join("restored");
    client
        .stage(&restored.volume_id, &beside, calls::mounted())
        .await
        .expect("it is whole");
    assert_eq!(fs::read(beside.join("row")).expect("it is there"), b"kept");
}

/// Attaches the pool's file as a node does that sees the pool at another place, in mounts of its own that end with it.
fn attached_in_a_container(pool: &Path, file: &str) -> LoopDevice {
    let inside = tempfile::tempdir().expect("a temporary directory can be made");
    namespace::in_own_mounts(|| {
        run("mount", [Path::new("--bind"), pool, inside.path()]).expect("root may");
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(inside.path().join(file));
        LoopDevices::new(Gate::open())
            .attach(&file.expect("the volume is there"), false, true)
            .expect("a device is free")
    })
    .expect("root may make a mount namespace")
}
