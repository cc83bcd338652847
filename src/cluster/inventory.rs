//! Which node has which volumes and snapshots: a memory of what the nodes said, and of what was asked of them since.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::volume::{SnapshotId, SnapshotName, VolumeId, VolumeName};

/// A volume or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// This volume.
    Volume(VolumeId),
    /// This snapshot.
    Snapshot(SnapshotId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(id) => write!(f, "volume {id}"),
            Self::Snapshot(id) => write!(f, "snapshot {id}"),
        }
    }
}

impl Key {
    /// Sorted by the name, by which the next call for the same thing will ask; no two keys are the same text.
    fn text(&self) -> String {
        match self {
            Self::Volume(id) => format!("{} {}", volume_named(&id.name), id.pool),
            Self::Snapshot(id) => format!("{} {}", snapshot_named(&id.name), id.volume),
        }
    }
}

fn volume_named(name: &VolumeName) -> String {
    format!("v {name}")
}

/// The volume that such a text is of.
fn volume_of(text: &str) -> Option<VolumeId> {
    let (name, pool) = text.strip_prefix("v ")?.split_once(' ')?;
    Some(VolumeId {
        pool: pool.parse().ok()?,
        name: name.parse().ok()?,
    })
}

fn snapshot_named(name: &SnapshotName) -> String {
    format!("s {name}")
}

/// What is known.
#[derive(Debug, Default)]
pub struct Inventory(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// Each key with its node.
    held: BTreeSet<(Arc<str>, Arc<str>)>,
    /// The keys of each node.
    of: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The volumes of which a node was asked to create them, and has not said yet whether it did.
    begun: HashMap<VolumeName, Arc<str>>,
    /// What changed on a node since a list of it was begun, which may not show that.
    since: HashMap<Arc<str>, BTreeMap<Arc<str>, bool>>,
}

impl Inventory {
    /// The nodes that have it, or that were asked to create it.
    pub fn holders(&self, key: &Key) -> Vec<Arc<str>> {
        let books = self.books();
        let text = key.text();
        let mut nodes = books.starting_with(&text, |found| found == text);
        if let Key::Volume(id) = key
            && nodes.is_empty()
        {
            nodes.extend(books.begun.get(&id.name).cloned());
        }
        nodes
    }

    /// The nodes that have a volume of this name, or were asked to create it.
    pub fn named(&self, name: &VolumeName) -> Vec<Arc<str>> {
        let books = self.books();
        let mut nodes = books.starting_with(&format!("{} ", volume_named(name)), |_| true);
        if nodes.is_empty() {
            nodes.extend(books.begun.get(name).cloned());
        }
        nodes
    }

    /// The nodes that have a snapshot of this name.
    pub fn snapshots_named(&self, name: &SnapshotName) -> Vec<Arc<str>> {
        self.books()
            .starting_with(&format!("{} ", snapshot_named(name)), |_| true)
    }

    /// Notes that a node will be asked to create the volume of this name.
    ///
    /// # Errors
    /// Who has it already, or was asked before.
    pub fn begin(&self, name: &VolumeName, node: &Arc<str>) -> Result<(), Arc<str>> {
        let mut books = self.books();
        let there = books.starting_with(&format!("{} ", volume_named(name)), |_| true);
        if let Some(other) = there.first().or_else(|| books.begun.get(name)) {
            return Err(Arc::clone(other));
        }
        books.begun.insert(name.clone(), Arc::clone(node));
        Ok(())
    }

    /// Notes that the node has said whether it created the volume of this name.
    pub fn settle(&self, name: &VolumeName, node: &Arc<str>) {
        let mut books = self.books();
        if books.begun.get(name) == Some(node) {
            books.begun.remove(name);
        }
    }

    /// Notes that the node has it now.
    pub fn add(&self, key: &Key, node: &Arc<str>) {
        self.books().set(&Arc::from(key.text()), node, true);
    }

    /// Notes that the node has it no more.
    pub fn remove(&self, key: &Key, node: &Arc<str>) {
        self.books().set(&Arc::from(key.text()), node, false);
    }

    /// The volumes of a node, in no order that matters.
    pub fn volumes_of(&self, node: &str) -> Vec<VolumeId> {
        let books = self.books();
        let keys = books.of.get(node).into_iter().flatten();
        keys.filter_map(|key| volume_of(key)).collect()
    }

    /// How many volumes and snapshots are known.
    pub fn counts(&self) -> (usize, usize) {
        let books = self.books();
        let volume = |(key, _): &&(Arc<str>, Arc<str>)| key.starts_with("v ");
        let volumes = books.held.iter().filter(volume).count();
        (volumes, books.held.len() - volumes)
    }

    /// To be called before a node is asked for all that it has.
    pub fn list_begins(&self, node: &Arc<str>) {
        self.books().since.insert(Arc::clone(node), BTreeMap::new());
    }

