//! Claims about snapshots, and about volumes made from them and from each other.

use std::slice::from_ref;

use orlop::volume::{Bytes, CapacityRange, Error, VolumeSpec};

use crate::claims;
use crate::trial::{Claim, LARGER, Trial, USUAL};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_snapshot_keeps_the_content_of_its_moment,
    a_snapshot_outlives_its_volume,
    a_second_snapshot_of_that_name_is_the_same_or_a_conflict,
    a_deleted_snapshot_is_gone_and_what_was_made_from_it_stays,
    snapshots_are_listed_in_order,
    a_restored_volume_can_be_larger_but_not_smaller,
    a_clone_and_its_source_go_their_own_ways,
];

fn a_snapshot_keeps_the_content_of_its_moment(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.filled("one", "before"));

    let snapshot = node.snapshot("snapshot", &volume.id).expect("it is taken");
    trial.write(&volume, "after");
    let restored = trial.form.restored("two", USUAL, &snapshot);
    let restored = node.create(&restored).expect("there is room");

    assert_eq!(snapshot.id.to_string(), "pool/one@snapshot");
    assert_eq!(snapshot.record.size, volume.record.size);
    assert_eq!(trial.read(&restored), "before");
    assert_eq!(trial.read(&volume), "after");
}

fn a_snapshot_outlives_its_volume(trial: &mut Trial) {
    let volume = trial.filled("one", "content");
    let snapshot = trial.node().snapshot("snapshot", &volume.id);
    let snapshot = snapshot.expect("it is taken");

    trial.node().delete(&volume.id).expect("nobody uses it");
    trial.restart();
    let restored = trial.form.restored("one", USUAL, &snapshot);
    let restored = trial.node().create(&restored).expect("there is room");

    assert_eq!(trial.node().snapshots(), [snapshot]);
    assert_eq!(trial.read(&restored), "content");
}

fn a_second_snapshot_of_that_name_is_the_same_or_a_conflict(trial: &mut Trial) {
    let (node, one) = (trial.node(), trial.filled("one", "first"));
    let two = trial.create("two");
    let first = node.snapshot("snapshot", &one.id).expect("it is taken");
    trial.write(&one, "second");

    let second = node.snapshot("snapshot", &one.id).expect("it is the same");
    let other = node.snapshot("snapshot", &two.id);

    assert_eq!(second, first);
    assert!(matches!(other, Err(Error::Conflict(_))), "{other:?}");
    assert_eq!(node.snapshots(), from_ref(&first));
    let restored = trial.form.restored("three", USUAL, &first);
    let restored = node.create(&restored).expect("there is room");
    assert_eq!(trial.read(&restored), "first");
}

fn a_deleted_snapshot_is_gone_and_what_was_made_from_it_stays(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.filled("one", "content"));
    let snapshot = node.snapshot("snapshot", &volume.id).expect("it is taken");
    let restored = trial.form.restored("two", USUAL, &snapshot);
    let restored = node.create(&restored).expect("there is room");

    node.delete_snapshot(&snapshot.id).expect("nobody uses it");
    node.delete_snapshot(&snapshot.id)
        .expect("it is gone already");

    assert!(node.snapshots().is_empty());
    assert_eq!(trial.read(&restored), "content");
    assert_eq!(trial.read(&volume), "content");
    let from_nothing = trial.form.restored("three", USUAL, &snapshot);
    let refused = node.create(&from_nothing);
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    assert!(trial.is_tidy());
}

fn snapshots_are_listed_in_order(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.create("one"));
    for name in ["c", "a", "b"] {
        node.snapshot(name, &volume.id).expect("it is taken");
    }

    let first = node.page_of_snapshots(None, 2);
    node.delete_snapshot(&first[1].id).expect("nobody uses it");
    let second = node.page_of_snapshots(Some(&first[1].id), 2);
    let third = node.page_of_snapshots(Some(&second[0].id), 2);

    let names = [first, second, third].map(|page| {
        let names = page.iter().map(|snapshot| snapshot.id.name.to_string());
        names.collect::<String>()
    });
    assert_eq!(names, ["ab", "c", ""]);
}

fn a_restored_volume_can_be_larger_but_not_smaller(trial: &mut Trial) {
    let (node, usual, larger) = (trial.node(), USUAL, LARGER);
    let volume = trial.filled("one", "content");
    let snapshot = node.snapshot("snapshot", &volume.id).expect("it is taken");
    let restored = |name, size| trial.form.restored(name, size, &snapshot);
    let small = VolumeSpec {
        range: CapacityRange {
            required: None,
            limit: Some(usual.less(Bytes(4096))),
        },
        ..restored("small", usual)
    };

    let large = node.create(&restored("large", larger));
    let large = large.expect("there is room");
    let least = node.create(&restored("least", Bytes(1)));
    let refused = node.create(&small);

    assert_eq!(large.record.usable(), larger);
    assert_eq!(least.expect("there is room").record.usable(), usual);
    assert!(matches!(refused, Err(Error::OutOfRange(_))), "{refused:?}");
    let shown = trial.show(&large);
    assert_eq!(shown.read(), "content");
    if !trial.form.is_tree() {
        assert!(shown.reaches(larger));
    }
    shown.hide();
}

fn a_clone_and_its_source_go_their_own_ways(trial: &mut Trial) {
    let (node, source) = (trial.node(), trial.filled("one", "source"));
    let spec = trial.form.cloned("two", LARGER, &source);

    let clone = node.create(&spec).expect("there is room");
    let again = node.create(&spec).expect("it is the same");
    // Both at once: they must not take each other for the same filesystem.
    let (one, two) = (trial.show(&source), trial.show(&clone));
    assert_eq!(two.read(), "source");
    two.write("clone");
    assert_eq!([one.read(), two.read()], ["source", "clone"]);
    one.hide();
    two.hide();
    node.delete(&source.id).expect("nobody uses it");

    assert_eq!(again, clone);
    assert_eq!(trial.read(&clone), "clone");
}
