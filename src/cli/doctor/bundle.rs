//! The archive for whoever helps: what the node and the machine tell, with the secrets taken out.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::redact::Redactor;
use super::{Doctor, Finding};
use crate::cli::{leftovers, status};
use crate::config::Pools;
use crate::host::command::{Command, Runner, Tools};
use crate::host::gate::Gate;
use crate::host::mount::Mounts;
use crate::host::probe;

/// How much of the end of a log is taken.
const LOG_LINES: usize = 5000;

/// Writes it; a file that is there is left alone, and of one that can not be finished nothing is left.
pub(super) fn write(file: &Path, doctor: &Doctor, findings: &[Finding]) -> Result<()> {
    let mut options = File::options();
    let made = options.write(true).create_new(true).mode(0o600).open(file);
    let archive =
        made.with_context(|| format!("{}: name a file that is not there yet", file.display()))?;
    let written = fill(archive, doctor, findings);
    if written.is_err() {
        let _ = fs::remove_file(file);
    }
    written.with_context(|| format!("writing {}", file.display()))
}

fn fill(archive: File, doctor: &Doctor, findings: &[Finding]) -> Result<()> {
    let variables = env::vars_os().map(|(key, value)| {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        (text(key), text(value))
    });
    let variables: Vec<_> = variables.collect();
    let redactor = Redactor::new(variables.iter().cloned());
    let parts = [
        ("about.txt", about()),
        ("findings.json", serde_json::to_string_pretty(findings)?),
        ("status.json", told(status_of(doctor))),
        ("leftovers.json", told(leftovers_of(doctor))),
        ("pools.txt", pools(doctor)),
        ("mounts.txt", told(mounts())),
        ("environment.txt", environment(&variables, &redactor)),
        ("log.txt", told(log(doctor))),
    ];
    let mut tar = Builder::new(GzEncoder::new(archive, Compression::default()));
    for (name, text) in parts {
        let text = redactor.clean(&text);
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, format!("orlop/{name}"), text.as_bytes())?;
    }
    let mut archive = tar.into_inner()?.finish()?;
    archive.flush()?;
    Ok(archive.sync_all()?)
}

/// What could not be had is told in its place: a bundle is made when something is broken.
fn told(text: Result<String>) -> String {
    text.unwrap_or_else(|error| format!("not to be had: {error:#}"))
}

fn about() -> String {
    format!(
        "orlop {}\nLinux {}\nat {}\n",
        env!("CARGO_PKG_VERSION"),
        probe::kernel_release(),
        jiff::Timestamp::now()
    )
}

fn status_of(doctor: &Doctor) -> Result<String> {
    let shown = doctor
        .remote
        .with(async |node| status::shown(&node).await)?;
    Ok(serde_json::to_string_pretty(&shown)?)
}

fn leftovers_of(doctor: &Doctor) -> Result<String> {
    let found = doctor
        .remote
        .with(async |node| leftovers::list(&node).await)?;
    Ok(serde_json::to_string_pretty(&found)?)
}

/// The pools as they were understood: what else a file says, such as a comment, is not for others.
fn pools(doctor: &Doctor) -> String {
    let read = match &doctor.pools.file {
        Some(file) => Pools::read(file),
        None => Pools::to_be_embedded(&doctor.pools.data),
    };
    match read {
        Ok(pools) => format!("{pools:#?}\n"),
        Err(_) => "the pools file can not be read: run `orlop doctor` to see why\n".to_owned(),
    }
}

/// Without the options, in which some filesystems have keys.
fn mounts() -> Result<String> {
    let all = Mounts::new(Gate::open()).all()?;
    let line = |mount: crate::host::mount::Entry| {
        format!(
            "{} {} {} {}\n",
            mount.target.display(),
            mount.filesystem,
            mount.source.display(),
            mount.root.display()
        )
    };
    Ok(all.into_iter().map(line).collect())
}

/// The variables that we read with their values, the names of the others.
fn environment(variables: &[(String, String)], redactor: &Redactor) -> String {
    let ours =
        |key: &str| key.starts_with("ORLOP_") || ["CSI_ENDPOINT", "NODE_NAME"].contains(&key);
    let line = |(key, value): &(String, String)| {
        if ours(key) && !redactor.hides(key) {
            format!("{key}={value}\n")
        } else {
            format!("{key}\n")
        }
    };
    variables.iter().map(line).collect()
}

fn log(doctor: &Doctor) -> Result<String> {
    let text = if let Some(file) = &doctor.node_log {
        let bytes = fs::read(file).with_context(|| file.display().to_string())?;
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        let journal = Command::query("journalctl")
            .args(["--no-pager", "--unit", "orlop*", "--lines"])
            .arg(LOG_LINES.to_string());
        Tools::new(Gate::open()).run(&journal)?
    };
    let lines: Vec<_> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_LINES)..].join("\n") + "\n")
}
