//! Real clients against the mirror: containerd and skopeo, where they are installed.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use orlop::host::command::{Command, Runner, Tools};
use orlop::host::gate::Gate;
use orlop::layers::image::digest::Digest;
use tempfile::TempDir;

use crate::cache::{Cache, eventually};
use crate::noise::noise;
use crate::upstream::{Fault, Upstream};

const MIB: usize = 1 << 20;

/// A containerd of its own, without CRI; it ends with the test.
pub(crate) struct Containerd {
    process: Child,
    folder: TempDir,
}

impl Containerd {
    pub(crate) fn start() -> Option<Self> {
        if !installed("containerd") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("sock"),
            at("ttrpc"),
        );
        std::fs::write(folder.path().join("config.toml"), config).expect("it is ours");
        #[expect(
            clippy::disallowed_methods,
            reason = "a daemon outlives the call that starts it"
        )]
        let process = std::process::Command::new("containerd")
            .args(["--config", &at("config.toml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("containerd starts");
        Some(Self { process, folder })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    pub(crate) fn content(&self) -> PathBuf {
        self.folder
            .path()
            .join("root/io.containerd.content.v1.content")
    }

    pub(crate) fn holds(&self, digest: &str) -> bool {
        self.content()
            .join("blobs")
            .join(digest.replace(':', "/"))
            .exists()
    }

    /// Pulls an image by the mirror, and straight from upstream where the mirror has nothing.
    pub(crate) async fn pull(&self, cache: &Cache, upstream: &Upstream) -> anyhow::Result<String> {
        let hosts = self.folder.path().join("hosts");
        std::fs::create_dir_all(hosts.join("registry.test")).expect("it is ours");
        let text = format!(
            "server = \"{}\"\n[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
            upstream.url, cache.url,
        );
        std::fs::write(hosts.join("registry.test/hosts.toml"), text).expect("it is ours");
        self.fetch(&hosts, "registry.test/a/b:v1").await
    }

    /// Pulls an image as this folder of `hosts.toml` says.
    pub(crate) async fn fetch(&self, hosts: &Path, image: &str) -> anyhow::Result<String> {
        eventually(|| self.socket().exists()).await;
        let hosts = hosts.display().to_string();
        self.ctr(&["content", "fetch", "--hosts-dir", &hosts, image])
            .await
    }

    /// Writes a blob into containerd's store as some other mirror would.
    async fn ingest(&self, name: &str, digest: &str, bytes: Vec<u8>) -> anyhow::Result<String> {
        let socket = self.socket().display().to_string();
        let (size, digest) = (bytes.len(), digest.to_owned());
        let command = Command::new("ctr")
            .args(["--address", &socket, "content", "ingest"])
            .arg(format!("--expected-size={size}"))
            .arg(format!("--expected-digest={digest}"))
            .arg(name);
        tool(command.input(bytes)).await
    }

    pub(crate) async fn ctr(&self, args: &[&str]) -> anyhow::Result<String> {
        let socket = self.socket().display().to_string();
        tool(Command::new("ctr").args(["--address", &socket]).args(args)).await
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn installed(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|folder| folder.join(tool).exists());
    if !found {
        eprintln!("SKIPPED: a test of real clients, because {tool} is not installed");
    }
    found
}

pub(crate) async fn tool(command: Command) -> anyhow::Result<String> {
    let command = command.limit(Duration::from_mins(1));
    let run = move || Tools::new(Gate::open()).run(&command);
    tokio::task::spawn_blocking(run)
        .await
        .expect("it does not panic")
}

/// An image of these layers in `a/b:v1`; the digests of its layers.
pub(crate) fn image(upstream: &Upstream, layers: &[Vec<u8>]) -> Vec<String> {
    image_of(upstream, layers, "")
}

/// The same with the digests of what is unpacked from them.
pub(crate) fn image_of(upstream: &Upstream, layers: &[Vec<u8>], unpacked: &str) -> Vec<String> {
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{unpacked}]}}}}"#
    );
    let config = config.as_bytes();
    let digests: Vec<String> = layers
        .iter()
        .map(|layer| upstream.blob("a/b", layer))
        .collect();
    let described: Vec<String> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    upstream.blob("a/b", config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.oci.image.config.v1+json", config),
        described.join(","),
    );
    upstream.manifest("a/b", "v1", manifest.as_bytes());
    digests
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    let (digest, size) = (Digest::of(bytes), bytes.len());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

