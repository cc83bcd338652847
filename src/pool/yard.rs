//! Where the entries of a pool are made aside, and where they end: what is in here is never visible.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::folders::Trees;
use crate::host::folder::Folder;
use crate::host::tree;
use crate::volume::Bytes;

/// The making and the trash of one pool.
pub(super) struct Yard {
    making: Folder,
    trash: Folder,
    trees: Arc<dyn Trees>,
    /// Makes names in the trash unique, also over restarts.
    count: AtomicU64,
}

/// An entry that is being made; dropped before it is placed, it is thrown away.
pub(super) struct Aside<'a> {
    yard: &'a Yard,
    name: String,
    folder: Folder,
    placed: bool,
}

impl Yard {
    pub(super) fn new(making: Folder, trash: Folder, trees: Arc<dyn Trees>) -> Arc<Self> {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let count = AtomicU64::new(u64::try_from(since.as_nanos()).unwrap_or_default());
        Arc::new(Self {
            making,
            trash,
            trees,
            count,
        })
    }

    /// Throws away what earlier processes left, in the background, for it can take long and nothing waits for it.
    pub(super) fn sweep(self: &Arc<Self>) -> Result<()> {
        for name in self.making.names()? {
            self.making
                .move_to(&name, &self.trash, &self.trash_name(&name))?;
        }
        let left = self.trash.names()?;
        if !left.is_empty() {
            tracing::warn!(
                count = left.len(),
                "swept what an earlier process left half-made or half-removed"
            );
            let yard = Arc::clone(self);
            std::thread::Builder::new()
                .name("sweep".into())
                .spawn(move || left.iter().for_each(|name| yard.empty(name)))?;
        }
        Ok(())
    }

    /// Begins an entry. What an earlier attempt in this process left under the name is thrown away first.
    pub(super) fn begin(&self, name: String) -> Result<Aside<'_>> {
        if self.making.folder(&name)?.is_some() {
            let thrown = self.trash_name(&name);
            self.making.move_to(&name, &self.trash, &thrown)?;
            self.empty(&thrown);
        }
        let folder = self.making.make_folder(&name, 0o700)?;
        Ok(Aside {
            yard: self,
            name,
            folder,
            placed: false,
        })
    }

    /// Ends an entry: `discard` moves it into the trash, from where it is removed.
    pub(super) fn end(
        &self,
        name: &str,
        discard: impl FnOnce(&Folder, &str) -> Result<()>,
    ) -> Result<()> {
        let thrown = self.trash_name(name);
        discard(&self.trash, &thrown)?;
        self.empty(&thrown);
        Ok(())
    }

    /// The names of what could not be removed yet.
    pub(super) fn trash(&self) -> Result<Vec<String>> {
        self.trash.names()
    }

    /// Removes one entry of the trash. A failure is no failure of the call that threw it there: the entry has ended,
    /// what is left of it is reported as a fault of the pool, and the next start tries again.
    fn empty(&self, name: &str) {
        if let Err(error) = self.remove(name) {
            tracing::error!(entry = %name, error = format!("{error:#}"), "left in the trash");
        }
    }

    /// Removes one entry of the trash; another that removes it at the same time is no harm.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        // Whatever else was left there has no limit. One that stays is taken back at the next start.
        if let Ok(Some(entry)) = self.trash.folder(name)
            && let Err(error) = self.trees.release(&entry)
        {
            tracing::warn!(entry = %name, error = format!("{error:#}"), "its limit stays for now");
        }
        tree::remove(self.trash.gate(), self.trash.as_fd(), OsStr::new(name))
    }

    /// What an entry of the trash holds.
    pub(super) fn size(&self, name: &str) -> Result<Bytes> {
        let entry = self.trash.folder(name)?.context("it is no folder")?;
        tree::size(entry.as_fd())
    }

    fn trash_name(&self, name: &str) -> String {
        format!("{name}.{}", self.count.fetch_add(1, Ordering::Relaxed))
    }
}

impl Aside<'_> {
    /// The folder in which it is made.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Ends the making: `place` gets the folder and the name from where it is to be moved.
    pub(super) fn place<T>(mut self, place: impl FnOnce(&Folder, &str) -> Result<T>) -> Result<T> {
        let placed = place(&self.yard.making, &self.name)?;
        self.placed = true;
        Ok(placed)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        if !self.placed {
            let thrown = self.yard.trash_name(&self.name);
            match self
                .yard
                .making
                .move_to(&self.name, &self.yard.trash, &thrown)
            {
                Ok(()) => self.yard.empty(&thrown),
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "left half-made, for the next start to sweep"
                ),
            }
        }
    }
}
