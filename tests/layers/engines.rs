//! Podman and Docker that `orlop layers configure` has told of the mirror: with the mirror there, gone, and taken back.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orlop::host::command::Command;
use orlop::layers::image::digest::Digest;
use orlop::layers::wiring::Kind;
use parking_lot::Mutex;

use crate::cache::{Cache, settings};
use crate::clients::{image_of, installed, tool};
use crate::noise::noise;
use crate::upstream::Upstream;
use crate::wiring::{Node, name};

/// What the mirror has had from upstream.
const RECEIVED: &str = "layers_received_bytes_total{source=\"upstream\"}";
/// Of Podman's and Docker's pulls: an image of one file takes them seconds, on a busy machine tens of them.
const LIMIT: Duration = Duration::from_mins(2);

/// An image that can be unpacked, in `a/b:v1`; the digest of its layer.
fn unpackable(upstream: &Upstream, seed: u64) -> String {
    let file = noise(seed, 2 << 20);
    let mut header = tar::Header::new_gnu();
    header.set_size(file.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    let added = archive.append_data(&mut header, "noise", &*file);
    added.expect("it is in memory");
    let layer = archive.into_inner().expect("it is in memory");
    let unpacked = format!("{:?}", Digest::of(&layer).to_string());
    image_of(upstream, &[layer], &unpacked).remove(0)
}

fn can_run(program: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: a test of {program}, which wants root");
    }
    root && installed(program)
}

/// Runs Podman with the configuration of this node, in mounts of its own that end with it; what it stores is the node's.
async fn podman(node: &Node, args: &[&str]) -> anyhow::Result<String> {
    let script = "mount --bind \"$1\" /etc/containers && mount -t tmpfs tmpfs /var/lib && shift && exec podman \"$@\"";
    let command = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(node.path("etc/containers"))
        .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
        .args(
            ["--root", "--runroot", "--tmpdir", "--network-config-dir"]
                .iter()
                .flat_map(|option| {
                    [
                        option.into(),
                        node.path(option.trim_start_matches('-')).into_os_string(),
                    ]
                }),
        )
        .args(args);
    tool(command.limit(LIMIT)).await
}

/// Pulls anew; whether the layer is there then.
async fn pulls(node: &Node, image: &str, layer: &str) -> bool {
    let removed = podman(node, &["rmi", "--force", "--all"]).await;
    removed.expect("it is removed");
    podman(node, &["pull", image]).await.expect("it pulls");
    let layers = ["image", "inspect", "--format", "{{.RootFS.Layers}}", image];
    let layers = podman(node, &layers).await.expect("it is there");
    layers.contains(layer)
}

#[tokio::test]
async fn podman_pulls_by_the_mirror_past_it_when_it_is_gone_and_as_before_when_that_is_taken_back()
{
    if !can_run("podman") {
        return;
    }
    let upstream = Upstream::start().await;
    let layer = unpackable(&upstream, 1);
    let (_, registry) = name(&upstream);
    let image = "registry.test/a/b:v1";
    let node = Node::new(Kind::Podman);
    let folder = node.path("etc/containers");
    fs::create_dir_all(folder.join("registries.conf.d")).expect("it is ours");
    let accept = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}";
    fs::write(folder.join("policy.json"), accept).expect("it is ours");
    // As an administrator has it who knows where this registry is, and that it has no TLS.
    let own = format!(
        "[[registry]]\nprefix = \"registry.test\"\nlocation = \"{registry}\"\ninsecure = true\n"
    );
    fs::write(folder.join("registries.conf"), &own).expect("it is ours");
    let asked = || upstream.asked(&["GET", "/blobs/", &layer]).len();
    let cache = Cache::of(&upstream).await;

    node.configure(&cache.url, "registry.test");
    assert!(pulls(&node, image, &layer).await);
    assert!(cache.metric(RECEIVED) > Some(2e6));
    // What the mirror has, upstream is not asked for again.
    assert!(pulls(&node, image, &layer).await);
    assert_eq!(asked(), 1);
    drop(cache);
    assert!(pulls(&node, image, &layer).await);
    assert_eq!(asked(), 2);

    node.restore();
    let left = fs::read_dir(folder.join("registries.conf.d")).expect("it is a folder");
    assert_eq!(left.count(), 0);
    let now = fs::read_to_string(folder.join("registries.conf"));
    assert_eq!(now.expect("it is there"), own);
    assert!(pulls(&node, image, &layer).await);
}

