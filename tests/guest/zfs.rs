//! What is ZFS's own: what depends on what, and what becomes of that when its source goes.

use std::fs::{self, File};

use crate::client::From;
use crate::support::{run, until};
use crate::tank::Tank;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn trees_and_devices_keep_what_is_written_over_a_crash() {
    let Some(mut tank) = Tank::new("crash") else {
        return;
    };
    let client = tank.client();
    let tree = client
        .create("tree", SIZE, &[], &From::Nothing)
        .expect("there is room");
    let ext4 = [("csi.storage.k8s.io/fstype", "ext4")];
    let device = client
        .create("device", SIZE, &ext4, &From::Nothing)
        .expect("there is room");
    let (staging, target) = (tank.place("kept.staging"), tank.place("kept"));
    client
        .publish(&tree, &staging, &target)
        .expect("it is there");
    fs::write(target.join("content"), "rows").expect("there is room");
    tank.write(&device, "blocks");

    tank.restart();
    let client = tank.client();
    client
        .publish(&tree, &staging, &target)
        .expect("a second call changes nothing");
    let rows = fs::read_to_string(target.join("content")).expect("it is still mounted");
    client.delete(&tree).expect_err("it is in use");
    client
        .unpublish(&tree, &staging, &target)
        .expect("nobody uses it");
    let blocks = tank.read(&device);
    client.delete(&tree).expect("it is no longer in use");
    client.delete(&device).expect("it is no longer in use");

    assert_eq!((rows.as_str(), blocks.as_str()), ("rows", "blocks"));
    assert_eq!(tank.all(), [""; 0]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_size_of_a_tree_holds_and_grows_while_it_is_used() {
    let Some(tank) = Tank::new("size") else {
        return;
    };
    let client = tank.client();
    let tree = client.create("tree", 16 * MIB, &[("compression", "off")], &From::Nothing);
    let tree = tree.expect("there is room");
    let noise = vec![1; 12 << 20];

    let (first, second, third) = tank.at(&tree, |at| {
        let first = fs::write(at.join("one"), &noise);
        run("sync", [""; 0]).expect("sync runs");
        let second =
            fs::write(at.join("two"), &noise).and_then(|()| File::open(at.join("two"))?.sync_all());
        let _ = fs::remove_file(at.join("two"));
        client.grow(&tree, 64 * MIB).expect("there is room");
        let third = fs::write(at.join("three"), &noise);
        (first, second, third)
    });

    assert!(first.is_ok() && third.is_ok(), "{first:?} {third:?}");
    let refused = second.expect_err("16 MiB are 16 MiB");
    assert_eq!(refused.raw_os_error(), Some(libc::EDQUOT));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_snapshot_outlives_its_volume_and_what_was_restored_outlives_the_snapshot() {
    let Some(mut tank) = Tank::new("outlive") else {
        return;
    };
    let client = tank.client();
    let first = client
        .create("data", SIZE, &[], &From::Nothing)
        .expect("there is room");
    tank.write(&first, "first");
    let taken = client.snapshot(&first, "kept").expect("there is room");

    client.delete(&first).expect("it is not in use");
    let again = client
        .create("data", SIZE, &[], &From::Nothing)
        .expect("the name is free");
    tank.write(&again, "second");
    let restored = client.create("restored", 2 * SIZE, &[], &From::Snapshot(&taken));
    let restored = restored.expect("the snapshot is there");
    client.delete_snapshot(&taken).expect("it may be deleted");
    client.delete_snapshot(&taken).expect("it is deleted");
    tank.restart();
    let client = tank.client();
    let newer = client
        .snapshot(&restored, "kept")
        .expect("the name is free");
    let (rows, then) = (tank.read(&restored), tank.read(&again));
    for gone in [&restored, &again] {
        client.delete(gone).expect("it is not in use");
    }
    let left = tank.all();
    client
        .delete_snapshot(&newer)
        .expect("nothing was made from it");

    assert_eq!((rows.as_str(), then.as_str()), ("first", "second"));
    assert_eq!(
        left.len(),
        2,
        "the retired volume and its snapshot: {left:?}"
    );
    assert_eq!(tank.all(), [""; 0]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_clone_takes_over_from_a_source_that_goes() {
    let Some(tank) = Tank::new("heir") else {
        return;
    };
    let client = tank.client();
    let source = client
        .create("source", SIZE, &[], &From::Nothing)
        .expect("there is room");
    tank.write(&source, "one");
    let early = client
        .create("early", SIZE, &[], &From::Volume(&source))
        .expect("there is room");
    tank.write(&source, "two");
    let late = client
        .create("late", SIZE, &[], &From::Volume(&source))
        .expect("there is room");

    client.delete(&source).expect("it is not in use");
    let after_source = tank.all();
    let read = (tank.read(&early), tank.read(&late));
    client.delete(&late).expect("it is not in use");
    let early_then = tank.read(&early);
    client.delete(&early).expect("it is not in use");

    assert_eq!(read, ("one".to_owned(), "two".to_owned()));
    assert_eq!(early_then, "one");
    let is_volume = |name: &String| {
        name.ends_with("/v-early") || name.ends_with("/v-late") || name.contains('@')
    };
    assert!(after_source.iter().all(is_volume), "{after_source:?}");
    assert_eq!(tank.all(), [""; 0]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn what_was_half_made_goes_when_the_node_starts() {
    let Some(mut tank) = Tank::new("half") else {
        return;
    };
    let client = tank.client();
    let source = client
        .create("source", SIZE, &[], &From::Nothing)
        .expect("there is room");
    let home = tank.home();
    let half = format!("{home}/m-half");
    run("zfs", ["create", "-V", "64M", "-s", &half]).expect("there is room");
    run("zfs", ["snapshot", &format!("{home}/v-source@c-1")]).expect("there is room");
    run("zfs", ["create", &format!("{home}/mine")]).expect("there is room");

    tank.restart();

    let own = [format!("{home}/mine"), format!("{home}/v-source")];
    assert_eq!(tank.all(), own);
    tank.client().delete(&source).expect("it is not in use");
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_missing_disk_is_told_and_nothing_is_wrong_once_it_is_back() {
    let Some(tank) = Tank::new("sick") else {
        return;
    };
    let client = tank.client();
    let volume = client
        .create("data", SIZE, &[], &From::Nothing)
        .expect("there is room");
    let disk = tank.disk("two").display().to_string();

    let well = client.health(&volume).expect("it is there");
    run("zpool", ["offline", &tank.name, &disk]).expect("a mirror can do without");
    let is_told = || client.storage_health().expect("the node answers") == ["ZpoolDegraded"];
    let told = until(is_told);
    run("zpool", ["online", &tank.name, &disk]).expect("it is still there");
    let recovered = until(|| client.storage_health().is_ok_and(|told| told.is_empty()));

    assert!(well.is_empty(), "{well:?}");
    assert!(told && recovered, "{:?}", client.storage_health());
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_quota_above_the_pool_is_all_that_there_is_room_for() {
    let Some(tank) = Tank::new("quota") else {
        return;
    };
    let client = tank.client();
    let create = |name: &str, mib: u64| client.create(name, mib * MIB, &[], &From::Nothing);
    let limit = |quota: &str| {
        run("zfs", ["set", &format!("quota={quota}"), &tank.name]).expect("it is there");
    };

    limit("256m");
    let within = create("within", 128);
    let beyond = create("beyond", 256);
    limit("none");
    let then = create("beyond", 256);
    for id in [&within, &then].into_iter().flatten() {
        client.delete(id).expect("it is not in use");
    }

    within.expect("there is room");
    let refused = beyond.expect_err("128 MiB are left");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    then.expect("there is room now");
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn what_is_reserved_is_reserved_and_grows() {
    let Some(tank) = Tank::new("reserve") else {
        return;
    };
    let client = tank.client();
    let reserve = ("reserve", "true");
    let of_device = [reserve, ("csi.storage.k8s.io/fstype", "ext4")];
    for (name, class) in [("tree", &[reserve][..]), ("device", &of_device)] {
        let id = client.create(name, SIZE, class, &From::Nothing);
        let id = id.expect("there is room");
        let reserved = || -> u64 {
            let told = tank.property(&id, "refreservation");
            told.parse().expect("it is a number")
        };

        let first = reserved();
        client.grow(&id, 2 * SIZE).expect("there is room");
        let then = reserved();
        client.delete(&id).expect("it is not in use");

        // That of a device has room for what describes it, too.
        assert!((SIZE..SIZE * 5 / 4).contains(&first), "{name}: {first}");
        assert!((2 * SIZE..SIZE * 5 / 2).contains(&then), "{name}: {then}");
    }
}
