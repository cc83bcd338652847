//! What a claim that is made larger promises to the pod that uses it.

use anyhow::{Result, ensure};

use crate::Test;
use crate::space::{Space, Use};

pub(crate) const TESTS: &[Test] = &[
    ("a_filesystem_grows_while_it_is_written", filesystem),
    ("a_device_grows_while_it_is_written", device),
    ("what_can_not_be_had_leaves_the_claim_as_it_is", too_large),
];

fn filesystem(space: &Space<'_>) -> Result<()> {
    // Without CAP_SYS_RESOURCE, which the machine may lack, ext4 grows only while it is not mounted.
    space.claim("data", "xfs", "320Mi", "")?;
    space.pod("writer", "data", &Use::Mount)?;
    space.ready(&["writer"])?;
    write_on(space, "echo line >> /v/log")?;

    grow(space, "480Mi")?;

    space.until("the filesystem is larger", || {
        let size = space.shell("writer", "df -k /v | awk 'NR == 2 { print $2 }'")?;
        Ok(size.parse::<u32>()? > 400 << 10)
    })?;
    wrote_on(space)?;
    ensure!(space.field("pvc/data", ".status.capacity.storage")? == "480Mi");
    Ok(())
}

fn device(space: &Space<'_>) -> Result<()> {
    space.claim("data", "image", "16Mi", "volumeMode: Block,")?;
    space.pod("writer", "data", &Use::Device)?;
    space.ready(&["writer"])?;
    write_on(space, "date | dd of=/v conv=fsync,notrunc 2>/dev/null")?;

    grow(space, "32Mi")?;

    let size = (32 << 20).to_string();
    space.until("the device is larger", || {
        Ok(space.shell("writer", "blockdev --getsize64 /v")? == size)
    })?;
    wrote_on(space)
}

fn too_large(space: &Space<'_>) -> Result<()> {
    space.claim("data", "disk", "16Mi", "")?;
    space.pod("user", "data", &Use::Mount)?;
    space.ready(&["user"])?;

    grow(space, "1Ti")?;

    space.until("the claim says why it does not grow", || {
        let events = space.kubectl(&["get", "events", "--output=jsonpath={..message}"])?;
        Ok(events.contains("has room for"))
    })?;
    ensure!(space.field("pvc/data", ".status.capacity.storage")? == "16Mi");
    space.shell("user", "echo still > /v/file")?;
    Ok(())
}

pub(crate) fn grow(space: &Space<'_>, size: &str) -> Result<()> {
    let patch = format!(
        "--patch={{\"spec\": {{\"resources\": {{\"requests\": {{\"storage\": \"{size}\"}}}}}}}}"
    );
    space.kubectl(&["patch", "pvc", "data", &patch]).map(drop)
}

/// Starts what writes again and again, and stops with the first write that fails.
fn write_on(space: &Space<'_>, write: &str) -> Result<()> {
    let line = format!(
        "(n=0; while {write}; do n=$((n + 1)); echo $n > /tmp/written; sleep 0.05; done) >/dev/null 2>&1 &"
    );
    space.shell("writer", &line)?;
    wrote_on(space)
}

/// Sees that it still writes.
fn wrote_on(space: &Space<'_>) -> Result<()> {
    let written = || space.shell("writer", "cat /tmp/written");
    let before = written()?;
    space.until("it writes", || Ok(written()? != before))
}
