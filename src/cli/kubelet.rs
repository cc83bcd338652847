//! What the kubelet of this machine knows of volumes, read from its directory.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

/// Where the volumes of CSI are in a pod's directory.
const VOLUMES: &str = "volumes/kubernetes.io~csi";
/// In which file of a volume's directory the kubelet keeps what it was called with.
const CALLED_WITH: &str = "vol_data.json";

/// Where the kubelet is.
#[derive(Args, Debug)]
pub(super) struct Kubelet {
    /// Where the kubelet keeps its state.
    #[arg(
        long = "kubelet",
        env = "KUBELET_ROOT",
        default_value = "/var/lib/kubelet",
        value_name = "DIR"
    )]
    pub(super) root: PathBuf,
}

impl Kubelet {
    /// The handles of all CSI volumes of all pods that it has, or had and did not clean up after yet.
    ///
    /// # Errors
    /// A directory that can not be read, or is not a kubelet's: then nothing is known.
    pub(super) fn handles(&self) -> Result<Vec<String>> {
        let pods = self.root.join("pods");
        let mut handles = Vec::new();
        let listed = fs::read_dir(&pods).with_context(|| {
            format!(
                "{}: name the kubelet's directory by --kubelet",
                pods.display()
            )
        })?;
        for pod in listed {
            let volumes = pod?.path().join(VOLUMES);
            let volumes = match fs::read_dir(&volumes) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found.with_context(|| volumes.display().to_string())?,
            };
            for volume in volumes {
                let file = volume?.path().join(CALLED_WITH);
                let text = fs::read(&file).with_context(|| file.display().to_string())?;
                let data: serde_json::Value =
                    serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
                let handle = data["volumeHandle"].as_str();
                handles.push(
                    handle
                        .with_context(|| file.display().to_string())?
                        .to_owned(),
                );
            }
        }
        Ok(handles)
    }
}
