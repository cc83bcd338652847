//! Properties in ZFS: those that a class sets are set, and a record is one only where it was set.

use std::slice::from_ref;

use crate::client::From;
use crate::support::run;
use crate::tank::Tank;

const SIZE: u64 = 16 << 20;

/// What a class says of a volume, and what ZFS then says.
type Told = (&'static str, &'static str, &'static str);

/// Every property that trees may have, with every kind of value that it may have; each row is a volume.
const TREES: [&[Told]; 3] = [
    &[
        ("compression", "zstd-9", "zstd-9"),
        ("sync", "always", "always"),
        ("logbias", "throughput", "throughput"),
        ("atime", "off", "off"),
        ("primarycache", "metadata", "metadata"),
        ("secondarycache", "none", "none"),
        ("recordsize", "16KiB", "16384"),
        ("reserve", "true", ""),
    ],
    &[
        ("compression", "gzip-1", "gzip-1"),
        ("sync", "disabled", "disabled"),
        ("logbias", "latency", "latency"),
        ("atime", "on", "on"),
        ("primarycache", "none", "none"),
        ("secondarycache", "all", "all"),
        ("recordsize", "1MiB", "1048576"),
    ],
    &[
        ("compression", "off", "off"),
        ("sync", "standard", "standard"),
        ("primarycache", "all", "all"),
        ("secondarycache", "metadata", "metadata"),
        ("recordsize", "512", "512"),
    ],
];

const DEVICES: [&[Told]; 2] = [
    &[
        ("compression", "lz4", "lz4"),
        ("sync", "always", "always"),
        ("logbias", "throughput", "throughput"),
        ("primarycache", "metadata", "metadata"),
        ("secondarycache", "none", "none"),
        ("volblocksize", "4KiB", "4096"),
        ("reserve", "true", ""),
    ],
    &[("volblocksize", "128KiB", "131072")],
];

/// All that is left of one property.
const COMPRESSIONS: [&str; 8] = [
    "on",
    "zstd",
    "zstd-19",
    "zstd-fast",
    "gzip",
    "gzip-9",
    "zle",
    "lzjb",
];

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn every_property_that_a_class_may_have_is_set() {
    let Some(tank) = Tank::new("properties") else {
        return;
    };
    let compressions = COMPRESSIONS.map(|value| [("compression", value, value)]);
    let of_trees = TREES
        .into_iter()
        .chain(compressions.iter().map(<[Told; 1]>::as_slice))
        .map(|row| (None, row));
    let of_devices = DEVICES.into_iter().map(|row| (Some("device"), row));

    let mut wrong = Vec::new();
    for (layout, row) in of_trees.chain(of_devices) {
        let wishes = row.iter().map(|(key, value, _)| (*key, *value));
        let class: Vec<_> = wishes
            .chain(layout.map(|layout| ("layout", layout)))
            .collect();
        let client = tank.client();
        let id = client.create("one", SIZE, &class, &From::Nothing);
        let id = id.unwrap_or_else(|refused| panic!("{class:?}: {refused}"));
        for (key, asked, told) in row {
            let is = if *key == "reserve" {
                tank.property(&id, "refreservation") != "0"
            } else {
                tank.property(&id, key) == *told
            };
            if !is {
                wrong.push((key, asked, tank.property(&id, key)));
            }
        }
        let of_zvols = ["volmode", "snapdev"].map(|key| tank.property(&id, key));
        assert!(
            layout.is_none() || of_zvols == ["dev", "hidden"],
            "{of_zvols:?}"
        );
        client.delete(&id).expect("nobody uses it");
    }

    assert_eq!(wrong, []);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_record_that_came_from_elsewhere_makes_no_volume() {
    let Some(mut tank) = Tank::new("records") else {
        return;
    };
    let home = tank.home();
    let zfs = |arguments: &[&str]| run("zfs", arguments).expect("it is there");
    let one = tank.client().create("one", SIZE, &[], &From::Nothing);
    let one = one.expect("there is room");
    let taken = tank.client().snapshot(&one, "taken").expect("it is there");

    // A copy as people make it, with all properties and snapshots of its source.
    zfs(&["snapshot", &format!("{home}/v-one@mine")]);
    let copy = format!("zfs send -R {home}/v-one@mine | zfs receive -u {home}/v-copy");
    run("sh", ["-c", &copy]).expect("there is room");
    let record = tank.property("tank/copy", "dev.orlop:volume");
    // And a record of what is above everything.
    let above = home.split('/').next().expect("it has a zpool");
    zfs(&["set", &format!("dev.orlop:volume={record}"), above]);
    zfs(&["create", &format!("{home}/v-below")]);
    tank.restart();
    let client = tank.client();
    let seen = (client.volumes(), client.snapshots());
    let refused = ["copy", "below"].map(|name| client.create(name, SIZE, &[], &From::Nothing));
    zfs(&["destroy", &format!("{home}/v-one@mine")]);
    client.delete_snapshot(&taken).expect("nobody uses it");
    client.delete(&one).expect("nobody uses it");
    let without = (client.volumes(), client.snapshots());
    // Somebody who wants the copy says so.
    zfs(&[
        "set",
        &format!("dev.orlop:volume={record}"),
        &format!("{home}/v-copy"),
    ]);
    let wanted = client.volumes();
    zfs(&["destroy", "-r", &format!("{home}/v-copy")]);
    zfs(&["destroy", &format!("{home}/v-below")]);

    assert!(record.contains("csiName"), "it came with it: {record}");
    assert_eq!(seen, (vec![(one, SIZE)], vec![taken]));
    for (refused, dataset) in refused.into_iter().zip(["v-copy", "v-below"]) {
        let told = refused.expect_err("it is somebody's");
        assert!(told.message().contains(dataset), "{told}");
    }
    assert_eq!(without, (vec![], vec![]));
    assert_eq!(wanted, from_ref(&("tank/copy".to_owned(), SIZE)));
}
