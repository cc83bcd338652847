//! What pools are made on, by kind: how one is made there, and what is left in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use orlop::config;
use orlop::volume::Bytes;

use super::bare_disk::{BareDisk, stays_behind};
use super::tank::Tank;
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
    /// The same, on a small disk.
    Small(&'static str),
    /// The same, mounted so that it keeps to quotas of projects.
    Quota(&'static str),
    /// Subvolumes of a btrfs.
    Btrfs,
    /// A volume group.
    Lvm {
        /// With a thin pool.
        thin: bool,
    },
    /// A zpool.
    Zfs,
}

/// What a pool is made on; dropped, it is gone.
pub(crate) enum Home {
    Memory,
    Folders { disk: LoopFs, btrfs: bool },
    Lvm(VolumeGroup),
    Zfs(Tank),
}

/// A volume group on a disk of its own.
pub(crate) struct VolumeGroup {
    pub(crate) name: String,
    thin: bool,
    disk: BareDisk,
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
            Self::Small(filesystem) => Some(Home::Folders {
                disk: LoopFs::new(filesystem)?,
                btrfs: false,
            }),
            Self::Quota(filesystem) => Some(Home::Folders {
                disk: LoopFs::with_quota(filesystem, SIZE)?,
                btrfs: false,
            }),
            Self::Btrfs => Some(Home::Folders {
                disk: LoopFs::of_size("btrfs", SIZE)?,
                btrfs: true,
            }),
            Self::Lvm { thin } => VolumeGroup::new(thin).map(Home::Lvm),
            Self::Zfs => Tank::new().map(Home::Zfs),
        }
    }
}

impl Home {
    /// A pools file with one pool of this name; one of folders is in the directory `place`, which is made.
    pub(crate) fn pools(&self, name: &str, place: &Path) -> String {
        let at = || {
            fs::create_dir_all(place).expect("the place can be written");
            format!("{{ path: {} }}", place.display())
        };
        let kind = match self {
            Self::Memory | Self::Folders { btrfs: false, .. } => format!("directory: {}", at()),
            Self::Folders { btrfs: true, .. } => format!("btrfs: {}", at()),
            Self::Lvm(group) => format!("lvm: {}", group.pool()),
            Self::Zfs(tank) => format!("zfs: {{ dataset: {} }}", tank.dataset()),
        };
        format!("pools: [{{ name: {name}, {kind} }}]")
    }

    /// The pool in that file.
    pub(crate) fn pool(&self, place: &Path) -> config::Kind {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let file = directory.path().join("pools.yaml");
        fs::write(&file, self.pools("pool", place)).expect("the directory can be written");
        let pools = config::Pools::read(&file).expect("it is a pools file");
        pools.pools[0].kind.clone()
    }

    /// Where the directories of pools can be.
    pub(crate) fn path<'a>(&'a self, otherwise: &'a Path) -> &'a Path {
        match self {
            Self::Memory | Self::Lvm(_) | Self::Zfs(_) => otherwise,
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
            Self::Zfs(tank) => tank.contents(),
        }
    }

    /// The same, with all that is known of it where that is little: sizes, and records.
    #[allow(dead_code, reason = "few tests look so closely")]
    pub(crate) fn details(&self) -> BTreeSet<String> {
        let listed = match self {
            Self::Memory | Self::Folders { .. } => return BTreeSet::new(),
            Self::Lvm(group) => {
                let fields = "lv_name,lv_size,lv_tags";
                run("lvs", ["--noheadings", "--options", fields, &group.name])
            }
            Self::Zfs(tank) => {
                let fields = "name,volsize,refquota,dev.orlop:volume,dev.orlop:snapshot";
                let dataset = tank.dataset();
                run("zfs", ["list", "-Hr", "-tall", "-o", fields, &dataset])
            }
        };
        let listed = listed.expect("the pool is there");
        listed.lines().map(str::to_owned).collect()
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
            Self::Zfs(_) => Bytes::MIB,
        }
    }

    /// The smallest tree.
    pub(crate) fn least_tree(&self) -> Bytes {
        match self {
            Self::Memory | Self::Folders { .. } | Self::Lvm(_) => Bytes(1),
            Self::Zfs(_) => Bytes::MIB,
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
            disk: BareDisk::new("test1"),
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

    /// The disk that it was made on.
    pub(crate) fn device(&self) -> &str {
        &self.disk.device
    }

    /// A pool in it, which promises ten times what it has.
    fn pool(&self) -> String {
        let thin = if self.thin { ", thinPool: thin-0" } else { "" };
        format!(
            "{{ volumeGroup: {}{thin}, overcommitPercent: 1000 }}",
            self.name
        )
    }

    fn contents(&self) -> BTreeSet<String> {
        let fields = ["--noheadings", "--options=lv_name,lv_tags", &self.name];
        let listed = run("lvs", fields).expect("the group is there");
        let entry = |line: &str| {
            let (name, tags) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            let folder = match name.split_once('-')? {
                ("h", _) => "making",
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
            stays_behind(&format!("volume group {}: {reason:#}", self.name));
        }
    }
}
