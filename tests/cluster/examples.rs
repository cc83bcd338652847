//! The examples are what this Kubernetes takes; they are not run, for their images come from elsewhere.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::Test;
use crate::space::Space;

pub(crate) const TESTS: &[Test] = &[("every_example_is_taken", taken)];

fn taken(space: &Space<'_>) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let mut examples = Vec::new();
    for entry in fs::read_dir(folder)? {
        examples.push(entry?.path().display().to_string());
    }
    ensure!(examples.len() >= 5, "there are only {examples:?}");
    for example in examples {
        let apply = [
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--filename",
        ];
        space.kubectl(&[&apply[..], &[&example]].concat())?;
    }
    Ok(())
}
