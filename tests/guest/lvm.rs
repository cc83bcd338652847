//! What goes wrong below LVM: a thin pool that fills, a disk that fails. It is told, and nothing that was acknowledged is
//! lost.

use std::thread;

use orlop::volume::Bytes;
use tonic::Code;

use crate::bed::{Bed, MIB};
use crate::blocks::{BLOCK, ENDLESS, holds, write, write_until_refused};
use crate::client::From;
use crate::failing::{FAILING, Failing};
use crate::support::bare_disk::BareDisk;
use crate::support::home::VolumeGroup;
use crate::support::{run, skipped, takes_long, until};

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_thin_pool_filled_to_the_brim_by_three_volumes_loses_nothing() {
    let Some(bed) = Bed::thin("") else {
        return;
    };
    let when_full = ["--noheadings", "--options=lv_when_full", &bed.lv("small")];
    let when_full = run("lvs", when_full).expect("it is there");
    assert_eq!(when_full.trim(), "error");
    let ids = ["one", "two", "three"].map(|name| bed.create(name, 200));
    let targets = ids.each_ref().map(|id| bed.publish(id));

    let written = thread::scope(|scope| {
        let writers = targets
            .each_ref()
            .map(|at| scope.spawn(|| write_until_refused(at)));
        writers.map(|writer| writer.join().expect("a writer ends"))
    });
    let full = bed.is_told("ThinPoolOutOfDataSpace");
    // The log has it from the watcher, who looks each second: not after the pool is mended.
    let logged = until(|| bed.node.log().contains("ThinPoolOutOfDataSpace"));
    let sick = bed.client.health(&ids[0]).expect("it is there");
    let refused = bed.client.create("four", MIB, &[], &From::Nothing);
    run(
        "lvextend",
        ["--quiet", "--yes", "--size=+512m", &bed.lv("small")],
    )
    .expect("there is room in the group");
    let recovered = bed.is_well();
    let kept = ids.each_ref().map(|id| {
        bed.unpublish(id);
        let at = bed.publish(id);
        (0..ENDLESS).take_while(|&n| holds(&at, n)).count()
    });
    let again = targets.each_ref().map(|at| write(at, ENDLESS));
    for id in &ids {
        bed.unpublish(id);
        bed.client.delete(id).expect("nobody uses it");
    }

    assert!(full && logged, "{:?}", bed.client.storage_health());
    assert!(
        sick.contains(&"ThinPoolOutOfDataSpace".to_owned()),
        "{sick:?}"
    );
    let refused = refused.expect_err("there is no room");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(recovered, "{:?}", bed.client.storage_health());
    for ((acknowledged, refusal), kept) in written.iter().zip(kept) {
        assert!(*acknowledged > 10, "{acknowledged}: {refusal}");
        assert!(kept >= *acknowledged, "{kept} of {acknowledged}");
    }
    for again in again {
        again.expect("there is room again");
    }
    let log = bed.node.log();
    assert!(
        log.contains("ThinPoolOutOfDataSpace") && log.contains("recovered"),
        "{log}"
    );
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn in_a_thin_pool_that_is_nearly_full_nothing_more_is_made() {
    let Some(bed) = Bed::thin(", maxDataPercent: 40") else {
        return;
    };
    let id = bed.create("one", 200);
    let at = bed.publish(&id);
    let taken = bed.client.snapshot(&id, "early").expect("there is room");
    let half = Bytes::MIB.times(128).0 / BLOCK as u64;
    for n in 0..usize::try_from(half).expect("it is small") {
        write(&at, n).expect("there is room");
    }

    let told = bed.is_told("NearlyFull");
    let refused = [
        bed.client.create("two", MIB, &[], &From::Nothing),
        bed.client.create("two", 200 * MIB, &[], &From::Volume(&id)),
        bed.client
            .create("two", 200 * MIB, &[], &From::Snapshot(&taken)),
        bed.client.snapshot(&id, "late"),
    ];
    let written = write(&at, ENDLESS);
    bed.client.delete_snapshot(&taken).expect("nobody uses it");
    bed.unpublish(&id);
    bed.client.delete(&id).expect("nobody uses it");
    let recovered = bed.is_well();

    assert!(told && recovered, "{:?}", bed.client.storage_health());
    for refused in refused {
        let refused = refused.expect_err("it is nearly full");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
    written.expect("who has room already is let be");
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_thin_pool_that_may_grow_is_extended_before_it_is_full() {
    if !takes_long() {
        return skipped(
            "a thin pool that grows",
            "it takes minutes in a guest: `make test-long` tries it",
        );
    }
    let Some(bed) = Bed::thin(", autoGrow: { atPercent: 60, byPercent: 100 }") else {
        return;
    };
    let id = bed.create("one", 400);
    let at = bed.publish(&id);
    let size = || {
        let fields = [
            "--noheadings",
            "--units=m",
            "--nosuffix",
            "--options=lv_size",
        ];
        let told = run("lvs", fields.iter().copied().chain([&*bed.lv("small")]));
        told.expect("it is there").trim().to_owned()
    };

    let mut refused = Vec::new();
    for n in 0..Bytes::MIB.times(300).0 / BLOCK as u64 {
        // As a database does that is held up by its disk: half of the pool, then what it has become.
        if n == Bytes::MIB.times(170).0 / BLOCK as u64 {
            assert!(until(|| size() != "256.00"), "{}", size());
        }
        refused.extend(write(&at, usize::try_from(n).expect("it is small")).err());
    }
    let well = bed.is_well();
    bed.unpublish(&id);
    bed.client.delete(&id).expect("nobody uses it");

    assert_eq!(refused.len(), 0, "{refused:?}");
    assert!(well, "{:?}", bed.client.storage_health());
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_disk_that_fails_is_told_and_what_is_on_others_goes_on() {
    let Some(group) = VolumeGroup::new(false) else {
        return;
    };
    let disk = BareDisk::new("test3");
    let failing = Failing::on(&disk.device);
    run("vgextend", ["--quiet", "--yes", &group.name, FAILING]).expect("it is a disk");
    let lvm = format!("{{ volumeGroup: {} }}", group.name);
    let bed = Bed::on(group, &lvm);
    let well = bed.create("well", 64);
    let at_well = bed.publish(&well);
    write(&at_well, 0).expect("there is room");
    let sick = bed.create("sick", 64);
    bed.client.delete(&sick).expect("nobody uses it");
    // LVM fills its first disk first.
    let filler = [
        "--quiet",
        "--yes",
        "--wipesignatures=n",
        "--extents=100%PVS",
        "--name=filler",
    ];
    run(
        "lvcreate",
        filler
            .iter()
            .copied()
            .chain([&*bed.group.name, bed.group.device()]),
    )
    .expect("there is room");
    let sick = bed.create("sick", 64);
    let at_sick = bed.publish(&sick);
    write(&at_sick, 0).expect("there is room");
    // One that nobody uses, so that no write tells of it.
    let idle = bed.create("idle", 64);

    failing.fail();
    let refused = until(|| write(&at_sick, 1).is_err());
    let told = until(|| {
        // What met the journal is remembered, what met data alone is not.
        let _ = write(&at_sick, 1);
        let told = bed.client.health(&sick).expect("it is there");
        told.contains(&"FilesystemErrors".to_owned())
    });
    let degraded = bed.is_told("DisksMissing");
    let [of_idle, of_well] = [&idle, &well].map(|id| bed.client.health(id).expect("it is there"));
    let still = (write(&at_well, 1), holds(&at_well, 0));
    let created = bed.client.create("new", 64 * MIB, &[], &From::Nothing);
    failing.mend();
    let recovered = bed.is_well();
    bed.unpublish(&sick);
    let kept = holds(&bed.publish(&sick), 0);
    let healthy = bed.client.health(&sick).expect("it is there");
    let of_idle_then = bed.client.health(&idle).expect("it is there");
    for id in [&well, &sick, &idle] {
        bed.unpublish(id);
        bed.client.delete(id).expect("nobody uses it");
    }
    run("lvremove", ["--quiet", "--yes", &bed.lv("filler")]).expect("nobody uses it");

    assert!(refused, "the disk answers");
    assert!(told && degraded, "{:?}", bed.client.storage_health());
    assert!(still.0.is_ok() && still.1, "{still:?}");
    assert!(of_idle.contains(&"DisksMissing".to_owned()), "{of_idle:?}");
    assert_eq!((of_well, of_idle_then), (Vec::new(), Vec::new()));
    created.expect_err("LVM changes no group that misses a disk");
    assert!(recovered, "{:?}", bed.client.storage_health());
    assert!(kept, "it was acknowledged");
    assert_eq!(healthy, [""; 0], "it was checked");
}
