//! What the router knows of the Kubernetes that it serves.

mod all;
mod election;
mod nodes;
mod records;
mod volumes;

use std::path::Path;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub(super) use self::all::{All, heard};
pub use self::election::Election;
pub use self::nodes::{Service, follow};
pub use self::records::{Absences, Records};
pub(super) use self::volumes::{Claim, Record};

/// A client of the Kubernetes that a file names, or of the one in which this process runs.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client> {
    // The library takes what the process has chosen; that may have been done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = match kubeconfig {
        Some(file) => {
            let config = Kubeconfig::read_from(file)?;
            Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?
        }
        None => Config::incluster().context(
            "this is not in a pod with a service account: say by --kubeconfig where a Kubernetes is",
        )?,
    };
    Client::try_from(config).context("making a client of Kubernetes")
}
