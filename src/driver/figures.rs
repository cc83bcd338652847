//! What is counted of the pools, for whoever watches.

use std::sync::Arc;

use super::Core;
use super::health::{Inspected, inspected};
use crate::pool::Pool;

/// One pool in figures.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The pool, its room, how full it is and its faults.
    pub pool: Inspected,
    /// How many volumes it has; nothing if that can not be told.
    pub volumes: Option<usize>,
    /// How many snapshots.
    pub snapshots: Option<usize>,
}

impl Core {
    /// The figures of all pools, in the order of the pools file.
    pub fn figures(&self) -> Vec<Figures> {
        let of = |pool: &Arc<dyn Pool>| Figures {
            pool: inspected(&**pool),
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
