//! The verbs: order, locks and idempotency, written once for all pools.

mod encryption;
pub mod figures;
pub mod health;
pub mod leftovers;
pub mod locks;
pub mod mountpoints;
pub mod mounts;
pub mod snapshots;
pub mod stats;
pub mod volumes;
pub mod work;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use prometheus_client::metrics::histogram::Histogram;

use crate::host::Host;
use crate::pool::{Pool, Severity};
use crate::volume::{Class, Error, PoolName, Result, Volume, VolumeId, VolumeName};
use locks::{Hold, Key, Locks};
use mountpoints::Mountpoints;
use work::{Work, Works};

/// How long a look at the pools may take before they count as unusable.
const READY_LIMIT: Duration = Duration::from_millis(500);

/// How long calls wait for a thread, in seconds.
const QUEUE_BUCKETS: [f64; 7] = [0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0];

/// One node's driver: the bridge from the waiting callers to the blocking core.
#[derive(Clone)]
pub struct Driver {
    core: Arc<Core>,
    locks: Arc<Locks>,
    looking: Arc<tokio::sync::Mutex<()>>,
    queued: Histogram,
}

/// What the verbs work on; they are its methods, in the files of this folder.
pub struct Core {
    node: String,
    pools: Vec<Arc<dyn Pool>>,
    host: Host,
    mountpoints: Mountpoints,
    /// Freezes last only as long as a copy, so they are locked within the verb.
    freezes: Arc<Locks>,
    works: Works,
}

/// How a volume is called on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handle {
    /// By its id.
    Id(VolumeId),
    /// An inline volume, by the name that the kubelet made up: it has no pool in it.
    Inline(VolumeName),
}

impl Handle {
    /// The name by which it is locked.
    pub fn name(&self) -> &VolumeName {
        match self {
            Self::Id(id) => &id.name,
            Self::Inline(name) => name,
        }
    }
}

impl Driver {
    /// A driver of these pools on the node of this name. What is mounted is found out in the background.
    ///
    /// # Errors
    /// No pool, or two of the same name.
    pub fn new(node: String, pools: Vec<Arc<dyn Pool>>, host: Host) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !pools.is_empty(),
            "there is no pool: name at least one in the pools file"
        );
        let names: BTreeSet<_> = pools.iter().map(|pool| pool.name()).collect();
        anyhow::ensure!(
            names.len() == pools.len(),
            "two pools have the same name: give each its own"
        );
        let core = Arc::new(Core {
            node,
            pools,
            host,
            mountpoints: Mountpoints::default(),
            freezes: Arc::default(),
            works: Works::default(),
        });
        core.thaw_interrupted();
        let waking = Arc::clone(&core);
        std::thread::Builder::new()
            .name("wake".into())
            .spawn(move || waking.wake())
            .context("starting the thread that looks at what is mounted")?;
        Ok(Self {
            core,
            locks: Arc::default(),
            looking: Arc::default(),
            queued: Histogram::new(QUEUE_BUCKETS),
        })
    }

    /// Runs `work`, which changes what `keys` name, in one blocking closure that holds them: a caller that hangs up
    /// leaves nothing half done.
    ///
    /// # Errors
    /// `Busy` at once, if another call holds one of the keys.
    pub async fn change<T: Send + 'static>(
        &self,
        keys: Vec<(Key, Hold)>,
        work: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let guard = self.locks.take(keys)?;
        self.look(move |core| {
            let _held = guard;
            work(core)
        })
        .await
    }

    /// Runs `work`, which only looks and needs no lock, where it may block.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = Arc::clone(&self.core);
        let (span, asked, queued) = (
            tracing::Span::current(),
            Instant::now(),
            self.queued.clone(),
        );
        let run = move || {
            queued.observe(asked.elapsed().as_secs_f64());
            span.in_scope(|| work(&core))
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(done) => done,
            Err(panic) => Err(Error::Host(
                anyhow::Error::new(panic).context("the call stopped in the middle"),
            )),
        }
    }

    /// What [`Driver::look`] gives, for a caller that may block.
    pub fn look_here<T>(&self, work: impl FnOnce(&Core) -> T) -> T {
        work(&self.core)
    }

    /// How long, in seconds, calls waited for a thread.
    pub fn queued(&self) -> Histogram {
        self.queued.clone()
    }

    /// Whether any pool can be used. Answers within half a second, also when a disk hangs.
    pub async fn is_ready(&self) -> bool {
        // A look that still hangs says enough: it is not joined by another.
        let Ok(only) = Arc::clone(&self.looking).try_lock_owned() else {
            return false;
        };
        let usable = self.look(move |core| {
            let _only = only;
            let usable = |pool: &Arc<dyn Pool>| {
                pool.faults()
                    .iter()
                    .all(|fault| fault.severity == Severity::Degraded)
            };
            Ok(core.pools.iter().any(usable))
        });
        matches!(
            tokio::time::timeout(READY_LIMIT, usable).await,
            Ok(Ok(true))
        )
    }

    /// The copies that are running now, the oldest first.
    pub fn work(&self) -> Vec<Work> {
        self.core.works.all()
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.core.node
    }
}

