//! A directory and a mount namespace that end with the test, whatever becomes of it.

use std::fs;
use std::io::Write;
use std::path::Path;

use orlop::host::gate::Gate;
use orlop::host::mount::{Entry, Mounts};
use orlop::host::namespace;
use orlop::volume::MountAttributes;

/// Nothing can be written through it.
pub(crate) const READ_ONLY: MountAttributes = MountAttributes {
    read_only: true,
    nosuid: false,
    nodev: false,
    noexec: false,
    nodiratime: false,
    access_time: None,
};

/// Runs a test in mounts of its own with an empty directory; skips it, and says so, where that needs more rights.
pub(crate) fn sandbox(test: impl FnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        skipped("mounting", "it needs root");
        return;
    }
    // Made outside, so that it is removed when the mounts in it are gone.
    let dir = tempfile::Builder::new()
        .prefix("orlop-test-")
        .tempdir()
        .expect("the temporary directory can be written");
    let path = dir.path().canonicalize().expect("it was made a moment ago");
    namespace::in_own_mounts(|| test(&path)).expect("root may make a mount namespace");
}

/// Runs a test once with each kind of mount calls, in a directory that holds `source/file`.
pub(crate) fn with_both(test: impl Fn(&Mounts, &Path) + Send + Sync) {
    let run = |mounts: fn(&Path) -> Mounts| {
        sandbox(|dir| {
            fs::create_dir(dir.join("source")).expect("the directory is empty");
            fs::write(dir.join("source/file"), "content").expect("the directory can be written");
            let mounts = mounts(dir);
            test(&mounts, dir);
            let all = mounts.all().expect("it can be read");
            let left = |entry: &Entry| entry.target.starts_with(dir.join("scratch"));
            assert!(
                !all.iter().any(left),
                "something is left in the scratch directory"
            );
        });
    };
    run(|_| Mounts::new(Gate::open()));
    run(|dir| Mounts::with_old_calls(Gate::open(), dir.join("scratch")));
}

pub(crate) fn plain() -> MountAttributes {
    MountAttributes::default()
}

/// Says that something was not tested, past the test harness, which would swallow it.
pub(crate) fn skipped(what: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {what}, because {why}").expect("stderr is open");
}
