//! What is counted of the pools, for whoever watches.

use super::Core;
use super::health::{Inspected, inspected};
use crate::pool::Level;

/// One pool in figures.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The pool, its room and its faults.
    pub pool: Inspected,
    /// How full its parts are.
    pub levels: Vec<Level>,
    /// How many volumes it has; nothing if that can not be told.
    pub volumes: Option<usize>,
    /// How many snapshots.
    pub snapshots: Option<usize>,
}

impl Core {
    /// The figures of all pools, in the order of the pools file.
    pub fn figures(&self) -> Vec<Figures> {
        let of = |pool: &std::sync::Arc<dyn crate::pool::Pool>| Figures {
            pool: inspected(&**pool),
            levels: pool.levels(),
            volumes: pool.page(None, usize::MAX).ok().map(|all| all.len()),
            snapshots: pool
                .page_of_snapshots(None, usize::MAX)
                .ok()
                .map(|all| all.len()),
        };
        self.pools.iter().map(of).collect()
    }

    /// At how many paths volumes are mounted, as far as is remembered.
    pub fn mounts(&self) -> usize {
        self.mountpoints.count()
    }

    /// How many copies are running.
    pub fn copies(&self) -> usize {
        self.works.all().len()
    }
}
