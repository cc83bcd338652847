//! What people do with the cache: the command line itself, against caches that run.

use std::time::Duration;

use orlop::host::command::Command;
use orlop::layers::image::digest::Digest;
use serde_json::Value;

use crate::cache::{Cache, eventually, settings};
use crate::clients::{descriptor, image, installed, tool};
use crate::cluster::Cluster;
use crate::noise::noise;
use crate::upstream::Upstream;

const MIB: usize = 1 << 20;

async fn orlop(cache: &Cache, args: &[&str]) -> anyhow::Result<String> {
    let command = Command::new(env!("CARGO_BIN_EXE_orlop"))
        .arg("layers")
        .args(args)
        .arg("--cache")
        .arg(cache.folder());
    tool(command).await
}

async fn json(cache: &Cache, args: &[&str]) -> Value {
    let args: Vec<_> = args.iter().copied().chain(["-o", "json"]).collect();
    let text = orlop(cache, &args).await.expect("it answers");
    serde_json::from_str(&text).expect("it is JSON")
}

#[tokio::test]
async fn an_image_is_prefetched_on_all_nodes_by_one_fetch() {
    let upstream = Upstream::start().await;
    let layers = image(&upstream, &[noise(1, 3 * MIB), noise(2, 1000)]);
    let cluster = Cluster::of(&upstream, 3).await;

    let ends = json(&cluster.nodes[0], &["prefetch", "registry.test/a/b:v1"]).await;

    let ends = ends.as_array().expect("it is a list");
    assert_eq!(ends.len(), 3, "{ends:?}");
    for end in ends {
        assert_eq!(end["state"], "done", "{end}");
        assert_eq!(end["doneBytes"], end["totalBytes"]);
    }
    for node in &cluster.nodes {
        node.kept(&layers[0]).await;
    }
    assert_eq!(upstream.asked(&["GET", &layers[0]]).len(), 1);

    let missing = orlop(
        &cluster.nodes[0],
        &["prefetch", "--here", "registry.test/a/b:no"],
    )
    .await;
    let why = missing.expect_err("there is no such tag").to_string();
    assert!(why.contains("no such thing"), "{why}");
}

#[tokio::test]
async fn blobs_and_peers_are_listed_and_blobs_dropped() {
    let upstream = Upstream::start().await;
    let cluster = Cluster::of(&upstream, 2).await;
    let node = &cluster.nodes[0];
    let digest = upstream.blob("a/b", &noise(3, 2 * MIB));
    node.get(&format!("/v2/a/b/blobs/{digest}?ns=registry.test"))
        .await;
    node.kept(&digest).await;

    let blobs = json(node, &["ls"]).await;
    let peers = json(node, &["peers"]).await;
    let stats = json(node, &["stats"]).await;
    let removed = orlop(node, &["rm", &digest]).await;
    let again = orlop(node, &["rm", &digest]).await;

    assert_eq!(blobs[0]["digest"], digest.as_str());
    assert_eq!(blobs[0]["sizeBytes"], 2 * MIB);
    assert_eq!(peers.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&stats["blobs"], &stats["usedBytes"]),
        (&1.into(), &(2 * MIB).into())
    );
    assert_eq!(
        removed.expect("it is dropped"),
        format!("{digest} removed\n")
    );
    assert!(
        again
            .expect_err("it is gone")
            .to_string()
            .contains("not here")
    );
    assert!(!node.file(&digest).exists());
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let upstream = Upstream::start().await;
    let cache = Cache::of(&upstream).await;
    let socket = cache.folder().join("admin.sock");

    eventually(|| socket.exists()).await;

    let mode = socket.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn an_imported_image_is_served_to_all_nodes_without_any_registry() {
    if !installed("skopeo") {
        return;
    }
    let upstream = Upstream::start().await;
    runnable(&upstream);
    let registry = upstream.url.trim_start_matches("http://").to_owned();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cluster = Cluster::of(&upstream, 2).await;
    for (kind, name) in [
        ("oci-archive", "offline.test/x/oci:v1"),
        ("docker-archive", "offline.test/x/docker:v1"),
    ] {
        let file = folder.path().join(format!("{kind}.tar"));
        let copy = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
            .arg(format!("docker://{registry}/a/b:v1"))
            .arg(format!("{kind}:{}:{name}", file.display()));
        tool(copy).await.expect("skopeo writes an archive");
        let file = file.display().to_string();

        let imported = json(&cluster.nodes[0], &["import", &file]).await;

        assert_eq!(imported[0]["image"], name);
        let path = name.trim_start_matches("offline.test/").replace(":v1", "");
        for node in &cluster.nodes {
            let tag = format!("/v2/{path}/manifests/v1?ns=offline.test");
            let manifest = served(node, &tag).await;
            let layer = layer_of(&manifest);
            let blob = format!("/v2/{path}/blobs/{layer}?ns=offline.test");
            let bytes = served(node, &blob).await;
            assert_eq!(Digest::of(&bytes).to_string(), layer);
        }
    }
    let asked = upstream.asked(&["offline"]);
    assert_eq!(asked, [""; 0]);
}

