//! Pools of ZFS: a tree is a dataset, a device a zvol, and the record of each a property of it.
//!
//! What is there is listed when the pool is opened and whenever all of it is asked for; in between our own changes are
//! followed. A command that fails makes us list again, so that what somebody changed by hand is seen.

mod ending;
mod keys;
mod listing;
mod making;
mod names;
mod shape;
mod status;
mod trees;
mod verbs;
mod wishes;

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::ledger::{Ledger, Promise};
use super::{Attached, Capacity};
use crate::host::command::Command;
use crate::host::folder::Folder;
use crate::host::{Host, passing, zvol};
use crate::volume::{self, Bytes, Layout, PoolName, VolumeName};
use ending::destroy;
use listing::{COLUMNS, Listing, Property};
use names::{Names, RECORD};
use status::Status;

/// Where datasets are mounted while they are in use, to be bound from there.
const MOUNTS: [&str; 2] = ["orlop", "zfs"];

/// How long a command may take: one that meets a suspended zpool would wait for ever.
const LIMIT: Duration = Duration::from_mins(2);
/// How long one that changes something may take: ZFS answers it when all that others write meanwhile is on the disks, too,
/// several times.
const CHANGE_LIMIT: Duration = Duration::from_mins(10);

/// What all zvols have from the pool's dataset: partitions on them are their user's, not this machine's, and their
/// snapshots are nobody's devices. To say it of each would cost it two waits for the disks.
const OF_ZVOLS: [(&str, &str); 2] = [("volmode", "dev"), ("snapdev", "hidden")];

/// How long udev may look at a device that is to be changed.
const PASSING: Duration = Duration::from_secs(10);

/// A pool of ZFS.
pub(super) struct Zfs {
    name: PoolName,
    names: Names,
    host: Host,
    /// Where datasets are mounted, each in a directory of its volume's name.
    mounts: Folder,
    listing: RwLock<Listing>,
    /// Held for reading by what changes something, for writing by what lists everything: neither sees half of the other.
    turn: RwLock<()>,
    ledger: Ledger,
    /// Held while keys are loaded or unloaded, and while what is copied must stay the dataset that it is.
    keys: Mutex<()>,
    status: Mutex<Option<Status>>,
    interrupted: Vec<VolumeName>,
    _lock: File,
}

impl Zfs {
    /// Opens the pool beneath the dataset `home`, which must exist, and keeps it for this process.
    pub(super) fn open(name: &PoolName, home: &str, host: &Host) -> Result<Self> {
        let opening = || format!("pool {name}: opening {home}");
        let names = Names {
            home: home.to_owned(),
        };
        let mut mounts = Folder::open("/run".as_ref(), host.gate.clone()).with_context(opening)?;
        let key = home.replace('/', "+");
        for part in MOUNTS.into_iter().chain([key.as_str()]) {
            mounts = mounts.ensure_folder(part).with_context(opening)?;
        }
        let lock = mounts.lock("lock").with_context(opening)?;
        let mut pool = Self {
            name: name.clone(),
            names,
            host: host.clone(),
            mounts,
            listing: RwLock::default(),
            turn: RwLock::default(),
            ledger: Ledger::new(name),
            keys: Mutex::default(),
            status: Mutex::default(),
            interrupted: Vec::new(),
            _lock: lock,
        };
        pool.prepare_home().with_context(opening)?;
        pool.list().with_context(opening)?;
        pool.sweep().with_context(opening)?;
        pool.mount_again().with_context(opening)?;
        pool.interrupted = pool.devices_with_filesystems();
        Ok(pool)
    }

