//! Claims about volumes: made, found, listed, grown and deleted, whatever they hold.

use std::slice::from_ref;
use std::sync::mpsc;
use std::thread;

use orlop::driver::volumes::to_change;
use orlop::volume::{Bytes, CapacityRange, Error, Filesystem, Layout, Source, VolumeSpec};

use crate::claims;
use crate::support::form::at_least;
use crate::trial::{Claim, LARGER, Trial, USUAL};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_created_volume_is_found_and_a_deleted_one_is_not,
    a_second_create_returns_the_same_volume,
    a_create_that_asks_for_something_else_is_a_conflict,
    pages_are_in_order_and_neither_lose_nor_double,
    a_size_is_met_exactly_or_refused,
    what_does_not_fit_is_refused_and_leaves_nothing,
    what_is_promised_goes_up_and_down_exactly,
    a_volume_grows_and_never_shrinks,
    a_volume_is_changed_by_one_at_a_time,
    a_missing_volume_is_told,
];

fn a_created_volume_is_found_and_a_deleted_one_is_not(trial: &mut Trial) {
    let node = trial.node();

    let volume = trial.create("one");

    assert_eq!(volume.id.to_string(), "pool/one");
    assert_eq!(volume.record.usable(), USUAL);
    assert_eq!(node.get(&volume.id).expect("it exists"), volume);
    assert_eq!(node.volumes(), from_ref(&volume));

    node.delete(&volume.id).expect("nobody uses it");
    node.delete(&volume.id).expect("it is gone already");

    assert!(matches!(node.get(&volume.id), Err(Error::NotFound(_))));
    assert!(node.volumes().is_empty());
    assert!(trial.is_tidy());
}

fn a_second_create_returns_the_same_volume(trial: &mut Trial) {
    let node = trial.node();
    let first = trial.filled("one", "content");
    let unsaid = VolumeSpec {
        range: CapacityRange::default(),
        ..trial.spec("one")
    };

    let second = node.create(&trial.spec("one")).expect("it is the same");
    let third = node.create(&unsaid).expect("any size will do");

    assert_eq!([&second, &third], [&first; 2]);
    assert_eq!(node.volumes(), from_ref(&first));
    assert_eq!(trial.read(&first), "content");
}

fn a_create_that_asks_for_something_else_is_a_conflict(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.filled("one", "content"));
    let other = trial.create("other");
    let same = trial.spec("one");
    let mut others = vec![
        trial.form.spec("one", LARGER),
        VolumeSpec {
            source: Some(Source::Volume(other.id.clone())),
            ..same.clone()
        },
    ];
    let mut layout = same.clone();
    layout.class.layout = Some(match volume.record.layout {
        Layout::Tree => Layout::Image,
        Layout::Image | Layout::Device => Layout::Tree,
    });
    others.push(layout);
    if let Some(is) = volume.record.filesystem {
        let mut filesystem = same.clone();
        let another = Filesystem::ALL.into_iter().find(|other| *other != is);
        filesystem.class.filesystem = another;
        others.push(filesystem);
    }

    for spec in others {
        let refused = node.create(&spec);

        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    }
    assert_eq!(node.volumes(), [volume.clone(), other]);
    assert_eq!(trial.read(&volume), "content");
}

fn pages_are_in_order_and_neither_lose_nor_double(trial: &mut Trial) {
    let node = trial.node();
    for name in ["d", "b", "f", "c"] {
        trial.create(name);
    }

    let first = node.page(None, 2);
    // Before and after where the reader stands, and where it stands.
    node.delete(&first[1].id).expect("nobody uses it");
    trial.create("a");
    trial.create("e");
    let second = node.page(Some(&first[1].id), 2);
    let third = node.page(Some(&second[1].id), 2);
    let fourth = node.page(Some(&third[0].id), 2);

    let names = [first, second, third, fourth].map(|page| {
        let names = page.iter().map(|volume| volume.id.name.to_string());
        names.collect::<String>()
    });
    assert_eq!(names, ["bc", "de", "f", ""]);
}

fn a_size_is_met_exactly_or_refused(trial: &mut Trial) {
    let node = trial.node();
    let exactly = |name, size| VolumeSpec {
        range: CapacityRange::new(Some(size), Some(size)).expect("they are the same"),
        ..trial.spec(name)
    };
    let odd = USUAL.plus(Bytes(1));
    let even = USUAL.plus(trial.home.grain());

    let made = node.create(&exactly("even", even)).expect("it can be made");
    let uneven = node.create(&exactly("odd", odd));
    let tiny = node.create(&exactly("tiny", Bytes(1)));
    let huge = node.create(&trial.form.spec("huge", Bytes(u64::MAX)));

    assert_eq!(made.record.usable(), even);
    if trial.form.is_tree() {
        assert_eq!(uneven.expect("a tree has any size").record.usable(), odd);
        let least = trial.home.least_tree();
        let smallest = node.create(&exactly("smallest", least));
        assert_eq!(smallest.expect("it can be made").record.usable(), least);
        assert_eq!(tiny.is_ok(), least == Bytes(1), "{tiny:?}");
    } else {
        assert!(matches!(uneven, Err(Error::OutOfRange(_))), "{uneven:?}");
        assert!(matches!(tiny, Err(Error::OutOfRange(_))), "{tiny:?}");
        assert_eq!(node.volumes(), [made]);
    }
    assert!(matches!(huge, Err(Error::OutOfRange(_))), "{huge:?}");
}

