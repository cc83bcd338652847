//! Encrypted volumes of ZFS: what only the key opens, with copies that share it, and before there is one.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use orlop::host::space;
use orlop::names::ENCRYPTION_KEY;

use crate::client::{Client, From};
use crate::encryption::{CONTENT, LARGER, SIZE, WRONG};
use crate::mapping::{devices, holds, mappings, size_of};
use crate::support::form::KEY;
use crate::support::run;
use crate::tank::Tank;

/// What is written unencrypted, to be found by the same way of looking.
const PUBLIC: &str = "what anybody may read who has the disk";

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn an_encrypted_dataset_lives_and_ends() {
    let Some(mut tank) = Tank::new("keys") else {
        return;
    };
    let mut client = Client::of(tank.node());
    let [staging, target] = ["staging", "target"].map(|name| tank.place(name));
    let [staged, other] = ["other.staging", "other"].map(|name| tank.place(name));
    let class = [("encryption", "true"), ("reserve", "true")];
    let plain = client.create("plain", SIZE.0, &[], &From::Nothing);
    let plain = plain.expect("there is room");
    client.publish(&plain, &staged, &other).expect("it is new");
    fs::write(other.join("content"), PUBLIC).expect("there is room");
    run("sync", [] as [&str; 0]).expect("it can be synced");
    client
        .unpublish(&plain, &staged, &other)
        .expect("nobody uses it");

    let one = client.create("one", SIZE.0, &class, &From::Nothing);
    let one = one.expect("there is room");
    let without = client.publish(&one, &staging, &target);
    client.key = Some(KEY);
    client.publish(&one, &staging, &target).expect("it is new");
    fs::write(target.join("content"), CONTENT).expect("there is room");
    run("sync", [] as [&str; 0]).expect("it can be synced");
    let look = ["-aohF", "-e", PUBLIC, "-e", CONTENT].map(OsStr::new);
    let disk = tank.disk("one");
    let readable = run("grep", look.into_iter().chain([disk.as_os_str()]));
    // Not earlier: what it wrote must not be written over.
    client.delete(&plain).expect("it is mounted nowhere");
    tank.restart();
    client = Client::of(tank.node());
    client.key = Some(KEY);
    client.grow(&one, LARGER.0).expect("there is room");
    let snapshot = client.snapshot(&one, "snapshot").expect("it is there");
    let two = client.create("two", 2 * LARGER.0, &[], &From::Snapshot(&snapshot));
    let two = two.expect("there is room");
    client.key = Some(WRONG);
    let wrong_beside = client.publish(&two, &staged, &other);
    client.key = Some(KEY);
    client.publish(&two, &staged, &other).expect("it is there");
    client
        .unpublish(&one, &staging, &target)
        .expect("nobody uses it");
    let in_two = fs::read_to_string(other.join("content")).expect("its key stays");
    client
        .unpublish(&two, &staged, &other)
        .expect("nobody uses it");
    let closed = [&one, &two].map(|id| tank.property(id, "keystatus"));
    client.key = Some(WRONG);
    let wrong = client.publish(&one, &staging, &target);
    client.delete(&one).expect("it is mounted nowhere");
    client.delete_snapshot(&snapshot).expect("nobody uses it");
    client.key = Some(KEY);
    client.publish(&two, &staged, &other).expect("it is there");
    let alone = fs::read_to_string(other.join("content")).expect("it was restored");
    let size = space::of(&other).expect("it is mounted").bytes.total;
    client
        .unpublish(&two, &staged, &other)
        .expect("nobody uses it");
    client.delete(&two).expect("it is mounted nowhere");

    for refused in [without, wrong_beside, wrong] {
        let told = refused.expect_err("it has not the key");
        assert_eq!(told.code(), tonic::Code::InvalidArgument, "{told}");
        assert!(told.message().contains(ENCRYPTION_KEY), "{told}");
    }
    let readable = readable.expect("one of them is readable");
    assert!(
        readable.contains(PUBLIC),
        "it is looked for in the right way"
    );
    assert!(!readable.contains(CONTENT), "it is not encrypted");
    assert_eq!((&*in_two, &*alone), (CONTENT, CONTENT));
    assert_eq!(closed, ["unavailable", "unavailable"]);
    assert!(size > LARGER.0, "it is as large as asked");
    assert_eq!(tank.all(), [""; 0]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn copies_of_a_dataset_that_has_no_key_yet_get_their_own() {
    let Some(tank) = Tank::new("keyless") else {
        return;
    };
    let mut client = Client::of(tank.node());
    let [staging, target] = ["staging", "target"].map(|name| tank.place(name));
    let source = client.create("source", SIZE.0, &[("encryption", "true")], &From::Nothing);
    let source = source.expect("there is room");
    let snapshot = client.snapshot(&source, "snapshot").expect("it is there");
    let cloned = client.create("cloned", SIZE.0, &[], &From::Volume(&source));
    let restored = client.create("restored", LARGER.0, &[], &From::Snapshot(&snapshot));
    let copies = [cloned, restored].map(|copy| copy.expect("there is room"));

    let mut read = Vec::new();
    for (volume, key) in [(&source, KEY), (&copies[0], WRONG), (&copies[1], KEY)] {
        client.key = Some(key);
        client
            .publish(volume, &staging, &target)
            .expect("it is new");
        fs::write(target.join("content"), volume).expect("there is room");
        client
            .unpublish(volume, &staging, &target)
            .expect("nobody uses it");
        client
            .publish(volume, &staging, &target)
            .expect("it is its key");
        read.push(fs::read_to_string(target.join("content")).expect("it was written"));
        client
            .unpublish(volume, &staging, &target)
            .expect("nobody uses it");
    }
    client.delete_snapshot(&snapshot).expect("nobody uses it");
    let left = tank.all().len();
    for volume in [&copies[0], &source, &copies[1]] {
        client.delete(volume).expect("it is mounted nowhere");
    }

    assert_eq!(read, [&*source, &*copies[0], &*copies[1]]);
    assert_eq!(left, 3, "of what they took the place of nothing is left");
    assert_eq!(tank.all(), [""; 0]);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn an_encrypted_zvol_lives_and_ends() {
    let Some(tank) = Tank::new("encryption") else {
        return;
    };
    run("modprobe", ["dm_crypt"]).expect("the guest has it");
    let mut client = Client::of(tank.node());
    client.key = Some(KEY);
    let [staging, target] = ["staging", "target"].map(|name| tank.place(name));
    let class = [("encryption", "true"), ("layout", "device")];

    let one = client.create("one", SIZE.0, &class, &From::Nothing);
    let one = one.expect("there is room");
    client.publish(&one, &staging, &target).expect("it is new");
    fs::write(target.join("content"), CONTENT).expect("there is room");
    run("sync", [] as [&str; 0]).expect("it can be synced");
    let (device, raw) = devices();
    let readable = [holds(&device, CONTENT), holds(&raw, CONTENT)];
    // Without what the header takes.
    assert_eq!(
        client.grow(&one, LARGER.0).expect("there is room"),
        LARGER.0
    );
    let grown = size_of(&device);
    let snapshot = client.snapshot(&one, "snapshot").expect("it is there");
    client
        .unpublish(&one, &staging, &target)
        .expect("nobody uses it");
    client.delete(&one).expect("it is mounted nowhere");
    let two = client.create("two", 2 * LARGER.0, &[], &From::Snapshot(&snapshot));
    let two = two.expect("there is room");
    client.key = Some(WRONG);
    let wrong = client.publish(&two, &staging, &target);
    client.key = Some(KEY);
    client
        .publish(&two, &staging, &target)
        .expect("it is there");
    let content = fs::read_to_string(target.join("content")).expect("it was restored");
    client
        .unpublish(&two, &staging, &target)
        .expect("nobody uses it");
    client.delete(&two).expect("it is mounted nowhere");
    client.delete_snapshot(&snapshot).expect("nobody uses it");

    assert_eq!(readable, [true, false]);
    assert!(grown >= LARGER.0);
    let wrong = wrong.expect_err("it is not the key");
    assert_eq!(wrong.code(), tonic::Code::InvalidArgument, "{wrong}");
    assert_eq!(content, CONTENT);
    assert_eq!(mappings(), Vec::<PathBuf>::new());
}
