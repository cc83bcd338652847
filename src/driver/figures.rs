//! What is counted of the pools, for whoever watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Core;
use super::health::{Inspected, inspected};
use crate::pool::{Pool, Severity};

/// One pool in figures.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The pool, its room, how full it is and its faults.
    pub pool: Inspected,
    /// How many volumes it has; nothing if that can not be told.
    pub volumes: Option<usize>,
    /// How many snapshots.
    pub snapshots: Option<usize>,
    /// How many volumes were deleted and are not gone.
    pub retired: Option<usize>,
    /// How many volumes have this fault. By number, not by name: a dead disk makes all of them ill.
    pub ill: BTreeMap<(Severity, &'static str), usize>,
}

impl Core {
    /// The figures of all pools, in the order of the pools file.
    pub fn figures(&self) -> Vec<Figures> {
        self.pools.iter().map(figures).collect()
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

fn figures(pool: &Arc<dyn Pool>) -> Figures {
    let volumes = pool.page(None, usize::MAX).ok();
    let mut ill = BTreeMap::new();
    for fault in volumes
        .iter()
        .flatten()
        .flat_map(|volume| pool.volume_faults(volume))
    {
        *ill.entry((fault.severity, fault.reason)).or_default() += 1;
    }
    Figures {
        pool: inspected(&**pool),
        volumes: volumes.map(|all| all.len()),
        snapshots: pool
            .page_of_snapshots(None, usize::MAX)
            .ok()
            .map(|all| all.len()),
        retired: pool.retired().ok().map(|all| all.len()),
        ill,
    }
}
