//! A node: the real binary as `orlop layers` in a process of its own, and a client beside it.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, stream};
use orlop::layers::image::digest::Digest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::net::{Link, Net};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// Where each serves, in its own namespace.
const MIRROR: &str = "http://127.0.0.1:5052";
const METRICS: &str = "http://127.0.0.1:9098/metrics";
/// How many layers of an image containerd pulls at once.
pub(crate) const AT_ONCE: usize = 3;
/// In what the kernel counts the time of processors, a second.
pub(crate) const TICKS: f64 = 100.0;

/// A cache on a link of its own; killed when dropped.
pub(crate) struct Node {
    pub(crate) link: Link,
    process: Child,
    folder: TempDir,
}

/// How one pull went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulled {
    /// When its first byte came.
    pub(crate) first: Instant,
    /// When its last came.
    pub(crate) last: Instant,
    /// The longest time in which nothing came.
    pub(crate) stalled: Duration,
}

impl Node {
    /// Starts one that knows those before it.
    pub(crate) fn start(net: &mut Net, at: u8, upstream: &str) -> Result<Self> {
        let (link, folder) = (net.link(at)?, tempfile::tempdir()?);
        let own = format!("{}:5053", link.address);
        #[expect(clippy::disallowed_methods, reason = "it is another's process")]
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &link.namespace])
            .arg(env!("CARGO_BIN_EXE_orlop"))
            .args(["layers", "--anyone", "--peer-listen", &own])
            .args(["--metrics", "127.0.0.1:9098", "--node-name"])
            .arg(format!("n{at}"))
            .arg("--cache")
            .arg(folder.path().join("cache"))
            .arg("--upstream")
            .arg(format!("registry.test={upstream}"));
        for peer in 1..at {
            command.args(["--peer", &format!("10.77.0.{peer}:5053")]);
        }
        let log = fs::File::create(folder.path().join("log"))?;
        let process = command.stdout(Stdio::null()).stderr(log).spawn()?;
        Ok(Self {
            link,
            process,
            folder,
        })
    }

    /// Waits until it knows so many others.
    #[expect(clippy::cast_precision_loss, reason = "there are few")]
    pub(crate) async fn knows(&self, others: usize) -> Result<()> {
        let begun = Instant::now();
        while self.metric("layers_peers").await.ok() != Some(others as f64) {
            ensure!(begun.elapsed() < PATIENCE, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// What it counts.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let asking = async { reqwest::get(METRICS).await?.text().await };
        let told = self.link.spawn(asking).await??;
        let name = format!("orlop_{name} ");
        let line = told.lines().find_map(|line| line.strip_prefix(&name));
        Ok(line.with_context(|| format!("no {name}"))?.parse()?)
    }

    /// Pulls blobs through the cache, as many at once as containerd does.
    pub(crate) fn pull(&self, digests: &[String]) -> impl Future<Output = Result<Pulled>> + use<> {
        self.pull_at_once(digests, AT_ONCE)
    }

    /// Pulls blobs through the cache.
    pub(crate) fn pull_at_once(
        &self,
        digests: &[String],
        at_once: usize,
    ) -> impl Future<Output = Result<Pulled>> + use<> {
        let below = format!("{MIRROR}/v2/a/b/blobs/");
        pull(&self.link, below, digests, at_once)
    }

    /// The seconds that its threads have run.
    pub(crate) fn spent(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, figures) = stat.rsplit_once(')').context("the name of the program")?;
        let figures: Vec<&str> = figures.split_whitespace().collect();
        // In user space and in the kernel.
        let spent = figures.get(11..13).context("the times of the process")?;
        let spent = spent.iter().map(|text| text.parse::<f64>());
        Ok(spent.sum::<Result<f64, _>>()? / TICKS)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// What of its memory is in no file, in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let kib = crate::status::of(self.process.id(), "RssAnon")?;
        Ok(kib / 1024.0)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that has ended by itself is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Pulls blobs by a client at the end of a link, so many at once; each is checked.
pub(crate) fn pull(
    link: &Link,
    below: String,
    digests: &[String],
    at_once: usize,
) -> impl Future<Output = Result<Pulled>> + use<> {
    let digests = digests.to_vec();
    let pulling = link.spawn(async move {
        let client = reqwest::Client::new();
        let pulls = stream::iter(digests).map(|digest| {
            let url = format!("{below}{digest}?ns=registry.test");
            one(client.clone(), url, digest)
        });
        // As containerd does: the next begins as soon as one has ended.
        let mut pulls = pulls.buffer_unordered(at_once);
        let mut all: Option<Pulled> = None;
        while let Some(pulled) = pulls.next().await {
            let pulled = pulled?;
            all = Some(all.map_or(pulled, |all| all.and(pulled)));
        }
        all.context("nothing is to be pulled")
    });
    async move { pulling.await? }
}

impl Pulled {
    fn and(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            stalled: self.stalled.max(other.stalled),
        }
    }
}

async fn one(client: reqwest::Client, url: String, digest: String) -> Result<Pulled> {
    let digest: Digest = digest.parse()?;
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut sum = digest.sum();
    let (mut first, mut last, mut stalled) = (None, Instant::now(), Duration::ZERO);
    while let Some(bytes) = response.chunk().await? {
        let now = Instant::now();
        first.get_or_insert(now);
        stalled = stalled.max(now - last);
        last = now;
        sum.update(&bytes);
    }
    ensure!(sum.is(&digest), "other bytes came");
    Ok(Pulled {
        first: first.context("nothing came")?,
        last,
        stalled,
    })
}
