//! Locks by name that refuse instead of waiting, so that retries never pile up behind a stuck call.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::volume::{Error, Result, SnapshotName, VolumeName};

/// What can be locked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Whether a volume is there, and how large: exclusive to change it, shared to rely on it.
    Volume(VolumeName),
    /// Whether and where a volume is attached and mounted.
    Mounts(VolumeName),
    /// The frozen filesystem of a volume.
    Freeze(VolumeName),
    /// Whether a snapshot is there.
    Snapshot(SnapshotName),
    /// What is mounted at a path.
    Path(PathBuf),
}

/// How a key is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// By nobody else.
    Exclusive,
    /// By others that share it too.
    Shared,
}

/// All keys that are held.
#[derive(Debug, Default)]
pub struct Locks(Mutex<HashMap<Key, Holders>>);

#[derive(Debug)]
enum Holders {
    One,
    Sharing(usize),
}

/// Keys that are held until this is dropped.
#[derive(Debug)]
pub struct Guard {
    locks: Arc<Locks>,
    keys: Vec<Key>,
}

impl Locks {
    /// Takes all of these keys, or none.
    ///
    /// # Errors
    /// `Busy`, naming the first that somebody holds (CSI 1.13: ABORTED while an operation on the volume is pending).
    pub fn take(self: &Arc<Self>, wanted: Vec<(Key, Hold)>) -> Result<Guard> {
        let mut held = self.held();
        let mut guard = Guard {
            locks: Arc::clone(self),
            keys: Vec::with_capacity(wanted.len()),
        };
        for (key, hold) in wanted {
            let free = match (held.get_mut(&key), hold) {
                (None, Hold::Exclusive) => held.insert(key.clone(), Holders::One).is_none(),
                (None, Hold::Shared) => held.insert(key.clone(), Holders::Sharing(1)).is_none(),
                (Some(Holders::Sharing(count)), Hold::Shared) => {
                    *count += 1;
                    true
                }
                (Some(_), _) => false,
            };
            if !free {
                // The guard gives back what it has so far, and needs the map for it.
                drop(held);
                return Err(Error::Busy(key.to_string()));
            }
            guard.keys.push(key);
        }
        Ok(guard)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, Holders>> {
        self.0.lock()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut held = self.locks.held();
        for key in &self.keys {
            match held.get_mut(key) {
                Some(Holders::Sharing(count)) if *count > 1 => *count -= 1,
                _ => drop(held.remove(key)),
            }
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(name) | Self::Mounts(name) | Self::Freeze(name) => {
                write!(f, "volume {name}")
            }
            Self::Snapshot(name) => write!(f, "snapshot {name}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Volume(name.parse().expect("it is a legal name"))
    }

    #[test]
    fn a_held_key_is_refused_and_free_again_after() {
        let locks = Arc::new(Locks::default());
        let guard = locks
            .take(vec![(key("a"), Hold::Exclusive)])
            .expect("it is free");

        let refused = locks.take(vec![(key("a"), Hold::Shared)]);
        drop(guard);

        assert!(matches!(refused, Err(Error::Busy(what)) if what == "volume a"));
        assert!(locks.take(vec![(key("a"), Hold::Exclusive)]).is_ok());
    }

    #[test]
    fn those_who_share_keep_the_one_who_does_not_out_until_the_last_is_gone() {
        let locks = Arc::new(Locks::default());
        let [one, two] = [(); 2].map(|()| {
            locks
                .take(vec![(key("a"), Hold::Shared)])
                .expect("it is shared")
        });

        drop(one);
        let early = locks.take(vec![(key("a"), Hold::Exclusive)]);
        drop(two);

        assert!(early.is_err());
        assert!(locks.take(vec![(key("a"), Hold::Exclusive)]).is_ok());
    }

    #[test]
    fn a_refused_call_holds_nothing() {
        let locks = Arc::new(Locks::default());
        let _held = locks
            .take(vec![(key("b"), Hold::Exclusive)])
            .expect("it is free");

        let refused = locks.take(vec![
            (key("a"), Hold::Exclusive),
            (key("b"), Hold::Exclusive),
        ]);

        assert!(refused.is_err());
        assert!(locks.take(vec![(key("a"), Hold::Exclusive)]).is_ok());
    }
}
