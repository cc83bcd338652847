//! The directory of a demo: made for it, looked through at its end, and removed.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::host::folder::Folder;
use crate::host::{Host, tree};

/// Where a node keeps its volumes, which no demo may come near.
const OF_NODES: &str = "/var/lib/orlop";

/// A directory that belongs to one demo.
pub(super) struct Home {
    parent: Folder,
    name: String,
    path: PathBuf,
    host: Host,
}

impl Home {
    /// Makes one in the directory `data`.
    pub(super) fn make(data: &Path, host: Host) -> Result<Self> {
        let data = data.canonicalize().with_context(|| {
            format!(
                "{}: name a directory that is there by --data",
                data.display()
            )
        })?;
        ensure!(
            !data.starts_with(OF_NODES),
            "{OF_NODES} is where a node keeps its volumes: name another directory by --data"
        );
        let name = format!("orlop-demo-{}", std::process::id());
        let parent = Folder::open(&data, host.gate.clone())?;
        parent.make_folder(&name, 0o700)?;
        let path = data.join(&name);
        Ok(Self {
            parent,
            name,
            path,
            host,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// What is mounted in it.
    pub(super) fn mounts(&self) -> Result<Vec<PathBuf>> {
        let all = self.host.mounts.all()?.into_iter();
        Ok(all
            .map(|mount| mount.target)
            .filter(|target| target.starts_with(&self.path))
            .collect())
    }

    /// What its pool still holds, if there is one in it.
    pub(super) fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let (mut left, pool) = (Vec::new(), self.path.join("default"));
        if !pool.exists() {
            return Ok(left);
        }
        for kind in ["volumes", "snapshots", "making", "trash"] {
            let place = pool.join(kind);
            let entries = fs::read_dir(&place)
                .with_context(|| format!("looking into {}", place.display()))?;
            for entry in entries {
                left.push(entry?.path());
            }
        }
        Ok(left)
    }

    /// Unmounts what is mounted in it, the latest first.
    pub(super) fn unmount(&self) -> Result<()> {
        let mounts = self.mounts()?;
        mounts
            .iter()
            .rev()
            .try_for_each(|target| self.host.mounts.unmount(target))
    }

    /// Removes it with all that it holds.
    pub(super) fn remove(self) -> Result<()> {
        tree::remove(&self.host.gate, self.parent.as_fd(), OsStr::new(&self.name))
            .with_context(|| format!("removing {}", self.path.display()))
    }
}
