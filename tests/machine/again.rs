//! A guest whose ZFS could not be built is built again after a day, and serves until then and if that fails too.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::support::run;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machine");

/// What it says when it tries.
const AGAIN: &str = "trying again";

pub(crate) fn is_tried_after_a_day() -> Result<()> {
    let desk = tempfile::tempdir()?;
    let (cache, tools) = (desk.path().join("cache"), desk.path().join("tools"));
    let name =
        format!("cd {SCRIPTS} && cat build.sh zfs.sh stage1.sh init.sh | sha256sum | cut -c1-16");
    let name = format!("machine-{}", run("sh", ["-c", &name])?.trim());
    let (guest, mark) = (cache.join(&name), cache.join(&name).join("without-zfs"));
    fs::create_dir_all(&guest)?;
    fs::create_dir(&tools)?;
    // Nothing can be built today.
    let broken = tools.join("mmdebstrap");
    fs::write(&broken, "#!/bin/sh\nexit 1\n")?;
    fs::set_permissions(&broken, Permissions::from_mode(0o755))?;
    let build = || {
        let say = format!(
            "ORLOP_CACHE={} PATH={}:$PATH {SCRIPTS}/build.sh 2>&1",
            cache.display(),
            tools.display()
        );
        let told = run("sh", ["-c", &say]).context("there is a guest")?;
        let place = told.lines().last().unwrap_or_default();
        ensure!(Path::new(place) == guest, "another guest: {told}");
        Ok(told.contains(AGAIN))
    };

    fs::write(guest.join("done"), "")?;
    ensure!(!build()?, "it has ZFS");
    fs::write(&mark, "")?;
    ensure!(!build()?, "it failed just now");
    let long_ago = SystemTime::now() - Duration::from_hours(25);
    File::options()
        .write(true)
        .open(&mark)?
        .set_times(FileTimes::new().set_modified(long_ago))?;
    ensure!(build()?, "it failed a day ago");
    ensure!(!build()?, "it failed again just now");
    Ok(())
}
