//! Thick volumes that LVM spreads over disks, which are not equally large: the room that is told for them is what it makes.

use orlop::config;
use orlop::host::gate::Gate;
use orlop::volume::{Bytes, Error, VolumeSpec};

use crate::support::bare_disk::BareDisk;
use crate::support::form::{Form, at_least, wishes};
use crate::support::home::{Home, VolumeGroup};
use crate::support::verbs::Node;
use crate::support::{run, takes_long, until};

const EXTENT: Bytes = Bytes::MIB.times(4);

/// Beside the first disk of the group, which is large, in MiB with what LVM keeps for itself.
const DISKS: [(&str, u64); 3] = [("test2", 104), ("test3", 84), ("test4", 64)];

/// What a class asks.
type Asked = &'static [(&'static str, &'static str)];

/// With it, how many disks have content of their own, and how many extents of each are the room.
const SPREADS: [(Asked, u64, u64); 6] = [
    (&[("type", "raid10")], 2, 14),
    (&[("stripes", "2")], 2, 60),
    (&[("type", "raid0"), ("stripes", "3")], 3, 25),
    (&[("type", "raid1")], 1, 59),
    (&[("type", "raid5")], 2, 24),
    (&[("mirrors", "2")], 1, 24),
];

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_room_for_a_spread_volume_is_what_lvm_can_make() {
    let Some(group) = VolumeGroup::new(false) else {
        return;
    };
    run(
        "modprobe",
        ["-a", "dm_raid", "raid0", "raid1", "raid10", "raid456"],
    )
    .expect("the guest has them");
    let name = group.name.clone();
    let disks = DISKS.map(|(serial, mib)| added(&name, serial, mib));
    let home = Home::Lvm(group);
    let config = config::Pool {
        name: "pool".parse().expect("it is a legal name"),
        kind: home.pool("unused".as_ref()),
    };
    let node = Node::start(&config, Gate::open()).expect("the pool is new");
    let asks = |size: Bytes, asked: &[(&str, &str)]| {
        let mut spec = Form::BLOCK.spec("one", size);
        spec.class.wishes = wishes(asked);
        spec.class.wishes = spec.class.wishes.with(&wishes(&[("wipe", "none")]));
        spec
    };
    let room = |spec: &VolumeSpec| {
        let class = spec.class.clone();
        let told = node.look(move |core| core.capacity(&class));
        told.expect("it can be asked").0.available
    };

    let enough = if takes_long() { SPREADS.len() } else { 3 };
    for (asked, data, extents) in SPREADS.into_iter().rev().take(enough) {
        let available = room(&asks(EXTENT, asked));
        assert_eq!(available, EXTENT.times(extents * data), "{asked:?}");
        let more = available.plus(EXTENT.times(data));
        by_hand(&name, asked, more).expect_err("LVM has no room either");
        let refused = node.create(&asks(more, asked));
        let refused = refused.expect_err("there is no room");
        assert!(matches!(refused, Error::Full(_)), "{refused}");
        assert!(refused.to_string().contains("disks at once"), "{refused}");

        // As large as can be, in two steps.
        let mut spec = asks(EXTENT.times(data), asked);
        let one = node.create(&spec).expect("there is room");
        node.grow(&one.id, available).expect("there is room");
        spec.range = at_least(available);
        let same = node.create(&spec).expect("it is as large");
        node.delete(&one.id).expect("nobody uses it");
        assert_eq!(same.record.size, available, "{asked:?}");
        assert!(until(
            || node.volumes().is_empty() && room(&spec) == available
        ));
        node.create(&spec).expect("there is room at once, too");
        node.delete(&one.id).expect("nobody uses it");
        assert!(until(|| room(&spec) == available));
    }
    let too_many = node.create(&asks(EXTENT, &[("type", "raid6")]));
    drop(node);
    drop((home, disks));

    let refused = too_many.expect_err("there are four disks");
    assert!(matches!(refused, Error::Full(_)), "{refused}");
    assert!(refused.to_string().contains("5 disks"), "{refused}");
}

/// Adds a disk to the group, of which so much is used.
fn added(group: &str, serial: &str, mib: u64) -> BareDisk {
    let disk = BareDisk::new(serial);
    let size = format!("{mib}m");
    let create = ["-ff", "--quiet", "--yes", "--setphysicalvolumesize", &size];
    run("pvcreate", create.iter().chain(&[&*disk.device])).expect("it is a disk");
    run("vgextend", ["--quiet", "--yes", group, &disk.device]).expect("nobody uses it");
    disk
}

/// What LVM says to a volume of this size.
fn by_hand(group: &str, asked: &[(&str, &str)], size: Bytes) -> anyhow::Result<String> {
    let size = format!("{}b", size.0);
    let mut arguments = vec!["--quiet", "--yes", "--name", "mine", "--size", &size];
    let options: Vec<_> = asked.iter().map(|(key, _)| format!("--{key}")).collect();
    for (option, (_, value)) in options.iter().zip(asked) {
        arguments.extend([option, *value]);
    }
    arguments.push(group);
    run("lvcreate", arguments)
}
