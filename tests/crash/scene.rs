//! What stands around a verb that is cut off: a pool, a volume in use and a snapshot, none of which it may harm.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use orlop::config;
use orlop::driver::mounts::{PublishSpec, StageSpec};
use orlop::host::freeze::thaw_leftover;
use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use orlop::volume::{Access, Bytes, Snapshot, Use, Volume};

use crate::support::form::Form;
use crate::support::home::Home;
use crate::support::verbs::Node;
use crate::support::{loops_below, until};

/// The size of all volumes at first: all filesystems can be made in it.
pub(crate) const USUAL: Bytes = Bytes::MIB.times(300);

/// The size of those that are larger.
pub(crate) const LARGER: Bytes = Bytes::MIB.times(400);

/// How long a write may take before the filesystem counts as frozen.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Scene {
    pub(crate) form: Form,
    home: Home,
    config: config::Pool,
    place: PathBuf,
    desk: PathBuf,
    /// Staged all the time.
    pub(crate) source: Volume,
    /// Of the source.
    pub(crate) snapshot: Snapshot,
}

impl Drop for Scene {
    /// A frozen filesystem outlives everything, also a test that failed.
    fn drop(&mut self) {
        let _ = thaw_leftover(&Gate::open(), &self.staging(&self.source).staging);
    }
}

/// What the callers of a node see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    entries: BTreeSet<String>,
    mounts: Vec<PathBuf>,
}

impl Seen {
    /// Nothing half-made: what exists is as it was or as it is to be, and so is what is mounted.
    pub(crate) fn assert_one_of(&self, before: &Self, whole: &Self, at: &str) {
        let entries = self.entries == before.entries || self.entries == whole.entries;
        let mounts = self.mounts == before.mounts || self.mounts == whole.mounts;
        assert!(entries && mounts, "{at}: {self:?}");
    }
}

impl Scene {
    pub(crate) fn set(home: Home, form: Form, desk: &Path) -> Self {
        let place = home.path(desk).join("pool");
        let config = config::Pool {
            name: "pool".parse().expect("it is a legal name"),
            kind: home.pool(&place),
        };
        let node = Node::start(&config, Gate::open()).expect("the pool is new");
        let source = node.create(&form.spec("source", USUAL));
        let source = source.expect("there is room");
        assert_eq!(source.record.usable(), USUAL);
        let snapshot = node.snapshot("snapshot", &source.id);
        let snapshot = snapshot.expect("the source exists");
        let scene = Self {
            form,
            home,
            config,
            place,
            desk: desk.to_owned(),
            source,
            snapshot,
        };
        node.stage(&scene.staging(&scene.source))
            .expect("it stages");
        scene.write(&scene.source, "content");
        node.delete_snapshot(&scene.snapshot.id)
            .expect("nobody uses it");
        let again = node.snapshot("snapshot", &scene.source.id);
        again.expect("the source exists");
        scene
    }

    /// Takes everything back, and looks that nothing is left.
    pub(crate) fn strike(&self) {
        let node = self.start();
        let staging = self.staging(&self.source).staging;
        node.unstage(&self.source.id, &staging)
            .expect("it unstages");
        node.delete(&self.source.id).expect("nobody uses it");
        node.delete_snapshot(&self.snapshot.id)
            .expect("nobody uses it");
        assert!(until(|| self.home.contents(&self.place).is_empty()));
        assert!(until(|| loops_below(&self.place).is_empty()));
    }

    /// A new process, on a machine that works.
    pub(crate) fn start(&self) -> Node {
        self.try_start(Gate::open()).expect("the pool opens")
    }

    pub(crate) fn try_start(&self, gate: Gate) -> Result<Node> {
        Node::start(&self.config, gate)
    }

    pub(crate) fn staging(&self, volume: &Volume) -> StageSpec {
        StageSpec {
            volume: volume.id.clone(),
            capability: self.form.used(Use::Writers, false),
            staging: self.desk.join(format!("{}.staging", volume.id.name)),
            key: self.form.key(),
        }
    }

    pub(crate) fn publication(&self, volume: &Volume) -> PublishSpec {
        PublishSpec {
            volume: volume.id.clone(),
            capability: self.form.used(Use::Writers, false),
            staging: self.staging(volume).staging,
            target: self.target(),
        }
    }

