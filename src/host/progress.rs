//! How far a long copy has come, for the people who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::volume::Bytes;

/// Bytes done of a total; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// How much there is to do, as far as is known; nothing until someone expects something.
    pub fn total(&self) -> Bytes {
        Bytes(self.0.total.load(Ordering::Relaxed))
    }

    /// How much is done; more than the total where the source grew meanwhile.
    pub fn done(&self) -> Bytes {
        Bytes(self.0.done.load(Ordering::Relaxed))
    }

    /// Adds to the total.
    pub fn expect(&self, more: Bytes) {
        self.0.total.fetch_add(more.0, Ordering::Relaxed);
    }

    /// Adds to what is done.
    pub fn advance(&self, by: Bytes) {
        self.0.done.fetch_add(by.0, Ordering::Relaxed);
    }
}
