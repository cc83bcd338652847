//! The command line, walked as a person would: the real binary against a node of its own.

#[path = "support/node.rs"]
mod node;
mod support;
#[path = "cli/upkeep.rs"]
mod upkeep;

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use node::Node;
use orlop::csi::proto::inspection::ListWorkRequest;
use orlop::csi::proto::inspection::inspection_client::InspectionClient;
use orlop::host::namespace;
use serde_json::Value;
use support::{LoopFs, skipped};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// A person with a node.
struct Person {
    node: Node,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect(&self.err)
    }

    /// The cells of a table, which are two spaces or more apart.
    fn rows(&self) -> Vec<Vec<String>> {
        let cells = |line: &str| {
            let cells = line.split("  ").map(str::trim);
            let filled = cells.filter(|cell| !cell.is_empty());
            filled.map(str::to_owned).collect()
        };
        self.out.lines().map(cells).collect()
    }
}

impl Person {
    fn new(args: &[&str]) -> Self {
        let node = Node::start(args);
        Self { node }
    }

    /// Runs `orlop` with the words of this line and its node.
    fn tries(&self, line: &str) -> Ran {
        let staging = self.path("staging");
        let words = line.split_whitespace();
        let words = words.map(|word| word.replace('~', &self.path("").display().to_string()));
        let remote = [
            "--endpoint".to_owned(),
            self.node.socket.display().to_string(),
        ];
        orlop(words.chain(remote), &staging)
    }

    fn runs(&self, line: &str) -> Ran {
        let ran = self.tries(line);
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
        ran
    }

    fn path(&self, name: &str) -> PathBuf {
        self.node.dir.path().join(name)
    }
}

fn orlop(args: impl IntoIterator<Item = String>, staging: &Path) -> Ran {
    #[expect(clippy::disallowed_methods, reason = "a test starts what it tests")]
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_orlop"));
    let output = process
        .args(args)
        .env("ORLOP_STAGING", staging)
        .env_remove("CSI_ENDPOINT")
        .output()
        .expect("cargo built the binary");
    Ran {
        code: output.status.code().expect("nobody killed it"),
        out: String::from_utf8(output.stdout).expect("it prints text"),
        err: String::from_utf8(output.stderr).expect("it prints text"),
    }
}

/// Lets a person work where mounts are nobody else's; skips the test, and says so, without the right to that.
fn with_mounts(test: impl FnOnce(Person) + Send) {
    if !rustix::process::geteuid().is_root() {
        skipped("mounting by the command line", "it needs root");
        return;
    }
    namespace::in_own_mounts(|| test(Person::new(&[]))).expect("root may make a mount namespace");
}

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
fn a_volume_that_is_mounted_twice_is_staged_until_the_last_unmount() {
    with_mounts(|person| {
        person.runs("volume create data --size 1GiB");

        let first = person.runs("volume mount default/data ~/one");
        person.runs("volume mount default/data ~/two --read-only");
        fs::write(person.path("one/row"), "42").expect("it is writable");
        let denied = fs::write(person.path("two/row"), "43");
        let seen = fs::read_to_string(person.path("two/row"));
        let shown = person.runs("volume inspect default/data -o json").json();
        let refused = person.tries("volume rm default/data");
        person.runs("volume unmount default/data ~/one");
        let after_one = person.path("staging/default/data").join("row").exists();
        person.runs("volume unmount default/data ~/two");
        let after_both = person.path("staging/default/data").exists();
        let removed = person.runs("volume rm default/data");

        assert!(first.out.ends_with("one\n"), "{first:?}");
        assert!(denied.is_err() && seen.is_ok_and(|row| row == "42"));
        let mounts = shown["mounts"].as_array().expect("a list");
        assert_eq!(mounts.len(), 3, "{shown}");
        assert!(shown["bytes"]["total"].as_u64() > Some(0), "{shown}");
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("orlop volume unmount"), "{refused:?}");
        assert!(after_one && !after_both);
        assert!(!person.path("one").exists() && !person.path("two").exists());
        assert_eq!(removed.out, "default/data removed\n");
    });
}

#[test]
fn a_block_volume_is_mounted_as_a_device() {
    with_mounts(|person| {
        person.runs("volume create raw --size 8MiB --block");

        person.runs("volume mount default/raw ~/device");
        let kind = fs::metadata(person.path("device")).map(|found| found.file_type());
        let shown = person.runs("volume inspect default/raw");
        person.runs("volume unmount default/raw ~/device");

        assert!(kind.is_ok_and(|kind| kind.is_block_device()));
        assert!(shown.out.contains("device"), "{}", shown.out);
        person.runs("volume rm default/raw");
    });
}

#[test]
fn a_volume_is_mounted_where_a_symlink_and_dots_lead() {
    with_mounts(|person| {
        person.runs("volume create data --size 1MiB");
        fs::create_dir(person.path("real")).expect("it is new");
        symlink(person.path("real"), person.path("link")).expect("it is new");

        let mounted = person.runs("volume mount default/data ~/link/../link/at/");
        fs::write(person.path("real/at/row"), "42").expect("it is mounted there");
        person.runs("volume unmount default/data ~/link/at");

        assert!(mounted.out.ends_with("/real/at\n"), "{mounted:?}");
        assert!(!person.path("real/at").exists());
    });
}

