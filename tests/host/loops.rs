//! Loop devices: attached, found, grown and gone.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use orlop::host::command::Tools;
use orlop::host::filesystem;
use orlop::host::gate::Gate;
use orlop::volume::{Filesystem, MountOptions};

use crate::image::{Image, devices, mounted, mounts};
use crate::sandbox::sandbox;

fn wait_until(what: &str, claim: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !claim() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

#[test]
fn an_attached_file_is_found_grown_and_detached() {
    sandbox(|dir| {
        let image = Image::new(dir.join("image"), 8 << 20);
        assert!(devices().find(image.id()).expect("looked").is_none());

        let device = devices()
            .attach(&image.file, false, false)
            .expect("attaches");

        assert!(device.direct_io || !direct_io_works(dir), "{device:?}");
        let node = File::open(&device.path).expect("there is a node");
        assert_eq!(node.metadata().expect("open").rdev(), device.rdev);
        fs::rename(&image.path, dir.join("renamed")).expect("it can be renamed");
        let found = devices()
            .find(image.id())
            .expect("looked")
            .expect("attached");
        assert_eq!((found.number, found.read_only), (device.number, false));
        image.file.set_len(16 << 20).expect("holes cost nothing");
        devices().grow(&found).expect("it grows");
        assert_eq!(size(&node), 16 << 20);
        drop((device, found, node));
        devices().detach(image.id()).expect("nobody uses it");
        devices().detach(image.id()).expect("nothing is attached");
        assert!(devices().find(image.id()).expect("looked").is_none());
    });
}

fn size(node: &File) -> u64 {
    rustix::fs::seek(node, rustix::fs::SeekFrom::End(0)).expect("a device has an end")
}

fn direct_io_works(dir: &Path) -> bool {
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::DIRECT;
    rustix::fs::open(dir, flags, rustix::fs::Mode::RUSR).is_ok()
}

#[test]
fn what_is_attached_read_only_can_not_be_written() {
    sandbox(|dir| {
        let image = Image::new(dir.join("image"), 8 << 20);

        let device = devices().attach(&image.file, true, true).expect("attaches");

        assert!(device.read_only);
        let node = File::options().write(true).open(&device.path);
        let written = node.and_then(|node| node.write_all_at(b"x", 0).and(node.sync_all()));
        assert!(written.is_err());
    });
}

#[test]
fn threads_that_attach_different_files_at_once_get_different_devices() {
    sandbox(|dir| {
        let images: Vec<Image> = (0..12)
            .map(|k| Image::new(dir.join(format!("{k}")), 1 << 20))
            .collect();

        let attached: Vec<_> = thread::scope(|scope| {
            let attach = |image| scope.spawn(move || devices().attach(image, false, true));
            let threads: Vec<_> = images.iter().map(|image| attach(&image.file)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
            threads
                .into_iter()
                .map(|thread| join(thread).expect("attaches"))
                .collect()
        });

        for (image, device) in images.iter().zip(&attached) {
            let found = devices()
                .find(image.id())
                .expect("looked")
                .expect("attached");
            assert_eq!(found.number, device.number);
        }
    });
}

#[test]
fn a_device_that_clears_itself_goes_with_its_unmount() {
    sandbox(|dir| {
        let (image, target) = mounted(dir, Filesystem::Ext4, 64 << 20);
        assert!(devices().find(image.id()).expect("looked").is_some());

        mounts().unmount(&target).expect("nothing uses it");

        wait_until("the device is still there", || {
            devices().find(image.id()).expect("looked").is_none()
        });
    });
}

#[test]
fn a_refused_detach_changes_nothing() {
    sandbox(|dir| {
        let image = Image::new(dir.join("image"), 64 << 20);
        filesystem::make(&*Tools::new(Gate::open()), Filesystem::Ext4, &image.path)
            .expect("it is blank");
        let device = devices()
            .attach(&image.file, false, false)
            .expect("attaches");
        let target = dir.join("target");
        mounts()
            .mount(
                &device.path,
                Filesystem::Ext4,
                &target,
                &MountOptions::default(),
            )
            .expect("it was made a moment ago");
        drop(device);

        let refused = devices().detach(image.id()).expect_err("it is mounted");

        assert!(
            format!("{refused:#}").contains("still in use"),
            "{refused:#}"
        );
        mounts().unmount(&target).expect("nothing uses it");
        assert!(devices().find(image.id()).expect("looked").is_some());
        devices().detach(image.id()).expect("nothing uses it");
    });
}
