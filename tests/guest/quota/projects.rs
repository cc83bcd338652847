//! Which projects the kernel knows of: one for each tree that there is, and whose else they are.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Result;
use orlop::config;
use orlop::host::Host;
use orlop::host::gate::Gate;
use orlop::host::progress::Progress;
use orlop::host::quota::{self, Limit};
use orlop::pool::{self, Origin};
use orlop::volume::{Bytes, Record, SnapshotRecord, VolumeRecord};

use super::place::{ENFORCED, Form, MIB, Place, fill, known, until, usage_of};
use crate::client::From;
use crate::disk::Disk;

pub(crate) fn a_deleted_tree_leaves_no_project(form: &Form) {
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

pub(crate) fn an_id_in_use_is_not_given_again(form: &Form) {
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

pub(crate) fn a_project_of_the_pool_itself_stays(form: &Form) {
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

/// Cuts the life of a volume off after each of its changes, and looks at what the next process makes of it.
pub(crate) fn a_crash_leaves_no_project_without_its_tree(form: &Form) {
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

fn bytes(bytes: u64) -> Limit {
    Limit {
        bytes: Bytes(bytes),
        inodes: None,
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder)
        .expect("the pool is there")
        .next()
        .is_none()
}

fn text_of(size: u64) -> String {
    format!(
        r#"{{ "version": 1, "csiName": "v", "size": {size}, "access": "mount", "layout": "tree", "created": "2026-01-01T00:00:00Z" }}"#
    )
}
