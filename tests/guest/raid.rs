//! A volume that is mirrored by LVM loses a disk and gets it back: its pod notices nothing, and people are told.

use crate::bed::{Bed, MIB};
use crate::blocks::{holds, write};
use crate::client::From;
use crate::failing::{FAILING, Failing};
use crate::support::bare_disk::BareDisk;
use crate::support::home::VolumeGroup;
use crate::support::{run, until};

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_mirrored_volume_that_lost_a_disk_is_told_until_it_is_back() {
    let Some(group) = VolumeGroup::new(false) else {
        return;
    };
    run("modprobe", ["-a", "dm_raid", "raid1"]).expect("the guest has them");
    let disk = BareDisk::new("test3");
    let failing = Failing::on(&disk.device);
    run("vgextend", ["--quiet", "--yes", &group.name, FAILING]).expect("it is a disk");
    let lvm = format!("{{ volumeGroup: {} }}", group.name);
    let bed = Bed::on(group, &lvm);
    let raid1 = [("type", "raid1"), ("wipe", "none")];
    let create = |name, class: &[_]| bed.client.create(name, 64 * MIB, class, &From::Nothing);
    let mirrored = create("mirrored", &raid1).expect("there are two disks");
    let plain = create("plain", &[]).expect("there is room");
    let health = |id: &str| bed.client.health(id).expect("it is there");
    let at = bed.publish(&mirrored);
    write(&at, 0).expect("there is room");
    let lv = bed.lv("v-mirrored");
    let synced = ["--noheadings", "--options=copy_percent", &lv];
    assert!(until(
        || run("lvs", synced).is_ok_and(|told| told.trim() == "100.00")
    ));
    let well = health(&mirrored);

    failing.fail();
    let degraded = until(|| {
        // It is a write that tells the kernel.
        write(&at, 1).expect("the other disk has room");
        health(&mirrored) == ["RaidDegraded"]
    });
    let of_plain = health(&plain);
    failing.mend();
    // All disks are there again, but the kernel goes on without one of them until it is told.
    let still = bed.is_well().then(|| health(&mirrored));
    run("lvchange", ["--quiet", "--refresh", &lv]).expect("all disks are there");
    let recovered = until(|| health(&mirrored).is_empty()) && bed.is_well();
    bed.unpublish(&mirrored);
    let kept = {
        let at = bed.publish(&mirrored);
        [0, 1].map(|n| holds(&at, n))
    };
    bed.unpublish(&mirrored);
    for id in [&mirrored, &plain] {
        bed.client.delete(id).expect("nobody uses it");
    }

    assert_eq!(well, [""; 0]);
    assert!(degraded && recovered, "{degraded} {recovered}");
    assert_eq!(still, Some(vec!["RaidDegraded".to_owned()]));
    assert_eq!(of_plain, [""; 0], "it is on the first disk");
    assert_eq!(kept, [true; 2]);
}
