//! `orlop layers configure|restore`: the runtimes of this node are told of the mirror, or forget it.

use anyhow::Result;
use clap::Args;

use crate::cli::output::{Output, Shown};
use crate::layers::wiring::{Outcome, Target, Wiring};

#[derive(Args, Debug)]
pub(super) struct Configure {
    #[command(flatten)]
    wiring: Wiring,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(super) struct Restore {
    #[command(flatten)]
    wiring: Wiring,
    /// Give back what was there before even where somebody changed it since.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: Output,
}

impl Configure {
    pub(super) fn run(self) -> Result<()> {
        let outcomes = self.wiring.configure(&self.target, &|| Ok(()))?;
        self.output.list(&outcomes)?;
        for advice in self.wiring.advice()? {
            eprintln!("orlop: {advice}");
        }
        Ok(())
    }
}

impl Restore {
    pub(super) fn run(self) -> Result<()> {
        let outcomes = self.wiring.restore(self.force, &|| Ok(()))?;
        self.output.list(&outcomes)
    }
}

impl Shown for Outcome {
    const COLUMNS: &'static [&'static str] = &["FILE", "CHANGED"];

    fn name(&self) -> &str {
        self.file.to_str().unwrap_or_default()
    }

    fn cells(&self) -> Vec<String> {
        let changed = if self.changed { "yes" } else { "no" };
        vec![self.file.display().to_string(), changed.to_owned()]
    }
}
