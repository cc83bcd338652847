//! The command line, walked as a person would: the real binary against a node of its own.

#[path = "cli/mounted.rs"]
mod mounted;
#[path = "support/node.rs"]
mod node;
#[path = "cli/person.rs"]
mod person;
mod support;
#[path = "cli/upkeep.rs"]
mod upkeep;

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use orlop::csi::proto::inspection::ListWorkRequest;
use orlop::csi::proto::inspection::inspection_client::InspectionClient;
use person::{Person, orlop};
use serde_json::Value;
use support::LoopFs;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_volume_is_listed_in_every_format() {
    let person = Person::new(&["--node-name", "deck"]);

    let created = person.runs("volume create data --size 10GiB");
    person.runs("volume create raw --size 1MiB --block");
    let table = person.runs("volume ls").rows();
    let json = person.runs("volume ls -o json").json();
    let yaml: Value = serde_yaml_ng::from_str(&person.runs("volume ls -o yaml").out).expect("YAML");
    let names = person.runs("volume ls -o name").out;

    assert_eq!(created.out, "default/data created: 10GiB\n");
    let titles = [
        "ID", "NODE", "SIZE", "LAYOUT", "FS", "CLAIM", "CREATED", "HEALTH",
    ];
    assert_eq!(table[0], titles);
    assert_eq!(
        table[1][..6],
        ["default/data", "deck", "10GiB", "tree", "-", "-"]
    );
    assert_eq!(table[1][7], "ok");
    assert_eq!(
        table[2][..5],
        ["default/raw", "deck", "1MiB", "image", "(block)"]
    );
    assert_eq!(json, yaml);
    assert_eq!(json[0]["id"], "default/data");
    assert_eq!(json[0]["sizeBytes"], 10_u64 << 30);
    assert_eq!(json[0]["node"], "deck");
    assert_eq!(json[1]["access"], "block");
    assert_eq!(names, "default/data\ndefault/raw\n");
}

#[test]
fn a_list_longer_than_a_page_is_whole() {
    let person = Person::new(&[]);
    person.runs("volume create first --size 1MiB");
    let volumes = person.path("data/default/volumes");
    let record = fs::read_to_string(volumes.join("first/volume.json")).expect("it was created");
    for number in 0..1001 {
        let volume = volumes.join(format!("v{number:04}"));
        fs::create_dir_all(volume.join("data")).expect("the pool can be written");
        fs::write(volume.join("volume.json"), &record).expect("the pool can be written");
    }

    let names = person.runs("volume ls -o name").out;

    assert_eq!(names.lines().count(), 1002);
    assert!(names.lines().is_sorted());
}

#[test]
fn a_copy_is_as_large_as_its_source_unless_asked() {
    let person = Person::new(&[]);
    person.runs("volume create small --size 8MiB --block");
    person.runs("snapshot create default/small s");

    let clone = person.runs("volume clone default/small clone");
    let restored = person.runs("snapshot restore default/small@s back --block");
    let larger = person.runs("volume clone default/small larger --size 12MiB");

    assert!(clone.out.ends_with(": 8MiB\n"), "{clone:?}");
    assert!(restored.out.ends_with(": 8MiB\n"), "{restored:?}");
    assert!(larger.out.ends_with(": 12MiB\n"), "{larger:?}");
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let person = Person::new(&[]);
    person.runs("volume create data --size 1GiB");

    let grown = person.runs("volume grow default/data 3GiB");
    let less = person.runs("volume grow default/data 2GiB");

    assert_eq!(grown.out, "default/data has 3GiB\n");
    assert_eq!(less.out, "default/data has 3GiB\n");
}

#[test]
fn the_exit_code_says_what_to_do_next() {
    let person = Person::new(&[]);
    person.runs("volume create data --size 1GiB");

    for (line, code, told) in [
        ("volume inspect default/nope", 3, "orlop volume ls"),
        ("volume rm default/nope", 3, "default/nope does not exist"),
        ("volume clone default/nope copy", 3, "orlop volume ls"),
        ("snapshot rm default/data@nope", 3, "orlop snapshot ls"),
        ("snapshot create default/nope s", 3, "orlop volume ls"),
        ("pool inspect nope", 3, "orlop pool ls"),
        ("volume create data --size 2GiB", 1, "its size is 1GiB"),
        ("volume clone default/data data", 1, "exists already"),
        ("volume create huge --size 4096TiB", 1, "has room for"),
        (
            "volume create q --size 1MiB --require-quota",
            2,
            "layout: image",
        ),
        (
            "volume create q --size 1MiB --pool nope",
            2,
            "there is no pool nope",
        ),
        ("volume create q --size 0", 2, "at least one byte"),
        ("volume create q --size much", 2, "10GiB"),
        ("volume inspect nope", 2, "<pool>/<volume>"),
        (
            "volume mount default/data /nowhere/at/all",
            1,
            "make it first",
        ),
    ] {
        let ran = person.tries(line);

        assert_eq!(ran.code, code, "{line}: {ran:?}");
        assert!(ran.err.contains(told), "{line}: {ran:?}");
        let own = ran.err.lines().filter(|line| line.starts_with("orlop: "));
        assert!(code == 2 || own.count() == 1, "{line}: {ran:?}");
    }
}

