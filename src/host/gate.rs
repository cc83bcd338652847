//! The gate that every change to the machine passes, so that a test can cut the machine off after any of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lets changes to the machine through.
///
/// In production it is open and costs one comparison. A crash test makes it with [`Gate::cut_after`]: the first `k`
/// changes happen, all later ones fail, and what is on disk is what a crash at that instant would have left.
#[derive(Clone, Debug, Default)]
pub struct Gate(Option<Arc<Cut>>);

#[derive(Debug)]
struct Cut {
    allowed: u64,
    seen: AtomicU64,
}

/// The machine was cut off before this change, by a crash test.
#[derive(Debug, thiserror::Error)]
#[error("the machine was cut off before: {0}")]
pub struct CutOff(String);

impl Gate {
    /// A gate that lets everything through.
    pub fn open() -> Self {
        Self(None)
    }

    /// A gate that lets `allowed` changes through and fails every later one.
    pub fn cut_after(allowed: u64) -> Self {
        Self(Some(Arc::new(Cut {
            allowed,
            seen: AtomicU64::new(0),
        })))
    }

    /// Announces one change, in the words one would log, before it is made.
    ///
    /// # Errors
    /// [`CutOff`] once the allowed number of changes has passed; the caller must then change nothing more.
    pub fn pass(&self, change: impl fmt::Display) -> Result<(), CutOff> {
        match &self.0 {
            None => Ok(()),
            Some(cut) if cut.seen.fetch_add(1, Ordering::Relaxed) < cut.allowed => Ok(()),
            Some(_) => Err(CutOff(change.to_string())),
        }
    }

    /// Whether a change was refused: a crash test is done when a whole run passes without one.
    pub fn was_cut(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|cut| cut.seen.load(Ordering::Relaxed) > cut.allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_k_changes_pass_and_no_later_one() {
        let gate = Gate::cut_after(2);

        let passed: Vec<bool> = (0..4).map(|k| gate.pass(k).is_ok()).collect();

        assert_eq!(passed, [true, true, false, false]);
        assert!(gate.was_cut());
    }
}
