//! `orlop docker`: the Docker volume plugin of this machine, beside its node or in one process with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Log;
use super::client::Remote;
use super::node::{Node, PoolsArgs, runtime, until_all_ended};
use crate::csi::endpoint::Endpoint;
use crate::csi::socket::{self, Socket};
use crate::docker::{self, Plugin};
use crate::host::memory;
use crate::shutdown;

/// How long running calls may take to end after SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
#[command(mut_args(only_with_node))]
pub(super) struct Docker {
    #[command(flatten)]
    remote: Remote,

    /// Be the node too, on that socket: one process that needs no other, as in a managed plugin.
    #[arg(long, env = "ORLOP_WITH_NODE")]
    with_node: bool,

    #[command(flatten)]
    pools: PoolsArgs,

    /// Serve the metrics of the node, /healthz and /readyz on this address, such as 127.0.0.1:9099; off if left out.
    #[arg(long, env = "ORLOP_METRICS", value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,

    /// The socket to serve on, where Docker looks for plugins: the file's name is that of the driver. Started by a socket
    /// of systemd, it serves on that one.
    #[arg(
        long,
        env = "ORLOP_DOCKER_SOCKET",
        default_value = "/run/docker/plugins/orlop.sock",
        value_name = "PATH"
    )]
    socket: Endpoint,

    /// Where volumes are mounted for containers, each below POOL/NAME.
    #[arg(
        long,
        env = "ORLOP_DOCKER_MOUNTS",
        default_value = "/run/orlop/docker",
        value_name = "DIR"
    )]
    mounts: PathBuf,

    /// Where volumes are staged, each below POOL/NAME.
    #[arg(
        long,
        env = "ORLOP_STAGING",
        default_value = "/run/orlop/staging",
        value_name = "DIR"
    )]
    staging: PathBuf,

    /// The file with the key of all volumes that are created with `encryption=true`: 32 random bytes or more, as text.
    #[arg(long, env = "ORLOP_ENCRYPTION_KEY_FILE", value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,

    #[command(flatten)]
    log: Log,
}

/// What is said of a node must not be said to nobody.
fn only_with_node(arg: clap::Arg) -> clap::Arg {
    match arg.get_id().as_str() {
        "file" | "metrics" => arg.requires("with_node"),
        _ => arg,
    }
}

impl Docker {
    pub(super) fn run(self) -> Result<()> {
        if self.with_node {
            memory::share_one_arena();
        }
        self.log.start()?;
        let runtime = runtime()?;
        let served = runtime.block_on(self.serve());
        // As a node alone: what has not ended within the drain is safe to be killed.
        runtime.shutdown_timeout(Duration::from_secs(1));
        served
    }

    async fn serve(self) -> Result<()> {
        let shutdown = shutdown::on_signal()?;
        // The node is there before the plugin, and until it has ended.
        let (mut running, node_ends) = (JoinSet::new(), CancellationToken::new());
        let (remote, pools) = (self.remote.endpoint, self.pools);
        if self.with_node {
            let node = Node::alone(remote.clone(), pools, self.metrics, self.log);
            node.start(&mut running, &node_ends).await?;
        }
        let plugin = Plugin::new(remote, self.staging, &self.mounts, self.encryption_key_file)?;
        let (listener, file) = if let Some(listener) = socket::handed_over()? {
            (listener, None)
        } else {
            let Socket { listener, file } = Socket::bind(&self.socket)?;
            (listener, Some(file))
        };
        tracing::info!(socket = ?listener.local_addr()?, "serving Docker");
        let serving = docker::serve(listener, plugin, shutdown.clone(), DRAIN_LIMIT);
        running.spawn(async move {
            let (_file, _node_ends) = (file, node_ends.drop_guard());
            serving.await
        });
        until_all_ended(running, &shutdown).await
    }
}
