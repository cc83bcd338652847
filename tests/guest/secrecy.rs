//! Keys of encrypted volumes: the tools get them by their input and nobody else does, and a wrong one changes nothing.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orlop::host::namespace;
use orlop::names::ENCRYPTION_KEY;
use orlop::volume::HEADER;
use sha2::{Digest, Sha256};

use crate::client::{Client, From};
use crate::encryption::{LARGER, SIZE, WRONG};
use crate::mapping;
use crate::node::Node;
use crate::support::form::KEY;
use crate::support::home::{Ground, Home};
use crate::support::run;

/// The tools that get keys, and what each is called for with one.
const TOOLS: [(&str, &[&str]); 2] = [
    ("cryptsetup", &["luksFormat", "open", "luksDump"]),
    ("zfs", &["create", "load-key"]),
];

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_tools_get_a_key_by_their_input_alone() {
    run("modprobe", ["dm_crypt"]).expect("the guest has it");
    let desk = tempfile::tempdir().expect("a temporary directory can be made");
    namespace::in_own_mounts(|| {
        let Some(home) = Ground::Zfs.make() else {
            return;
        };
        let told = overheard(desk.path());
        let (pools, place) = (desk.path().join("pools.yaml"), desk.path().join("pool"));
        fs::write(&pools, home.pools("pool", &place)).expect("there is room");
        let node = Node::start(&["--log", "trace", "--pools", &pools.display().to_string()]);
        let environment = fs::read(format!("/proc/{}/environ", node.pid()));
        let mut client = Client::of(&node);
        for (name, layout) in [("tree", "tree"), ("device", "device")] {
            live(&node, &mut client, name, layout);
        }

        let told = fs::read(told).expect("tools were started");
        for (tool, verbs) in TOOLS {
            for verb in verbs {
                assert!(holds(&told, verb.as_bytes()), "{tool} {verb} was not heard");
            }
        }
        let mut places = vec![
            (
                "the arguments and the environment of a tool".to_owned(),
                told,
            ),
            ("the node's own".to_owned(), environment.expect("it runs")),
        ];
        for top in [node.dir.path(), desk.path(), Path::new("/run/orlop")] {
            collect(top, &mut places);
        }
        assert!(places.iter().any(|(place, _)| place.ends_with("/log")));
        for key in [KEY, WRONG] {
            // ZFS is given what this makes of it.
            let digest = Sha256::digest(key);
            let hex = digest.iter().map(|byte| format!("{byte:02x}"));
            let hex = hex.collect::<String>();
            for secret in [key.as_bytes(), &digest, hex.as_bytes()] {
                let found = places.iter().find(|(_, content)| holds(content, secret));
                assert!(found.is_none(), "{:?}", found.map(|(place, _)| place));
            }
        }
    })
    .expect("root may make a mount namespace");
}

/// The life of an encrypted volume, also with a key that is not its own.
fn live(node: &Node, client: &mut Client, name: &str, layout: &'static str) {
    let at = |what: &str| node.dir.path().join(format!("{name}.{what}"));
    let (staging, target) = (at("staging"), at("target"));
    let class = [("encryption", "true"), ("layout", layout)];
    let id = client.create(name, SIZE.0, &class, &From::Nothing);
    let id = id.expect("there is room");
    client.key = Some(KEY);
    client.publish(&id, &staging, &target).expect("it is new");
    client.grow(&id, LARGER.0).expect("there is room");
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client.key = Some(WRONG);
    let refused = client.publish(&id, &staging, &target);
    client.key = Some(KEY);
    client
        .publish(&id, &staging, &target)
        .expect("it is its key");
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client.delete(&id).expect("it is mounted nowhere");

    let refused = refused.expect_err("it is not its key");
    assert!(refused.message().contains(ENCRYPTION_KEY), "{refused}");
    assert!(!refused.message().contains(WRONG), "{refused}");
}

/// Puts before each of the tools, in the mounts of this thread, one that writes down with what it is started.
fn overheard(desk: &Path) -> PathBuf {
    let told = desk.join("told");
    for (tool, _) in TOOLS {
        let (place, real) = (Path::new("/usr/sbin").join(tool), desk.join(tool));
        fs::copy(&place, &real).expect("the guest has it");
        let script = desk.join(format!("{tool}.sh"));
        let text = format!(
            "#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >>{}\nexec {} \"$@\"\n",
            told.display(),
            real.display()
        );
        fs::write(&script, text).expect("there is room");
        fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("it is ours");
        run(
            "mount",
            ["--bind".as_ref(), script.as_os_str(), place.as_ref()],
        )
        .expect("root may");
    }
    told
}