#[test]
fn a_mount_that_fails_leaves_nothing_staged() {
    with_mounts(|person| {
        person.runs("volume create data --size 1MiB");
        fs::write(person.path("file"), "no directory").expect("it is new");

        let failed = person.tries("volume mount default/data ~/file");

        assert_eq!(failed.code, 1, "{failed:?}");
        assert!(!person.path("staging/default/data").exists());
        person.runs("volume rm default/data");
    });
}

#[test]
fn a_mount_that_would_hide_the_pool_is_refused() {
    with_mounts(|person| {
        person.runs("volume create data --size 1MiB");

        for path in ["~/data", "~/data/default", "~/data/default/volumes/x"] {
            let refused = person.tries(&format!("volume mount default/data {path}"));

            assert_eq!(refused.code, 2, "{refused:?}");
            assert!(refused.err.contains("choose a path outside"), "{refused:?}");
        }
        person.runs("volume inspect default/data");
    });
}

#[test]
fn what_a_snapshot_holds_is_back_in_a_larger_volume() {
    with_mounts(|person| {
        person.runs("volume create data --size 1GiB");
        person.runs("volume mount default/data ~/mnt");
        fs::write(person.path("mnt/row"), "42").expect("it is mounted");

        let taken = person.runs("snapshot create default/data monday");
        fs::remove_file(person.path("mnt/row")).expect("it was written");
        let restored = person.runs("snapshot restore default/data@monday back --size 2GiB");
        person.runs("volume mount default/back ~/back");
        let row = fs::read_to_string(person.path("back/row"));
        let table = person.runs("snapshot ls --volume default/data").rows();
        let shown = person.runs("volume inspect default/back");

        assert_eq!(taken.out, "default/data@monday taken: 1GiB\n");
        assert_eq!(
            restored.out,
            "default/back restored from default/data@monday: 2GiB\n"
        );
        assert!(row.is_ok_and(|row| row == "42"));
        assert_eq!(table[0], ["ID", "VOLUME", "SIZE", "CREATED", "READY"]);
        assert_eq!(
            table[1][..3],
            ["default/data@monday", "default/data", "1GiB"]
        );
        assert!(
            shown.out.contains("snapshot default/data@monday"),
            "{}",
            shown.out
        );
        person.runs("snapshot rm default/data@monday");
        assert!(person.runs("snapshot ls -o name").out.is_empty());
    });
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
fn the_doctor_looks_at_a_node_and_its_pools() {
    let person = Person::new(&[]);

    let table = person.tries("doctor");
    let findings = person.tries("doctor --json").json();

    assert_eq!(table.rows()[0], ["STATUS", "CHECK", "FOUND"]);
    for check in ["kernel", "openat2", "CAP_SYS_ADMIN", "mkfs.xfs", "kubelet"] {
        assert!(finding(&findings, check).is_some(), "{check}: {findings}");
    }
    let status = |check| finding(&findings, check).map(|found| found["status"].clone());
    assert_eq!(status("socket"), Some("ok".into()));
    assert_eq!(status("pool default"), Some("ok".into()));
    assert_eq!(status("pool default: sizes of trees"), Some("warn".into()));
    assert!(status("pool default: FICLONE").is_some());
}

#[test]
fn the_doctor_works_without_a_node_and_makes_nothing() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let doctor = |pools: [&str; 2]| {
        let socket = at("missing.sock");
        let fixed = ["doctor", "-o", "json", "--endpoint", &socket];
        orlop(
            fixed.into_iter().chain(pools).map(str::to_owned),
            dir.path(),
        )
    };
    let pools = at("pools.yaml");
    let gone = "pools:\n  - { name: gone, directory: { path: /nowhere } }\n";
    fs::write(&pools, gone).expect("the directory can be written");

    let embedded = doctor(["--data", &at("data")]).json();
    let missing = doctor(["--pools", &pools]);

    let status = |findings: &Value, check| finding(findings, check).map(|it| it["status"].clone());
    assert_eq!(status(&embedded, "socket"), Some("warn".into()));
    assert_eq!(status(&embedded, "pool default"), Some("ok".into()));
    assert!(!dir.path().join("data").exists());
    assert_eq!(status(&missing.json(), "pool gone"), Some("bad".into()));
    assert_eq!(missing.code, 1);
    assert_eq!(missing.err.lines().count(), 1);
}

fn finding<'a>(findings: &'a Value, check: &str) -> Option<&'a Value> {
    let all = findings.as_array().expect("a list");
    all.iter().find(|finding| finding["check"] == check)
}

#[test]
fn completions_know_the_commands() {
    let dir = tempfile::tempdir().expect("a directory can be made");

    let script = orlop(["completions", "bash"].map(str::to_owned), dir.path());

    assert_eq!(script.code, 0);
    assert!(script.out.contains("--require-quota"), "{}", script.out);
}
