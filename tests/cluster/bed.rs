//! A real Kubernetes of three nodes on this machine with the chart installed, up while the value lives.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::support::run;

/// Where the cluster's scripts are.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster");
/// Where the chart's objects are.
pub(crate) const NAMESPACE: &str = "orlop";
/// The names of the nodes.
pub(crate) const NODES: [&str; 3] = ["n1", "n2", "n3"];

pub(crate) struct Bed {
    /// Ends the cluster when its input is closed, also by our death.
    holder: Child,
    state: PathBuf,
    /// Kubernetes, Helm, and the snapshot requests' definitions.
    pub(crate) binaries: PathBuf,
    /// Upstream's storage suite, if its images are in the cluster.
    pub(crate) suite: Option<PathBuf>,
}

impl Bed {
    /// Builds what is not built yet, starts the cluster, and installs the chart with this checkout's binary.
    pub(crate) fn up(with_suite: bool) -> Result<Self> {
        let build = |part: &[&str]| run(&script("build.sh"), part);
        let binaries = PathBuf::from(build(&[])?.trim());
        let suite = with_suite.then(|| build(&["suite"])).transpose()?;
        let suite = suite.map(|printed| PathBuf::from(printed.trim()));
        let cache = binaries
            .parent()
            .context("the cache is a directory")?
            .to_owned();
        let state = cache.join("cluster");
        let images = state.join("images");
        let orlop = Path::new(env!("CARGO_BIN_EXE_orlop"));
        let inputs = [&binaries, orlop, images.as_path()];
        run(
            &script("images.sh"),
            inputs.into_iter().chain(suite.as_deref()),
        )?;
        let holder = command(&state, &binaries)
            .args(["hold", &NODES.len().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut bed = Self {
            holder,
            state,
            binaries,
            suite,
        };
        let mut said = String::new();
        let output = bed.holder.stdout.take().context("it is piped")?;
        BufReader::new(output).read_line(&mut said)?;
        ensure!(said == "ready\n", "the cluster did not start: see its logs");
        bed.install()?;
        Ok(bed)
    }

    fn install(&self) -> Result<()> {
        let crd = self.binaries.join("crd").display().to_string();
        self.kubectl(&["apply", "--kustomize", &crd])?;
        self.kubectl(&["apply", "--filename", &script("snapshots.yaml")])?;
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/orlop");
        let values = script("values.yaml");
        self.inside(&[
            "helm",
            "install",
            "orlop",
            chart,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--values",
            &values,
            "--wait",
            "--timeout=3m",
        ])
        .with_context(|| self.look())?;
        Ok(())
    }

    /// What the chart's pods are doing, for whom it failed.
    fn look(&self) -> String {
        let look = |args: &[&str]| {
            self.kubectl(args)
                .unwrap_or_else(|error| format!("{error:#}"))
        };
        let pods = look(&["get", "pods", "--all-namespaces", "--output=wide"]);
        let logs = |of| {
            look(&[
                "logs",
                "--namespace",
                NAMESPACE,
                of,
                "--all-containers",
                "--tail=10",
            ])
        };
        let (node, controller) = (
            logs("daemonset/orlop-node"),
            logs("deployment/orlop-controller"),
        );
        format!("{pods}\n{node}\n{controller}")
    }

    /// What kubectl prints.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.inside(&[&["kubectl"], args].concat())
    }

    /// The lines of a kubectl that goes on.
    pub(crate) fn watch(&self, args: &[&str]) -> Result<Watch> {
        let mut kubectl = command(&self.state, &self.binaries)
            .args(["in", "kubectl"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = kubectl.stdout.take().context("it is piped")?;
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if said.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Watch { kubectl, lines })
    }

    /// Makes what is written.
    pub(crate) fn apply(&self, namespace: &str, yaml: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(yaml.as_bytes())?;
        let path = file.path().display().to_string();
        self.kubectl(&["apply", "--namespace", namespace, "--filename", &path])?;
        Ok(())
    }

    /// What the controller of the chart asked of the API server, an event a line.
    pub(crate) fn audit(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.state.join("log/audit.log"))?)
    }

    /// Runs a program among the control plane.
    pub(crate) fn inside(&self, args: &[&str]) -> Result<String> {
        self.ask(&[&["in"], args].concat())
    }

    /// Runs a program on a node, beside its kubelet.
    pub(crate) fn on(&self, node: &str, args: &[&str]) -> Result<String> {
        self.ask(&[&["on", node], args].concat())
    }

    /// Ends all that runs on a node, at once.
    pub(crate) fn cut_power(&self, node: &str) -> Result<()> {
        self.ask(&["node-kill", node]).map(drop)
    }

    /// Starts a node again.
    pub(crate) fn start(&self, node: &str) -> Result<()> {
        self.ask(&["node-up", node]).map(drop)
    }

    fn ask(&self, args: &[&str]) -> Result<String> {
        let output = command(&self.state, &self.binaries).args(args).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {}", said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A kubectl that goes on while it lives.
pub(crate) struct Watch {
    kubectl: Child,
    lines: Receiver<(Instant, String)>,
}

impl Watch {
    /// The next line, and when it was said.
    pub(crate) fn next(&mut self, limit: Duration) -> Result<(Instant, String)> {
        self.lines
            .recv_timeout(limit)
            .context("nothing was said in time")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // One that has ended by itself is as good.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        if let Err(error) = self.holder.wait() {
            eprintln!("the cluster may still run: {error}");
        }
    }
}

/// A script of ours.
fn script(name: &str) -> String {
    format!("{HERE}/{name}")
}

fn command(state: &Path, binaries: &Path) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "the cluster is another's process"
    )]
    let mut command = Command::new(script("bed.sh"));
    command
        .env("BED", state)
        .env("BED_BIN", binaries)
        .env("BED_IMAGES", state.join("images"));
    command
}
