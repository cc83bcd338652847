//! What is ZFS's own: what depends on what, and what becomes of that when its source goes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::client::{Client, From};
use crate::node::Node;
use crate::support::{run, skipped, until};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;

/// A zpool on two files that mirror each other, and a node whose pool is on it.
pub(crate) struct Tank {
    name: String,
    files: TempDir,
    node: Option<Node>,
}

impl Tank {
    /// Nothing, and a line that says why, where there is no ZFS.
    pub(crate) fn new(name: &str) -> Option<Self> {
        Self::of_size(name, 1 << 30)
    }

    /// The same on disks of this size.
    pub(crate) fn of_size(name: &str, size: u64) -> Option<Self> {
        if run("modprobe", ["zfs"]).is_err() && std::env::var_os("ORLOP_GUEST").is_none() {
            skipped("a test with ZFS", "this kernel has no ZFS");
            return None;
        }
        let files = tempfile::tempdir().expect("a temporary directory can be made");
        let mut tank = Self {
            name: format!("orlop-{name}"),
            files,
            node: None,
        };
        let disks = ["one", "two"].map(|disk| {
            let path = tank.files.path().join(disk);
            let made = File::create(&path).and_then(|file| file.set_len(size));
            made.expect("a sparse file can be made");
            path.display().to_string()
        });
        let create = [
            "create",
            "-O",
            "mountpoint=none",
            &tank.name,
            "mirror",
            &disks[0],
            &disks[1],
        ];
        run("zpool", create).expect("a zpool can be made");
        run("zfs", ["create", &tank.home()]).expect("a dataset can be made");
        fs::write(
            tank.pools(),
            format!(
                "pools: [{{ name: tank, zfs: {{ dataset: {} }} }}]\n",
                tank.home()
            ),
        )
        .expect("the directory can be written");
        let node = Node::start(&["--pools", &tank.pools().display().to_string()]);
        tank.node = Some(node);
        Some(tank)
    }

    pub(crate) fn home(&self) -> String {
        format!("{}/orlop", self.name)
    }

    fn pools(&self) -> PathBuf {
        self.files.path().join("pools.yaml")
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("it was started")
    }

    pub(crate) fn client(&self) -> Client {
        Client::of(self.node())
    }

    pub(crate) fn restart(&mut self) {
        let node = self.node.as_mut().expect("it was started");
        node.kill();
        node.start_again();
    }

    /// All that is beneath the pool's dataset, by ZFS's own names.
    pub(crate) fn all(&self) -> Vec<String> {
        let listed = run(
            "zfs",
            ["list", "-Hr", "-t", "all", "-o", "name", &self.home()],
        );
        let listed = listed.expect("it is there");
        listed.lines().skip(1).map(str::to_owned).collect()
    }

    /// One of its disks.
    pub(crate) fn disk(&self) -> PathBuf {
        self.files.path().join("one")
    }

    /// A property of the dataset of a volume.
    pub(crate) fn property(&self, id: &str, property: &str) -> String {
        let (_, name) = id.split_once('/').expect("it is an id");
        let dataset = format!("{}/v-{name}", self.home());
        let told = run("zfs", ["get", "-Hp", "-o", "value", property, &dataset]);
        told.expect("it is there").trim().to_owned()
    }

    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.node().dir.path().join(name)
    }

    /// Publishes the volume, does something there, and takes it back.
    fn at<T>(&self, id: &str, work: impl FnOnce(&Path) -> T) -> T {
        let client = self.client();
        let (staging, target) = (self.place("staging"), self.place("target"));
        client.publish(id, &staging, &target).expect("it is there");
        let done = work(&target);
        client
            .unpublish(id, &staging, &target)
            .expect("nobody uses it");
        done
    }

    fn write(&self, id: &str, content: &str) {
        self.at(id, |at| {
            fs::write(at.join("content"), content).expect("there is room");
        });
    }

    fn read(&self, id: &str) -> String {
        self.at(id, |at| {
            fs::read_to_string(at.join("content")).expect("it was written")
        })
    }
}

