//! A filesystem on a loop file, with the options that a test wants, which can be mounted again with others.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::support::run;

/// How large it is: XFS has to be at least 300 MiB.
const SIZE: u64 = 512 << 20;

/// A new filesystem, mounted until it is dropped.
pub(crate) struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Makes one of this kind, `ext4` or `xfs`, and mounts it.
    pub(crate) fn new(kind: &str, make: &[&str], mount: &str) -> Self {
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
        disk.mount(mount);
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// Mounts it with these options.
    pub(crate) fn mount(&self, options: &str) {
        let options = format!("-oloop,{options}");
        let mounted = run(
            "mount",
            [
                OsStr::new(&options),
                self.image().as_ref(),
                self.path().as_ref(),
            ],
        );
        mounted.expect("it can be mounted");
    }

    /// Takes it away from where it is mounted.
    pub(crate) fn unmount(&self) -> Result<()> {
        run("umount", [self.path()]).map(drop)
    }

    /// A new directory in it.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path).expect("the name is new");
        path
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
