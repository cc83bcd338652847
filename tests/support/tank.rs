//! A zpool on a disk of its own, with a dataset for pools in it.

use std::collections::BTreeSet;

use super::bare_disk::{BareDisk, stays_behind};
use super::{run, skipped, until};

/// Dropped, it is gone.
pub(crate) struct Tank {
    name: String,
    _disk: BareDisk,
}

impl Tank {
    /// Makes one. Nothing, and a line that says why, where this machine can not.
    pub(crate) fn new() -> Option<Self> {
        if let Err(reason) = run("modprobe", ["zfs"]) {
            skipped("a test on ZFS", &format!("{reason:#}"));
            return None;
        }
        let disk = BareDisk::new("test2");
        let name = format!("tank-{}", std::process::id());
        let create = ["create", "-f", "-O", "mountpoint=none", &name, &disk.device];
        run("zpool", create).expect("nobody uses the disk");
        run("zfs", ["create", &format!("{name}/orlop")]).expect("the zpool is empty");
        Some(Self { name, _disk: disk })
    }

    /// The dataset that pools are made in.
    pub(super) fn dataset(&self) -> String {
        format!("{}/orlop", self.name)
    }

    /// A property of the dataset of a volume.
    #[allow(dead_code, reason = "few tests look so closely")]
    pub(crate) fn property(&self, volume: &str, property: &str) -> String {
        let dataset = format!("{}/v-{volume}", self.dataset());
        let told = run("zfs", ["get", "-Hpo", "value", property, &dataset]);
        told.expect("it is there").trim_end().to_owned()
    }

    /// All that is in it, as in a pool of folders. What ZFS keeps for clones alone is not ours to tidy.
    pub(crate) fn contents(&self) -> BTreeSet<String> {
        let kinds = "filesystem,volume,snapshot";
        let list = [
            "list",
            "-Hr",
            "-t",
            kinds,
            "-o",
            "name,type",
            &self.dataset(),
        ];
        let listed = run("zfs", list).expect("it is there");
        let entry = |line: &str| {
            let mut fields = line.split('\t');
            let (name, kind) = (fields.next()?, fields.next()?);
            let below = name.strip_prefix(&self.dataset())?.strip_prefix('/')?;
            if kind == "snapshot" {
                let taken = below.split_once("@s-")?.1;
                return Some(format!("snapshots/{taken}"));
            }
            let folder = match below.split_once('-')? {
                ("m", _) => "making",
                ("v", _) => "volumes",
                ("r", _) => "trash",
                _ => return None,
            };
            Some(format!("{folder}/{}", &below[2..]))
        };
        listed.lines().filter_map(entry).collect()
    }
}

impl Drop for Tank {
    fn drop(&mut self) {
        if !until(|| run("zpool", ["destroy", "-f", &self.name]).is_ok()) {
            stays_behind(&format!("zpool {}", self.name));
        }
    }
}
