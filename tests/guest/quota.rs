//! The sizes of directory trees, which project quotas of XFS and ext4 hold them to.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use orlop::config;
use orlop::host::gate::Gate;
use orlop::host::progress::Progress;
use orlop::host::quota::{self, Limit, Usage};
use orlop::host::{Host, space};
use orlop::pool::{self, Origin};
use orlop::volume::{Bytes, Record, SnapshotRecord, VolumeRecord};
use tonic::Code;

use crate::client::{Client, From};
use crate::disk::Disk;
use crate::node::Node;
use crate::support::run;

const MIB: u64 = 1 << 20;

/// How long to wait for what the kernel does when it likes, such as counting what was removed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A filesystem with project quotas.
struct Form {
    kind: &'static str,
    make: &'static [&'static str],
    /// What a write beyond a limit is answered with.
    full: &'static str,
}

const XFS: Form = Form {
    kind: "xfs",
    make: &[],
    full: "No space left on device",
};

const EXT4: Form = Form {
    kind: "ext4",
    make: &["-Oquota,project", "-Equotatype=prjquota"],
    full: "Disk quota exceeded",
};

/// What takes from a process the right to pass over the limits of ext4.
const AS_A_CONTAINER: &str = "--bounding-set=-sys_resource";

/// How it is mounted so that limits hold.
const ENFORCED: &str = "prjquota";

