//! One call at a time for each volume: what takes two steps at the node must not meet another's.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::name::Name;

/// The volumes that calls are about now.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Name, Weak<Turn<()>>>>);

impl Turns {
    /// Waits until no other call is about this volume.
    pub(super) async fn take(&self, name: &Name) -> OwnedMutexGuard<()> {
        self.of(name).lock_owned().await
    }

    fn of(&self, name: &Name) -> Arc<Turn<()>> {
        let mut all = self.0.lock();
        all.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = all.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        all.insert(name.clone(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.to_owned().try_into().expect("it is a name")
    }

    #[tokio::test]
    async fn calls_for_one_volume_take_turns_and_others_do_not_wait() {
        let turns = Turns::default();

        let first = turns.take(&name("a")).await;

        assert!(turns.of(&name("a")).try_lock().is_err());
        assert!(turns.of(&name("b")).try_lock().is_ok());
        drop(first);
        assert!(turns.of(&name("a")).try_lock().is_ok());
    }

    #[tokio::test]
    async fn volumes_that_no_call_is_about_are_forgotten() {
        let turns = Turns::default();

        for number in 0..100 {
            drop(turns.take(&name(&format!("v{number}"))).await);
        }

        assert_eq!(turns.0.lock().len(), 1);
    }
}
