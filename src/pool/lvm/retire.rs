//! Volumes that were deleted and are not gone yet: they are erased first, or their classic snapshots need them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use super::group::Group;
use super::report::Lv;
use super::wishes;
use crate::pool::Fault;
use crate::volume::{VolumeRecord, Wishes};

/// How their names begin.
const PREFIX: &str = "r-";

/// Those of one pool.
pub(super) struct Retired {
    group: Group,
    /// Whether they are thin.
    thin: bool,
    /// Those that could not be removed.
    stuck: Mutex<BTreeSet<String>>,
}

impl Retired {
    pub(super) fn new(group: Group, thin: bool) -> Self {
        Self {
            group,
            thin,
            stuck: Mutex::default(),
        }
    }

    /// Whether a logical volume of this name is one.
    pub(super) fn is_one(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// Those that could not be removed.
    pub(super) fn stuck(&self) -> BTreeSet<String> {
        self.stuck.lock().clone()
    }

    /// That some could not be removed, if so.
    pub(super) fn fault(&self) -> Option<Fault> {
        let stuck = self.stuck.lock();
        let first = self.group.path(stuck.first()?);
        Some(Fault::degraded(
            "TrashNotEmpty",
            format!(
                "{} deleted volumes could not be removed, {first} among them: look why with `lvremove`",
                stuck.len()
            ),
        ))
    }

    /// Ends a volume: from now on nobody sees it. It is removed as soon as nothing needs it.
    pub(super) fn retire(&self, lv: &str, wishes: &Wishes) -> Result<()> {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let name = format!("{PREFIX}{}.{}", &lv[2..], since.as_millis());
        self.group.rename(lv, &name)?;
        self.end(&name, wishes);
        Ok(())
    }

    /// The snapshot of this volume was removed: it may have been the last that needed it.
    pub(super) fn released(&self, origin: &str) -> Result<()> {
        if Self::is_one(origin)
            && let Some(lv) = self.group.find(origin)?
        {
            self.end_left(&lv);
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
            .spawn(move || left.iter().for_each(|lv| retired.end_left(lv)))
            .context("starting the thread that removes deleted volumes")?;
        Ok(())
    }

    /// A failure is no failure of the call that deleted it: the volume has ended, what is left of it is reported as a
    /// fault of the pool, and the next start tries again.
    fn end(&self, lv: &str, wishes: &Wishes) {
        self.note(lv, self.try_to_end(lv, wishes));
    }

    fn end_left(&self, lv: &Lv) {
        let ended = wishes_of(lv).and_then(|wishes| self.try_to_end(&lv.name, &wishes));
        self.note(&lv.name, ended);
    }

    fn note(&self, lv: &str, ended: Result<()>) {
        match ended {
            Ok(()) => drop(self.stuck.lock().remove(lv)),
            Err(error) => {
                tracing::error!(
                    lv,
                    error = format!("{error:#}"),
                    "a deleted volume stays for now"
                );
                self.stuck.lock().insert(lv.to_owned());
            }
        }
    }

    /// Tries again to remove one that could not be; one that is gone by now is no longer stuck.
    pub(super) fn purge(&self, name: &str) -> Result<()> {
        if !self.stuck.lock().contains(name) {
            return Ok(());
        }
        if let Some(lv) = self.group.find(name)? {
            self.try_to_end(name, &wishes_of(&lv)?)?;
        }
        self.stuck.lock().remove(name);
        Ok(())
    }

    fn try_to_end(&self, lv: &str, wishes: &Wishes) -> Result<()> {
        if !self.thin && !self.group.snapshots_of(lv)?.is_empty() {
            return Ok(());
        }
        if let Some(how) = wishes::erasure(wishes, self.thin)? {
            self.group.erase(lv, how, None)?;
        }
        self.group.remove(lv)
    }
}

fn wishes_of(lv: &Lv) -> Result<Wishes> {
    Ok(lv.record::<VolumeRecord>()?.wishes)
}