#[test]
fn what_can_be_removed_is_removed_and_the_rest_is_told() {
    let person = Person::new(&[]);
    person.runs("volume create a --size 1MiB");
    person.runs("volume create b --size 1MiB");

    let ran = person.tries("volume rm default/a default/nope default/b -o json");

    assert_eq!(ran.code, 3);
    assert_eq!(ran.json()[1]["id"], "default/b");
    assert!(person.runs("volume ls -o name").out.is_empty());
}

#[test]
fn without_a_node_the_socket_is_named() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let stale = dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).expect("the place is free"));

    for socket in [stale, dir.path().join("missing.sock")] {
        let socket = socket.display().to_string();
        let args = ["volume", "ls", "--endpoint", &socket].map(str::to_owned);
        let ran = orlop(args, dir.path());

        assert_eq!(ran.code, 1);
        assert!(ran.err.contains(&socket), "{ran:?}");
        assert!(ran.err.contains("is `orlop node` running?"), "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1);
    }
}

#[test]
fn pools_are_told_with_their_room() {
    let person = Person::new(&["--node-name", "deck"]);
    person.runs("volume create data --size 3GiB");

    let table = person.runs("pool ls").rows();
    let pool = person.runs("pool inspect default -o json").json();

    let titles = [
        "NAME",
        "NODE",
        "KIND",
        "TOTAL",
        "PROMISED",
        "AVAILABLE",
        "HEALTH",
    ];
    assert_eq!(table[0], titles);
    assert_eq!(table[1][..3], ["default", "deck", "directory"]);
    assert_eq!(table[1][4], "3GiB");
    assert_eq!(pool["promisedBytes"], 3_u64 << 30);
    assert_eq!(pool["enforcesTreeSize"], false);
    assert!(pool["availableBytes"].as_u64() < pool["totalBytes"].as_u64());
}

#[test]
fn a_copy_is_told_with_its_bytes_while_it_runs() {
    const SIZE: u64 = 160 << 20;
    // A filesystem that shares no blocks, so that a copy takes its time.
    let Some(filesystem) = LoopFs::new("ext4") else {
        return;
    };
    let data = filesystem.path().display().to_string();
    let person = Person::new(&["--data", &data]);
    person.runs("volume create data --size 200MiB");
    let file = filesystem.path().join("default/volumes/data/data/file");
    fs::write(file, vec![7; usize::try_from(SIZE).expect("it is small")]).expect("there is room");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let seen = std::thread::scope(|scope| {
        let copy = scope.spawn(|| person.runs("snapshot create default/data s"));
        let seen = runtime.block_on(async {
            let mut client = InspectionClient::new(person.node.channel().await);
            let started = Instant::now();
            while started.elapsed() < PATIENCE {
                let answer = client.list_work(ListWorkRequest {}).await;
                let work = answer.expect("it answers").into_inner().work;
                if let Some(work) = work.into_iter().find(|work| work.done_bytes > 0) {
                    return Some(work);
                }
            }
            None
        });
        copy.join().expect("it was taken");
        seen.expect("the copy was told")
    });

    assert_eq!(seen.id, "default/data@s");
    assert!(seen.since.is_some());
    assert!(seen.total_bytes >= SIZE, "{seen:?}");
    assert!(seen.done_bytes <= seen.total_bytes, "{seen:?}");
    let after = runtime.block_on(async {
        let mut client = InspectionClient::new(person.node.channel().await);
        client.list_work(ListWorkRequest {}).await
    });
    assert!(after.expect("it answers").into_inner().work.is_empty());
}

#[test]
fn completions_know_the_commands() {
    let dir = tempfile::tempdir().expect("a directory can be made");

    let script = orlop(["completions", "bash"].map(str::to_owned), dir.path());

    assert_eq!(script.code, 0);
    assert!(script.out.contains("--require-quota"), "{}", script.out);
}
