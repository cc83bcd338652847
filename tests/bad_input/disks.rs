//! A disk that is full, and one that can only be read.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use tonic::{Code, Status};

use crate::calls::{self, Client, MIB};
use crate::node::Node;
use crate::support::{LoopFs, run};
use crate::tree_of;

/// A node whose pool is on a disk of its own. The node goes first.
struct Cottage {
    client: Client,
    node: Node,
    disk: LoopFs,
}

impl Cottage {
    async fn on(filesystem: &str) -> Option<Self> {
        let disk = LoopFs::new(filesystem)?;
        let data = disk.path().display().to_string();
        let node = Node::start(&["--data", &data]);
        let client = Client::new(node.channel().await);
        Some(Self { client, node, disk })
    }

    fn entries(&self) -> Vec<String> {
        let mut entries = tree_of(&self.disk.path().join("default"));
        entries.sort();
        entries
    }
}

fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, word: &str) {
    let status = answer.expect_err("it can not be");
    assert!(
        status.code() == code && status.message().contains(word),
        "{status:?}"
    );
}

fn fill(path: &Path, mebibytes: usize) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let chunk = vec![0x5a; 1 << 20];
    (0..mebibytes).try_for_each(|_| file.write_all(&chunk))
}

#[tokio::test]
async fn a_full_disk_sends_the_caller_to_another_node() {
    for filesystem in ["ext4", "xfs", "tmpfs"] {
        let Some(mut cottage) = Cottage::on(filesystem).await else {
            continue;
        };
        let made = cottage.client.create(calls::volume("there", MIB)).await;
        let id = made.expect("there is room").volume_id;
        let before = cottage.entries();
        fill(&cottage.disk.path().join("ballast"), 1 << 15).expect_err("the disk is smaller");

        let created = cottage.client.create(calls::volume("new", MIB)).await;
        let imaged = cottage
            .client
            .create(calls::image("new", 16 * MIB, "ext4"))
            .await;
        let grown = cottage.client.grow(&id, 400 * MIB).await;

        assert_refused(created, Code::ResourceExhausted, "has room for");
        assert_refused(imaged, Code::ResourceExhausted, "has room for");
        assert_refused(grown, Code::ResourceExhausted, "has room for");
        assert_eq!(cottage.entries(), before, "{filesystem}");
        fs::remove_file(cottage.disk.path().join("ballast")).expect("it is ours");
        cottage
            .client
            .delete(&id)
            .await
            .expect("there is room for that");
    }
}

#[tokio::test]
async fn a_disk_that_gets_full_in_the_middle_keeps_nothing_of_it() {
    let Some(mut cottage) = Cottage::on("ext4").await else {
        return;
    };
    let made = cottage.client.create(calls::volume("there", MIB)).await;
    let id = made.expect("there is room").volume_id;
    fill(
        &cottage.disk.path().join("default/volumes/there/data/most"),
        300,
    )
    .expect("there is room");
    let before = cottage.entries();

    let taken = cottage.client.snapshot("snapshot", &id).await;
    let cloned = cottage
        .client
        .create(orlop::csi::proto::CreateVolumeRequest {
            volume_content_source: Some(calls::of_volume(&id)),
            ..calls::volume("clone", MIB)
        });

    assert_refused(taken, Code::ResourceExhausted, "no space left");
    assert_refused(cloned.await, Code::ResourceExhausted, "no space left");
    assert_eq!(cottage.entries(), before);
    assert_eq!(cottage.client.snapshots().await.len(), 0);
    assert_eq!(cottage.client.volumes().await.len(), 1);
}

#[tokio::test]
async fn a_disk_that_can_only_be_read_is_told_and_still_listed() {
    let Some(mut cottage) = Cottage::on("ext4").await else {
        return;
    };
    let made = cottage.client.create(calls::volume("there", MIB)).await;
    let id = made.expect("there is room").volume_id;
    let before = cottage.entries();
    fail(&cottage.disk);

    let created = cottage.client.create(calls::volume("new", MIB)).await;
    let deleted = cottage.client.delete(&id).await;
    let grown = cottage.client.grow(&id, 2 * MIB).await;
    let taken = cottage.client.snapshot("snapshot", &id).await;
    let listed = cottage.client.volumes().await.len();
    let there = cottage.client.create(calls::volume("there", MIB)).await;

    assert_refused(created, Code::Internal, "Read-only file system");
    assert_refused(deleted, Code::Internal, "Read-only file system");
    assert_refused(grown, Code::Internal, "Read-only file system");
    assert_refused(taken, Code::Internal, "Read-only file system");
    assert_eq!(
        (listed, there.expect("it is there").volume_id),
        (1, id.clone())
    );
    assert_eq!(cottage.entries(), before);
    drop(cottage.node);
}

/// Has the kernel find an error in the filesystem, after which it can only be read.
fn fail(disk: &LoopFs) {
    let remount = [
        "-oremount,errors=remount-ro".as_ref(),
        disk.path().as_os_str(),
    ];
    run("mount", remount).expect("ext4 takes the option");
    let mounts = Mounts::new(Gate::open())
        .all()
        .expect("the table can be read");
    let mount = mounts.iter().find(|mount| mount.target == disk.path());
    let device = Path::new(&mount.expect("it is mounted").source).to_owned();
    let name = device.file_name().expect("it is a device node").to_owned();
    let trigger = Path::new("/sys/fs/ext4")
        .join(name)
        .join("trigger_fs_error");
    fs::write(trigger, "a test").expect("the kernel has it");
}