fn what_does_not_fit_is_refused_and_leaves_nothing(trial: &mut Trial) {
    let node = trial.node();
    let volume = trial.create("one");
    let before = node.capacity(trial.form);
    let too_much = before.available.plus(Bytes::GIB);

    let created = node.create(&trial.form.spec("large", too_much));
    let grown = node.grow(&volume.id, too_much.plus(volume.record.usable()));

    assert!(matches!(created, Err(Error::Full(_))), "{created:?}");
    assert!(matches!(grown, Err(Error::Full(_))), "{grown:?}");
    assert_eq!(node.volumes(), [volume]);
    assert_eq!(node.capacity(trial.form).promised, before.promised);
    assert!(trial.is_tidy());
}

fn what_is_promised_goes_up_and_down_exactly(trial: &mut Trial) {
    let promised = |trial: &Trial| trial.node().capacity(trial.form).promised;
    assert_eq!(promised(trial), Bytes(0));

    let one = trial.create("one");
    assert_eq!(one.record.usable(), USUAL);
    let usual = one.record.size;
    assert_eq!(promised(trial), usual);
    let snapshot = trial.node().snapshot("snapshot", &one.id);
    let snapshot = snapshot.expect("the volume exists");
    assert_eq!(promised(trial), usual);
    let two = trial.form.restored("two", LARGER, &snapshot);
    let two = trial.node().create(&two).expect("there is room");
    assert_eq!(two.record.usable(), LARGER);
    let larger = two.record.size;
    assert_eq!(promised(trial), usual.plus(larger));
    trial.node().grow(&one.id, LARGER).expect("there is room");
    assert_eq!(promised(trial), larger.times(2));
    trial.restart();
    assert_eq!(promised(trial), larger.times(2));
    trial.node().delete(&one.id).expect("nobody uses it");
    assert_eq!(promised(trial), larger);
    trial.node().delete(&two.id).expect("nobody uses it");
    assert_eq!(promised(trial), Bytes(0));
}

fn a_volume_grows_and_never_shrinks(trial: &mut Trial) {
    let (node, larger) = (trial.node(), LARGER);
    let volume = trial.filled("one", "content");
    let limited = CapacityRange {
        limit: Some(USUAL),
        required: None,
    };

    let grown = node.grow(&volume.id, larger).expect("there is room");
    let again = node.grow(&volume.id, larger).expect("it is as large");
    let less = node.grow(&volume.id, USUAL).expect("it is larger");
    let id = volume.id.clone();
    let shrunk = node.change(to_change(&id.name), move |core| core.grow(&id, limited));

    assert_eq!(grown.record.usable(), larger);
    assert_eq!([&again, &less], [&grown; 2]);
    assert!(matches!(shrunk, Err(Error::OutOfRange(_))), "{shrunk:?}");
    assert_eq!(node.get(&volume.id).expect("it exists"), grown);
    assert_eq!(trial.read(&grown), "content");
    if !trial.form.is_tree() {
        let shown = trial.show(&grown);
        assert!(shown.reaches(larger));
        assert!(!shown.reaches(larger.times(2)));
        shown.hide();
    }
}

fn a_volume_is_changed_by_one_at_a_time(trial: &mut Trial) {
    let (node, volume) = (trial.node(), trial.create("one"));
    let id = volume.id.clone();
    let (begun, has_begun) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();

    let refused = thread::scope(|scope| {
        scope.spawn(|| {
            node.change(to_change(&id.name), move |_| {
                begun.send(()).expect("somebody waits");
                let _ = may_end.recv();
                Ok(())
            })
        });
        has_begun.recv().expect("it begins");
        let refused = [
            node.delete(&id).map(drop),
            node.grow(&id, LARGER).map(drop),
            node.create(&trial.spec("one")).map(drop),
            node.create(&trial.form.cloned("two", USUAL, &volume))
                .map(drop),
            node.snapshot("snapshot", &id).map(drop),
        ];
        drop(end);
        refused
    });

    for refused in refused {
        assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
    }
    node.delete(&id).expect("it is free again");
}

fn a_missing_volume_is_told(trial: &mut Trial) {
    let node = trial.node();
    let gone = trial.create("one");
    node.delete(&gone.id).expect("nobody uses it");

    let id = gone.id.clone();
    let answers = [
        node.get(&id).map(drop),
        node.grow(&id, LARGER).map(drop),
        node.snapshot("snapshot", &id).map(drop),
        node.create(&trial.form.cloned("two", USUAL, &gone))
            .map(drop),
        node.look(move |core| core.refusal(&id, Vec::new()))
            .map(drop),
    ];

    for answer in answers {
        assert!(matches!(answer, Err(Error::NotFound(_))), "{answer:?}");
    }
    assert!(node.volumes().is_empty() && node.snapshots().is_empty());
    assert!(at_least(Bytes(1)).holds(gone.record.size));
}
