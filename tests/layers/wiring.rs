//! Runtimes that `orlop layers configure` has told of the mirror: real ones, with the mirror there and gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orlop::host::command::Command;
use orlop::layers::wiring::{Kind, Target, Wiring};

use crate::cache::Cache;
use crate::clients::{Containerd, image, installed, tool};
use crate::noise::noise;
use crate::upstream::Upstream;

const MIB: usize = 1 << 20;

/// The configuration of a node, in a folder of the test.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    wiring: Wiring,
}

impl Node {
    pub(crate) fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let wiring = Wiring {
            runtimes: vec![kind],
            root: folder.path().to_owned(),
            certs_d: None,
        };
        Self { folder, wiring }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn configure(&self, mirror: &str, registry: &str) -> Vec<bool> {
        let target = Target {
            mirror: mirror.to_owned(),
            registries: vec![registry.to_owned()],
        };
        let outcomes = self.wiring.configure(&target, &|| Ok(()));
        let outcomes = outcomes.expect("it is configured");
        outcomes.iter().map(|outcome| outcome.changed).collect()
    }

    pub(crate) fn restore(&self) {
        let restored = self.wiring.restore(false, &|| Ok(()));
        restored.expect("it is given back");
    }
}

/// The name of the image at a registry on loopback, which needs no `registry.test` to resolve.
pub(crate) fn name(upstream: &Upstream) -> (String, String) {
    let registry = upstream.url.trim_start_matches("http://").to_owned();
    (format!("{registry}/a/b:v1"), registry)
}

#[tokio::test]
async fn containerd_pulls_by_the_mirror_and_without_it_when_it_is_gone() {
    let (Some(first), Some(second)) = (Containerd::start(), Containerd::start()) else {
        return;
    };
    let upstream = Upstream::start().await;
    let layers = image(&upstream, &[noise(1, 2 * MIB)]);
    let (name, registry) = name(&upstream);
    let cache = Cache::of(&upstream).await;
    let node = Node::new(Kind::Containerd);
    let certs_d = node.path("etc/containerd/certs.d");
    assert_eq!(node.configure(&cache.url, &registry), [true]);

    first.fetch(&certs_d, &name).await.expect("it pulls");
    let by_mirror = cache.metric("layers_received_bytes_total{source=\"upstream\"}");
    drop(cache);
    let begun = Instant::now();
    second
        .fetch(&certs_d, &name)
        .await
        .expect("it pulls without the mirror");

    assert!(first.holds(&layers[0]) && second.holds(&layers[0]));
    assert!(by_mirror.is_some_and(|bytes| bytes > 2e6), "{by_mirror:?}");
    // Six requests at most find nobody; each would cost a dial time-out if the mirror were silent.
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn skopeo_pulls_by_the_mirror_and_without_it_when_it_is_gone() {
    if !installed("skopeo") {
        return;
    }
    let upstream = Upstream::start().await;
    let layers = image(&upstream, &[noise(2, 2 * MIB)]);
    let (_, registry) = name(&upstream);
    let name = "registry.test/a/b:v1";
    let cache = Cache::of(&upstream).await;
    let node = Node::new(Kind::Podman);
    // As an administrator has it who knows where this registry is, and that it has no TLS.
    let folder = node.path("etc/containers");
    fs::create_dir_all(&folder).expect("it is ours");
    let own = format!(
        "[[registry]]\nprefix = \"registry.test\"\nlocation = \"{registry}\"\ninsecure = true\n"
    );
    fs::write(folder.join("registries.conf"), own).expect("it is ours");
    node.configure(&cache.url, "registry.test");
    let conf = folder.join("registries.conf.d/zz-orlop.conf");

    let first = node.path("first");
    copy(&conf, name, &first).await.expect("it copies");
    let by_mirror = cache.metric("layers_received_bytes_total{source=\"upstream\"}");
    drop(cache);
    let second = node.path("second");
    copy(&conf, name, &second)
        .await
        .expect("it copies without the mirror");

    let layer = layers[0].trim_start_matches("sha256:");
    assert!(first.join(layer).exists() && second.join(layer).exists());
    assert!(by_mirror.is_some_and(|bytes| bytes > 2e6), "{by_mirror:?}");
}

async fn copy(conf: &Path, image: &str, to: &Path) -> anyhow::Result<String> {
    let command = Command::new("skopeo")
        .args(["--insecure-policy", "--registries-conf"])
        .arg(conf)
        .args(["copy", &format!("docker://{image}")])
        .arg(format!("dir:{}", to.display()));
    tool(command).await
}

#[test]
fn what_was_there_comes_back_byte_for_byte() {
    let node = Node::new(Kind::Containerd);
    let own = node.path("etc/containerd/certs.d/registry.test/hosts.toml");
    let text = "# mine\nserver = \"https://registry.test\"\n\n[host.\"https://other.test\"]\n";
    fs::create_dir_all(own.parent().expect("it lies in a folder")).expect("it is ours");
    fs::write(&own, text).expect("it is ours");

    let changed = node.configure("http://127.0.0.1:5052", "registry.test");
    let again = node.configure("http://127.0.0.1:5052/", "registry.test");
    let merged = fs::read_to_string(&own).expect("it is there");
    node.restore();

    assert_eq!((changed, again), (vec![true, true], vec![false, false]));
    let (ours, other) = (
        "host.\"http://127.0.0.1:5052\"",
        "host.\"https://other.test\"",
    );
    assert!(merged.find(ours) < merged.find(other) && merged.contains(ours));
    assert_eq!(fs::read_to_string(&own).expect("it is there"), text);
    let left = fs::read_dir(node.path("etc/containerd/certs.d")).expect("it is a folder");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["registry.test"]);
    let files = fs::read_dir(own.parent().expect("it lies in a folder")).expect("it is a folder");
    assert_eq!(files.count(), 1);
}
