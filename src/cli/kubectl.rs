//! `kubectl orlop`: this binary, found by kubectl under the name `kubectl-orlop`, asks the pods of the chart.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

use super::controller::LEASE;
use super::{client, output};
use crate::host::command::{Command, Runner, Tools};
use crate::host::gate::Gate;

/// What kubectl finds it by.
pub(super) const NAME: &str = "kubectl-orlop";
/// How long one pod may take to answer.
const LIMIT: Duration = Duration::from_mins(1);

/// The volumes of a cluster, as its controller and its nodes tell of them.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    bin_name = "kubectl orlop",
    version,
    arg_required_else_help = true
)]
pub(super) struct Kubectl {
    /// Where Orlop is installed.
    #[arg(
        short,
        long,
        env = "ORLOP_NAMESPACE",
        default_value = "orlop",
        value_name = "NAME",
        global = true
    )]
    namespace: String,

    /// The context of the kubeconfig; the current one if left out.
    #[arg(long, value_name = "NAME", global = true)]
    context: Option<String>,

    #[command(subcommand)]
    command: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// List the pools of all nodes.
    Pools(Format),
    /// List the volumes of all nodes.
    Volumes(Format),
    /// List the volumes that no `PersistentVolume` names.
    Orphans(Format),
    /// Let each node look whether it has what it needs.
    Doctor,
}

#[derive(Args, Debug)]
struct Format {
    /// How to print: table, json, yaml or name.
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: String,
}

impl Kubectl {
    pub(super) fn run(self) -> ExitCode {
        match self.answer().and_then(|text| output::print(&text)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => client::fail(&error),
        }
    }

    fn answer(&self) -> Result<String> {
        match &self.command {
            Question::Pools(format) => self.ask_leader(&["pool", "ls"], format),
            Question::Volumes(format) => self.ask_leader(&["volume", "ls"], format),
            Question::Orphans(format) => self.ask_leader(&["volume", "ls", "--orphans"], format),
            Question::Doctor => self.ask_nodes(),
        }
    }

    /// Asks the controller that leads: it alone knows of orphans, and as much as the others of all else.
    fn ask_leader(&self, question: &[&str], format: &Format) -> Result<String> {
        let lease = format!("lease/{LEASE}");
        let holder = ["get", &lease, "--output=jsonpath={.spec.holderIdentity}"];
        let leader = run(&self.kubectl(&holder))?;
        // One that ended without giving up leads no more, whatever the Lease says until its time is up.
        let phase = [
            "get",
            "pods",
            &format!("--field-selector=metadata.name={leader}"),
            "--output=jsonpath={.items[*].status.phase}",
        ];
        ensure!(
            !leader.is_empty() && run(&self.kubectl(&phase))? == "Running",
            "no controller leads now: ask again in a moment"
        );
        let format = format!("--output={}", format.output);
        let exec = ["exec", &leader, "--container=orlop", "--", "orlop"];
        run(&self.kubectl(&[&exec, question, &[&*format]].concat()))
    }

    /// Asks each node, with its name above its answer.
    fn ask_nodes(&self) -> Result<String> {
        let nodes = [
            "get",
            "pods",
            "--selector=app.kubernetes.io/name=orlop,app.kubernetes.io/component=node",
            r#"--output=jsonpath={range .items[*]}{.metadata.name}{"\t"}{.spec.nodeName}{"\n"}{end}"#,
        ];
        let mut text = String::new();
        for line in run(&self.kubectl(&nodes))?.lines() {
            let (pod, node) = line.split_once('\t').unwrap_or((line, line));
            let exec = ["exec", pod, "--container=orlop", "--", "orlop", "doctor"];
            // What it finds to be bad is an answer as well.
            let command = self.kubectl(&exec).accept(1).accept(5);
            let found = run(&command.with_errors())?;
            writeln!(text, "{node}:\n{found}")?;
        }
        Ok(text)
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let context = self
            .context
            .as_ref()
            .map(|name| format!("--context={name}"));
        Command::query("kubectl")
            .arg(format!("--namespace={}", self.namespace))
            .args(context)
            .args(args)
            .limit(LIMIT)
    }
}

fn run(command: &Command) -> Result<String> {
    Tools::new(Gate::open()).run(command)
}
