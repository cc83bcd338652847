//! Binding, unmounting and looking, with the new mount calls and the old ones.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use orlop::host::FileId;
use orlop::host::gate::Gate;
use orlop::host::mount::{At, Mounts};
use orlop::volume::MountAttributes;
use rustix::io::Errno;

use crate::sandbox::{READ_ONLY, plain, sandbox, skipped, with_both};

fn id(path: &Path) -> FileId {
    FileId::of(File::open(path).expect("it can be opened")).expect("it is open")
}

#[test]
fn a_bind_is_recognised_by_what_was_bound() {
    with_both(|mounts, dir| {
        let (source, target) = (dir.join("source"), dir.join("target"));

        mounts.bind(&source, &target, plain()).expect("it binds");

        let At::Mount(mounted) = mounts.at(&target).expect("it can be looked at") else {
            panic!("it is a mount");
        };
        assert_eq!(mounted.root, id(&source));
        assert_eq!((mounted.rdev, mounted.read_only), (0, false));
        assert_eq!(fs::read(target.join("file")).expect("seen"), b"content");
    });
}

#[test]
fn what_is_no_mount_is_told_apart() {
    with_both(|mounts, dir| {
        let at = |name: &str| mounts.at(&dir.join(name)).expect("it can be looked at");

        let found = ["missing/deep", "source", "source/file"].map(at);

        assert_eq!(
            found,
            [
                At::Nothing,
                At::Plain { directory: true },
                At::Plain { directory: false }
            ]
        );
        assert!(matches!(mounts.at(Path::new("/")), Ok(At::Mount(_))));
    });
}

#[test]
fn what_is_on_no_device_is_told() {
    let mounts = Mounts::new(Gate::open());
    for path in ["/proc", "/proc/version"] {
        let device = mounts.device_of(Path::new(path));
        assert_eq!(device.expect("it can be asked"), None, "{path}");
    }
}

#[test]
fn a_read_only_bind_is_never_writable() {
    with_both(|mounts, dir| {
        let (source, target) = (dir.join("source"), dir.join("target"));
        fs::create_dir(&target).expect("it is new");
        let done = AtomicBool::new(false);

        let written = thread::scope(|scope| {
            // Before the bind this writes beneath it, after it nothing at all: into the source it must never get.
            let writer = scope.spawn(|| {
                let mut tries = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    let _ = File::create(target.join("written"));
                    tries += 1;
                }
                tries
            });
            for _ in 0..200 {
                mounts.bind(&source, &target, READ_ONLY).expect("it binds");
                let refused = fs::write(target.join("again"), "").expect_err("it is read-only");
                assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
                unmount_when_unused(mounts, &target);
            }
            done.store(true, Ordering::Relaxed);
            writer.join().expect("it does not panic")
        });

        assert!(written > 0);
        assert!(!source.join("written").exists() && !source.join("again").exists());
    });
}

/// The writer has a file open now and then.
fn unmount_when_unused(mounts: &Mounts, target: &Path) {
    for _ in 0..10_000 {
        match mounts.unmount(target) {
            Ok(()) => return,
            Err(error) => assert!(is_busy(&error), "{error:#}"),
        }
    }
    panic!("{} stays in use", target.display());
}

fn is_busy(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref() == Some(&Errno::BUSY))
}

#[test]
fn attributes_hold_and_what_the_source_forbids_stays_forbidden() {
    with_both(|mounts, dir| {
        let [source, once, twice] = ["source", "once", "twice"].map(|name| dir.join(name));
        let noexec = MountAttributes {
            noexec: true,
            nodev: true,
            ..plain()
        };

        mounts.bind(&source, &once, noexec).expect("it binds");
        mounts.bind(&once, &twice, READ_ONLY).expect("it binds");

        let options = |target: &Path| {
            let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("it is there");
            let line = table
                .lines()
                .find(|line| line.split(' ').nth(4) == target.to_str())
                .map(str::to_owned)
                .expect("it is mounted");
            line.split(' ').nth(5).map(str::to_owned)
        };
        assert_eq!(options(&once).as_deref(), Some("rw,nodev,noexec,relatime"));
        assert_eq!(options(&twice).as_deref(), Some("ro,nodev,noexec,relatime"));
    });
}

#[test]
fn a_second_bind_is_refused_and_not_stacked() {
    with_both(|mounts, dir| {
        let (source, target) = (dir.join("source"), dir.join("target"));
        mounts.bind(&source, &target, plain()).expect("it binds");

        let second = mounts.bind(&source, &target, READ_ONLY);

        let error = second.expect_err("it is a mount already");
        assert!(
            format!("{error:#}").contains("is a mount already"),
            "{error:#}"
        );
        mounts.unmount(&target).expect("there is one mount");
        assert_eq!(
            mounts.at(&target).expect("it can be looked at"),
            At::Plain { directory: true }
        );
    });
}

