//! What a deleted volume leaves on the bytes of its disk, by what its class says.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use orlop::config;
use orlop::host::gate::Gate;
use orlop::volume::{Bytes, Volume};

use crate::bed::Bed;
use crate::client::From;
use crate::support::form::{Form, KEY, wishes};
use crate::support::home::{Home, VolumeGroup};
use crate::support::verbs::Node;
use crate::support::{run, until};

const SIZE: Bytes = Bytes::MIB.times(8);

/// As large as one with the header of encryption has to be.
const ENCRYPTED: Bytes = Bytes::MIB.times(64);

/// What is written over all of a volume.
const CONTENT: &[u8; 16] = b"what was in here";

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_deleted_volume_leaves_what_its_class_says_on_the_disk() {
    let Some(group) = VolumeGroup::new(false) else {
        return;
    };
    let (disk, name) = (group.device().to_owned(), group.name.clone());
    let starts = |group: &Home| match group {
        Home::Lvm(group) => start_of(group),
        _ => unreachable!("it is one of LVM"),
    };
    let home = Home::Lvm(group);
    let config = config::Pool {
        name: "pool".parse().expect("it is a legal name"),
        kind: home.pool("unused".as_ref()),
    };
    let node = Node::start(&config, Gate::open()).expect("the pool is new");

    for (wipe, stays) in [
        (None, false),
        (Some("none"), true),
        (Some("discard"), false),
        (Some("zero"), false),
    ] {
        let mut spec = Form::BLOCK.spec("one", SIZE);
        if let Some(wipe) = wipe {
            spec.class.wishes = wishes(&[("wipe", wipe)]);
        }
        let volume = node.create(&spec).expect("there is room");
        let start = starts(&home);
        fill(&name, &volume);
        let before = at(&disk, start);
        node.delete(&volume.id).expect("nobody uses it");
        assert!(until(|| home.contents("unused".as_ref()).is_empty()));
        let after = at(&disk, start);

        let whole = usize::try_from(SIZE.0).expect("it is small") / CONTENT.len();
        assert_eq!(
            count(&before),
            whole,
            "{wipe:?}: it is looked for in the right place"
        );
        if stays {
            assert_eq!(count(&after), whole, "{wipe:?}");
        } else {
            assert!(after.iter().all(|byte| *byte == 0), "{wipe:?}");
        }
    }
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn what_a_deleted_volume_leaves_on_the_disk_opens_no_more_with_its_key() {
    let Some(group) = VolumeGroup::new(false) else {
        return;
    };
    let lvm = format!("{{ volumeGroup: {} }}", group.name);
    let mut bed = Bed::on(group, &lvm);
    bed.client.key = Some(KEY);
    let class = [("encryption", "true"), ("wipe", "none")];
    let created = bed
        .client
        .create("one", ENCRYPTED.0, &class, &From::Nothing);
    let id = created.expect("there is room");
    bed.publish(&id);
    bed.unpublish(&id);

    let start = start_of(&bed.group);
    let before = opens(bed.group.device(), start);
    bed.client.delete(&id).expect("it is mounted nowhere");
    let after = opens(bed.group.device(), start);

    before.expect("it is the key");
    let refused = after.expect_err("no key slot is left").to_string();
    assert!(refused.contains("keyslot"), "{refused}");
}

/// Writes the content over all of the volume.
fn fill(group: &str, volume: &Volume) {
    let lv = format!("{group}/v-{}", volume.id.name);
    run("lvchange", ["--quiet", "--activate", "y", &lv]).expect("it is there");
    let device = Path::new("/dev").join(&lv);
    let mut file = File::options()
        .write(true)
        .open(device)
        .expect("it is active");
    let times = usize::try_from(SIZE.0).expect("it is small") / CONTENT.len();
    file.write_all(&CONTENT.repeat(times))
        .expect("it is as large");
    file.sync_all().expect("it can be synced");
}

/// What is on the disk from there on.
fn at(disk: &str, start: u64) -> Vec<u8> {
    // What was read there before is not what a volume wrote.
    run("blockdev", ["--flushbufs", disk]).expect("it is a disk");
    let mut file = File::open(disk).expect("root may read it");
    file.seek(SeekFrom::Start(start)).expect("it is larger");
    let mut found = Vec::new();
    file.take(SIZE.0)
        .read_to_end(&mut found)
        .expect("it can be read");
    found
}

fn count(content: &[u8]) -> usize {
    content
        .chunks(CONTENT.len())
        .filter(|chunk| chunk == CONTENT)
        .count()
}

/// Where on its disk the only volume of a group begins.
fn start_of(group: &VolumeGroup) -> u64 {
    let bytes = ["--noheadings", "--nosuffix", "--units=b"];
    let ask = |tool: &str, field: &str, of: &str| {
        let told = run(tool, bytes.iter().chain(&["--options", field, of]));
        told.expect("it is there").trim().to_owned()
    };
    let number = |text: &str| text.parse::<u64>().expect("it is a number");
    let area = ask("pvs", "pe_start", group.device());
    let extent = ask("vgs", "vg_extent_size", &group.name);
    let range = ask("lvs", "seg_pe_ranges", &group.name);
    let first = range.split([':', '-']).nth(1).expect("it is on a disk");
    number(&area) + number(first) * number(&extent)
}

/// Tries the key on what begins there.
fn opens(disk: &str, start: u64) -> anyhow::Result<String> {
    let offset = start.to_string();
    // What was read there before is not what the volume wrote.
    run("blockdev", ["--flushbufs", disk]).expect("it is a disk");
    let show = ["--find", "--show", "--read-only", "--offset", &offset, disk];
    let device = run("losetup", show).expect("there is a loop device");
    let device = device.trim();
    let open = format!(
        "printf %s '{KEY}' | cryptsetup open --test-passphrase --type=luks2 --key-file=- {device}"
    );
    let opened = run("sh", ["-c", &open]);
    run("losetup", ["--detach", device]).expect("nobody uses it");
    opened
}
