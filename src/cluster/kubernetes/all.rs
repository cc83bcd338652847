//! All objects of one kind as they are watched, of each only what matters.

use std::collections::BTreeMap;
use std::mem;

use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use tracing::warn;

/// What matters of all objects of one kind, by their names.
#[derive(Debug)]
pub(in crate::cluster) struct All<T> {
    /// Nothing until all were listed once.
    pub(super) known: Option<BTreeMap<String, T>>,
    /// Those that were told so far while they are listed again.
    listed: BTreeMap<String, T>,
}

impl<T> Default for All<T> {
    fn default() -> Self {
        Self {
            known: None,
            listed: BTreeMap::new(),
        }
    }
}

impl<T> All<T> {
    /// Nothing until all were listed once.
    pub(in crate::cluster) fn all(&self) -> Option<impl Iterator<Item = (&str, &T)>> {
        let known = self.known.as_ref()?;
        Some(known.iter().map(|(name, object)| (&**name, object)))
    }

    pub(in crate::cluster) fn take<K: Resource>(
        &mut self,
        event: Event<K>,
        what_matters: impl Fn(&K) -> T,
    ) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(object.name_any(), what_matters(&object));
            }
            Event::InitDone => self.known = Some(mem::take(&mut self.listed)),
            Event::Apply(object) => {
                let known = self.known.get_or_insert_default();
                known.insert(object.name_any(), what_matters(&object));
            }
            Event::Delete(object) => {
                let known = self.known.get_or_insert_default();
                known.remove(&object.name_any());
            }
        }
    }
}

/// The library asks again by itself, more and more seldom.
pub(in crate::cluster) fn heard<K>(
    what: &str,
    event: Result<Event<K>, watcher::Error>,
    take: impl FnOnce(Event<K>),
) {
    match event {
        Ok(event) => take(event),
        Err(error) => warn!(%error, what, "Kubernetes can not be asked: what was known stays"),
    }
}
