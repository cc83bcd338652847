//! The sizes of directory trees, which project quotas of XFS and ext4 hold them to.

mod place;
mod projects;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use orlop::host::space;
use orlop::volume::Bytes;
use tonic::Code;

use crate::client::From;
use crate::support::run;
use place::{AS_A_CONTAINER, ENFORCED, EXT4, Form, MIB, Place, XFS, fill, known, until};
use projects::{
    a_crash_leaves_no_project_without_its_tree, a_deleted_tree_leaves_no_project,
    a_project_of_the_pool_itself_stays, an_id_in_use_is_not_given_again,
};

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
