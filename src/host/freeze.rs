//! Freezing a filesystem while its image is copied, never for longer than a given time.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;

use super::gate::Gate;
use super::mount::Mounts;
use super::{kernel, path};

/// How long a filesystem is frozen at the most, unless the caller needs less.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A frozen filesystem: its image stands still. It is thawed when this is dropped, or its time is up.
#[derive(Debug)]
pub struct Frozen {
    mount_point: PathBuf,
    limit: Duration,
    watchdog: Option<Watchdog>,
}

/// Thaws when its time is up; answers whether it did.
#[derive(Debug)]
struct Watchdog {
    thaw: Sender<()>,
    thread: JoinHandle<Result<bool>>,
}

/// Freezes the filesystem that is mounted at `mount_point`, for at most `limit`.
///
/// # Errors
/// A path that is not where a whole filesystem is mounted, and the root: what would freeze is another filesystem than
/// was meant. `EBUSY` in the chain when somebody else froze it.
pub fn freeze(gate: &Gate, mount_point: &Path, limit: Duration) -> Result<Frozen> {
    let freezing = || format!("freezing {}", mount_point.display());
    let root = Arc::new(open_root_of(mount_point).with_context(freezing)?);
    // What is written back before need not be written back while writers wait.
    rustix::fs::syncfs(&root).with_context(freezing)?;
    gate.pass(freezing())?;
    kernel::freeze(&root).with_context(freezing)?;
    let (thaw, told) = mpsc::channel();
    let gate = gate.clone();
    let watched = Arc::clone(&root);
    let thread = thread::Builder::new()
        .name("thaw".to_owned())
        .spawn(move || {
            let overdue = told.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            // A machine that was cut off has no watchdog either.
            gate.pass("thawing")?;
            kernel::thaw(&watched).context("thawing")?;
            Ok(overdue)
        });
    match thread {
        Ok(thread) => Ok(Frozen {
            mount_point: mount_point.to_owned(),
            limit,
            watchdog: Some(Watchdog { thaw, thread }),
        }),
        Err(error) => {
            kernel::thaw(&root).with_context(|| format!("thawing {}", mount_point.display()))?;
            Err(error).context("starting the thread that thaws")
        }
    }
}

/// Does something to the device below `mount_point` while the filesystem there, if there is one, stands still.
///
/// # Errors
/// As [`freeze`] and [`Frozen::thaw`], and what `work` fails with; it was done then, or a part of it.
pub fn below<T>(
    gate: &Gate,
    mount_point: Option<&Path>,
    limit: Duration,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let frozen = mount_point.map(|at| freeze(gate, at, limit)).transpose()?;
    let done = work();
    frozen.map(Frozen::thaw).transpose()?;
    done
}

impl Frozen {
    /// Thaws it; what was copied until now is of one moment.
    ///
    /// # Errors
    /// When its time was up before: what was copied is of no use.
    pub fn thaw(mut self) -> Result<()> {
        let shown = self.mount_point.display().to_string();
        let overdue = self.stop().with_context(|| format!("thawing {shown}"))?;
        ensure!(
            !overdue,
            "{shown} was thawed after {:?}, before the copy of it was whole",
            self.limit
        );
        Ok(())
    }

    fn stop(&mut self) -> Result<bool> {
        let Some(Watchdog { thaw, thread }) = self.watchdog.take() else {
            return Ok(false);
        };
        // It may have gone already: then its answer says so.
        let _ = thaw.send(());
        match thread.join() {
            Ok(answer) => answer,
            Err(_) => bail!("the thread that thaws panicked"),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(mount_point = %self.mount_point.display(), "could not be thawed: {error:#}");
        }
    }
}

/// Thaws what a crash left frozen at `mount_point`; false if it was not frozen.
///
/// # Errors
/// As [`freeze`].
pub fn thaw_leftover(gate: &Gate, mount_point: &Path) -> Result<bool> {
    let thawing = || format!("thawing {}", mount_point.display());
    let root = open_root_of(mount_point).with_context(thawing)?;
    gate.pass(thawing())?;
    match kernel::thaw(&root) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error).with_context(thawing),
    }
}

/// Opens the root directory of the filesystem that is mounted here, if it really is that.
fn open_root_of(mount_point: &Path) -> Result<OwnedFd> {
    let absent = || format!("{} does not exist", mount_point.display());
    let root = path::open(mount_point, OFlags::RDONLY | OFlags::DIRECTORY)?.with_context(absent)?;
    let found = path::look(&root)?;
    ensure!(
        found.is_mount,
        "{} is not a mount point: the filesystem beneath it would be meant",
        mount_point.display()
    );
    let all = Mounts::new(Gate::open()).all()?;
    let here = all
        .iter()
        .find(|entry| entry.id == found.mount_id)
        .with_context(absent)?;
    let is_root = |dev| {
        all.iter()
            .any(|entry| entry.dev == dev && entry.target == Path::new("/"))
    };
    ensure!(
        here.root == Path::new("/") && !is_root(here.dev),
        "{} shows a part of a larger filesystem, or the root: all of that would be meant",
        mount_point.display()
    );
    Ok(root)
}
