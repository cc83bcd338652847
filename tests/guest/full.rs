//! Pools that run full by what nobody promised: a zpool by a snapshot, the account of a thin pool by many.

use std::fs;
use std::io::ErrorKind;

use tonic::Code;

use crate::bed::{Bed, MIB};
use crate::blocks::{ENDLESS, holds, write};
use crate::client::{Client, From};
use crate::support::{run, until};
use crate::tank::Tank;

/// What is written before the snapshot.
const EARLY: usize = 70 << 20;

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_full_zpool_refuses_writers_and_says_so_until_there_is_room() {
    let Some(tank) = Tank::of_size("full", 256 * MIB) else {
        return;
    };
    let client = tank.client();
    let [staging, target] = ["staging", "target"].map(|name| tank.place(name));
    let class = [("compression", "off")];
    let id = client.create("one", 80 * MIB, &class, &From::Nothing);
    let id = id.expect("there is room");
    client.publish(&id, &staging, &target).expect("it is new");
    let early = target.join("early");
    fs::write(&early, vec![1; EARLY]).expect("there is room");
    let well = client.storage_health().expect("the node answers");
    let taken = client.snapshot(&id, "taken").expect("there is room");
    fs::remove_file(&early).expect("it was written");

    let mut acknowledged = Vec::new();
    let refused = (0..).find_map(|n| match write(&target, n) {
        Ok(()) => {
            acknowledged.push(n);
            None
        }
        Err(refused) => Some(refused),
    });
    let told = is_told(&client, &["NearlyFull"]);
    let created = client.create("two", MIB, &[], &From::Nothing);
    client.delete_snapshot(&taken).expect("nobody uses it");
    let recovered = is_told(&client, &[]);
    let again = until(|| write(&target, ENDLESS).is_ok());
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client.publish(&id, &staging, &target).expect("it is there");
    let kept = acknowledged.iter().filter(|n| holds(&target, **n)).count();
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client.delete(&id).expect("nobody uses it");

    assert_eq!(well, [""; 0]);
    let refused = refused.expect("nothing is endless");
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    assert!(!acknowledged.is_empty(), "not even one");
    assert!(told && recovered && again, "{told} {recovered} {again}");
    let created = created.expect_err("there is no room");
    assert_eq!(created.code(), Code::ResourceExhausted, "{created}");
    assert_eq!(kept, acknowledged.len());
}

fn is_told(client: &Client, reasons: &[&str]) -> bool {
    until(|| client.storage_health().expect("the node answers") == reasons)
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_account_of_a_thin_pool_is_extended_before_it_is_full() {
    let Some(bed) = Bed::thin(", autoGrow: { atPercent: 3, byPercent: 100 }") else {
        return;
    };
    let size = || {
        let fields = ["--noheadings", "--units=m", "--options=lv_metadata_size"];
        let told = run("lvs", fields.into_iter().chain([&*bed.lv("small")]));
        told.expect("it is there").trim().to_owned()
    };
    let id = bed.create("one", 64);
    let first = size();

    // Each has a tree of its own in it.
    let mut taken = Vec::new();
    while size() == first && taken.len() < 40 {
        let name = format!("taken-{}", taken.len());
        taken.push(bed.client.snapshot(&id, &name).expect("there is room"));
    }
    let extended = until(|| size() != first);
    let log = bed.client.storage_health().expect("the node answers");
    for snapshot in &taken {
        bed.client
            .delete_snapshot(snapshot)
            .expect("nobody uses it");
    }
    bed.client.delete(&id).expect("nobody uses it");

    assert!(extended, "it still has {first} after {}", taken.len());
    assert_eq!(log, [""; 0], "it was in time");
}
