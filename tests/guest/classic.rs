//! A classic snapshot whose store is too small for what changes in its volume: it is lost, and nobody is told otherwise.

use std::fs::{self, File};

use crate::bed::{Bed, MIB};
use crate::client::From;
use crate::support::home::VolumeGroup;
use crate::support::until;

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_snapshot_whose_store_has_overflowed_is_told_to_be_lost() {
    let Some(group) = VolumeGroup::new(false) else {
        return;
    };
    let lvm = format!("{{ volumeGroup: {}, snapshotPercent: 10 }}", group.name);
    let bed = Bed::on(group, &lvm);
    let client = &bed.client;
    let id = bed.create("one", 64);
    let taken = client.snapshot(&id, "taken").expect("there is room");
    let restore = || client.create("two", 64 * MIB, &[], &From::Snapshot(&taken));
    let at = bed.publish(&id);
    let sound = (client.is_ready(), restore());
    client
        .delete(sound.1.as_ref().expect("it is sound"))
        .expect("nobody uses it");

    fs::write(at.join("more"), vec![1; 24 << 20]).expect("there is room");
    File::open(at.join("more"))
        .and_then(|file| file.sync_all())
        .expect("it can be synced");
    let lost = until(|| !client.is_ready());
    let refused = restore();
    let told = bed.is_told("SnapshotsLost");
    bed.unpublish(&id);
    let refused_at_rest = restore();
    let left = client.volumes();
    client.delete_snapshot(&taken).expect("nobody uses it");
    let recovered = bed.is_well();
    let again = client.snapshot(&id, "again").expect("there is room");
    let ready = client.is_ready();
    client.delete_snapshot(&again).expect("nobody uses it");
    client.delete(&id).expect("nobody uses it");

    assert!(sound.0, "nothing has changed yet");
    assert!(lost, "it is listed as ready");
    for refused in [refused, refused_at_rest] {
        let refused = refused.expect_err("what it held is lost");
        assert!(refused.message().contains("is lost"), "{refused}");
        assert!(refused.message().contains("snapshotPercent"), "{refused}");
    }
    assert_eq!(left.len(), 1, "nothing is half-made: {left:?}");
    assert!(told && recovered && ready);
}
