//! Looks after a pool while nobody asks: extends a thin pool in time, and says in the log what goes wrong with it.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use super::group::Group;
use super::report::{Partial, Report};
use super::thin::{METADATA_BLOCK, Mode, Thin};
use super::{classic, hidden, raid};
use crate::config::{self, AutoGrow};
use crate::pool::Fault;
use crate::volume::{Bytes, PoolName};

/// How often the kernel is asked for the state of a thin pool.
const TICK: Duration = Duration::from_secs(1);

/// How many of them pass until the volume group is looked at.
const TICKS_FOR_GROUP: u32 = 15;

/// By how many percent sooner than at its end the account of a thin pool is extended, whatever the pools file says.
const SOONER: u64 = 5;

const DISKS_MISSING: &str = "DisksMissing";

/// The watcher of one pool; dropped, it ends.
pub(super) struct Watch {
    state: Arc<Mutex<State>>,
    _stop: Sender<()>,
}

/// The volume group as it was last seen.
#[derive(Clone, Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// What is on disks that are not there.
    partial: Vec<Partial>,
}

/// What the thread works on.
struct Watcher {
    pool: PoolName,
    config: config::Lvm,
    group: Group,
    state: Arc<Mutex<State>>,
    /// The reasons that were told last.
    told: Vec<&'static str>,
    /// Whether it was told that the volume group has no space left to extend with.
    is_spent: bool,
}

impl Watch {
    /// Starts watching; `seen` is what the group was seen as just now.
    pub(super) fn start(
        pool: &PoolName,
        config: &config::Lvm,
        group: &Group,
        seen: &Report,
    ) -> Result<Self> {
        let state = Arc::new(Mutex::new(State::of(group, seen)));
        let mut watcher = Watcher {
            pool: pool.clone(),
            config: config.clone(),
            group: group.clone(),
            state: Arc::clone(&state),
            told: Vec::new(),
            is_spent: false,
        };
        let (stop, stopped) = mpsc::channel();
        thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                for tick in 1_u32.. {
                    watcher.look(tick.is_multiple_of(TICKS_FOR_GROUP));
                    if stopped.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })
            .context("starting the thread that watches the pool")?;
        Ok(Self { state, _stop: stop })
    }

    /// What is wrong with the volume group, as it was last seen.
    pub(super) fn group_faults(&self) -> Vec<Fault> {
        self.state.lock().faults.clone()
    }

    /// What is wrong with a logical volume, as it was last seen.
    pub(super) fn faults_of(&self, group: &Group, lv: &str) -> Vec<Fault> {
        let partial = self.state.lock().partial.iter().any(|partial| {
            // Of one of RAID the kernel tells what becomes of it, if it is active.
            partial.name == lv && !partial.is_redundant()
        });
        if partial {
            return vec![Fault::inaccessible(
                DISKS_MISSING,
                format!("a disk that {lv} is on is not there: bring it back"),
            )];
        }
        raid::fault(group, lv)
            .or_else(|| self.redundant(group, lv))
            .into_iter()
            .collect()
    }

    fn redundant(&self, group: &Group, lv: &str) -> Option<Fault> {
        let is_one = |partial: &Partial| partial.name == lv;
        let partial = self.state.lock().partial.iter().any(is_one);
        partial.then(|| raid::degraded(&group.path(lv)))
    }
}

impl Watcher {
    fn look(&mut self, at_group: bool) {
        if at_group {
            let state = match self.group.report() {
                Ok(report) => State::of(&self.group, &report),
                Err(error) => State::unreadable(&hidden::explained(&self.group, error)),
            };
            *self.state.lock() = state;
        }
        let mut faults = self.state.lock().faults.clone();
        if let Some(pool) = self.config.thin_pool.clone() {
            match Thin::of(&self.group, &pool) {
                Ok(thin) => {
                    self.extend(&pool, &thin);
                    faults.extend(thin.faults(
                        &self.config.place(),
                        self.config.max_data_percent,
                        self.config.max_metadata_percent,
                    ));
                }
                Err(error) => faults.push(inactive(&error)),
            }
        }
        self.tell(&faults);
    }

    /// Says what has become wrong, and what no longer is.
    fn tell(&mut self, faults: &[Fault]) {
        let now: Vec<_> = faults.iter().map(|fault| fault.reason).collect();
        for fault in faults {
            if !self.told.contains(&fault.reason) {
                tracing::error!(pool = %self.pool, reason = fault.reason, "{}", fault.message);
            }
        }
        for reason in self.told.iter().filter(|reason| !now.contains(reason)) {
            tracing::info!(pool = %self.pool, reason, "the pool has recovered");
        }
        self.told = now;
    }

    /// Extends a thin pool that is nearly full, where the pools file wants it.
    fn extend(&mut self, pool: &str, thin: &Thin) {
        let Some(AutoGrow {
            at_percent,
            by_percent,
        }) = self.config.auto_grow
        else {
            return;
        };
        let account_at = at_percent.min(thin.metadata_end().saturating_sub(SOONER));
        let parts = [
            (thin.data.percent() >= at_percent, "--size", thin.size),
            (
                thin.metadata.percent() >= account_at,
                "--poolmetadatasize",
                METADATA_BLOCK.times(thin.metadata.total),
            ),
        ];
        // What has failed is not mended by more space.
        if thin.needs_check || thin.mode == Mode::Failed {
            return;
        }
        for (_, option, size) in parts.iter().filter(|(due, ..)| *due) {
            let by = Bytes(size.0 / 100).times(by_percent);
            if let Err(error) = self.extend_by(pool, option, by) {
                tracing::error!(pool = %self.pool, error = format!("{error:#}"), "the thin pool could not be extended");
            }
        }
    }

    fn extend_by(&mut self, pool: &str, option: &str, by: Bytes) -> Result<()> {
        let group = &self.group.report()?.group;
        let by = by.round_up(group.extent).min(group.free);
        if by == Bytes(0) {
            if !self.is_spent {
                tracing::error!(pool = %self.pool, "the thin pool is nearly full, and so is its volume group: add a disk");
            }
            self.is_spent = true;
            return Ok(());
        }
        self.is_spent = false;
        let path = self.group.path(pool);
        let extend = Group::command("lvextend").args([option, &format!("+{}b", by.0), &path]);
        self.group.run(&extend)?;
        tracing::info!(pool = %self.pool, %by, option, "thin pool extended");
        Ok(())
    }
}

/// That a thin pool can not be asked how it is.
pub(super) fn inactive(error: &anyhow::Error) -> Fault {
    Fault::inaccessible("ThinPoolInactive", format!("{error:#}"))
}

impl State {
    fn of(group: &Group, seen: &Report) -> Self {
        let mut state = Self {
            faults: classic::fault(group, seen).into_iter().collect(),
            partial: Vec::new(),
        };
        if seen.group.missing == 0 {
            return state;
        }
        state.faults.push(Fault::degraded(
            DISKS_MISSING,
            format!(
                "volume group {} misses {} of its disks: bring them back; nothing can be made or changed in it until \
                 then",
                group.name, seen.group.missing
            ),
        ));
        match group.partial() {
            Ok(partial) => Self { partial, ..state },
            Err(error) => Self::unreadable(&error),
        }
    }

    fn unreadable(error: &anyhow::Error) -> Self {
        let unreadable = Fault::inaccessible("VolumeGroupUnreadable", format!("{error:#}"));
        Self {
            faults: vec![unreadable],
            partial: Vec::new(),
        }
    }
}
