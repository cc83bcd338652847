//! What pools are made on, by kind: how one is made there, and what is left in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use orlop::config::{self, Place};
use orlop::volume::Bytes;
use tempfile::TempDir;

use super::bare_disk::BareDisk;
use super::{LoopFs, run, skipped};

/// The size of what is below each pool; only what is written takes room.
const SIZE: u64 = 4 << 30;

/// A kind of home.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ground {
    /// Nothing: the fake.
    Memory,
    /// Directories on this filesystem.
    Directory(&'static str),
    /// Subvolumes of a btrfs.
    Btrfs,
    /// A volume group.
    Lvm {
        /// With a thin pool.
        thin: bool,
    },
}

/// What pools are made on, one after the other; dropped, it is gone.
pub(crate) enum Home {
    Memory,
    Folders { disk: LoopFs, btrfs: bool },
    Lvm(VolumeGroup),
}

/// A volume group on a disk of its own.
pub(crate) struct VolumeGroup {
    pub(crate) name: String,
    thin: bool,
    disk: BareDisk,
    directory: TempDir,
}

impl Ground {
    /// Makes one. Nothing, and a line that says why, where this machine can not.
    pub(crate) fn make(self) -> Option<Home> {
        match self {
            Self::Memory => Some(Home::Memory),
            Self::Directory(filesystem) => Some(Home::Folders {
                disk: LoopFs::of_size(filesystem, SIZE)?,
                btrfs: false,
            }),
            Self::Btrfs => Some(Home::Folders {
                disk: LoopFs::of_size("btrfs", SIZE)?,
                btrfs: true,
            }),
            Self::Lvm { thin } => VolumeGroup::new(thin).map(Home::Lvm),
        }
    }
}

impl Home {
    /// A new pool, empty; one of folders is in the directory `place`.
    pub(crate) fn pool(&self, place: &Path) -> config::Kind {
        fs::create_dir_all(place).expect("the place can be written");
        let at = Place {
            path: place.to_owned(),
        };
        match self {
            Self::Memory | Self::Folders { btrfs: false, .. } => config::Kind::Directory(at),
            Self::Folders { btrfs: true, .. } => config::Kind::Btrfs(at),
            Self::Lvm(group) => {
                group.clear();
                config::Kind::Lvm(group.pool(1000))
            }
        }
    }

    /// Where the directories of pools can be.
    pub(crate) fn path<'a>(&'a self, otherwise: &'a Path) -> &'a Path {
        match self {
            Self::Memory | Self::Lvm(_) => otherwise,
            Self::Folders { disk, .. } => disk.path(),
        }
    }

    /// All that is in the pool at `place`: `volumes/…`, `snapshots/…`, and what is half made or half removed, `making/…`
    /// and `trash/…`.
    pub(crate) fn contents(&self, place: &Path) -> BTreeSet<String> {
        let of_folder = |folder: &&str| {
            let folder = (*folder).to_owned();
            let entries = fs::read_dir(place.join(&folder)).expect("the pool is there");
            entries.map(move |entry| {
                let name = entry.expect("it can be read").file_name();
                format!("{folder}/{}", name.to_string_lossy())
            })
        };
        match self {
            Self::Memory => BTreeSet::new(),
            Self::Folders { .. } => ["volumes", "snapshots", "making", "trash"]
                .iter()
                .flat_map(of_folder)
                .collect(),
            Self::Lvm(group) => group.contents(),
        }
    }

    /// Whether a pool here is a folder, in which people can have their hands.
    pub(crate) fn has_folders(&self) -> bool {
        matches!(self, Self::Folders { .. })
    }

    /// What sizes of devices are a multiple of.
    pub(crate) fn grain(&self) -> Bytes {
        match self {
            Self::Memory | Self::Folders { .. } => Bytes(4096),
            Self::Lvm(_) => Bytes::MIB.times(4),
        }
    }
}

impl VolumeGroup {
    /// Makes one, with a thin pool in it if asked.
    pub(crate) fn new(thin: bool) -> Option<Self> {
        if let Err(reason) = run("modprobe", ["-a", "dm_thin_pool", "dm_snapshot"]) {
            skipped("a test on LVM", &format!("{reason:#}"));
            return None;
        }
        let group = Self {
            // As those of machines often are, with a dash.
            name: format!("vg-{}", std::process::id()),
            thin,
            disk: BareDisk::new(),
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
        };
        let create = ["--quiet", "--yes", &group.name, &group.disk.device];
        run("vgcreate", create).expect("nobody uses it");
        if thin {
            let pool = [
                "--type=thin-pool",
                "--size=6g",
                "--poolmetadatasize=8m",
                "--name=thin-0",
            ];
            run("lvcreate", pool.iter().chain(&["--yes", &group.name])).expect("there is room");
        }
        Some(group)
    }

    /// A pool in it, which promises this many percent of what it has.
    pub(crate) fn pool(&self, overcommit: u64) -> config::Lvm {
        let thin = if self.thin { ", thinPool: thin-0" } else { "" };
        let text = format!(
            "pools: [{{ name: pool, lvm: {{ volumeGroup: {}{thin}, overcommitPercent: {overcommit} }} }}]",
            self.name
        );
        let file = self.directory.path().join("pools.yaml");
        fs::write(&file, text).expect("the directory can be written");
        let pools = config::Pools::read(&file).expect("it is a pools file");
        match &pools.pools[0].kind {
            config::Kind::Lvm(lvm) => lvm.clone(),
            other => panic!("it is {}", other.name()),
        }
    }

    /// Removes all that pools made in it.
    fn clear(&self) {
        let ours = ["--select", "lv_name=~^[vshr]-", &self.name];
        run("lvremove", ["--quiet", "--yes"].iter().chain(&ours)).expect("nobody uses them");
    }

    fn contents(&self) -> BTreeSet<String> {
        let fields = ["--noheadings", "--options=lv_name,lv_tags", &self.name];
        let listed = run("lvs", fields).expect("the group is there");
        let entry = |line: &str| {
            let (name, tags) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            let folder = match name.split_once('-')? {
                _ if tags.contains("orlop-half") => "making",
                ("v", _) => "volumes",
                ("s", _) => "snapshots",
                ("r", _) => "trash",
                _ => return None,
            };
            Some(format!("{folder}/{}", &name[2..]))
        };
        listed.lines().filter_map(entry).collect()
    }
}

impl Drop for VolumeGroup {
    fn drop(&mut self) {
        let gone = run("vgremove", ["--quiet", "--yes", "--force", &self.name]);
        if let Err(reason) = gone {
            eprintln!("volume group {} stays behind: {reason:#}", self.name);
        }
    }
}
