//! The one binary: parse, run the role, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    orlop::cli::run()
}
