//! The command line: every flag has an environment twin, a default and a unit.

mod node;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::telemetry::{self, LogFormat};

/// Persistent volumes from the disks of each node.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serve the volumes of this node to CSI clients.
    Node(node::Node),
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
        long = "log-format",
        env = "ORLOP_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    format: LogFormat,
}

impl Cli {
    /// Runs the role to its end.
    pub fn run(self) -> Result<()> {
        match self.role {
            Role::Node(node) => node.run(),
        }
    }
}

impl Log {
    fn start(&self) -> Result<()> {
        telemetry::start(&self.filter, self.format)
    }
}
