//! How the process starts, refuses to, and ends.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};

use orlop::csi::proto::{GetPluginInfoRequest, NodeGetInfoRequest, ProbeRequest};

use crate::calls::{self, Client, MIB, text};
use crate::node::Node;
use crate::support::{Killed, run};
use crate::{PATIENCE, until};

const ORLOP: &str = env!("CARGO_BIN_EXE_orlop");

/// Why a node does not start with these arguments.
fn refusal(args: &[&str]) -> String {
    let tried = run(ORLOP, std::iter::once("node").chain(args.iter().copied()));
    tried.expect_err("it must not start").to_string()
}

#[tokio::test]
async fn only_root_may_connect_and_what_answers_is_this_driver() {
    let node = Node::start(&["--node-name", "worker-1"]);
    let mut client = Client::new(node.channel().await);

    let mode = fs::symlink_metadata(&node.socket)
        .expect("it serves")
        .permissions()
        .mode();
    let plugin = client
        .identity
        .get_plugin_info(GetPluginInfoRequest {})
        .await;
    let probe = client.identity.probe(ProbeRequest {}).await;
    let info = client.node.node_get_info(NodeGetInfoRequest {}).await;

    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(
        plugin.expect("it answers").into_inner().name,
        "csi.orlop.dev"
    );
    assert_eq!(probe.expect("it answers").into_inner().ready, Some(true));
    let info = info.expect("it answers").into_inner();
    let topology = info
        .accessible_topology
        .expect("volumes are on one node")
        .segments;
    assert_eq!(
        (&*info.node_id, &*topology["topology.orlop.dev/node"]),
        ("worker-1", "worker-1")
    );
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_or_another_file_left() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let (live, file) = (dir.path().join("live.sock"), dir.path().join("file"));
    let _listener = UnixListener::bind(&live).expect("the name is free");
    fs::write(&file, "precious").expect("the name is free");
    let data = text(&dir.path().join("data"));
    let mut node = Node::start(&[]);

    let to_live = refusal(&["--endpoint", &text(&live), "--data", &data]);
    let to_file = refusal(&["--endpoint", &text(&file), "--data", &data]);
    node.kill();
    assert!(node.socket.exists(), "a killed process leaves its socket");
    node.start_again();

    assert!(
        to_live.contains("another process serves") && to_live.contains("choose another endpoint"),
        "{to_live}"
    );
    assert!(to_file.contains("is not a socket"), "{to_file}");
    assert_eq!(fs::read(&file).expect("it is there"), b"precious");
}

#[test]
fn a_second_process_on_the_same_pool_is_refused() {
    let node = Node::start(&[]);
    let (socket, data) = (
        node.dir.path().join("second.sock"),
        node.dir.path().join("data"),
    );

    let said = refusal(&["--endpoint", &text(&socket), "--data", &text(&data)]);

    assert!(
        said.contains("in use by another orlop process") && said.contains("pool default"),
        "{said}"
    );
    assert!(!socket.exists());
}

#[test]
fn a_pools_file_that_is_wrong_is_told_with_file_line_and_key() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let file = dir.path().join("pools.yaml");
    let place = text(dir.path());
    let cases = [
        (
            format!("pools:\n  - name: a\n    directory: {{ path: {place} }}\n    sise: 3\n"),
            "sise",
        ),
        (
            format!("pools:\n  - name: a\n    directory:\n      path: {place}\n      quota: on\n"),
            "quota",
        ),
        ("pols: []\n".to_owned(), "pols"),
        ("pools: []\n".to_owned(), "names no pool"),
        (
            format!("pools:\n  - name: A_b\n    directory: {{ path: {place} }}\n"),
            "A_b",
        ),
        (
            format!("pools:\n  - name: a\n    btrfs: {{ path: {place} }}\n"),
            "is not on btrfs",
        ),
        (
            format!("pools:\n  - name: a\n    directory: {{ path: {place}/none }}\n"),
            "make ",
        ),
    ];

    for (yaml, word) in cases {
        fs::write(&file, &yaml).expect("it can be written");
        let said = refusal(&[
            "--endpoint",
            &text(&dir.path().join("s")),
            "--pools",
            &text(&file),
        ]);

        assert!(said.contains(word), "{yaml}{said}");
        // The first line is the one that is not told.
        let parsed = !["pols", "names no pool", "is not on btrfs", "make "].contains(&word);
        assert!(
            !parsed || (said.contains("pools.yaml") && said.contains("line")),
            "{yaml}{said}"
        );
    }
    let said = refusal(&[
        "--endpoint",
        &text(&dir.path().join("s")),
        "--pools",
        "/nowhere.yaml",
    ]);
    assert!(said.contains("/nowhere.yaml"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_runs_at_sigterm_is_answered() {
    let mut node = Node::start(&[]);
    let mut client = Client::new(node.channel().await);
    let id = client
        .create(calls::volume("big", MIB))
        .await
        .expect("there is room")
        .volume_id;
    let pool = node.dir.path().join("data/default");
    for number in 0..3000 {
        fs::write(pool.join(format!("volumes/big/data/{number}")), "x").expect("there is room");
    }
    let call = tokio::spawn(async move { client.snapshot("slow", &id).await });
    until("the copy begins", || {
        pool.join("making/s-slow/data").exists()
    })
    .await;

    let status = node.stop();

    assert!(status.success(), "{}", node.log());
    call.await
        .expect("no panic")
        .expect("it was let through to the end");
    assert!(pool.join("snapshots/slow").exists() && !node.socket.exists());
}

#[tokio::test]
async fn systemd_is_told_when_clients_are_served() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let (notify, socket) = (dir.path().join("notify"), dir.path().join("csi.sock"));
    let systemd = UnixDatagram::bind(&notify).expect("the name is free");
    systemd
        .set_read_timeout(Some(PATIENCE))
        .expect("it is a socket");
    #[expect(clippy::disallowed_methods, reason = "a test starts what it tests")]
    let child = std::process::Command::new(ORLOP)
        .args([
            OsStr::new("node"),
            "--endpoint".as_ref(),
            socket.as_ref(),
            "--data".as_ref(),
            dir.path().as_ref(),
        ])
        .env("NOTIFY_SOCKET", &notify)
        .stdout(std::process::Stdio::null())
        .spawn();
    let _child = Killed(child.expect("cargo built the binary"));
    let mut told = [0; 64];

    let length = systemd.recv(&mut told).expect("it is told in time");

    assert_eq!(told[..length].trim_ascii_end(), b"READY=1");
    std::os::unix::net::UnixStream::connect(&socket).expect("it serves by then");
}
