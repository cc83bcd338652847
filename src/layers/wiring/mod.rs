//! Telling the container runtimes of a node where the mirror is, and taking that back.

pub mod change;
pub mod containerd;
pub mod docker;
pub mod podman;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use self::change::{configure, is_changed, restore};

/// How the runtimes of one node are told.
#[derive(Clone, Debug, clap::Args)]
pub struct Wiring {
    /// Which runtimes; all whose folders are there, if none is named.
    #[arg(
        long = "runtime",
        env = "ORLOP_LAYERS_RUNTIMES",
        value_enum,
        value_delimiter = ','
    )]
    pub runtimes: Vec<Kind>,
    /// Where the root of the node's filesystem is, if this runs in a container.
    #[arg(
        long,
        env = "ORLOP_LAYERS_ROOT",
        default_value = "/",
        value_name = "FOLDER"
    )]
    pub root: PathBuf,
    /// The folder that containerd's or k3s's `config_path` names, if not the usual one.
    #[arg(long, env = "ORLOP_LAYERS_CERTS_D", value_name = "FOLDER")]
    pub certs_d: Option<PathBuf>,
}

/// A program that pulls images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// containerd, as kubeadm and kind set it up.
    Containerd,
    /// The containerd inside k3s.
    K3s,
    /// Podman, CRI-O, Buildah and skopeo.
    Podman,
    /// Docker, which mirrors docker.io alone.
    Docker,
}

/// Where the mirror is, and for whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Where the mirror listens.
    #[arg(
        long,
        env = "ORLOP_LAYERS_MIRROR",
        default_value = "http://127.0.0.1:5052",
        value_name = "URL"
    )]
    pub mirror: String,
    /// For which registries; Podman and its kin have no word for all. For containerd, those that are configured and all
    /// others come with them.
    #[arg(
        long = "registry",
        env = "ORLOP_LAYERS_REGISTRIES",
        value_delimiter = ',',
        value_name = "NAME",
        default_values = ["docker.io", "gcr.io", "ghcr.io", "mcr.microsoft.com", "public.ecr.aws", "quay.io", "registry.k8s.io"]
    )]
    pub registries: Vec<String>,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Which file.
    pub file: PathBuf,
    /// Whether it was changed now.
    pub changed: bool,
}

/// Is asked before each step on the disk whether it may be made; a test cuts the machine off by it.
pub type Gate<'a> = &'a dyn Fn() -> std::io::Result<()>;

impl Wiring {
    /// Tells every runtime of the mirror, beside what it is told already. A second call changes nothing.
    ///
    /// Each file is replaced whole, after what was there before is kept in a record beside it.
    ///
    /// # Errors
    /// No runtime is there, a file is malformed, or was changed by somebody else since the last call.
    pub fn configure(&self, target: &Target, gate: Gate<'_>) -> Result<Vec<Outcome>> {
        let mirror = target.mirror.trim_end_matches('/');
        anyhow::ensure!(
            mirror.starts_with("http://") || mirror.starts_with("https://"),
            "{mirror} is not a URL: say http://<address>:<port>"
        );
        let mut outcomes = Vec::new();
        for kind in self.kinds()? {
            for file in self.files(kind, &target.registries)? {
                let changed = configure(&file, gate, |before| match kind {
                    Kind::Containerd | Kind::K3s => containerd::with_mirror(before, mirror),
                    Kind::Podman => {
                        podman::with_mirror(&self.place(kind), &file, mirror, &target.registries)
                    }
                    Kind::Docker => docker::with_mirror(before, mirror),
                })
                .with_context(|| format!("adding the mirror to {}", file.display()))?;
                outcomes.push(Outcome { file, changed });
            }
        }
        Ok(outcomes)
    }

    /// Gives back every file as it was before the first [`configure`](Self::configure). A second call changes nothing.
    ///
    /// # Errors
    /// A file was changed by somebody else since; with `force` that change is lost.
    pub fn restore(&self, force: bool, gate: Gate<'_>) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for kind in self.kinds()? {
            for file in self.files(kind, &[])? {
                let changed = restore(&file, force, gate)
                    .with_context(|| format!("giving back {}", file.display()))?;
                if changed
                    && kind.has_folders()
                    && let Some(folder) = file.parent()
                {
                    // One that is empty means nothing; one that is not stays.
                    let _ = std::fs::remove_dir(folder);
                }
                outcomes.push(Outcome { file, changed });
            }
        }
        Ok(outcomes)
    }

    /// What else has to be done for the runtimes to see it, a sentence each.
    pub fn advice(&self) -> Result<Vec<String>> {
        let advice = self.kinds()?.into_iter().filter_map(|kind| match kind {
            Kind::Containerd => {
                let config = self.root.join("etc/containerd/config.toml");
                let text = std::fs::read_to_string(&config).unwrap_or_default();
                (!text.contains("config_path")).then(|| {
                    format!(
                        "{} names no config_path, so CRI does not look at {}: set it there in the section of the registry, and restart containerd",
                        config.display(),
                        self.place(kind).display()
                    )
                })
            }
            Kind::Docker => Some("Docker looks again after `systemctl reload docker`".to_owned()),
            Kind::K3s | Kind::Podman => None,
        });
        Ok(advice.collect())
    }

    /// The runtimes that were named, or that are there.
    fn kinds(&self) -> Result<Vec<Kind>> {
        if !self.runtimes.is_empty() {
            return Ok(self.runtimes.clone());
        }
        let all = [Kind::Containerd, Kind::K3s, Kind::Podman, Kind::Docker];
        let is_there = |kind: &Kind| self.place(*kind).parent().is_some_and(Path::is_dir);
        let there: Vec<_> = all.into_iter().filter(is_there).collect();
        anyhow::ensure!(
            !there.is_empty(),
            "no runtime has its configuration below {}: name one by --runtime",
            self.root.display()
        );
        Ok(there)
    }

    /// The folder or file by which a runtime is told.
    fn place(&self, kind: Kind) -> PathBuf {
        let usual = match kind {
            Kind::Containerd => "etc/containerd/certs.d",
            Kind::K3s => "var/lib/rancher/k3s/agent/etc/containerd/certs.d",
            Kind::Podman => "etc/containers/registries.conf.d",
            Kind::Docker => "etc/docker/daemon.json",
        };
        match (kind, &self.certs_d) {
            (Kind::Containerd | Kind::K3s, Some(folder)) => folder.clone(),
            _ => self.root.join(usual),
        }
    }

    /// The files to change: those of the registries, and those that are there.
    fn files(&self, kind: Kind, registries: &[String]) -> Result<Vec<PathBuf>> {
        let place = self.place(kind);
        match kind {
            Kind::Podman => Ok(vec![place.join(podman::FILE)]),
            Kind::Docker => Ok(vec![place]),
            Kind::Containerd | Kind::K3s => containerd::files(&place, registries),
        }
    }
}

impl Kind {
    /// Whether it has a folder for each registry.
    fn has_folders(self) -> bool {
        matches!(self, Self::Containerd | Self::K3s)
    }
}

/// Whether a file is there, or was before it was configured.
fn is_there(file: &Path) -> bool {
    file.exists() || is_changed(file)
}
