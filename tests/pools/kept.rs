//! Claims about what a pool keeps from one process to the next, also when people had their hands in it.

use std::fs;
use std::path::PathBuf;
use std::slice::from_ref;

use orlop::host::Host;
use orlop::host::gate::Gate;
use orlop::pool;
use orlop::volume::{Bytes, Error, Volume, VolumeSpec};

use crate::claims;
use crate::trial::{Claim, LARGER, Trial, USUAL};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_new_process_finds_what_the_last_one_made,
    a_second_process_is_refused,
];

/// Those about folders.
pub(crate) const CLAIMS_OF_FOLDERS: &[Claim] = claims![
    a_record_that_can_not_be_read_is_told_and_hides_no_other,
    a_snapshot_whose_record_can_not_be_read_is_told_and_hides_no_other,
    a_volume_removed_by_hand_is_gone_with_its_promise,
    what_was_left_aside_is_swept,
    an_image_that_is_larger_than_its_record_is_never_cut,
    a_pool_behind_a_symlink_is_the_same_pool,
];

fn record_of(trial: &Trial, volume: &Volume) -> PathBuf {
    let name = volume.id.name.as_str();
    trial.place.join("volumes").join(name).join("volume.json")
}

fn a_new_process_finds_what_the_last_one_made(trial: &mut Trial) {
    let one = trial.filled("one", "content");
    // A name that is no legal folder name.
    let two = trial.node().create(&trial.spec("Two of them"));
    let two = two.expect("it gets another name");
    let snapshot = trial.node().snapshot("snapshot", &one.id);
    let snapshot = snapshot.expect("it is taken");
    let grown = trial.node().grow(&one.id, LARGER);
    let grown = grown.expect("there is room");

    trial.restart();

    assert_eq!(trial.node().volumes(), [grown.clone(), two.clone()]);
    assert_eq!(trial.node().snapshots(), [snapshot]);
    assert_eq!(trial.read(&grown), "content");
    let again = trial.node().create(&trial.spec("Two of them"));
    assert_eq!(again.expect("it is the same"), two);
}

fn a_second_process_is_refused(trial: &mut Trial) {
    let second = pool::open(&trial.config, &Host::new(Gate::open()));

    let told = format!("{:#}", second.err().expect("the first one keeps it"));
    assert!(told.contains("another orlop process"), "{told}");
}

fn a_record_that_can_not_be_read_is_told_and_hides_no_other(trial: &mut Trial) {
    let (one, two) = (trial.filled("one", "content"), trial.create("two"));
    let path = record_of(trial, &one);
    let good = fs::read_to_string(&path).expect("it is there");
    let newer = good.replace("\"version\": 1", "\"version\": 2");
    let unknown = good.replace("\"version\": 1", "\"version\": 1, \"more\": 1");
    assert!(newer != good && unknown != good);

    for (bad, says) in [
        (None, "has no volume.json"),
        (Some(""), "volume.json"),
        (Some("{\"version\": 1"), "volume.json"),
        (Some(&*newer), "version 2"),
        (Some(&*unknown), "more"),
    ] {
        match bad {
            Some(text) => fs::write(&path, text),
            None => fs::remove_file(&path),
        }
        .expect("the pool is writable");
        for restart in [false, true] {
            if restart {
                trial.restart();
            }
            let node = trial.node();
            trial.assert_unreadable(&one, &[says]);
            assert_eq!(node.volumes(), from_ref(&two));
            assert_eq!(node.get(&two.id).expect("it is whole"), two);
            assert_eq!(node.create(&trial.spec("two")).expect("it is whole"), two);
        }
        fs::write(&path, &good).expect("the pool is writable");
    }

    assert_eq!(trial.node().volumes(), [one.clone(), two]);
    assert_eq!(trial.read(&one), "content");
}