/// A Docker Engine of the test's own, process 1 of its own: with it end its containerd and its mounts.
struct Engine {
    process: Child,
    folder: tempfile::TempDir,
}

impl Engine {
    /// One that reads this `daemon.json`, and goes out to the world by a proxy alone.
    fn start(config: &Path, proxy: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = |option, name| format!("--{option}{}", folder.path().join(name).display());
        let log = fs::File::create(folder.path().join("log")).expect("it is ours");
        let unshare = "--pid --fork --kill-child --mount-proc --propagation slave dockerd --bridge=none \
                       --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false --userland-proxy=false \
                       --oom-score-adjust=0 --storage-driver=vfs --config-file";
        #[expect(
            clippy::disallowed_methods,
            reason = "a daemon outlives the call that starts it"
        )]
        let process = std::process::Command::new("unshare")
            .args(unshare.split_whitespace())
            .arg(config)
            .args([
                place("data-root=", "data"),
                place("exec-root=", "exec"),
                place("pidfile=", "pid"),
                place("host=unix://", "sock"),
            ])
            .env("HTTPS_PROXY", proxy)
            .env_remove("NO_PROXY")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        Self { process, folder }
    }

    async fn docker(&self, args: &[&str]) -> anyhow::Result<String> {
        let host = format!("unix://{}", self.folder.path().join("sock").display());
        let command = Command::new("docker").args(["--host", &host]).args(args);
        tool(command.limit(LIMIT)).await
    }

    async fn serves(&self) {
        for _ in 0..600 {
            if self.docker(&["version"]).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not serve:\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of the engine:\n{}", self.log());
        }
    }
}

/// A proxy that notes where it was asked to connect, and never does; its address.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", port.local_addr().expect("it listens"));
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = asked.clone();
    std::thread::spawn(move || {
        for connection in port.incoming().flatten() {
            let mut line = String::new();
            // One that says nothing is none.
            let _ = BufReader::new(connection).read_line(&mut line);
            noted.lock().push(line);
        }
    });
    (address, asked)
}

#[tokio::test]
async fn docker_pulls_by_the_mirror_and_turns_to_docker_hub_when_it_is_gone() {
    if !can_run("dockerd") || !installed("docker") {
        return;
    }
    let upstream = Upstream::start().await;
    let layer = unpackable(&upstream, 2);
    let node = Node::new(Kind::Docker);
    let config = node.path("etc/docker/daemon.json");
    fs::create_dir_all(config.parent().expect("it lies in a folder")).expect("it is ours");
    let own = "{ \"max-concurrent-downloads\": 2 }";
    fs::write(&config, own).expect("it is ours");
    let kept = tempfile::tempdir().expect("a temporary folder");
    let cache = Cache::start(settings(&upstream, kept.path().to_owned())).await;
    node.configure(&cache.url, "docker.io");
    let (address, asked) = proxy();
    let hub = || {
        let asked = asked.lock();
        asked
            .iter()
            .any(|line| line.starts_with("CONNECT registry-1.docker.io:443"))
    };
    let engine = Engine::start(&config, &address);
    engine.serves().await;

    let pulled = engine.docker(&["pull", "docker.io/a/b:v1"]).await;
    pulled.expect("it pulls by the mirror");
    let layers = [
        "image",
        "inspect",
        "--format",
        "{{.RootFS.Layers}}",
        "a/b:v1",
    ];
    let layers = engine.docker(&layers).await.expect("it is there");
    assert!(layers.contains(&layer), "{layers}");
    assert!(cache.metric(RECEIVED) > Some(2e6));
    assert!(!hub(), "{asked:?}");

    drop(cache);
    let removed = engine.docker(&["image", "rm", "a/b:v1"]).await;
    removed.expect("it is removed");
    let failed = engine.docker(&["pull", "docker.io/a/b:v1"]).await;
    failed.expect_err("there is no way to Docker Hub");
    assert!(hub(), "{asked:?}");

    node.restore();
    assert_eq!(fs::read_to_string(&config).expect("it is there"), own);
}
