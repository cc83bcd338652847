//! The one binary: parse, run the role, exit code.

use std::process::ExitCode;

use clap::Parser;
use orlop::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
