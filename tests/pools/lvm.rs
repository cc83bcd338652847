//! Claims about logical volumes, also when people had their hands in the volume group.

use std::slice::from_ref;

use orlop::config;
use orlop::volume::{Bytes, Error};

use crate::claims;
use crate::support::run;
use crate::trial::{Claim, LARGER, Trial, USUAL};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_record_that_can_not_be_read_is_told_and_hides_no_other,
    a_volume_removed_by_hand_is_gone_with_its_promise,
    what_was_left_half_made_is_swept,
    a_copy_that_the_group_has_no_room_for_is_refused,
    a_snapshot_that_lvm_had_half_removed_is_none,
    what_is_not_ours_is_left_alone,
    a_volume_with_snapshots_grows_in_use_only_if_it_is_thin,
];

fn group(trial: &Trial) -> &str {
    match &trial.config.kind {
        config::Kind::Lvm(lvm) => &lvm.volume_group,
        other => panic!("it is {}", other.name()),
    }
}

fn by_hand(tool: &str, arguments: &[&str]) {
    let always = ["--quiet", "--yes"];
    run(tool, always.iter().chain(arguments)).expect("nobody uses it");
}

fn a_record_that_can_not_be_read_is_told_and_hides_no_other(trial: &mut Trial) {
    let (one, two) = (trial.filled("one", "content"), trial.create("two"));
    let lv = format!("{}/v-one", group(trial));

    for (without, with, says) in [
        ("orlop.version:1", "orlop.version:2", "version 2"),
        ("orlop.layout=device", "orlop.layout=divice", "divice"),
    ] {
        by_hand("lvchange", &["--deltag", without, "--addtag", with, &lv]);

        trial.assert_unreadable(&one, &[says, "v-one"]);
        trial.assert_left_over(says);
        assert_eq!(trial.node().volumes(), from_ref(&two));
        by_hand("lvchange", &["--deltag", with, "--addtag", without, &lv]);
    }

    assert_eq!(trial.node().volumes(), [one.clone(), two]);
    assert_eq!(trial.node().leftovers(), []);
    assert_eq!(trial.read(&one), "content");
}

fn a_volume_removed_by_hand_is_gone_with_its_promise(trial: &mut Trial) {
    let (node, one, two) = (trial.node(), trial.create("one"), trial.create("two"));
    let size = one.record.size;
    assert_eq!(node.capacity(trial.form).promised, size.times(2));

    by_hand("lvremove", &[&format!("{}/v-one", group(trial))]);

    assert_eq!(node.volumes(), [two]);
    assert_eq!(node.capacity(trial.form).promised, size);
    node.delete(&one.id).expect("it is gone already");
    trial.create("one");
}

fn what_was_left_half_made_is_swept(trial: &mut Trial) {
    let (one, two) = (trial.filled("one", "content"), trial.create("two"));
    let three = trial.create("three");
    trial.stop();
    let group = group(trial).to_owned();
    by_hand(
        "lvchange",
        &["--addtag", "orlop-half", &format!("{group}/v-two")],
    );
    by_hand("lvrename", &[&group, "v-three", "r-three.1"]);

    trial.restart();

    assert!(trial.is_tidy());
    assert_eq!(trial.node().volumes(), from_ref(&one));
    assert_eq!(trial.node().capacity(trial.form).promised, one.record.size);
    assert_eq!(trial.read(&one), "content");
    let again = trial.create("two");
    assert_ne!(again.record.created, two.record.created);
    assert_ne!(trial.create("three").record.created, three.record.created);
}

fn is_thin(trial: &Trial) -> bool {
    matches!(&trial.config.kind, config::Kind::Lvm(lvm) if lvm.thin_pool.is_some())
}

fn a_copy_that_the_group_has_no_room_for_is_refused(trial: &mut Trial) {
    if is_thin(trial) {
        return;
    }
    let (node, one) = (trial.node(), trial.create("one"));
    let available = node.capacity(trial.form).available;
    let most = Bytes(available.0 - USUAL.0 / 2);
    let filler = trial.form.spec("filler", most);
    let filler = node.create(&filler).expect("there is room");

    let taken = node.snapshot("snapshot", &one.id);
    let cloned = node.create(&trial.form.cloned("two", USUAL, &one));

    assert!(matches!(taken, Err(Error::Full(_))), "{taken:?}");
    assert!(matches!(cloned, Err(Error::Full(_))), "{cloned:?}");
    assert_eq!(node.volumes(), [filler, one]);
    assert!(trial.is_tidy());
}

fn a_snapshot_that_lvm_had_half_removed_is_none(trial: &mut Trial) {
    if is_thin(trial) {
        return;
    }
    let one = trial.filled("one", "content");
    let snapshot = trial.node().snapshot("snapshot", &one.id);
    snapshot.expect("the volume exists");
    trial.stop();
    // What a power cut leaves between the two changes of lvremove.
    let path = format!("{}/s-snapshot", group(trial));
    by_hand("lvconvert", &["--splitsnapshot", &path]);
    let tags = run("lvs", ["--noheadings", "--options", "lv_tags", &path]);
    assert!(tags.expect("it is there").contains("orlop"));

    trial.restart();

    assert!(trial.node().snapshots().is_empty());
    assert!(run("lvs", [&path]).is_err(), "it is left");
    assert_eq!(trial.read(&one), "content");
    let again = trial.node().snapshot("snapshot", &one.id);
    again.expect("the name is free");
}

fn what_is_not_ours_is_left_alone(trial: &mut Trial) {
    let group = group(trial).to_owned();
    by_hand("lvcreate", &["--size", "4m", "--name", "v-theirs", &group]);

    let created = trial.node().create(&trial.form.spec("theirs", Bytes(1)));
    trial.restart();

    let told = created.expect_err("it is theirs").to_string();
    assert!(told.contains("has no record"), "{told}");
    assert!(trial.node().volumes().is_empty());
    by_hand("lvremove", &[&format!("{group}/v-theirs")]);
}

fn a_volume_with_snapshots_grows_in_use_only_if_it_is_thin(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.filled("one", "content"));
    let snapshot = node.snapshot("snapshot", &volume.id);
    let snapshot = snapshot.expect("the volume exists");
    let thin = is_thin(trial);
    let shown = trial.show(&volume);

    let in_use = node.grow(&volume.id, LARGER);

    assert_eq!(shown.read(), "content");
    shown.hide();
    if thin {
        assert_eq!(in_use.expect("there is room").record.usable(), LARGER);
    } else {
        assert!(matches!(in_use, Err(Error::InUse(_))), "{in_use:?}");
    }
    let grown = node.grow(&volume.id, LARGER).expect("nobody uses it");
    assert_eq!(grown.record.usable(), LARGER);
    let restored = trial.form.restored("two", USUAL, &snapshot);
    let restored = node.create(&restored).expect("there is room");
    assert_eq!(restored.record.usable(), USUAL);
    assert_eq!(
        [trial.read(&grown), trial.read(&restored)],
        ["content"; 2].map(str::to_owned)
    );
}