/// Reads the small files beneath a directory.
fn collect(top: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("it can be told"));
        if kind.is_dir() {
            collect(&path, found);
        } else if kind.is_file() {
            let content = fs::read(&path).expect("root may read it");
            found.push((path.display().to_string(), content));
        }
    }
}

fn holds(content: &[u8], what: &[u8]) -> bool {
    content.windows(what.len()).any(|window| window == what)
}

/// A node that serves directories on an ext4, and where they are.
fn directories(args: &[&str]) -> Option<(Home, PathBuf, Node)> {
    run("modprobe", ["dm_crypt"]).expect("the guest has it");
    let home = Ground::Directory("ext4").make()?;
    let place = home.path("unused".as_ref()).join("pool");
    let pools = tempfile::NamedTempFile::new().expect("a file can be made");
    fs::write(&pools, home.pools("pool", &place)).expect("it can be written");
    let pools = pools.path().display().to_string();
    let node = Node::start(&[args, &["--pools", &pools]].concat());
    Some((home, place, node))
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_wrong_key_leaves_every_byte_of_the_header() {
    let Some((_home, place, node)) = directories(&[]) else {
        return;
    };
    let mut client = Client::of(&node);
    let [staging, target] = ["staging", "target"].map(|name| node.dir.path().join(name));
    let class = [("encryption", "true"), ("layout", "image")];
    let id = client.create("one", SIZE.0, &class, &From::Nothing);
    let id = id.expect("there is room");
    let header = || {
        let image = File::open(place.join("volumes/one/image")).expect("it is there");
        let mut header = Vec::new();
        image
            .take(HEADER.0)
            .read_to_end(&mut header)
            .expect("it can be read");
        header
    };
    client.key = Some(KEY);
    client.publish(&id, &staging, &target).expect("it is new");
    fs::write(target.join("content"), "kept").expect("there is room");
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");

    let before = header();
    let mut after = Vec::new();
    for key in [Some(WRONG), None, Some("too short")] {
        client.key = key;
        let refused = client.publish(&id, &staging, &target);
        let refused = refused.expect_err("it is not its key");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        after.push(header());
    }
    client.key = Some(KEY);
    client
        .publish(&id, &staging, &target)
        .expect("it is its key");
    let kept = fs::read_to_string(target.join("content"));
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client.delete(&id).expect("it is mounted nowhere");

    assert!(before.starts_with(b"LUKS") && before.len() as u64 == HEADER.0);
    assert!(after.iter().all(|header| *header == before));
    assert_eq!(kept.expect("it was written"), "kept");
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_key_is_nowhere_but_in_the_kernel() {
    let Some((home, place, node)) = directories(&["--log", "trace"]) else {
        return;
    };
    let mut client = Client::of(&node);
    let [staging, target] = ["staging", "target"].map(|name| node.dir.path().join(name));
    let class = [("encryption", "true"), ("layout", "image")];

    let id = client
        .create("one", SIZE.0, &class, &From::Nothing)
        .expect("there is room");
    let without = client.publish(&id, &staging, &target);
    client.key = Some("too short");
    let short = client.publish(&id, &staging, &target);
    client.key = Some(KEY);
    client
        .publish(&id, &staging, &target)
        .expect("it has the key");
    let (device, raw) = mapping::devices();
    let processes = holders(node.pid());
    client
        .unpublish(&id, &staging, &target)
        .expect("nobody uses it");
    client.delete(&id).expect("it is mounted nowhere");

    for refused in [without, short] {
        let told = refused.expect_err("it has no key");
        assert_eq!(told.code(), tonic::Code::InvalidArgument);
        assert!(told.message().contains(ENCRYPTION_KEY), "{told}");
        assert!(!told.message().contains("too short"), "{told}");
    }
    assert!(node.log().contains("luksFormat"), "commands are logged");
    assert!(!node.log().contains(KEY), "the log has it");
    assert_eq!(processes, Vec::<PathBuf>::new());
    assert_ne!(device, raw);
    assert!(!mapping::holds(home.path(&place), KEY), "the disk has it");
}

/// What of a process tells its arguments or its environment, and has the key in it; of the tools that it started too.
fn holders(pid: u32) -> Vec<PathBuf> {
    ["cmdline", "environ"]
        .map(|file| PathBuf::from(format!("/proc/{pid}/{file}")))
        .into_iter()
        .filter(|path| mapping::holds(path, KEY))
        .collect()
}
