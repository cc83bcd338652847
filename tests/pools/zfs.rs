//! Claims about volumes in ZFS, also when people had their hands in the zpool.

use std::slice::from_ref;

use orlop::config;
use orlop::volume::{Error, VolumeSpec};

use crate::claims;
use crate::support::form::{at_least, wishes};
use crate::support::run;
use crate::trial::{Claim, LARGER, Trial, USUAL};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_record_that_can_not_be_read_is_told_and_hides_no_other,
    a_snapshot_whose_record_can_not_be_read_is_told,
    a_volume_removed_by_hand_is_gone_with_its_promise,
    what_is_modified_counts_and_is_remembered,
    what_was_left_half_made_is_swept,
    what_is_not_ours_is_left_alone,
];

const RECORD: &str = "dev.orlop:volume";
const SNAPSHOT_RECORD: &str = "dev.orlop:snapshot";

fn dataset(trial: &Trial, name: &str) -> String {
    match &trial.config.kind {
        config::Kind::Zfs(config::Dataset { dataset }) => format!("{dataset}/{name}"),
        other => panic!("it is {}", other.name()),
    }
}

fn by_hand(arguments: &[&str]) {
    run("zfs", arguments).expect("nobody uses it");
}

fn get(property: &str, dataset: &str) -> String {
    let told = run("zfs", ["get", "-Hpo", "value", property, dataset]).expect("it is there");
    told.trim_end().to_owned()
}

fn a_record_that_can_not_be_read_is_told_and_hides_no_other(trial: &mut Trial) {
    let (one, two) = (trial.filled("one", "content"), trial.create("two"));
    let dataset = dataset(trial, "v-one");
    let good = get(RECORD, &dataset);
    let newer = good.replace("\"version\":1", "\"version\":2");
    assert_ne!(newer, good);

    for (bad, says) in [
        (Some(&*newer), "version 2"),
        (Some("{"), RECORD),
        (None, "has no"),
    ] {
        match bad {
            Some(bad) => by_hand(&["set", &format!("{RECORD}={bad}"), &dataset]),
            None => by_hand(&["inherit", RECORD, &dataset]),
        }
        trial.restart();

        trial.assert_unreadable(&one, &[says, "v-one"]);
        trial.assert_left_over(says);
        assert_eq!(trial.node().volumes(), from_ref(&two));
    }

    by_hand(&["set", &format!("{RECORD}={good}"), &dataset]);
    assert_eq!(trial.node().leftovers(), []);
    assert_eq!(trial.node().volumes(), [one.clone(), two]);
    assert_eq!(trial.read(&one), "content");
}

fn a_snapshot_whose_record_can_not_be_read_is_told(trial: &mut Trial) {
    let volume = trial.filled("one", "content");
    let taken = trial.node().snapshot("snapshot", &volume.id);
    let taken = taken.expect("the volume exists");
    let snapshot = dataset(trial, "v-one@s-snapshot");
    let good = get(SNAPSHOT_RECORD, &snapshot);
    by_hand(&["set", &format!("{SNAPSHOT_RECORD}={{"), &snapshot]);
    trial.restart();

    let node = trial.node();
    let told = [
        node.snapshot("snapshot", &volume.id).map(drop),
        node.delete_snapshot(&taken.id),
        node.create(&trial.form.restored("two", USUAL, &taken))
            .map(drop),
    ];

    for told in told {
        let told = told.expect_err("nobody knows what it is").to_string();
        assert!(told.contains(SNAPSHOT_RECORD), "{told}");
    }
    by_hand(&["set", &format!("{SNAPSHOT_RECORD}={good}"), &snapshot]);
    assert_eq!(node.snapshots(), [taken]);
}

fn a_volume_removed_by_hand_is_gone_with_its_promise(trial: &mut Trial) {
    let (node, one, two) = (trial.node(), trial.create("one"), trial.create("two"));
    assert_eq!(node.capacity(trial.form).promised, USUAL.times(2));

    by_hand(&["destroy", &dataset(trial, "v-one")]);

    assert_eq!(node.volumes(), [two]);
    assert_eq!(node.capacity(trial.form).promised, USUAL);
    node.delete(&one.id).expect("it is gone already");
    trial.create("one");
}

fn what_is_modified_counts_and_is_remembered(trial: &mut Trial) {
    let mut spec = trial.spec("one");
    spec.class.wishes = wishes(&[("compression", "gzip-9"), ("logbias", "throughput")]);
    spec.mutable = wishes(&[("compression", "zstd")]);
    let volume = trial.node().create(&spec).expect("there is room");
    let dataset = dataset(trial, "v-one");
    let now = || ["compression", "logbias", "sync"].map(|property| get(property, &dataset));
    let made = now();

    let shown = trial.show(&volume);
    let changes = [("compression", "lz4"), ("sync", "always")];
    for _ in 0..2 {
        let modified = trial.node().modify(&volume.id, &changes);
        modified.expect("it may be in use");
    }
    shown.hide();
    let refused = [
        ("volblocksize", "8KiB"),
        ("sync", "sometimes"),
        ("reserve", "true"),
        ("colour", "blue"),
    ]
    .map(|change| {
        trial
            .node()
            .modify(&volume.id, &[change, ("logbias", "latency")])
    });
    trial.restart();
    trial
        .node()
        .grow(&volume.id, LARGER)
        .expect("there is room");
    let again = trial.node().create(&VolumeSpec {
        range: at_least(LARGER),
        ..spec.clone()
    });

    assert_eq!(made, ["zstd", "throughput", "standard"]);
    assert_eq!(now(), ["lz4", "throughput", "always"]);
    for refused in refused {
        let told = refused.expect_err("it can not be changed to that");
        assert!(matches!(told, Error::Invalid(_)), "{told}");
    }
    let again = again.expect("it is what was asked for").record;
    assert_eq!(again.modified, wishes(&changes));
    spec.mutable = wishes(&[("compression", "off")]);
    let other = trial
        .node()
        .create(&spec)
        .expect_err("it was made otherwise");
    assert!(matches!(other, Error::Conflict(_)), "{other}");
}

fn what_was_left_half_made_is_swept(trial: &mut Trial) {
    let one = trial.filled("one", "content");
    trial.create("two");
    trial.stop();
    let (half, two) = (dataset(trial, "m-half"), dataset(trial, "v-two"));
    by_hand(&["create", &half]);
    by_hand(&["rename", &two, &dataset(trial, "r-two.1")]);

    trial.restart();

    assert!(trial.is_tidy());
    assert_eq!(trial.node().volumes(), from_ref(&one));
    assert_eq!(trial.node().capacity(trial.form).promised, USUAL);
    assert_eq!(trial.read(&one), "content");
    trial.create("half");
    trial.create("two");
}

fn what_is_not_ours_is_left_alone(trial: &mut Trial) {
    let theirs = dataset(trial, "v-theirs");
    by_hand(&["create", &theirs]);

    for restart in [false, true] {
        if restart {
            trial.restart();
        }
        let created = trial.node().create(&trial.form.spec("theirs", USUAL));
        let told = created.expect_err("it is theirs").to_string();
        assert!(told.contains("v-theirs"), "{told}");
        assert!(trial.node().volumes().is_empty() && trial.is_tidy());
    }
    assert_eq!(get("type", &theirs), "filesystem");
    by_hand(&["destroy", &theirs]);
}
