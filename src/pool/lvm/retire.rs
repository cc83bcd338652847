//! Volumes that were deleted and are not gone yet: they are erased first, or their classic snapshots need them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::group::Group;
use super::report::Lv;
use super::wishes;
use crate::volume::VolumeRecord;

/// How their names begin.
const PREFIX: &str = "r-";

/// Those of one pool.
pub(super) struct Retired {
    group: Group,
    /// Those that could not be removed.
    stuck: Mutex<BTreeSet<String>>,
}

impl Retired {
    pub(super) fn new(group: Group) -> Self {
        Self {
            group,
            stuck: Mutex::default(),
        }
    }

    /// Whether a logical volume of this name is one.
    pub(super) fn is_one(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// Those that could not be removed.
    pub(super) fn stuck(&self) -> BTreeSet<String> {
        self.locked().clone()
    }

    /// Ends a volume: from now on nobody sees it. It is removed as soon as nothing needs it.
    pub(super) fn retire(&self, mut lv: Lv) -> Result<()> {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let name = format!("{PREFIX}{}.{}", &lv.name[2..], since.as_millis());
        self.group.rename(&lv.name, &name)?;
        lv.name = name;
        self.end(&lv);
        Ok(())
    }

    /// The snapshot of this volume was removed: it may have been the last that needed it.
    pub(super) fn released(&self, origin: &str) -> Result<()> {
        if Self::is_one(origin)
            && let Some(lv) = self.group.find(origin)?
        {
            self.end(&lv);
        }
        Ok(())
    }

    /// Ends those that earlier processes left, in the background, for it can take long and nothing waits for it.
    pub(super) fn end_all(self: &Arc<Self>, left: Vec<Lv>) -> Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        let retired = Arc::clone(self);
        std::thread::Builder::new()
            .name("sweep".into())
            .spawn(move || left.iter().for_each(|lv| retired.end(lv)))
            .context("starting the thread that removes deleted volumes")?;
        Ok(())
    }

    /// A failure is no failure of the call that deleted it: the volume has ended, what is left of it is reported as a
    /// fault of the pool, and the next start tries again.
    fn end(&self, lv: &Lv) {
        match self.try_to_end(lv) {
            Ok(()) => drop(self.locked().remove(&lv.name)),
            Err(error) => {
                tracing::error!(lv = %lv.name, error = format!("{error:#}"), "a deleted volume stays for now");
                self.locked().insert(lv.name.clone());
            }
        }
    }

    /// Tries again to remove one that could not be; one that is gone by now is no longer stuck.
    pub(super) fn purge(&self, name: &str) -> Result<()> {
        if !self.locked().contains(name) {
            return Ok(());
        }
        if let Some(lv) = self.group.find(name)? {
            self.try_to_end(&lv)?;
        }
        self.locked().remove(name);
        Ok(())
    }

    fn try_to_end(&self, lv: &Lv) -> Result<()> {
        if lv.pool.is_empty() && !self.group.snapshots_of(&lv.name)?.is_empty() {
            return Ok(());
        }
        let record: VolumeRecord = lv.record()?;
        if let Some(how) = wishes::erasure(&record.wishes, !lv.pool.is_empty())? {
            self.group.erase(&lv.name, how, None)?;
        }
        self.group.remove(&lv.name)
    }

    fn locked(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // Each change of it is one insertion or removal: a panic elsewhere can not have spoilt it.
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