    /// Takes what a node said that it has; what changed while it said so stays as it is known.
    pub fn list_ends(&self, node: &Arc<str>, keys: impl Iterator<Item = Key>) {
        let listed: BTreeSet<Arc<str>> = keys.map(|key| Arc::from(key.text())).collect();
        let mut books = self.books();
        let since = books.since.remove(node).unwrap_or_default();
        books.drop_all_of(node);
        for key in listed {
            books.set(&key, node, true);
        }
        for (key, there) in since {
            books.set(&key, node, there);
        }
    }

    /// Forgets the nodes that are not to be kept, with all that they had.
    pub fn keep_only(&self, kept: impl Fn(&str) -> bool) {
        let mut books = self.books();
        let gone: Vec<_> = books
            .of
            .keys()
            .filter(|node| !kept(node))
            .cloned()
            .collect();
        for node in gone {
            books.drop_all_of(&node);
        }
        books.since.retain(|node, _| kept(node));
        books.begun.retain(|_, node| kept(node));
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock()
    }
}

impl Books {
    fn starting_with(&self, start: &str, wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let from = (Arc::from(start), Arc::from(""));
        self.held
            .range(from..)
            .take_while(|(key, _)| key.starts_with(start))
            .filter(|(key, _)| wanted(key))
            .map(|(_, node)| Arc::clone(node))
            .collect()
    }

    fn set(&mut self, key: &Arc<str>, node: &Arc<str>, there: bool) {
        if let Some(since) = self.since.get_mut(node) {
            since.insert(Arc::clone(key), there);
        }
        let of = self.of.entry(Arc::clone(node)).or_default();
        if there {
            of.insert(Arc::clone(key));
            self.held.insert((Arc::clone(key), Arc::clone(node)));
        } else {
            of.remove(key);
            self.held.remove(&(Arc::clone(key), Arc::clone(node)));
        }
    }

    fn drop_all_of(&mut self, node: &Arc<str>) {
        for key in self.of.remove(node).unwrap_or_default() {
            self.held.remove(&(key, Arc::clone(node)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(id: &str) -> Key {
        Key::Volume(id.parse().expect("it is an id"))
    }

    fn name(text: &str) -> VolumeName {
        VolumeName::from_csi(text)
    }

    #[test]
    fn what_changed_during_a_list_is_not_undone_by_it() {
        let inventory = Inventory::default();
        let node: Arc<str> = "a".into();
        let [old, made] = ["fast/old", "fast/made"].map(volume);
        inventory.add(&old, &node);

        inventory.list_begins(&node);
        inventory.add(&made, &node);
        inventory.remove(&old, &node);
        inventory.list_ends(&node, [old.clone()].into_iter());

        assert_eq!(inventory.holders(&made), [Arc::clone(&node)]);
        assert!(inventory.holders(&old).is_empty());
    }

    #[test]
    fn a_list_replaces_what_was_known_of_its_node_only() {
        let inventory = Inventory::default();
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let [one, two] = ["fast/one", "fast/two"].map(volume);
        inventory.add(&one, &a);
        inventory.add(&one, &b);

        inventory.list_begins(&a);
        inventory.list_ends(&a, [two.clone()].into_iter());

        assert_eq!(inventory.holders(&one), [b]);
        assert_eq!(inventory.holders(&two), [a]);
    }

    #[test]
    fn a_name_is_found_in_any_pool_and_is_not_the_start_of_another() {
        let inventory = Inventory::default();
        let node: Arc<str> = "a".into();
        inventory.add(&volume("fast/data-2"), &node);
        inventory.add(
            &Key::Snapshot("fast/x@data".parse().expect("it is an id")),
            &node,
        );

        assert!(inventory.named(&name("data")).is_empty());
        assert!(inventory.holders(&volume("slow/data-2")).is_empty());
        assert_eq!(inventory.named(&name("data-2")), [Arc::clone(&node)]);
        assert_eq!(
            inventory.snapshots_named(&SnapshotName::from_csi("data")),
            [node]
        );
    }

    #[test]
    fn what_was_begun_on_one_node_is_not_begun_on_another() {
        let inventory = Inventory::default();
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];

        assert_eq!(inventory.begin(&name("data"), &a), Ok(()));
        assert_eq!(inventory.begin(&name("data"), &b), Err(Arc::clone(&a)));
        assert_eq!(inventory.holders(&volume("fast/data")), [Arc::clone(&a)]);
        inventory.settle(&name("data"), &b);
        assert_eq!(inventory.named(&name("data")), [Arc::clone(&a)]);
        inventory.settle(&name("data"), &a);
        assert_eq!(inventory.begin(&name("data"), &b), Ok(()));
    }
}
