//! Network namespaces around one bridge, each with a link of the same rate both ways and a runtime whose threads are in it.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use orlop::host::command::{Command, Runner, Tools};
use orlop::host::gate::Gate;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// What a link lets through, in Mbit a second, if nothing else is said.
const MBIT: u32 = 100;
/// The most bytes that a sender hands to its link at once. The link cuts what is larger than its burst into frames one
/// by one, which costs processors, not links: a network card does it by itself.
const AT_ONCE: u32 = 30_000;

/// The namespaces of one run; gone when dropped.
pub(crate) struct Net {
    name: String,
    made: Vec<String>,
}

/// The end of a link.
pub(crate) struct Link {
    pub(crate) namespace: String,
    pub(crate) address: IpAddr,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Net {
    /// # Errors
    /// Where no namespaces can be made: it takes root.
    pub(crate) fn new() -> Result<Self> {
        let mut net = Self {
            name: format!("orlop{}", std::process::id()),
            made: Vec::new(),
        };
        let switch = net.namespace("switch")?;
        run(&format!("ip -n {switch} link add br0 type bridge"))?;
        run(&format!("ip -n {switch} link set br0 up"))?;
        // A switch filters nothing; where the kernel has its bridges do so, that costs each frame more.
        if fs::exists("/proc/sys/net/bridge")? {
            for kind in ["iptables", "ip6tables", "arptables"] {
                run(&format!(
                    "ip netns exec {switch} sysctl -qw net.bridge.bridge-nf-call-{kind}=0"
                ))?;
            }
        }
        Ok(net)
    }

    fn namespace(&mut self, name: &str) -> Result<String> {
        let name = format!("{}-{name}", self.name);
        run(&format!("ip netns add {name}"))?;
        self.made.push(name.clone());
        run(&format!("ip -n {name} link set lo up"))?;
        Ok(name)
    }

    /// One more link, at the address with this number.
    pub(crate) fn link(&mut self, at: u8) -> Result<Link> {
        let end = self.namespace(&format!("n{at}"))?;
        let switch = format!("{}-switch", self.name);
        let address = IpAddr::from([10, 77, 0, at]);
        let shaped = format!("root tbf rate {}mbit burst 64kb latency 100ms", mbit());
        for line in [
            format!("ip -n {switch} link add p{at} type veth peer name eth0 netns {end}"),
            format!("ip -n {switch} link set p{at} gso_max_size {AT_ONCE} master br0 up"),
            format!("ip -n {end} addr add {address}/24 dev eth0"),
            format!("ip -n {end} link set eth0 gso_max_size {AT_ONCE} up"),
            // As Linux does unless it is told otherwise, whatever this machine was told.
            format!("ip -n {end} route replace 10.77.0.0/24 dev eth0 congctl cubic"),
            format!("tc -n {end} qdisc add dev eth0 {shaped}"),
            format!("tc -n {switch} qdisc add dev p{at} {shaped}"),
        ] {
            run(&line)?;
        }
        let namespace = end.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || enter(&end).expect("it was made"))
            .enable_all()
            .build()?;
        Ok(Link {
            namespace,
            address,
            runtime: Some(runtime),
        })
    }
}

impl Link {
    /// Runs something at this end.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let runtime = self.runtime.as_ref();
        runtime.expect("it is not dropped yet").spawn(work)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A runtime can not be waited for within another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.made {
            // What is left of a run that failed is told by the next, which can not make it.
            let _ = run(&format!("ip netns del {name}"));
        }
    }
}

fn mbit() -> u32 {
    let asked = std::env::var("ORLOP_BENCH_MBIT").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(MBIT)
}

/// What a link lets through, in bits a second.
pub(crate) fn rate() -> f64 {
    f64::from(mbit()) * 1e6
}

fn run(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let command = Command::new(words.next().context("a program")?);
    Tools::new(Gate::open()).run(&command.args(words)).map(drop)
}

/// Moves this thread into a namespace.
fn enter(namespace: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}
