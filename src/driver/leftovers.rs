//! What lies on the node that nobody asked to keep, or that no record explains.

use super::Core;
use crate::pool::Pool;
use crate::volume::{Bytes, Error, PoolName, Result, VolumeId};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// The pool that it is in.
    pub pool: PoolName,
    /// A volume's name, an entry's, or a path.
    pub name: String,
    /// What it occupies, where that is known.
    pub bytes: Option<Bytes>,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// What a leftover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deleted, and could not be removed.
    Stuck,
    /// An inline volume that is mounted nowhere: its pod is gone, or not back yet.
    Idle,
    /// Data whose record is missing or can not be read.
    Unreadable,
    /// A mount of a volume that does not exist.
    Mount,
}

impl Core {
    /// All of them, pool by pool.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        let mut all = Vec::new();
        for pool in &self.pools {
            all.extend(stuck(&**pool)?);
            all.extend(self.idle(&**pool)?);
            all.extend(unreadable(&**pool)?);
            all.extend(self.mounts_of_nothing(&**pool)?);
        }
        Ok(all)
    }

    /// Tries again to remove what was deleted and is stuck. What is gone by then is fine.
    ///
    /// # Errors
    /// `NotFound` for a pool that is not there; what the machine says if it still can not be removed.
    pub fn purge(&self, pool: &PoolName, name: &str) -> Result<()> {
        let missing = || Error::NotFound(format!("pool {pool}"));
        self.pool(pool).ok_or_else(missing)?.purge(name)?;
        tracing::info!(%pool, entry = name, "purged");
        Ok(())
    }

    fn idle(&self, pool: &dyn Pool) -> Result<Vec<Leftover>> {
        let mut all = Vec::new();
        for volume in pool.page(None, usize::MAX)? {
            if !volume.record.ephemeral || !self.mounted(pool, &volume)?.is_empty() {
                continue;
            }
            let usage = pool.usage(&volume)?.map(|usage| usage.used);
            all.push(Leftover {
                kind: Kind::Idle,
                pool: pool.name().clone(),
                name: volume.id.name.to_string(),
                bytes: usage.or(Some(volume.record.size)),
                message: format!(
                    "inline volume {} is mounted nowhere: `orlop prune` removes it if the kubelet has no pod with it",
                    volume.id
                ),
            });
        }
        Ok(all)
    }

    fn mounts_of_nothing(&self, pool: &dyn Pool) -> Result<Vec<Leftover>> {
        let mut all = Vec::new();
        for mount in self.host.mounts.all()? {
            let Some(name) = pool.recognise(&mount) else {
                continue;
            };
            // One whose record can not be read is told as such.
            if !matches!(pool.find(&name), Ok(None)) {
                continue;
            }
            let (pool, at) = (pool.name().clone(), mount.target.display().to_string());
            let id = VolumeId {
                pool: pool.clone(),
                name,
            };
            all.push(Leftover {
                kind: Kind::Mount,
                pool,
                message: format!(
                    "{at} shows volume {id}, which does not exist: end what uses it, then `umount {at}`"
                ),
                name: at,
                bytes: None,
            });
        }
        Ok(all)
    }
}

fn stuck(pool: &dyn Pool) -> Result<Vec<Leftover>> {
    let leftover = |entry: crate::pool::Stuck| Leftover {
        kind: Kind::Stuck,
        pool: pool.name().clone(),
        message: format!(
            "{} was deleted and is still there: `orlop prune` tries again to remove it",
            entry.name
        ),
        name: entry.name,
        bytes: entry.bytes,
    };
    Ok(pool.stuck()?.into_iter().map(leftover).collect())
}

fn unreadable(pool: &dyn Pool) -> Result<Vec<Leftover>> {
    let leftover = |(name, message)| Leftover {
        kind: Kind::Unreadable,
        pool: pool.name().clone(),
        name,
        bytes: None,
        message,
    };
    Ok(pool.unreadable()?.into_iter().map(leftover).collect())
}