impl Core {
    /// The pools, in the order of the pools file.
    pub fn pools(&self) -> &[Arc<dyn Pool>] {
        &self.pools
    }

    /// The pool of this name.
    fn pool(&self, name: &PoolName) -> Option<&dyn Pool> {
        self.pools
            .iter()
            .find(|pool| pool.name() == name)
            .map(|pool| &**pool)
    }

    /// The pool that a class means: the one it names, else the only one, else the one called `default`.
    fn pool_of(&self, class: &Class) -> Result<&dyn Pool> {
        let found = match (&class.pool, &self.pools[..]) {
            (Some(name), _) => self.pool(name),
            (None, [only]) => Some(&**only),
            (None, several) => several
                .iter()
                .find(|pool| pool.name().as_str() == "default")
                .map(|pool| &**pool),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = self.pools.iter().map(|pool| pool.name().as_str()).collect();
            let asked = class
                .pool
                .as_ref()
                .map_or("no pool is named in the class".into(), |name| {
                    format!("there is no pool {name} on node {}", self.node)
                });
            Error::Invalid(format!(
                "{asked}: set the parameter `pool` to one of {}",
                names.join(", ")
            ))
        })
    }

    /// The volume of this id, and its pool.
    fn find(&self, id: &VolumeId) -> Result<Option<(&dyn Pool, Volume)>> {
        let Some(pool) = self.pool(&id.pool) else {
            return Ok(None);
        };
        Ok(pool.find(&id.name)?.map(|volume| (pool, volume)))
    }

    /// The id of the volume that is called so.
    ///
    /// # Errors
    /// `NotFound`, when no inline volume has that name.
    pub fn resolve(&self, handle: &Handle) -> Result<VolumeId> {
        match handle {
            Handle::Id(id) => Ok(id.clone()),
            Handle::Inline(name) => match self.named(name)? {
                Some((_, volume)) if volume.record.ephemeral => Ok(volume.id),
                _ => Err(Error::NotFound(format!("inline volume {name}"))),
            },
        }
    }

    /// The volume of this id, with its pool.
    fn existing(&self, id: &VolumeId) -> Result<(&dyn Pool, Volume)> {
        let missing = || Error::NotFound(format!("volume {id}"));
        self.find(id)?.ok_or_else(missing)
    }

    /// The volume of this name in whichever pool: names are given once per node.
    fn named(&self, name: &VolumeName) -> Result<Option<(&dyn Pool, Volume)>> {
        for pool in &self.pools {
            if let Some(volume) = pool.find(name)? {
                return Ok(Some((&**pool, volume)));
            }
        }
        Ok(None)
    }
}
