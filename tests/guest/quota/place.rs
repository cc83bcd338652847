//! A node that serves a pool of directories on a filesystem with project quotas.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use orlop::host::quota::{self, Usage};
use orlop::volume::{Record, VolumeRecord};

use crate::client::{Client, From};
use crate::disk::Disk;
use crate::node::Node;
use crate::support::run;

pub(crate) const MIB: u64 = 1 << 20;

/// How long to wait for what the kernel does when it likes, such as counting what was removed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A filesystem with project quotas.
pub(crate) struct Form {
    pub(crate) kind: &'static str,
    pub(crate) make: &'static [&'static str],
    /// What a write beyond a limit is answered with.
    pub(crate) full: &'static str,
}

pub(crate) const XFS: Form = Form {
    kind: "xfs",
    make: &[],
    full: "No space left on device",
};

pub(crate) const EXT4: Form = Form {
    kind: "ext4",
    make: &["-Oquota,project", "-Equotatype=prjquota"],
    full: "Disk quota exceeded",
};

/// What takes from a process the right to pass over the limits of ext4.
pub(crate) const AS_A_CONTAINER: &str = "--bounding-set=-sys_resource";

/// How it is mounted so that limits hold.
pub(crate) const ENFORCED: &str = "prjquota";

/// A node with one pool on a disk of its own.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) node: Node,
    pub(crate) disk: Disk,
}

impl Place {
    pub(crate) fn new(form: &Form) -> Option<Self> {
        Disk::new(form.kind, form.make, ENFORCED).map(Self::on)
    }

    pub(crate) fn on(disk: Disk) -> Self {
        let node = Node::start(&["--pools", &disk.pools().display().to_string()]);
        let client = Client::of(&node);
        Self { client, node, disk }
    }

    /// Creates a volume of a class that asks for the enforcement of its size.
    pub(crate) fn create(&self, name: &str, mib: u64, from: &From<'_>) -> String {
        let created = self
            .client
            .create(name, mib * MIB, &[("requireQuota", "true")], from);
        created.expect("its size can be enforced")
    }

    /// Mounts the disk again with these options, while the node is stopped.
    pub(crate) fn remount(&mut self, options: &str) {
        self.node.stop();
        self.disk.unmount().expect("nobody uses it");
        self.disk.mount(options);
        self.node.start_again();
        self.client = Client::of(&self.node);
    }

    pub(crate) fn data(&self, id: &str) -> PathBuf {
        let name = id.strip_prefix("default/").expect("it is of that pool");
        self.disk.pool().join("volumes").join(name).join("data")
    }

    pub(crate) fn project(&self, id: &str) -> Option<u32> {
        let record = self.data(id).with_file_name(VolumeRecord::FILE);
        let text = fs::read(record).expect("it has a record");
        VolumeRecord::from_text(&text)
            .expect("it can be read")
            .project
    }

    pub(crate) fn usage(&self, id: &str) -> Usage {
        let project = self.project(id).expect("it has a project");
        usage_of(&self.disk.path(), project)
    }
}

/// Writes so much into a new file, as somebody without the privileges that lift the limits of ext4.
pub(crate) fn fill(file: &Path, mib: u64) -> Result<()> {
    let into = format!("of={}", file.display());
    let count = format!("count={mib}");
    let writer = [
        AS_A_CONTAINER,
        "dd",
        "if=/dev/urandom",
        &into,
        "bs=1M",
        &count,
        "conv=fsync",
    ];
    run("setpriv", writer).map(drop)
}

pub(crate) fn usage_of(disk: &Path, project: u32) -> Usage {
    let disk = File::open(disk).expect("it is mounted");
    quota::usage(disk.as_fd(), project).expect("it is counted")
}

/// The ids that the kernel knows something of.
pub(crate) fn known(disk: &Path) -> BTreeSet<u32> {
    let disk = File::open(disk).expect("it is mounted");
    let projects = quota::projects(disk.as_fd()).expect("they are counted");
    projects.into_iter().map(|(id, _)| id).collect()
}

pub(crate) fn until(claim: impl Fn() -> bool, what: &str) {
    let started = Instant::now();
    while !claim() {
        assert!(
            started.elapsed() < PATIENCE,
            "in {PATIENCE:?} it never was so that {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
