//! Caches on links of 100 Mbit/s, each in a network namespace of its own: how long a layer takes beside what the links
//! allow. Run by `cargo test --release --test layers links -- --ignored --nocapture --test-threads 1`, as root.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use orlop::host::command::{Command, Runner, Tools};
use orlop::host::gate::Gate;
use orlop::layers::image::digest::Digest;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::cache::{Cache, Doors, client, eventually, noise, settings};
use crate::cluster::join_all;
use crate::upstream::Upstream;

const RATE: f64 = 100e6;
const MIB: usize = 1 << 20;

/// Namespaces around one bridge; gone when dropped.
struct Net {
    name: String,
    made: Vec<String>,
}

/// One node on a link of its own.
struct Node {
    cache: Cache,
    #[expect(dead_code, reason = "the folder goes when the node does")]
    folder: TempDir,
}

fn run(line: &str) -> anyhow::Result<String> {
    let mut words = line.split(' ');
    let command = Command::new(words.next().expect("a program"));
    Tools::new(Gate::open()).run(&command.args(words))
}

impl Net {
    fn new() -> Option<Self> {
        let mut net = Self {
            name: format!("orlop{}", std::process::id()),
            made: Vec::new(),
        };
        let switch = net.namespace("switch").inspect_err(|error| {
            eprintln!("SKIPPED: shaped links, because no namespace could be made: {error:#}");
        });
        let switch = switch.ok()?;
        run(&format!("ip -n {switch} link add br0 type bridge")).expect("a bridge");
        run(&format!("ip -n {switch} link set br0 up")).expect("a bridge");
        Some(net)
    }

    fn namespace(&mut self, name: &str) -> anyhow::Result<String> {
        let name = format!("{}-{name}", self.name);
        run(&format!("ip netns add {name}"))?;
        self.made.push(name.clone());
        run(&format!("ip -n {name} link set lo up"))?;
        Ok(name)
    }

    /// A link of 100 Mbit/s both ways, and a runtime at its end.
    fn link(&mut self, at: u8) -> (Runtime, IpAddr) {
        let end = self.namespace(&format!("n{at}")).expect("a namespace");
        let switch = format!("{}-switch", self.name);
        let address = IpAddr::from([10, 77, 0, at]);
        for line in [
            format!("ip -n {switch} link add p{at} type veth peer name eth0 netns {end}"),
            format!("ip -n {switch} link set p{at} master br0 up"),
            format!("ip -n {end} addr add {address}/24 dev eth0"),
            format!("ip -n {end} link set eth0 up"),
            format!(
                "tc -n {end} qdisc add dev eth0 root tbf rate 100mbit burst 64kb latency 100ms"
            ),
            format!(
                "tc -n {switch} qdisc add dev p{at} root tbf rate 100mbit burst 64kb latency 100ms"
            ),
        ] {
            run(&line).expect("a link");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || enter(&end))
            .enable_all()
            .build();
        (runtime.expect("a runtime"), address)
    }

    async fn upstream(&mut self) -> (Runtime, Upstream) {
        let (runtime, address) = self.link(100);
        let upstream = runtime.spawn(Upstream::at(address)).await;
        (runtime, upstream.expect("it starts"))
    }

    async fn node(
        &mut self,
        at: u8,
        upstream: &Upstream,
        seeds: &[SocketAddr],
    ) -> (Node, SocketAddr) {
        let (runtime, address) = self.link(at);
        let doors = runtime.spawn_blocking(move || Doors::at(address)).await;
        let doors = doors.expect("sockets");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut settings = settings(upstream, folder.path().to_owned());
        settings.seeds = seeds.iter().map(SocketAddr::to_string).collect();
        settings.anyone = true;
        let peer = doors.address();
        let cache = Cache::on(runtime, settings, Some(doors)).await;
        (Node { cache, folder }, peer)
    }

    /// So many nodes that know each other.
    #[expect(clippy::cast_precision_loss, reason = "there are few")]
    async fn nodes(&mut self, count: u8, upstream: &Upstream) -> Vec<Node> {
        let (mut nodes, mut seeds) = (Vec::new(), Vec::new());
        for at in 1..=count {
            let (node, peer) = self.node(at, upstream, &seeds).await;
            nodes.push(node);
            seeds.push(peer);
        }
        let others = (nodes.len() - 1) as f64;
        eventually(|| {
            nodes
                .iter()
                .all(|node| node.cache.metric("layers_peers") == Some(others))
        })
        .await;
        nodes
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.made {
            let _ = run(&format!("ip netns del {name}"));
        }
    }
}