fn a_snapshot_whose_record_can_not_be_read_is_told_and_hides_no_other(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.filled("one", "content"));
    let taken = ["a", "b"].map(|name| node.snapshot(name, &volume.id).expect("it is taken"));
    let path = trial.place.join("snapshots/a/snapshot.json");
    let good = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, "{").expect("the pool is writable");

    let restored = node.create(&trial.form.restored("two", Bytes(1), &taken[0]));
    let again = node.snapshot("a", &volume.id);
    let deleted = node.delete_snapshot(&taken[0].id);

    assert!(matches!(restored, Err(Error::Host(_))), "{restored:?}");
    assert!(matches!(again, Err(Error::Host(_))), "{again:?}");
    assert!(matches!(deleted, Err(Error::Host(_))), "{deleted:?}");
    assert_eq!(node.snapshots(), [taken[1].clone()]);
    fs::write(&path, good).expect("the pool is writable");
    assert_eq!(node.snapshots(), taken);
    let restored = node.create(&trial.form.restored("two", Bytes(1), &taken[0]));
    assert_eq!(trial.read(&restored.expect("it is whole again")), "content");
}

fn a_volume_removed_by_hand_is_gone_with_its_promise(trial: &mut Trial) {
    let (node, one, two) = (trial.node(), trial.create("one"), trial.create("two"));
    assert_eq!(node.capacity(trial.form).promised, USUAL.times(2));

    let by_hand = trial.place.join("volumes/one");
    fs::remove_dir_all(by_hand).expect("nobody uses it");

    assert_eq!(node.volumes(), [two]);
    assert_eq!(node.capacity(trial.form).promised, USUAL);
    node.delete(&one.id).expect("it is gone already");
    trial.create("one");
}

fn what_was_left_aside_is_swept(trial: &mut Trial) {
    let (one, two) = (trial.filled("one", "content"), trial.create("two"));
    trial.stop();
    let moves = [("volumes/two", "making/v-two"), ("lock", "trash/lock.1")];
    for (from, to) in moves {
        let [from, to] = [from, to].map(|path| trial.place.join(path));
        fs::rename(from, to).expect("both are in the pool");
    }
    fs::create_dir_all(trial.place.join("trash/s-old.2/data/a/b")).expect("they are new");

    trial.restart();

    assert!(trial.is_tidy());
    assert_eq!(trial.node().volumes(), from_ref(&one));
    assert_eq!(trial.read(&one), "content");
    let again = trial.create("two");
    assert_ne!(again.record.created, two.record.created);
}

fn an_image_that_is_larger_than_its_record_is_never_cut(trial: &mut Trial) {
    if trial.form.is_tree() {
        return;
    }
    let (node, volume) = (trial.node(), trial.filled("one", "content"));
    // As a growth leaves it that was cut off before it was recorded.
    let image = trial.place.join("volumes/one/image");
    let larger = LARGER.times(2);
    let file = fs::File::options().write(true).open(&image);
    file.and_then(|file| file.set_len(larger.0))
        .expect("holes cost nothing");

    // Which fills the device, as large as it is.
    let shown = trial.show(&volume);
    let grown = node.grow(&volume.id, USUAL).expect("it is as large");
    assert_eq!(grown, volume);
    let copies = [
        trial.form.cloned("clone", LARGER, &volume),
        VolumeSpec {
            range: orlop::volume::CapacityRange::default(),
            ..trial.form.cloned("least", Bytes(1), &volume)
        },
    ];
    let copies = copies.map(|spec| node.create(&spec).expect("there is room"));
    let grown = node.grow(&volume.id, LARGER).expect("there is room");
    shown.hide();

    assert_eq!(grown.record.usable(), LARGER);
    for volume in [grown].iter().chain(&copies) {
        assert_eq!(trial.read(volume), "content");
    }
    assert!(fs::metadata(image).expect("it is there").len() >= larger.0);
}

fn a_pool_behind_a_symlink_is_the_same_pool(trial: &mut Trial) {
    let volume = trial.filled("one", "content");
    trial.stop();
    let link = trial.desk.join("link");
    let above = trial.place.parent().expect("it is not the root");
    std::os::unix::fs::symlink(above, &link).expect("it is new");
    let name = trial.place.file_name().expect("it has a name");
    let (orlop::config::Kind::Directory(at) | orlop::config::Kind::Btrfs(at)) =
        &mut trial.config.kind
    else {
        panic!("it is one of folders");
    };
    at.path = link.join(name);
    trial.restart();

    let shown = trial.show(&volume);
    assert_eq!(shown.read(), "content");
    trial.restart();
    let refused = trial.node().delete(&volume.id);

    assert!(matches!(refused, Err(Error::InUse(_))), "{refused:?}");
    trial.show(&volume).hide();
}
