//! The command line: every flag has an environment twin, a default and a unit.

mod client;
mod controller;
mod demo;
mod docker;
mod doctor;
mod enrolment;
mod kubectl;
mod kubelet;
mod layers;
mod leftovers;
mod manual;
mod node;
mod output;
mod pool;
mod prune;
mod snapshot;
mod status;
mod volume;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::telemetry::{self, LogFormat};

/// Persistent volumes from the disks of each node.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    role: Role,
}

/// Runs what the command line says, to its end: by the name that the binary was called by, for kubectl or for itself.
pub fn run() -> ExitCode {
    let called = env::args_os().next().map(PathBuf::from);
    match called.as_ref().and_then(|path| path.file_name()) {
        Some(name) if name == kubectl::NAME => kubectl::Kubectl::parse().run(),
        _ => Cli::parse().run(),
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed, and why is one line on the standard error
  2  the command line, or what it asks for, is wrong
  3  what it is about does not exist
  4  another operation on it is still running: ask again";

#[derive(Debug, Subcommand)]
enum Role {
    /// Serve the volumes of this node to CSI clients.
    Node(node::Node),
    /// Serve CSI for a cluster: find the node of each call, and pass it on.
    Controller(controller::Controller),
    /// Serve this node's runtime with image layers that any node of the cluster has.
    Layers(Box<layers::Layers>),
    /// Serve the volumes of this node to Docker, as its volume plugin.
    Docker(docker::Docker),
    /// Create, list, grow, clone, mount and remove volumes.
    #[command(after_help = EXIT_CODES)]
    Volume(volume::Volume),
    /// Take, list, restore and remove snapshots.
    #[command(after_help = EXIT_CODES)]
    Snapshot(snapshot::Snapshot),
    /// Look at the pools that volumes are in.
    #[command(after_help = EXIT_CODES)]
    Pool(pool::Pool),
    /// Show all that is there at a glance, in the terminal or as a page.
    #[command(after_help = EXIT_CODES)]
    Status(status::Status),
    /// Remove what was deleted and is stuck, and inline volumes whose pods are gone; shows them first, and asks.
    #[command(after_help = EXIT_CODES)]
    Prune(prune::Prune),
    /// Look whether this machine has what Orlop needs, and say what to do.
    #[command(after_help = doctor::EXIT_CODES)]
    Doctor(Box<doctor::Doctor>),
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// Where to; it must exist.
        directory: PathBuf,
    },
    /// Print the completions for a shell, such as `source <(orlop completions bash)`.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Show what Orlop does, with a real PostgreSQL, and leave nothing behind.
    Demo(demo::Demo),
}

/// How a service logs.
#[derive(Args, Debug)]
struct Log {
    /// What to log: a level, or levels by module, such as `info,orlop=debug`.
    #[arg(
        long = "log",
        env = "ORLOP_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    filter: String,

    /// How to write a log line.
    #[arg(
        id = "log_format",
        long = "log-format",
        env = "ORLOP_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    format: LogFormat,
}

impl Cli {
    /// Runs the role to its end, and says on the standard error why it failed.
    pub fn run(self) -> ExitCode {
        let done = match self.role {
            Role::Node(node) => node.run(),
            Role::Controller(controller) => controller.run(),
            Role::Layers(layers) => layers.run(),
            Role::Docker(docker) => docker.run(),
            Role::Volume(volume) => volume.run(),
            Role::Snapshot(snapshot) => snapshot.run(),
            Role::Pool(pool) => pool.run(),
            Role::Status(status) => status.run(),
            Role::Prune(prune) => prune.run(),
            Role::Doctor(doctor) => doctor.run(),
            Role::Man { directory } => manual::write(Cli::command(), &directory),
            Role::Completions { shell } => completions(shell),
            Role::Demo(demo) => demo.run(),
        };
        telemetry::stop();
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => client::fail(&error),
        }
    }
}

impl Log {
    fn start(&self) -> Result<()> {
        telemetry::start(&self.filter, self.format)
    }
}

fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "orlop", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
