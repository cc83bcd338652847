//! The machine of both halves: the disks as the cut left them, and a node that serves them.

use std::fs;
use std::path::Path;

use crate::node::Node;
use crate::support::{run, until};

const POOLS: &str = "\
pools:
  - name: thin
    lvm: { volumeGroup: cut, thinPool: thin-0 }
  - name: thick
    lvm: { volumeGroup: cut }
  - name: tank
    zfs: { dataset: tank/orlop }
  - name: tree
    directory: { path: /mnt/orlop }
";

pub(super) struct Bench {
    pub(super) node: Node,
}

impl Bench {
    /// Makes what the first boot finds blank, brings up what a later one finds, and starts the node.
    pub(super) fn set_up() -> Self {
        run("modprobe", ["-a", "dm_thin_pool", "dm_snapshot", "zfs"]).expect("the guest has them");
        let disk = |serial: &str| {
            let link = Path::new("/dev/disk/serial").join(serial);
            let node = fs::canonicalize(link).expect("the guest has the disk");
            node.display().to_string()
        };
        let (group, tank, tree) = (disk("test1"), disk("test2"), disk("test3"));
        if run("vgs", ["cut"]).is_err() {
            run("vgcreate", ["--quiet", "--yes", "cut", &group]).expect("it is blank");
            let pool = ["--type=thin-pool", "--size=400m", "--name=thin-0"];
            run("lvcreate", pool.iter().chain(&["--yes", "cut"])).expect("there is room");
        }
        if run("zpool", ["import", "-d", "/dev", "-N", "tank"]).is_err() {
            run("zpool", ["create", "-O", "mountpoint=none", "tank", &tank]).expect("it is blank");
            run("zfs", ["create", "tank/orlop"]).expect("it is new");
        }
        fs::create_dir_all("/mnt").expect("the root can be written");
        if mount_tree(&tree).is_err() {
            run("mkfs.xfs", ["-q", &tree]).expect("it is blank");
            mount_tree(&tree).expect("it was just made");
            fs::create_dir("/mnt/orlop").expect("it is new");
            run("sync", [""; 0]).expect("it can be written");
        }
        let file = Path::new("/run/pools.yaml");
        fs::write(file, POOLS).expect("it can be written");
        let node = Node::start(&["--log", "warn", "--pools", "/run/pools.yaml"]);
        Self { node }
    }

    /// Nothing is left of what was deleted: no logical volume, dataset, mapping, project.
    pub(super) fn assert_empty(&self) {
        let left = || {
            let lvs = run("lvs", ["--noheadings", "-o", "lv_name", "cut"]);
            let lvs = lvs.expect("it is there");
            let ours = lvs.lines().map(str::trim).filter(|lv| *lv != "thin-0");
            let datasets = run(
                "zfs",
                ["list", "-Hr", "-t", "all", "-o", "name", "tank/orlop"],
            );
            let datasets = datasets.expect("it is there");
            let ours = ours.chain(datasets.lines().skip(1));
            let projects = run("xfs_quota", ["-x", "-c", "report -p -n -N -b -i", "/mnt"]);
            let projects = projects.expect("quotas are on");
            let others = projects.lines().filter(|line| {
                let mut words = line.split_whitespace();
                words.next().is_some_and(|project| project != "#0")
                    && words.any(|figure| figure.parse::<u64>().is_ok_and(|figure| figure > 0))
            });
            let mut left: Vec<_> = ours.chain(others).map(str::to_owned).collect();
            for part in ["volumes", "snapshots", "making", "trash"] {
                let entries = fs::read_dir(Path::new("/mnt/orlop").join(part));
                let entries = entries.expect("the pool is there").flatten();
                left.extend(entries.map(|entry| entry.path().display().to_string()));
            }
            left
        };
        // What is deleted is gone at once, and removed a little later.
        let gone = until(|| left().is_empty());
        assert!(gone, "left: {:?}\n{}", left(), self.node.log());
        let mapped = run("dmsetup", ["ls"]).expect("the device mapper answers");
        let others: Vec<_> = mapped
            .lines()
            .filter(|line| !line.starts_with("cut-thin--0"))
            .collect();
        assert!(others.is_empty(), "still mapped: {others:?}");
    }
}

fn mount_tree(disk: &str) -> anyhow::Result<()> {
    run("mount", ["-t", "xfs", "-o", "prjquota", disk, "/mnt"]).map(drop)
}