#[test]
fn of_two_threads_that_bind_at_once_only_one_does() {
    with_both(|mounts, dir| {
        let (source, target) = (dir.join("source"), dir.join("target"));

        for _ in 0..50 {
            let bound = thread::scope(|scope| {
                let binds = [(); 4]
                    .map(|()| scope.spawn(|| mounts.bind(&source, &target, plain()).is_ok()));
                binds.map(|bind| bind.join().expect("it does not panic"))
            });

            assert_eq!(bound.iter().filter(|bound| **bound).count(), 1);
            mounts.unmount(&target).expect("there is one mount");
            assert!(mounts.unmount(&target).is_err());
        }
    });
}

#[test]
fn a_device_node_is_bound_to_a_file_and_recognised() {
    with_both(|mounts, dir| {
        let (device, target) = (Path::new("/dev/loop0"), dir.join("target"));
        let Ok(node) = fs::metadata(device) else {
            skipped("binding a device node", "there is no /dev/loop0");
            return;
        };

        mounts.bind(device, &target, READ_ONLY).expect("it binds");

        let At::Mount(mounted) = mounts.at(&target).expect("it can be looked at") else {
            panic!("it is a mount");
        };
        assert_eq!((mounted.rdev, mounted.read_only), (node.rdev(), true));
        mounts.unmount(&target).expect("it is mounted");
        mounts.remove_target(&target).expect("it is an empty file");
        assert_eq!(
            mounts.at(&target).expect("it can be looked at"),
            At::Nothing
        );
    });
}

#[test]
fn a_mount_in_use_is_not_unmounted() {
    with_both(|mounts, dir| {
        let (source, target) = (dir.join("source"), dir.join("target"));
        mounts.bind(&source, &target, plain()).expect("it binds");
        let open = File::open(target.join("file")).expect("it is seen there");

        let refused = mounts.unmount(&target).expect_err("a file is open in it");

        assert!(is_busy(&refused) && format!("{refused:#}").contains("still in use"));
        drop(open);
        mounts.unmount(&target).expect("nothing uses it any more");
        assert!(mounts.unmount(&target).is_err(), "it is gone");
    });
}

#[test]
fn what_is_mounted_in_a_bind_is_not_seen_in_its_source() {
    with_both(|mounts, dir| {
        rustix::mount::mount_bind(dir, dir).expect("root may bind");
        rustix::mount::mount_change(dir, rustix::mount::MountPropagationFlags::SHARED)
            .expect("root may share");
        let (source, target) = (dir.join("source"), dir.join("target"));
        fs::create_dir(source.join("below")).expect("it is new");
        mounts.bind(&source, &target, plain()).expect("it binds");

        mounts
            .bind(&source, &target.join("below"), plain())
            .expect("it binds");

        let below = mounts
            .at(&source.join("below"))
            .expect("it can be looked at");
        let inside = mounts
            .at(&target.join("below"))
            .expect("it can be looked at");
        assert!(matches!(inside, At::Mount(_)));
        assert_eq!(below, At::Plain { directory: true });
    });
}

#[test]
fn what_a_crash_left_in_the_scratch_directory_is_swept() {
    sandbox(|dir| {
        let [source, scratch, target] = ["source", "scratch", "target"].map(|name| dir.join(name));
        fs::create_dir(&source).expect("it is new");
        let is_left = || {
            let all = Mounts::new(Gate::open()).all().expect("readable");
            all.iter().any(|entry| entry.target.starts_with(&scratch))
        };
        let mut cuts_with_leftovers = 0;

        for allowed in 0.. {
            let cut = Gate::cut_after(allowed);
            let done = Mounts::with_old_calls(cut.clone(), scratch.clone())
                .bind(&source, &target, READ_ONLY);
            assert_eq!(done.is_ok(), !cut.was_cut());
            cuts_with_leftovers += u32::from(is_left());

            let restarted = Mounts::with_old_calls(Gate::open(), scratch.clone());
            restarted.sweep().expect("it can be swept");
            assert!(!is_left(), "after {allowed} changes");
            if let At::Mount(mounted) = restarted.at(&target).expect("it can be looked at") {
                assert!(mounted.read_only);
                restarted.unmount(&target).expect("it is mounted");
            }
            restarted.remove_target(&target).expect("it is empty");
            if !cut.was_cut() {
                break;
            }
        }

        assert!(cuts_with_leftovers > 0, "a cut must have left something");
    });
}