    fn prepare_home(&self) -> Result<()> {
        let home = &self.names.home;
        let command = Command::query("zfs")
            .args(["get", "-Hp", "-o", COLUMNS])
            .args([&format!("type,{RECORD},volmode,snapdev"), home])
            .limit(LIMIT);
        let told = self.host.tools.run(&command).with_context(|| {
            format!(
                "make the dataset by `zfs create -o mountpoint=none {home}`, or import its zpool"
            )
        })?;
        let told: Vec<_> = told.lines().filter_map(Property::read).collect();
        let value = |name: &str| Property::among(&told, name)?.value;
        let record = Property::among(&told, RECORD).and_then(Property::own);
        ensure!(
            value("type") == Some("filesystem") && record.is_none(),
            "{home} is a volume itself: name a dataset that is there for nothing else"
        );
        let differ = OF_ZVOLS.iter();
        let differ = differ.filter(|(name, wanted)| value(name) != Some(*wanted));
        let set: Vec<_> = differ
            .map(|(name, wanted)| format!("{name}={wanted}"))
            .collect();
        if set.is_empty() {
            return Ok(());
        }
        self.change(Command::new("zfs").arg("set").args(set).arg(home))
    }

    /// Removes what earlier processes did not finish.
    fn sweep(&self) -> Result<()> {
        let left = std::mem::take(&mut self.known_mut().half_made);
        for dataset in left {
            tracing::info!(%dataset, "removing what was half-made");
            self.change(destroy(&dataset))?;
        }
        self.end_replacements()?;
        self.settle()
    }

    fn devices_with_filesystems(&self) -> Vec<VolumeName> {
        let known = self.known();
        let volumes = known.volumes.iter();
        volumes
            .filter(|(_, kept)| {
                kept.record.layout == Layout::Device && kept.record.filesystem.is_some()
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Runs what changes something. A device that was just made or closed may be looked at by udev for a moment, who
    /// keeps it open: ZFS calls it busy until then. Who fails may have met what somebody changed by hand: that is looked at.
    fn change(&self, command: Command) -> Result<()> {
        let command = command.limit(CHANGE_LIMIT);
        let change = || {
            let _turn = self.turn.read();
            self.host.tools.run(&command)
        };
        let changed = passing::wait(PASSING, change, |changed| {
            changed.as_ref().is_err_and(is_busy)
        });
        if changed.is_err() {
            self.list()
                .context("listing again after a command that failed")?;
        }
        changed.map(drop)
    }

    /// What we know, and do not keep: a look at it must not last.
    fn known(&self) -> RwLockReadGuard<'_, Listing> {
        self.listing.read()
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Listing> {
        self.listing.write()
    }

    /// Keeps room for this much more while it is made.
    fn reserve(&self, size: Bytes) -> volume::Result<Promise<'_>> {
        self.ledger.reserve(size, |reserved| self.room(reserved))
    }

    /// What ZFS says it has, quotas of all parents included, less what is promised.
    fn room(&self, reserved: Bytes) -> Result<Capacity> {
        let (used, free) = self.space()?;
        let known = self.known();
        let sizes = known.volumes.values().map(|kept| kept.record.size);
        let promised = sizes.fold(reserved, Bytes::plus);
        let total = used.plus(free);
        Ok(Capacity {
            total,
            promised,
            available: total.less(promised).min(free.less(reserved)),
        })
    }

    /// How much is used beneath the pool's dataset, and how much more can be.
    fn space(&self) -> Result<(Bytes, Bytes)> {
        let command = Command::query("zfs")
            .args([
                "get",
                "-Hp",
                "-o",
                "value",
                "used,available",
                &self.names.home,
            ])
            .limit(LIMIT);
        let told = self.host.tools.run(&command)?;
        let mut values = told.lines().map(|line| line.parse().map(Bytes));
        match (values.next(), values.next()) {
            (Some(Ok(used)), Some(Ok(free))) => Ok((used, free)),
            _ => anyhow::bail!("`{command}` said {told:?}"),
        }
    }

    /// The volume that a mount shows, if it is one of ours.
    fn shown_by(&self, mount: &crate::host::mount::Entry) -> Option<VolumeName> {
        let dataset = match mount.filesystem.as_str() {
            "zfs" => mount.source.to_str()?.to_owned(),
            "devtmpfs" => zvol::name_of(&PathBuf::from("/dev").join(mount.root.file_name()?))?,
            _ => zvol::name_of(mount.source.as_ref())?,
        };
        self.names.volume_of(&dataset)
    }
}

/// Whether ZFS said so; its tools have one exit status for all.
fn is_busy(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("dataset is busy")
}

fn device(zvol: zvol::Zvol) -> Attached {
    Attached::device(zvol.path, zvol.rdev)
}
