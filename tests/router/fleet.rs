//! Some nodes, and routers to them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::authority::Authority;
use crate::calls::{Client, volume};
use crate::node::Node;

/// Nodes with the names `a`, `b`, …, and where each listens for routers.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
    pub(crate) authority: Authority,
    host: &'static str,
    ports: Vec<u16>,
    certificates: TempDir,
    /// Variables of all processes.
    env: Vec<(String, String)>,
}

impl Fleet {
    /// So many nodes.
    pub(crate) fn of(count: usize) -> Self {
        Self::of_at(count, "127.0.0.1")
    }

    /// The same, at this address.
    pub(crate) fn of_at(count: usize, host: &'static str) -> Self {
        Self::with(count, host, Vec::new())
    }

    /// The same, and what is in the environment of all, the router among them.
    pub(crate) fn with(count: usize, host: &'static str, env: Vec<(String, String)>) -> Self {
        let authority = Authority::new();
        let certificates = tempfile::tempdir().expect("the temporary directory can be written");
        let mut fleet = Self {
            nodes: Vec::new(),
            authority,
            host,
            ports: free_ports(count),
            certificates,
            env,
        };
        for at in 0..count {
            let node = fleet.start_as(at, &name_of(at));
            fleet.nodes.push(node);
        }
        fleet
    }

    /// A node of this name where the one at this place of the list should be.
    pub(crate) fn start_as(&self, at: usize, name: &str) -> Node {
        let dns = format!("{name}.node.orlop.dev");
        let certificates = self.authority.sign(&dns, self.certificates.path());
        let args = [
            "--node-name",
            name,
            "--listen",
            &self.address(at),
            "--certificates",
            &certificates.display().to_string(),
        ];
        Node::start_with("node", &args, &self.env)
    }

    /// Gives all nodes and the router new certificates, where they look for them.
    pub(crate) fn sign_all(&self) {
        for at in 0..self.ports.len() {
            let dns = format!("{}.node.orlop.dev", name_of(at));
            self.authority.sign(&dns, self.certificates.path());
        }
        self.authority
            .sign("controller.orlop.dev", self.certificates.path());
    }

    pub(crate) fn address(&self, at: usize) -> String {
        format!("{}:{}", self.host, self.ports[at])
    }

    pub(crate) fn port(&self, at: usize) -> u16 {
        self.ports[at]
    }

    /// A new router to all of them.
    pub(crate) fn router(&self) -> Node {
        self.router_with(&self.router_certificates())
    }

    /// A directory with what a router proves itself with.
    pub(crate) fn router_certificates(&self) -> PathBuf {
        self.authority
            .sign("controller.orlop.dev", self.certificates.path())
    }

    /// One with more arguments.
    pub(crate) fn router_and(&self, more: &[&str]) -> Node {
        self.start_router(&self.router_certificates(), more)
    }

    /// One that proves itself with what is in this directory.
    pub(crate) fn router_with(&self, certificates: &Path) -> Node {
        self.start_router(certificates, &[])
    }

    fn start_router(&self, certificates: &Path, more: &[&str]) -> Node {
        let mut args: Vec<_> = more.iter().map(|&arg| arg.to_owned()).collect();
        args.push("--certificates".to_owned());
        args.push(certificates.display().to_string());
        for at in 0..self.ports.len() {
            args.push("--node".to_owned());
            args.push(format!("{}={}", name_of(at), self.address(at)));
        }
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Node::start_with("controller", &args, &self.env)
    }

    /// Straight to the node at this place of the list.
    pub(crate) async fn client(&self, at: usize) -> Client {
        Client::new(self.nodes[at].channel().await)
    }

    /// How many volumes each node has.
    pub(crate) async fn counts(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for at in 0..self.nodes.len() {
            counts.push(self.client(at).await.volumes().await.len());
        }
        counts
    }

    /// Stops the process in its tracks, or lets it go on: it keeps its connections, and answers nothing.
    pub(crate) fn freeze(&self, at: usize, frozen: bool) {
        let pid = i32::try_from(self.nodes[at].pid())
            .ok()
            .and_then(Pid::from_raw);
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(pid.expect("it runs"), signal).expect("it is ours");
    }
}

pub(crate) fn name_of(at: usize) -> String {
    char::from(b"abcdef"[at]).to_string()
}

/// A client of a router that has heard all of its nodes.
pub(crate) async fn client_of(router: &Node) -> Client {
    let mut client = Client::new(router.channel().await);
    until_it(&mut client, async |client| {
        client.delete("default/nothing").await
    })
    .await;
    client
}

/// Asks until the answer is another than that it may still be running.
pub(crate) async fn until_it<T>(
    client: &mut Client,
    ask: impl AsyncFn(&mut Client) -> Result<T, Status>,
) -> T {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        match ask(client).await {
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Aborted) => {
                assert!(std::time::Instant::now() < limit, "{status}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            answer => return answer.expect("it is only a matter of time"),
        }
    }
}

/// A volume of this name that may be on these nodes only, the first preferred.
pub(crate) fn on(name: &str, nodes: &[&str]) -> orlop::csi::proto::CreateVolumeRequest {
    use orlop::csi::proto::{Topology, TopologyRequirement};
    let topology = |node: &&str| Topology {
        segments: [("topology.orlop.dev/node".to_owned(), (*node).to_owned())].into(),
    };
    let all: Vec<_> = nodes.iter().map(topology).collect();
    orlop::csi::proto::CreateVolumeRequest {
        accessibility_requirements: Some(TopologyRequirement {
            requisite: all.clone(),
            preferred: all,
        }),
        ..volume(name, crate::calls::MIB)
    }
}

/// Where a volume is.
pub(crate) fn place(volume: &orlop::csi::proto::Volume) -> &str {
    &volume.accessible_topology[0].segments["topology.orlop.dev/node"]
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free"))
        .collect();
    let port = |held: &TcpListener| held.local_addr().expect("it is bound").port();
    held.iter().map(port).collect()
}
