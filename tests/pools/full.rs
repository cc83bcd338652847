//! A disk that is full only when the bytes come: no promise was broken, and still there is no room.

use std::fs::{self, File};

use orlop::volume::{Bytes, Error};
use rustix::fs::{FallocateFlags, fallocate};

use crate::claims;
use crate::trial::{Claim, Trial};

pub(crate) const CLAIMS: &[Claim] = claims![a_copy_that_finds_the_disk_full_leaves_nothing];

/// What the volume holds: more than is left, and than the filesystem keeps for root.
const CONTENT: usize = 64 << 20;

/// What is left on the disk.
const LEFT: u64 = 8 << 20;

fn a_copy_that_finds_the_disk_full_leaves_nothing(trial: &mut Trial) {
    let node = trial.node();
    let volume = node.create(&trial.form.spec("one", Bytes::MIB));
    let volume = volume.expect("there is room");
    let shown = trial.show(&volume);
    fs::write(shown.target.join("large"), vec![1; CONTENT]).expect("there is room");
    let free = node.capacity(trial.form).available.0;
    let ballast = File::create(trial.place.with_file_name("ballast"));
    let ballast = ballast.expect("there is room");
    fallocate(&ballast, FallocateFlags::empty(), 0, free - LEFT).expect("there is room");

    let cloned = node.create(&trial.form.cloned("two", Bytes::MIB, &volume));
    let taken = node.snapshot("snapshot", &volume.id);

    assert!(matches!(cloned, Err(Error::Full(_))), "{cloned:?}");
    assert!(matches!(taken, Err(Error::Full(_))), "{taken:?}");
    assert_eq!(node.volumes(), std::slice::from_ref(&volume));
    assert!(node.snapshots().is_empty() && trial.is_tidy());
    assert_eq!(node.capacity(trial.form).promised, Bytes::MIB);
    let left = fs::read(shown.target.join("large")).expect("it is there");
    assert!(left == vec![1; CONTENT]);
    shown.hide();
}