impl Node {
    /// Pulls blobs, three at a time as containerd does; when the first byte came, and when the last.
    fn pull(&self, digests: Vec<String>) -> impl Future<Output = (Duration, Duration)> + use<> {
        let url = self.cache.url.clone();
        let pulling = self.cache.runtime().spawn(async move {
            let (client, started) = (client(), Instant::now());
            let mut first = Duration::MAX;
            for three in digests.chunks(3) {
                let pulls = three.iter().map(|digest| {
                    let url = format!("{url}/v2/a/b/blobs/{digest}?ns=registry.test");
                    pull(client.clone(), url, digest.clone(), started)
                });
                for one in join_all(pulls).await {
                    first = first.min(one);
                }
            }
            (first, started.elapsed())
        });
        async move { pulling.await.expect("it pulls") }
    }
}

/// Moves this thread into a namespace.
fn enter(namespace: &str) {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("it was made");
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(kind))
        .expect("we are root");
}

/// When the first byte came; the whole is checked.
async fn pull(client: reqwest::Client, url: String, digest: String, started: Instant) -> Duration {
    let digest: Digest = digest.parse().expect("a digest");
    let mut response = client.get(url).send().await.expect("it answers");
    let (mut first, mut sum) = (None, digest.sum());
    while let Some(bytes) = response.chunk().await.expect("it flows") {
        first.get_or_insert_with(|| started.elapsed());
        sum.update(&bytes);
    }
    assert!(sum.is(&digest));
    first.unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn report(what: &str, wall: Duration, bytes: usize, upstream: &Upstream) -> f64 {
    let bound = bytes as f64 * 8.0 / RATE;
    let ratio = wall.as_secs_f64() / bound;
    eprintln!(
        "{what}: {:.2} s, {ratio:.3} × bound; upstream {:.3} × the bytes in {} GETs",
        wall.as_secs_f64(),
        upstream.sent() as f64 / bytes as f64,
        upstream.asked(&["GET", "/blobs/"]).len(),
    );
    ratio
}

async fn cold_together(count: u8, layers: &[Vec<u8>]) -> Option<f64> {
    let mut net = Net::new()?;
    let (runtime, upstream) = net.upstream().await;
    let digests: Vec<String> = layers
        .iter()
        .map(|layer| upstream.blob("a/b", layer))
        .collect();
    let nodes = net.nodes(count, &upstream).await;

    let pulls = join_all(nodes.iter().map(|node| node.pull(digests.clone()))).await;

    let wall = pulls.iter().map(|pull| pull.1).max().unwrap_or_default();
    let mut firsts: Vec<_> = pulls.iter().map(|pull| pull.0.as_millis()).collect();
    firsts.sort_unstable();
    eprintln!("first bytes after {firsts:?} ms");
    let bytes = layers.iter().map(Vec::len).sum();
    let ratio = report(
        &format!("{count} nodes, {} layers", layers.len()),
        wall,
        bytes,
        &upstream,
    );
    assert_eq!(upstream.sent(), bytes as u64);
    drop(nodes);
    runtime.shutdown_background();
    Some(ratio)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: needs root, namespaces and a quiet machine"]
async fn one_layer_cold_together() {
    let layer = noise(1, 64 * MIB);
    let counts = std::env::var("NODES").unwrap_or_else(|_| "1 2 4 8 16".to_owned());
    for count in counts
        .split(' ')
        .map(|count| count.parse().expect("a number"))
    {
        if let Some(ratio) = cold_together(count, std::slice::from_ref(&layer)).await {
            assert!(ratio < 1.5, "{ratio}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: needs root, namespaces and a quiet machine"]
async fn thirty_layers_cold_together() {
    let layers: Vec<_> = (0..30).map(|seed| noise(seed, 2 * MIB)).collect();
    if let Some(ratio) = cold_together(8, &layers).await {
        assert!(ratio < 1.5, "{ratio}");
    }
}