impl Drop for Tank {
    fn drop(&mut self) {
        self.node = None;
        for mount in ["/run/orlop/zfs".into(), self.files.path().to_owned()] {
            let _ = fs::read_dir(mount.join(self.home().replace('/', "+"))).map(|entries| {
                for entry in entries.flatten() {
                    let _ = run("umount", ["-l".as_ref(), entry.path().as_os_str()]);
                }
            });
        }
        let _ = run("zpool", ["destroy", "-f", &self.name]);
    }
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn trees_and_devices_keep_what_is_written_over_a_crash() {
    let Some(mut tank) = Tank::new("crash") else {
        return;
    };
    let client = tank.client();
    let tree = client
        .create("tree", SIZE, &[], &From::Nothing)
        .expect("there is room");
    let ext4 = [("csi.storage.k8s.io/fstype", "ext4")];
    let device = client
        .create("device", SIZE, &ext4, &From::Nothing)
        .expect("there is room");
    let (staging, target) = (tank.place("kept.staging"), tank.place("kept"));
    client
        .publish(&tree, &staging, &target)
        .expect("it is there");
    fs::write(target.join("content"), "rows").expect("there is room");
    tank.write(&device, "blocks");

    tank.restart();
    let client = tank.client();
    client
        .publish(&tree, &staging, &target)
        .expect("a second call changes nothing");
    let rows = fs::read_to_string(target.join("content")).expect("it is still mounted");
    client.delete(&tree).expect_err("it is in use");
    client
        .unpublish(&tree, &staging, &target)
        .expect("nobody uses it");
    let blocks = tank.read(&device);
    client.delete(&tree).expect("it is no longer in use");
    client.delete(&device).expect("it is no longer in use");

    assert_eq!((rows.as_str(), blocks.as_str()), ("rows", "blocks"));
    assert_eq!(tank.all(), [""; 0]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_size_of_a_tree_holds_and_grows_while_it_is_used() {
    let Some(tank) = Tank::new("size") else {
        return;
    };
    let client = tank.client();
    let tree = client.create("tree", 16 * MIB, &[("compression", "off")], &From::Nothing);
    let tree = tree.expect("there is room");
    let noise = vec![1; 12 << 20];

    let (first, second, third) = tank.at(&tree, |at| {
        let first = fs::write(at.join("one"), &noise);
        run("sync", [""; 0]).expect("sync runs");
        let second =
            fs::write(at.join("two"), &noise).and_then(|()| File::open(at.join("two"))?.sync_all());
        let _ = fs::remove_file(at.join("two"));
        client.grow(&tree, 64 * MIB).expect("there is room");
        let third = fs::write(at.join("three"), &noise);
        (first, second, third)
    });

    assert!(first.is_ok() && third.is_ok(), "{first:?} {third:?}");
    let refused = second.expect_err("16 MiB are 16 MiB");
    assert_eq!(refused.raw_os_error(), Some(libc::EDQUOT));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_snapshot_outlives_its_volume_and_what_was_restored_outlives_the_snapshot() {
    let Some(mut tank) = Tank::new("outlive") else {
        return;
    };
    let client = tank.client();
    let first = client
        .create("data", SIZE, &[], &From::Nothing)
        .expect("there is room");
    tank.write(&first, "first");
    let taken = client.snapshot(&first, "kept").expect("there is room");

    client.delete(&first).expect("it is not in use");
    let again = client
        .create("data", SIZE, &[], &From::Nothing)
        .expect("the name is free");
    tank.write(&again, "second");
    let restored = client.create("restored", 2 * SIZE, &[], &From::Snapshot(&taken));
    let restored = restored.expect("the snapshot is there");
    client.delete_snapshot(&taken).expect("it may be deleted");
    client.delete_snapshot(&taken).expect("it is deleted");
    tank.restart();
    let client = tank.client();
    let newer = client
        .snapshot(&restored, "kept")
        .expect("the name is free");
    let (rows, then) = (tank.read(&restored), tank.read(&again));
    for gone in [&restored, &again] {
        client.delete(gone).expect("it is not in use");
    }
    let left = tank.all();
    client
        .delete_snapshot(&newer)
        .expect("nothing was made from it");

    assert_eq!((rows.as_str(), then.as_str()), ("first", "second"));
    assert_eq!(
        left.len(),
        2,
        "the retired volume and its snapshot: {left:?}"
    );
    assert_eq!(tank.all(), [""; 0]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_clone_takes_over_from_a_source_that_goes() {
    let Some(tank) = Tank::new("heir") else {
        return;
    };
    let client = tank.client();
    let source = client
        .create("source", SIZE, &[], &From::Nothing)
        .expect("there is room");
    tank.write(&source, "one");
    let early = client
        .create("early", SIZE, &[], &From::Volume(&source))
        .expect("there is room");
    tank.write(&source, "two");
    let late = client
        .create("late", SIZE, &[], &From::Volume(&source))
        .expect("there is room");

    client.delete(&source).expect("it is not in use");
    let after_source = tank.all();
    let read = (tank.read(&early), tank.read(&late));
    client.delete(&late).expect("it is not in use");
    let early_then = tank.read(&early);
    client.delete(&early).expect("it is not in use");

    assert_eq!(read, ("one".to_owned(), "two".to_owned()));
    assert_eq!(early_then, "one");
    let is_volume = |name: &String| {
        name.ends_with("/v-early") || name.ends_with("/v-late") || name.contains('@')
    };
    assert!(after_source.iter().all(is_volume), "{after_source:?}");
    assert_eq!(tank.all(), [""; 0]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn what_was_half_made_goes_when_the_node_starts() {
    let Some(mut tank) = Tank::new("half") else {
        return;
    };
    let client = tank.client();
    let source = client
        .create("source", SIZE, &[], &From::Nothing)
        .expect("there is room");
    let home = tank.home();
    let half = format!("{home}/m-half");
    run("zfs", ["create", "-V", "64M", "-s", &half]).expect("there is room");
    run("zfs", ["snapshot", &format!("{home}/v-source@c-1")]).expect("there is room");
    run("zfs", ["create", &format!("{home}/mine")]).expect("there is room");

    tank.restart();

    let own = [format!("{home}/mine"), format!("{home}/v-source")];
    assert_eq!(tank.all(), own);
    tank.client().delete(&source).expect("it is not in use");
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_missing_disk_is_told_and_nothing_is_wrong_once_it_is_back() {
    let Some(tank) = Tank::new("sick") else {
        return;
    };
    let client = tank.client();
    let volume = client
        .create("data", SIZE, &[], &From::Nothing)
        .expect("there is room");
    let disk = tank.files.path().join("two").display().to_string();

    let well = client.health(&volume).expect("it is there");
    run("zpool", ["offline", &tank.name, &disk]).expect("a mirror can do without");
    let is_told = || client.storage_health().expect("the node answers") == ["ZpoolDegraded"];
    let told = until(is_told);
    run("zpool", ["online", &tank.name, &disk]).expect("it is still there");
    let recovered = until(|| client.storage_health().is_ok_and(|told| told.is_empty()));

    assert!(well.is_empty(), "{well:?}");
    assert!(told && recovered, "{:?}", client.storage_health());
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_quota_above_the_pool_is_all_that_there_is_room_for() {
    let Some(tank) = Tank::new("quota") else {
        return;
    };
    let client = tank.client();
    let create = |name: &str, mib: u64| client.create(name, mib * MIB, &[], &From::Nothing);
    let limit = |quota: &str| {
        run("zfs", ["set", &format!("quota={quota}"), &tank.name]).expect("it is there");
    };

    limit("256m");
    let within = create("within", 128);
    let beyond = create("beyond", 256);
    limit("none");
    let then = create("beyond", 256);
    for id in [&within, &then].into_iter().flatten() {
        client.delete(id).expect("it is not in use");
    }

    within.expect("there is room");
    let refused = beyond.expect_err("128 MiB are left");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    then.expect("there is room now");
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn what_is_reserved_is_reserved_and_grows() {
    let Some(tank) = Tank::new("reserve") else {
        return;
    };
    let client = tank.client();
    let reserve = ("reserve", "true");
    let of_device = [reserve, ("csi.storage.k8s.io/fstype", "ext4")];
    for (name, class) in [("tree", &[reserve][..]), ("device", &of_device)] {
        let id = client.create(name, SIZE, class, &From::Nothing);
        let id = id.expect("there is room");
        let reserved = || -> u64 {
            let told = tank.property(&id, "refreservation");
            told.parse().expect("it is a number")
        };

        let first = reserved();
        client.grow(&id, 2 * SIZE).expect("there is room");
        let then = reserved();
        client.delete(&id).expect("it is not in use");

        // That of a device has room for what describes it, too.
        assert!((SIZE..SIZE * 5 / 4).contains(&first), "{name}: {first}");
        assert!((2 * SIZE..SIZE * 5 / 2).contains(&then), "{name}: {then}");
    }
}