    /// Where volumes are published.
    pub(crate) fn target(&self) -> PathBuf {
        self.desk.join("target")
    }

    /// Writes a volume that is staged; what a block volume holds is another suite's to look at.
    pub(crate) fn write(&self, volume: &Volume, content: &str) {
        if self.form.access == Access::Mount {
            let path = self.staging(volume).staging.join("content");
            fs::write(path, content).expect("it is staged, and there is room");
        }
    }

    /// Looks that a volume that is staged holds what all volumes here do.
    pub(crate) fn assert_content(&self, volume: &Volume) {
        if self.form.access == Access::Mount {
            let path = self.staging(volume).staging.join("content");
            let content = fs::read_to_string(path).expect("it is staged");
            assert_eq!(content, "content", "{}", volume.id);
        }
    }

    /// What can be modified of volumes here, to another value than they are made with.
    pub(crate) fn changes(&self) -> &'static [(&'static str, &'static str)] {
        match self.home {
            Home::Zfs(_) => &[("compression", "zle"), ("logbias", "throughput")],
            Home::Folders { .. } if self.form.quota => &[("maxInodes", "1000")],
            Home::Memory | Home::Folders { .. } | Home::Lvm(_) => &[],
        }
    }

    /// Looks that the machine has of a volume that is staged what was modified.
    pub(crate) fn assert_changed(&self, volume: &Volume) {
        for (key, value) in self.changes() {
            let is = if let Home::Zfs(tank) = &self.home {
                tank.property(volume.id.name.as_str(), key)
            } else {
                let found = rustix::fs::statvfs(&self.staging(volume).staging);
                found.expect("it is staged").f_files.to_string()
            };
            assert_eq!(is, *value, "{key}");
        }
    }

    /// What callers see: all that exists, with its size, and all that is mounted.
    pub(crate) fn seen(&self, node: &Node) -> Seen {
        let volumes = node.volumes().into_iter();
        let volumes = volumes.map(|volume| {
            let (size, modified) = (volume.record.size, &volume.record.modified);
            format!("{} {size} {modified:?}", volume.id)
        });
        let snapshots = node.snapshots().into_iter();
        let snapshots = snapshots.map(|taken| format!("{} {}", taken.id, taken.record.size));
        let mounts = Mounts::new(Gate::open()).all().expect("it can be read");
        let targets = mounts.into_iter().map(|mount| mount.target);
        let mut mounts: Vec<_> = targets.filter(|at| at.starts_with(&self.desk)).collect();
        mounts.sort();
        Seen {
            entries: volumes.chain(snapshots).collect(),
            mounts,
        }
    }

    /// The volume in use has its content, and can be written: it is not frozen.
    pub(crate) fn assert_unharmed(&self, at: &str) {
        self.assert_content(&self.source);
        if self.form.access == Access::Block {
            return;
        }
        let staging = self.staging(&self.source).staging;
        let (written, has_written) = mpsc::channel();
        let path = staging.join("written");
        thread::spawn(move || written.send(fs::write(path, "something")));
        let answer = has_written.recv_timeout(PATIENCE);
        let answer = answer.unwrap_or_else(|_| panic!("{at}: the source is frozen"));
        answer.expect("there is room");
    }

    /// Nothing is left but what stood there before: no entry, no mount, no loop device.
    pub(crate) fn assert_tidy(&self, node: &Node, at: &str) {
        let only = ["snapshots/snapshot", "volumes/source"]
            .map(str::to_owned)
            .into();
        let left = || self.home.contents(&self.place);
        assert!(until(|| left() == only), "{at}: this is left: {:?}", left());
        let loops = || loops_below(&self.place);
        let attached = usize::from(self.home.has_folders() && !self.form.is_tree());
        assert!(until(|| loops().len() == attached), "{at}: {:?}", loops());
        let staged = usize::from(self.form.access == Access::Mount);
        let seen = self.seen(node);
        assert_eq!(seen.mounts.len(), staged, "{at}: {seen:?}");
        assert!(!self.target().exists(), "{at}: the target is left");
        let promised = node.capacity(self.form).promised;
        assert_eq!(promised, self.source.record.size, "{at}: a promise is left");
    }
}
