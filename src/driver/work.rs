//! The copies that are running, for the people who wait for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use crate::host::progress::Progress;

/// One copy.
#[derive(Clone, Debug)]
pub struct Work {
    /// The id of the volume or the snapshot that is being made.
    pub id: String,
    /// Since when.
    pub since: Timestamp,
    /// How far it has come.
    pub progress: Progress,
}

/// All that is running.
#[derive(Clone, Debug, Default)]
pub(super) struct Works(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    begun: u64,
    works: BTreeMap<u64, Work>,
}

/// A copy that counts as running until this is dropped.
#[derive(Debug)]
pub(super) struct Begun {
    works: Works,
    number: u64,
    pub(super) progress: Progress,
}

impl Works {
    pub(super) fn begin(&self, id: String) -> Begun {
        let progress = Progress::default();
        let mut running = self.running();
        running.begun += 1;
        let number = running.begun;
        let work = Work {
            id,
            since: Timestamp::now(),
            progress: progress.clone(),
        };
        running.works.insert(number, work);
        Begun {
            works: self.clone(),
            number,
            progress,
        }
    }

    /// The oldest first.
    pub(super) fn all(&self) -> Vec<Work> {
        self.running().works.values().cloned().collect()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.works.running().works.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Bytes;

    #[test]
    fn work_is_told_with_its_progress_until_it_ends() {
        let works = Works::default();
        let first = works.begin("default/a".into());
        let second = works.begin("default/b".into());

        first.progress.expect(Bytes(10));
        first.progress.advance(Bytes(4));
        let told = works.all();
        drop(first);

        let ids: Vec<_> = told.iter().map(|work| work.id.as_str()).collect();
        assert_eq!(ids, ["default/a", "default/b"]);
        let progress = &told[0].progress;
        assert_eq!((progress.done(), progress.total()), (Bytes(4), Bytes(10)));
        assert_eq!(works.all().len(), 1);
        drop(second);
        assert!(works.all().is_empty());
    }
}
