//! What the kernel tells of a process.

use std::fs;

use anyhow::{Context, Result};

/// A figure of `/proc/PID/status`, such as `VmRSS` in KiB.
pub(crate) fn of(pid: u32, key: &str) -> Result<f64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).context(file)?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("the status has no {key}"))
}
