//! A filesystem on a loop file, with the options that a test wants, which can be mounted again with others.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::support::{run, skipped};

/// How large it is: XFS has to be at least 300 MiB.
const SIZE: u64 = 512 << 20;

/// A new filesystem, mounted until it is dropped.
pub(crate) struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Makes one of this kind, `ext4` or `xfs`, and mounts it.
    ///
    /// Nothing, and a line that says why, where this machine can not; the guest can.
    pub(crate) fn new(kind: &str, make: &[&str], mount: &str) -> Option<Self> {
        let disk = Self {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
        };
        fs::create_dir(disk.path()).expect("the directory is new");
        File::create(disk.image())
            .and_then(|file| file.set_len(SIZE))
            .expect("a sparse file can be made");
        let mut arguments = vec![OsStr::new("-q")];
        arguments.extend(make.iter().map(OsStr::new));
        let image = disk.image();
        arguments.push(image.as_os_str());
        run(&format!("mkfs.{kind}"), arguments).expect("the filesystem can be made");
        match disk.try_to_mount(mount) {
            Ok(()) => Some(disk),
            Err(reason) if std::env::var_os("ORLOP_GUEST").is_none() => {
                skipped(
                    &format!("a test on {kind} with {mount}"),
                    &format!("{reason:#}"),
                );
                None
            }
            Err(reason) => panic!("{kind} can not be mounted with {mount}: {reason:#}"),
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// Mounts it with these options.
    pub(crate) fn mount(&self, options: &str) {
        self.try_to_mount(options).expect("it was mounted before");
    }

    fn try_to_mount(&self, options: &str) -> Result<()> {
        let (image, path) = (self.image(), self.path());
        let options = format!("-oloop,{options}");
        let arguments = [OsStr::new(&options), image.as_ref(), path.as_ref()];
        run("mount", arguments).map(drop)
    }

    /// Takes it away from where it is mounted.
    pub(crate) fn unmount(&self) -> Result<()> {
        run("umount", [self.path()]).map(drop)
    }

    /// Where the pool `default` of its pools file is.
    pub(crate) fn pool(&self) -> PathBuf {
        self.path().join("pool")
    }

    /// A pools file on it, with one directory pool.
    pub(crate) fn pools(&self) -> PathBuf {
        fs::create_dir_all(self.pool()).expect("the disk can be written");
        let file = self.path().join("pools.yaml");
        let place = self.pool().display().to_string();
        let text = format!("pools: [{{ name: default, directory: {{ path: {place} }} }}]\n");
        fs::write(&file, text).expect("the disk can be written");
        file
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let lazily = |path: &Path| run("umount", [OsStr::new("--lazy"), path.as_ref()]).map(drop);
        // What a failed test left open must not keep the next one from its memory.
        if self.unmount().is_err() {
            let _ = lazily(&self.path());
        }
    }
}
