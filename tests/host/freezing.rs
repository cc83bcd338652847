//! Freezing: writers stand still, and always go on again.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use orlop::host::freeze::{LIMIT, freeze, thaw_leftover};
use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use orlop::volume::Filesystem;

use crate::image::{mounted, size_of};
use crate::sandbox::{plain, sandbox};

/// Thaws, whatever becomes of the test: a frozen filesystem outlives everything.
struct Thawed<'a>(&'a Path);

impl Drop for Thawed<'_> {
    fn drop(&mut self) {
        let _ = thaw_leftover(&Gate::open(), self.0);
    }
}

#[test]
fn a_writer_waits_until_it_is_thawed() {
    for kind in Filesystem::ALL {
        sandbox(|dir| {
            let (_image, target) = mounted(dir, kind, size_of(kind));
            let _thawed = Thawed(&target);
            let thawing = AtomicBool::new(false);
            let frozen = freeze(&Gate::open(), &target, LIMIT).expect("nobody froze it");

            thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    fs::write(target.join("file"), "content").expect("there is room");
                    thawing.load(Ordering::SeqCst)
                });
                thawing.store(true, Ordering::SeqCst);
                frozen.thaw().expect("its time is not up");
                assert!(writer.join().expect("no panic"), "it wrote while frozen");
            });

            assert!(!thaw_leftover(&Gate::open(), &target).expect("it is mounted"));
        });
    }
}

#[test]
fn the_watchdog_thaws_what_is_frozen_for_too_long() {
    sandbox(|dir| {
        let (_image, target) = mounted(dir, Filesystem::Ext4, 64 << 20);
        let _thawed = Thawed(&target);

        let frozen = freeze(&Gate::open(), &target, Duration::from_millis(50)).expect("freezes");
        fs::write(target.join("file"), "content").expect("the watchdog lets it through");

        let late = frozen.thaw().expect_err("its time is up");
        assert!(late.to_string().contains("was thawed after 50ms"), "{late}");
    });
}

#[test]
fn what_somebody_else_froze_is_refused_and_left_frozen() {
    sandbox(|dir| {
        let (_image, target) = mounted(dir, Filesystem::Ext4, 64 << 20);
        let _thawed = Thawed(&target);
        let frozen = freeze(&Gate::open(), &target, LIMIT).expect("nobody froze it");

        let second = freeze(&Gate::open(), &target, LIMIT).expect_err("it is frozen");

        assert!(format!("{second:#}").contains("busy"), "{second:#}");
        frozen.thaw().expect("it was still frozen");
    });
}

#[test]
fn what_a_crash_left_frozen_is_thawed() {
    sandbox(|dir| {
        let (_image, target) = mounted(dir, Filesystem::Ext4, 64 << 20);
        let _thawed = Thawed(&target);
        // Freezing is one change; the thaw is one that does not happen any more.
        let frozen = freeze(&Gate::cut_after(1), &target, LIMIT).expect("it is the first change");
        drop(frozen);

        let was_frozen = thaw_leftover(&Gate::open(), &target).expect("it is mounted");

        assert!(was_frozen);
        fs::write(target.join("file"), "content").expect("it is thawed");
    });
}

#[test]
fn what_is_not_the_whole_filesystem_that_was_meant_is_not_frozen() {
    sandbox(|dir| {
        let (source, bound) = (dir.join("source"), dir.join("bound"));
        fs::create_dir(&source).expect("it is new");
        let mounts = Mounts::new(Gate::open());
        mounts.bind(&source, &bound, plain()).expect("it binds");
        let missing = dir.join("missing");
        let (_image, target) = mounted(dir, Filesystem::Ext4, 64 << 20);
        let below = target.join("lost+found");

        for path in [&source, &bound, &missing, &below, Path::new("/"), dir] {
            let gate = Gate::cut_after(0);
            assert!(freeze(&gate, path, LIMIT).is_err());
            assert!(thaw_leftover(&gate, path).is_err());
            assert!(!gate.was_cut(), "{} was as good as frozen", path.display());
        }
    });
}
