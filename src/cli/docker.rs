//! `orlop docker`: the Docker volume plugin of this machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::Log;
use super::client::Remote;
use super::node::runtime;
use crate::csi::endpoint::Endpoint;
use crate::csi::socket::{self, Socket};
use crate::docker::{self, Plugin};
use crate::shutdown;

/// How long running calls may take to end after SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
pub(super) struct Docker {
    #[command(flatten)]
    remote: Remote,

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

    #[command(flatten)]
    log: Log,
}

impl Docker {
    pub(super) fn run(self) -> Result<()> {
        self.log.start()?;
        runtime()?.block_on(self.serve())
    }

    async fn serve(self) -> Result<()> {
        let shutdown = shutdown::on_signal()?;
        let plugin = Plugin::new(self.remote.endpoint, self.staging, &self.mounts)?;
        let (listener, _file) = if let Some(listener) = socket::handed_over()? {
            (listener, None)
        } else {
            let Socket { listener, file } = Socket::bind(&self.socket)?;
            (listener, Some(file))
        };
        tracing::info!(socket = ?listener.local_addr()?, "serving Docker");
        docker::serve(listener, plugin, shutdown, DRAIN_LIMIT).await
    }
}
