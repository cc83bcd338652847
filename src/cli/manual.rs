//! The manual pages: one for each command, as `orlop --help` says it.

use std::path::Path;

use anyhow::{Context, Result};

/// Writes `orlop.1`, `orlop-volume.1`, `orlop-volume-create.1` and so on into `directory`.
pub(super) fn write(command: clap::Command, directory: &Path) -> Result<()> {
    // `orlop help volume` says what `orlop-volume.1` does.
    let command = command.disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("{}: name a directory that exists", directory.display()))
}