macro_rules! on_both {
    ($($claim:ident)*) => {
        mod on_xfs {
            $(#[test] #[ignore = "tests/machine runs it in a guest"] fn $claim() { super::$claim(&super::XFS); })*
        }
        mod on_ext4 {
            $(#[test] #[ignore = "tests/machine runs it in a guest"] fn $claim() { super::$claim(&super::EXT4); })*
        }
    };
}

on_both! {
    a_tree_holds_no_more_than_its_size
    a_grown_tree_holds_more_and_never_shrinks
    the_entries_of_a_tree_are_limited_and_the_limit_can_be_modified
    a_limit_outlives_a_restart_and_a_remount
    clones_and_snapshots_are_counted_for_themselves
    every_entry_of_a_tree_counts
    a_deleted_tree_leaves_no_project
    an_id_in_use_is_not_given_again
    a_project_of_the_pool_itself_stays
    a_filesystem_mounted_without_enforcement_is_noticed
    a_crash_leaves_no_project_without_its_tree
}

/// A node with one pool on a disk of its own.
struct Place {
    client: Client,
    node: Node,
    disk: Disk,
}

impl Place {
    fn new(form: &Form) -> Option<Self> {
        Disk::new(form.kind, form.make, ENFORCED).map(Self::on)
    }

    fn on(disk: Disk) -> Self {
        let node = Node::start(&["--pools", &disk.pools().display().to_string()]);
        let client = Client::of(&node);
        Self { client, node, disk }
    }

    /// Creates a volume of a class that asks for the enforcement of its size.
    fn create(&self, name: &str, mib: u64, from: &From<'_>) -> String {
        let created = self
            .client
            .create(name, mib * MIB, &[("requireQuota", "true")], from);
        created.expect("its size can be enforced")
    }

    /// Mounts the disk again with these options, while the node is stopped.
    fn remount(&mut self, options: &str) {
        self.node.stop();
        self.disk.unmount().expect("nobody uses it");
        self.disk.mount(options);
        self.node.start_again();
        self.client = Client::of(&self.node);
    }

    fn data(&self, id: &str) -> PathBuf {
        let name = id.strip_prefix("default/").expect("it is of that pool");
        self.disk.pool().join("volumes").join(name).join("data")
    }

    fn project(&self, id: &str) -> Option<u32> {
        let record = self.data(id).with_file_name(VolumeRecord::FILE);
        let text = fs::read(record).expect("it has a record");
        VolumeRecord::from_text(&text)
            .expect("it can be read")
            .project
    }

    fn usage(&self, id: &str) -> Usage {
        let project = self.project(id).expect("it has a project");
        usage_of(&self.disk.path(), project)
    }
}

fn a_tree_holds_no_more_than_its_size(form: &Form) {
    let Some(place) = Place::new(form) else {
        return;
    };
    let dir = place.node.dir.path();
    let (staging, target) = (dir.join("staging"), dir.join("target"));
    let id = place.create("held", 16, &From::Nothing);
    place
        .client
        .publish(&id, &staging, &target)
        .expect("it is there");

    let within = fill(&target.join("within"), 12);
    let beyond = fill(&target.join("beyond"), 12);
    let shown = space::of(&target).expect("it is mounted").bytes;
    let stats = place.client.stats(&id, &target).expect("it is published");
    place
        .client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");

    within.expect("there is room");
    let refused = format!("{:#}", beyond.expect_err("there is no room"));
    assert!(refused.contains(form.full), "{refused}");
    assert_eq!(shown.total, 16 * MIB);
    let (bytes, inodes) = (&stats[0], &stats[1]);
    assert_eq!(bytes.total, i64::try_from(16 * MIB).expect("it fits"));
    assert_eq!(bytes.used + bytes.available, bytes.total);
    assert!(
        bytes.used > i64::try_from(14 * MIB).expect("it fits"),
        "{bytes:?}"
    );
    assert_eq!(inodes.used, 3);
}

fn a_grown_tree_holds_more_and_never_shrinks(form: &Form) {
    let Some(place) = Place::new(form) else {
        return;
    };
    let id = place.create("grown", 16, &From::Nothing);
    let (first, second) = (
        place.data(&id).join("first"),
        place.data(&id).join("second"),
    );
    fill(&first, 12).expect("there is room");
    fill(&second, 12).expect_err("there is no room yet");
    fs::remove_file(&second).expect("it can be removed");

    place.client.grow(&id, 32 * MIB).expect("there is room");
    let after = fill(&second, 12);
    let smaller = place.client.grow(&id, 8 * MIB);

    after.expect("there is room now");
    // One that is large enough is what was asked for (CSI 1.13, `ControllerExpandVolume`).
    smaller.expect("it has that size");
    assert_eq!(place.usage(&id).limit, Some(Bytes(32 * MIB)));
}

fn the_entries_of_a_tree_are_limited_and_the_limit_can_be_modified(form: &Form) {
    let Some(place) = Place::new(form) else {
        return;
    };
    let (client, dir) = (&place.client, place.node.dir.path());
    let (staging, target) = (dir.join("staging"), dir.join("target"));
    let created = client.create("few", 16 * MIB, &[("maxInodes", "20")], &From::Nothing);
    let id = created.expect("its entries can be counted");
    client.publish(&id, &staging, &target).expect("it is there");
    let fill = |from: usize| {
        // One of them is the tree itself.
        let files = (from..100).map(|n| target.join(format!("file-{n}")));
        let touched = |path: &PathBuf| run("setpriv", touch(path)).is_ok();
        from + files.take_while(touched).count()
    };

    let made = fill(0);
    let told = client.stats(&id, &target).expect("it is there");
    let inodes = told.iter().find(|usage| usage.unit == 2).copied();
    for _ in 0..2 {
        client
            .modify(&id, &[("maxInodes", "50")])
            .expect("it may be in use");
    }
    let more = fill(made);
    let refused = [
        ("maxInodes", "0"),
        ("maxInodes", "many"),
        ("requireQuota", "false"),
    ]
    .map(|change| client.modify(&id, &[change]));
    client.grow(&id, 32 * MIB).expect("there is room");
    let after_growth = fill(more);
    let cloned = client.create(
        "clone",
        32 * MIB,
        &[("maxInodes", "60")],
        &From::Volume(&id),
    );
    let limit_of_clone = place.usage(&cloned.expect("there is room")).inodes;

    assert_eq!(made, 19);
    let inodes = inodes.expect("they are counted");
    assert_eq!((inodes.total, inodes.used, inodes.available), (20, 20, 0));
    assert_eq!((more, after_growth), (49, 49));
    assert_eq!(limit_of_clone, 50);
    for refused in refused {
        let told = refused.expect_err("it is no number of inodes");
        assert_eq!(told.code(), Code::InvalidArgument, "{told}");
    }
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
}

/// Makes an empty file as a container would.
fn touch(path: &Path) -> [&OsStr; 3] {
    [
        OsStr::new(AS_A_CONTAINER),
        OsStr::new("touch"),
        path.as_os_str(),
    ]
}

fn a_limit_outlives_a_restart_and_a_remount(form: &Form) {
    let Some(mut place) = Place::new(form) else {
        return;
    };
    let id = place.create("kept", 16, &From::Nothing);
    let before = place.project(&id);

    place.remount(ENFORCED);

    let refused = fill(&place.data(&id).join("beyond"), 24).expect_err("there is no room");
    assert!(format!("{refused:#}").contains(form.full), "{refused:#}");
    assert_eq!(place.project(&id), before);
}

fn clones_and_snapshots_are_counted_for_themselves(form: &Form) {
    let Some(place) = Place::new(form) else {
        return;
    };
    let source = place.create("source", 16, &From::Nothing);
    fill(&place.data(&source).join("file"), 8).expect("there is room");
    let before = place.usage(&source);

    let snapshot = place
        .client
        .snapshot(&source, "snapshot")
        .expect("there is room");
    let clone = place.create("clone", 32, &From::Volume(&source));
    let restored = place.create("restored", 16, &From::Snapshot(&snapshot));

    assert_eq!(place.usage(&source), before);
    let known = known(&place.disk.path());
    let own = [&source, &clone, &restored].map(|id| place.project(id).expect("it has one"));
    assert_eq!(known.len(), 4, "{known:?}");
    assert!(BTreeSet::from(own).is_subset(&known), "{own:?} {known:?}");
    assert_eq!(place.usage(&clone).limit, Some(Bytes(32 * MIB)));
    assert!(place.usage(&clone).used >= Bytes(8 * MIB));
    fill(&place.data(&clone).join("more"), 20).expect("it is larger than its source");
    for (id, mib) in [(clone, 8), (restored, 12)] {
        let refused = fill(&place.data(&id).join("beyond"), mib).expect_err("there is no room");
        assert!(format!("{refused:#}").contains(form.full), "{refused:#}");
    }
}

fn every_entry_of_a_tree_counts(form: &Form) {
    let Some(place) = Place::new(form) else {
        return;
    };
    let id = place.create("counted", 16, &From::Nothing);
    let below = place.data(&id).join("below");

    fs::create_dir(&below).expect("there is room");
    for number in 0..10 {
        File::create(below.join(number.to_string())).expect("there is room");
    }

    // The topmost directory, the one below, and the files in that.
    assert_eq!(place.usage(&id).inodes, 12);
}

fn a_deleted_tree_leaves_no_project(form: &Form) {
    let Some(place) = Place::new(form) else {
        return;
    };
    let source = place.create("source", 16, &From::Nothing);
    fill(&place.data(&source).join("file"), 4).expect("there is room");
    let snapshot = place
        .client
        .snapshot(&source, "snapshot")
        .expect("there is room");
    let clone = place.create("clone", 16, &From::Volume(&source));
    let before = known(&place.disk.path()).len();

    place.client.delete(&source).expect("it is mounted nowhere");
    place.client.delete(&clone).expect("it is mounted nowhere");
    place
        .client
        .delete_snapshot(&snapshot)
        .expect("it is there");

    assert_eq!(before, 3);
    until(
        || known(&place.disk.path()).is_empty(),
        "the projects are forgotten",
    );
}

fn an_id_in_use_is_not_given_again(form: &Form) {
    let Some(disk) = Disk::new(form.kind, form.make, ENFORCED) else {
        return;
    };
    let gate = Gate::open();
    let folder = |name: &str| {
        fs::create_dir(disk.path().join(name)).expect("it is new");
        File::open(disk.path().join(name)).expect("it is there")
    };
    let [counted, limited] = [*quota::IDS.start(), *quota::IDS.end() - 1];
    let first = quota::assign_among(&gate, folder("first").as_fd(), [counted]);
    quota::set_limit(&gate, folder("second").as_fd(), limited, Some(bytes(MIB)))
        .expect("it can be limited");

    let next = quota::assign_among(&gate, folder("third").as_fd(), [counted, limited, 7]);
    let none = quota::assign_among(&gate, folder("fourth").as_fd(), [counted, limited, 7]);

    assert_eq!(first.expect("it is free"), counted);
    assert_eq!(next.expect("one is free"), 7);
    assert!(none.is_err_and(|error| error.to_string().contains("no free project id")));
}

fn a_project_of_the_pool_itself_stays(form: &Form) {
    const OURS: u32 = 42;
    let Some(disk) = Disk::new(form.kind, form.make, ENFORCED) else {
        return;
    };
    disk.pools();
    let (gate, pool) = (Gate::open(), File::open(disk.pool()).expect("it was made"));
    quota::assign_among(&gate, pool.as_fd(), [OURS]).expect("it is free");
    quota::set_limit(&gate, pool.as_fd(), OURS, Some(bytes(256 * MIB))).expect("it can be limited");
    let place = Place::on(disk);

    let id = place.create("guest", 16, &From::Nothing);
    let refused = fill(&place.data(&id).join("beyond"), 24);
    place.client.delete(&id).expect("it is mounted nowhere");

    refused.expect_err("it has a limit of its own");
    assert_eq!(
        usage_of(&place.disk.path(), OURS).limit,
        Some(Bytes(256 * MIB))
    );
}

fn a_filesystem_mounted_without_enforcement_is_noticed(form: &Form) {
    let Some(mut place) = Place::new(form) else {
        return;
    };
    let [kept, deleted] = ["kept", "deleted"].map(|name| place.create(name, 16, &From::Nothing));
    let healthy = place.client.health(&kept).expect("it is there");

    place.remount("noatime");
    let required =
        place
            .client
            .create("required", MIB, &[("requireQuota", "true")], &From::Nothing);
    let free = place
        .client
        .create("free", MIB, &[], &From::Nothing)
        .expect("it asks for nothing");
    let unlimited = place.project(&free);
    let unhealthy = place.client.health(&kept).expect("it is there");
    place
        .client
        .delete(&deleted)
        .expect("it is mounted nowhere");
    let log = place.node.log();
    place.remount(ENFORCED);

    let refused = required.expect_err("it can not be enforced");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("`-o prjquota`"), "{refused}");
    assert_eq!(unlimited, None);
    assert_eq!(
        (healthy, unhealthy),
        (vec![], vec!["SizeNotEnforced".to_owned()])
    );
    assert_eq!(
        log.matches("the sizes of trees are not enforced").count(),
        1,
        "{log}"
    );
    assert_eq!(
        place.client.health(&kept).expect("it is there"),
        Vec::<String>::new()
    );
    let left = BTreeSet::from([place.project(&kept).expect("it has one")]);
    until(
        || known(&place.disk.path()) == left,
        "what was deleted is forgotten",
    );
}

/// Cuts the life of a volume off after each of its changes, and looks at what the next process makes of it.
fn a_crash_leaves_no_project_without_its_tree(form: &Form) {
    let Some(disk) = Disk::new(form.kind, form.make, ENFORCED) else {
        return;
    };
    let config = config::Pools::read(&disk.pools())
        .expect("it was just written")
        .pools
        .remove(0);
    let pool = |gate: Gate| pool::open(&config, &Host::new(gate));
    let record = |size: u64| VolumeRecord::from_text(text_of(size).as_bytes()).expect("it is one");
    let (name, progress) = ("v".parse().expect("a name"), Progress::default());
    let source = pool(Gate::open()).and_then(|pool| {
        let made = pool.create(&"source".parse()?, record(8 * MIB), None, &progress)?;
        fill(&disk.pool().join("volumes/source/data/file"), 1)?;
        Ok(made)
    });
    let source = source.expect("nothing is cut off");

    for changes in 0.. {
        let gate = Gate::cut_after(changes);
        let life = || -> Result<()> {
            let pool = pool(gate.clone())?;
            let origin = Origin::Volume(source.clone(), None);
            let volume = pool.create(&name, record(8 * MIB), Some(&origin), &progress)?;
            let volume = pool.grow(&volume, Bytes(16 * MIB), None)?;
            let taken = SnapshotRecord::new("s", &volume);
            let snapshot = pool.snapshot(&volume, &"s".parse()?, taken, None, &progress)?;
            pool.delete(&volume)?;
            Ok(pool.delete_snapshot(&snapshot)?)
        };
        let lived = life();

        let pool = pool(Gate::open()).expect("it can be opened after any crash");
        let swept = || {
            ["making", "trash"]
                .iter()
                .all(|part| is_empty(&disk.pool().join(part)))
        };
        until(swept, "what was left is swept");
        let (found, snapshot) = (
            pool.find(&name).expect("it can be asked for"),
            pool.find_snapshot(&"s".parse().expect("a name"))
                .expect("it can be asked for"),
        );
        if let Some(volume) = &found {
            let project = volume.record.project.expect("it has one");
            let limit = usage_of(&disk.path(), project).limit;
            assert!(
                limit >= Some(volume.record.size),
                "after {changes} changes: {limit:?}"
            );
        }
        let records = [Some(&source), found.as_ref()].into_iter().flatten();
        let projects = records.map(|volume| volume.record.project);
        let projects = projects.chain(snapshot.as_ref().map(|snapshot| snapshot.record.project));
        let projects: BTreeSet<_> = projects
            .map(|project| project.expect("it has one"))
            .collect();
        until(
            || known(&disk.path()) == projects,
            "no other project is known",
        );

        if let Some(volume) = &found {
            pool.delete(volume).expect("it is there");
        }
        if let Some(snapshot) = &snapshot {
            pool.delete_snapshot(snapshot).expect("it is there");
        }
        if !gate.was_cut() {
            lived.expect("nothing was cut off");
            assert!(
                changes > 20,
                "only {changes} changes: were some not announced?"
            );
            return;
        }
    }
}

/// Writes so much into a new file, as somebody without the privileges that lift the limits of ext4.
fn fill(file: &Path, mib: u64) -> Result<()> {
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

fn bytes(bytes: u64) -> Limit {
    Limit {
        bytes: Bytes(bytes),
        inodes: None,
    }
}

fn usage_of(disk: &Path, project: u32) -> Usage {
    let disk = File::open(disk).expect("it is mounted");
    quota::usage(disk.as_fd(), project).expect("it is counted")
}

/// The ids that the kernel knows something of.
fn known(disk: &Path) -> BTreeSet<u32> {
    let disk = File::open(disk).expect("it is mounted");
    let projects = quota::projects(disk.as_fd()).expect("they are counted");
    projects.into_iter().map(|(id, _)| id).collect()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder)
        .expect("the pool is there")
        .next()
        .is_none()
}

fn until(claim: impl Fn() -> bool, what: &str) {
    let started = Instant::now();
    while !claim() {
        assert!(
            started.elapsed() < PATIENCE,
            "in {PATIENCE:?} it never was so that {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn text_of(size: u64) -> String {
    format!(
        r#"{{ "version": 1, "csiName": "v", "size": {size}, "access": "mount", "layout": "tree", "created": "2026-01-01T00:00:00Z" }}"#
    )
}
