//! A disk for a volume group or a zpool.

use std::fs::{self, File};
use std::path::Path;
use std::thread;

use tempfile::TempDir;

use super::run;

/// Where the guest has its disks, none of which is in its memory.
const OF_GUEST: &str = "/dev/disk/serial";

/// The size of a loop file; only what is written takes room.
const SIZE: u64 = 16 << 30;

/// In the guest a disk of its own, elsewhere a loop device, which is gone when this is dropped.
pub(crate) struct BareDisk {
    /// Its node, as the kernel names it.
    pub(crate) device: String,
    file: Option<TempDir>,
}

impl BareDisk {
    /// The guest's of this serial, of which there is one.
    pub(crate) fn new(serial: &str) -> Self {
        if std::env::var_os("ORLOP_GUEST").is_some() {
            let node = Path::new(OF_GUEST).join(serial);
            let node = fs::canonicalize(node).expect("the guest has such a disk");
            let device = node.display().to_string();
            // ZFS leaves partitions, on which LVM makes nothing.
            run("wipefs", ["--all", "--force", "--quiet", &device]).expect("nobody uses it");
            return Self { device, file: None };
        }
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let file = directory.path().join("disk");
        File::create(&file)
            .and_then(|file| file.set_len(SIZE))
            .expect("a sparse file can be made");
        let file = file.display().to_string();
        let device = run("losetup", ["--find", "--show", &file]).expect("a loop device is free");
        Self {
            device: device.trim().to_owned(),
            file: Some(directory),
        }
    }
}

impl Drop for BareDisk {
    fn drop(&mut self) {
        if self.file.is_some()
            && let Err(reason) = run("losetup", ["--detach", &self.device])
        {
            eprintln!("{} stays behind: {reason:#}", self.device);
        }
    }
}

/// Fails the test that leaves something on such a disk, unless it fails already: the next one there would, for its sake.
pub(crate) fn stays_behind(what: &str) {
    assert!(thread::panicking(), "it stays behind: {what}");
    eprintln!("it stays behind: {what}");
}
