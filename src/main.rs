//! The one binary: parse, log, run the role, exit code.

use std::process::ExitCode;

use clap::Parser;
use orlop::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orlop: {error:#}");
            ExitCode::FAILURE
        }
    }
}