#[tokio::test]
async fn containerd_pulls_through_the_mirror_and_its_store_serves_others() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let upstream = Upstream::start().await;
    let layers = image(&upstream, &[noise(1, 3 * MIB), noise(2, 1000)]);
    let cache = Cache::of(&upstream).await;

    containerd.pull(&cache, &upstream).await.expect("it pulls");
    let sharing = Cache::with(&upstream, |settings| {
        settings.content = Some(containerd.content());
    })
    .await;
    let asked = upstream.asked(&["GET"]).len();
    let seen = sharing
        .get(&format!("/v2/a/b/blobs/{}?ns=registry.test", layers[0]))
        .await;

    assert!(layers.iter().all(|layer| containerd.holds(layer)));
    assert!(seen.bytes() == noise(1, 3 * MIB));
    assert_eq!(upstream.asked(&["GET"]).len(), asked);
    // A manifest, a configuration and two layers; the question for the tag is a HEAD.
    assert_eq!(asked, 4);
}

#[tokio::test]
async fn wrong_bytes_do_not_wedge_containerd() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let upstream = Upstream::start().await;
    let layers = image(&upstream, &[noise(3, 4 * MIB)]);
    upstream.fail(&layers[0], 4, Fault::Flip(5));
    let socket = containerd.socket();
    let cache = Cache::with(&upstream, |settings| settings.containerd = Some(socket)).await;

    let first = containerd.pull(&cache, &upstream).await;
    upstream.heal();
    let second = containerd.pull(&cache, &upstream).await;

    assert!(first.is_err());
    second.expect("the second pull succeeds");
    assert!(containerd.holds(&layers[0]));
}

#[tokio::test]
async fn a_full_ingest_with_wrong_bytes_is_aborted() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let upstream = Upstream::start().await;
    let layers = image(&upstream, &[noise(4, 2 * MIB)]);
    let mut wrong = noise(4, 2 * MIB);
    wrong[5] ^= 1;
    eventually(|| containerd.socket().exists()).await;
    let name = format!("layer-{}", layers[0]);
    let refused = containerd.ingest(&name, &layers[0], wrong).await;
    let refused = refused.expect_err("it is not the blob").to_string();
    assert!(refused.contains("unexpected commit digest"), "{refused}");
    let ingest = containerd.content().join("ingest");
    assert!(!is_empty(&ingest));

    let socket = containerd.socket();
    let cache = Cache::with(&upstream, |settings| settings.containerd = Some(socket)).await;
    eventually(|| is_empty(&ingest)).await;

    containerd.pull(&cache, &upstream).await.expect("it pulls");
    assert!(containerd.holds(&layers[0]));
}

#[tokio::test]
async fn skopeo_pulls_through_the_mirror() {
    if !installed("skopeo") {
        return;
    }
    let upstream = Upstream::start().await;
    let layers = image(&upstream, &[noise(5, 3 * MIB), noise(6, 1000)]);
    let cache = Cache::of(&upstream).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let conf = folder.path().join("registries.conf");
    let host = cache.url.trim_start_matches("http://");
    let text = format!(
        "[[registry]]\nlocation = \"registry.test\"\n[[registry.mirror]]\nlocation = \"{host}/registry.test\"\ninsecure = true\n"
    );
    std::fs::write(&conf, text).expect("it is ours");
    let target = folder.path().join("image");

    let copied = tool(
        Command::new("skopeo")
            .args(["--insecure-policy", "--registries-conf"])
            .arg(&conf)
            .args(["copy", "docker://registry.test/a/b:v1"])
            .arg(format!("dir:{}", target.display())),
    );
    copied.await.expect("it copies");

    for layer in layers {
        assert!(target.join(layer.trim_start_matches("sha256:")).exists());
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}
