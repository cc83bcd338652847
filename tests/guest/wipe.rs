//! What a deleted volume leaves on the bytes of its disk, by what its class says.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use orlop::config;
use orlop::host::gate::Gate;
use orlop::volume::{Bytes, Volume};

use crate::encryption::start_of;
use crate::support::home::{Home, VolumeGroup};
use crate::support::verbs::{Form, Node, wishes};
use crate::support::{run, until};

const SIZE: Bytes = Bytes::MIB.times(8);

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
