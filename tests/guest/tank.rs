//! A node that serves a pool on a zpool of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::client::Client;
use crate::node::Node;
use crate::support::{run, skipped};

/// A zpool on two files that mirror each other, and a node whose pool is on it.
pub(crate) struct Tank {
    pub(crate) name: String,
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
            let path = tank.disk(disk);
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

    /// Its disk `one` or `two`.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
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
    pub(crate) fn at<T>(&self, id: &str, work: impl FnOnce(&Path) -> T) -> T {
        let client = self.client();
        let (staging, target) = (self.place("staging"), self.place("target"));
        client.publish(id, &staging, &target).expect("it is there");
        let done = work(&target);
        client
            .unpublish(id, &staging, &target)
            .expect("nobody uses it");
        done
    }

    pub(crate) fn write(&self, id: &str, content: &str) {
        self.at(id, |at| {
            fs::write(at.join("content"), content).expect("there is room");
        });
    }

    pub(crate) fn read(&self, id: &str) -> String {
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
