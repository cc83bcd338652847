//! `kubectl orlop`: this binary, found by kubectl under the name `kubectl-orlop`, asks the pods of the chart.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use clap::{Parser, Subcommand};
use serde::Serialize;

use super::client;
use super::controller::LEASE;
use super::doctor::{self, Finding};
use super::output::{Output, Shown};
use crate::host::command::{self, Command, Runner, Tools};
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

    #[command(flatten)]
    output: Output,

    #[command(subcommand)]
    command: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// List the pools of all nodes.
    Pools,
    /// List the volumes of all nodes.
    Volumes,
    /// List the volumes that no `PersistentVolume` names.
    Orphans,
    /// Let each node look whether it has what it needs.
    #[command(after_help = doctor::EXIT_CODES)]
    Doctor,
}

/// What the doctor found on a node.
#[derive(Debug, Serialize)]
struct OnNode {
    node: String,
    #[serde(flatten)]
    finding: Finding,
}

impl Shown for OnNode {
    const COLUMNS: &'static [&'static str] = &["NODE", "STATUS", "CHECK", "FOUND"];

    fn name(&self) -> &str {
        &self.node
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = self.finding.cells();
        cells.insert(0, self.node.clone());
        cells
    }
}

impl Kubectl {
    pub(super) fn run(self) -> ExitCode {
        match self.answer() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => client::fail(&error),
        }
    }

    fn answer(&self) -> Result<()> {
        match &self.command {
            Question::Pools => self.ask_leader(&["pool", "ls"]),
            Question::Volumes => self.ask_leader(&["volume", "ls"]),
            Question::Orphans => self.ask_leader(&["volume", "ls", "--orphans"]),
            Question::Doctor => self.ask_nodes(),
        }
    }

    /// Lets the controller that leads answer: it alone knows of orphans, and as much as the others of all else.
    fn ask_leader(&self, question: &[&str]) -> Result<()> {
        let lease = format!("lease/{LEASE}");
        let holder = ["get", &lease, "--output=jsonpath={.spec.holderIdentity}"];
        let leader = run(&self.kubectl(&holder))?;
        // One that ended without giving up leads no more, whatever the Lease says until its time is up.
        let ready = [
            "get",
            "pods",
            &format!("--field-selector=metadata.name={leader}"),
            r#"--output=jsonpath={.items[*].status.containerStatuses[?(@.name=="orlop")].ready}"#,
        ];
        ensure!(
            !leader.is_empty() && run(&self.kubectl(&ready))? == "true",
            "no controller leads now: ask again in a moment"
        );
        let format = self.output.argument();
        let exec = ["exec", &leader, "--container=orlop", "--", "orlop"];
        Err(command::replace_by(
            &self.kubectl(&[&exec, question, &[&*format]].concat()),
        ))
    }

    /// Prints what the doctor finds on each node, and fails as badly as the worst of it.
    fn ask_nodes(&self) -> Result<()> {
        let nodes = [
            "get",
            "pods",
            "--selector=app.kubernetes.io/name=orlop,app.kubernetes.io/component=node",
            r#"--output=jsonpath={range .items[*]}{.metadata.name}{"\t"}{.spec.nodeName}{"\n"}{end}"#,
        ];
        let mut all = Vec::new();
        for line in run(&self.kubectl(&nodes))?.lines() {
            let (pod, node) = line.split_once('\t').unwrap_or((line, line));
            let findings = self.doctor_in(pod).unwrap_or_else(|error| {
                let advice = "see whether it runs: `kubectl describe pod`";
                vec![Finding::bad("answer", format!("{pod}: {error:#}"), advice)]
            });
            let on_node = |finding| OnNode {
                node: node.to_owned(),
                finding,
            };
            all.extend(findings.into_iter().map(on_node));
        }
        self.output.list(&all)?;
        doctor::verdict(all.iter().map(|one| &one.finding))
    }

    fn doctor_in(&self, pod: &str) -> Result<Vec<Finding>> {
        let exec = ["exec", pod, "--container=orlop", "--", "orlop", "doctor"];
        let command = self.kubectl(&[&exec, &["--output=json"][..]].concat());
        // What it finds to be bad is an answer as well.
        let found = run(&command.accept(1).accept(5).with_errors())?;
        // What follows are the errors, without which nothing would say why there are no findings.
        let mut values = serde_json::Deserializer::from_str(&found).into_iter();
        let findings = values.next().and_then(Result::ok);
        findings.ok_or_else(|| anyhow!("{}", found.trim()))
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