#[tokio::test]
async fn an_import_outlives_a_restart_and_the_quota_and_goes_when_it_is_removed() {
    if !installed("skopeo") {
        return;
    }
    let upstream = Upstream::start().await;
    runnable(&upstream);
    let registry = upstream.url.trim_start_matches("http://").to_owned();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("layout");
    let copy = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
        .arg(format!("docker://{registry}/a/b:v1"))
        .arg(format!("oci:{}:v1", file.display()));
    tool(copy).await.expect("skopeo writes a layout");
    let file = file.display().to_string();
    let mut small = settings(&upstream, folder.path().join("cache"));
    small.quota_mib = 4;
    let mut cache = Cache::start(small.clone()).await;

    let nameless = orlop(&cache, &["import", &file]).await;
    let why = nameless.expect_err("it has no whole name").to_string();
    assert!(why.contains("--name"), "{why}");
    let named = ["import", &file, "--name", "offline.test/x/y:v1"];
    orlop(&cache, &named).await.expect("it is imported");
    cache.kill();
    let cache = Cache::start(small).await;
    let other = upstream.blob("a/b", &noise(5, 3 * MIB));
    let seen = cache
        .get(&format!("/v2/a/b/blobs/{other}?ns=registry.test"))
        .await;

    assert!(seen.bytes() == noise(5, 3 * MIB));
    let manifest = served(&cache, "/v2/x/y/manifests/v1?ns=offline.test").await;
    let layer = layer_of(&manifest);
    let blob = format!("/v2/x/y/blobs/{layer}?ns=offline.test");
    let bytes = served(&cache, &blob).await;
    assert_eq!(Digest::of(&bytes).to_string(), layer);
    let rm = ["rm", "offline.test/x/y:v1"];
    orlop(&cache, &rm).await.expect("it is removed");
    assert!(!cache.file(&layer).exists());
}

/// The layer that a manifest lists: tools compress it as they like.
fn layer_of(manifest: &[u8]) -> String {
    let manifest: Value = serde_json::from_slice(manifest).expect("it is JSON");
    let layer = manifest["layers"][0]["digest"].as_str();
    layer.expect("it has a layer").to_owned()
}

/// An image that tools can convert, in `a/b:v1`.
fn runnable(upstream: &Upstream) {
    let layer = noise(4, 2 * MIB);
    let digest = upstream.blob("a/b", &layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"created_by":"a test"}}]}}"#
    );
    upstream.blob("a/b", config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        descriptor(
            "application/vnd.oci.image.config.v1+json",
            config.as_bytes()
        ),
        descriptor("application/vnd.oci.image.layer.v1.tar", &layer),
    );
    upstream.manifest("a/b", "v1", manifest.as_bytes());
}

/// What a node answers as soon as it does.
async fn served(node: &Cache, path: &str) -> Vec<u8> {
    let waiting = async {
        loop {
            let seen = node.get(path).await;
            if seen.status == 200 {
                return seen.bytes().to_vec();
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.unwrap_or_else(|_| panic!("{path} is not served"))
}
