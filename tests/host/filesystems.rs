//! The three filesystems, from making to growing and cloning.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use orlop::host::command::{Command, Runner, Tools};
use orlop::host::filesystem::{self, Found};
use orlop::host::gate::Gate;
use orlop::host::mount::Mounts;
use orlop::volume::{Bytes, Filesystem, MountOptions};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::image::{Image, devices, mount, mounted, mounts, size_of};
use crate::sandbox::{sandbox, skipped};

#[test]
fn each_filesystem_is_made_recognised_mounted_and_grown() {
    for kind in Filesystem::ALL {
        sandbox(|dir| {
            let tools = Tools::new(Gate::open());
            let before = size_of(kind).max(256 << 20);
            let (image, target) = mounted(dir, kind, before);
            let probed = || filesystem::probe(&image.file).expect("it can be read");
            let found = |size| {
                Some(Found {
                    filesystem: kind,
                    size: Bytes(size),
                })
            };
            assert_eq!(probed(), found(before));
            let room = |target: &Path| {
                let has = rustix::fs::statvfs(target).expect("it is mounted");
                has.f_blocks * has.f_frsize
            };
            let had = room(&target);

            let after = before + (64 << 20);
            image.file.set_len(after).expect("holes cost nothing");
            let device = devices()
                .find(image.id())
                .expect("looked")
                .expect("attached");
            devices().grow(&device).expect("its file has grown");
            if !filesystem::can_grow_mounted(kind) {
                let refused = filesystem::grow(&*tools, kind, &device.path, &target);
                assert!(refused.is_err_and(|error| error.to_string().contains("CAP_SYS_RESOURCE")));
                skipped("growing a mounted ext4", "it needs CAP_SYS_RESOURCE");
                return;
            }
            for _ in 0..2 {
                filesystem::grow(&*tools, kind, &device.path, &target).expect("it is mounted");
            }

            assert!(room(&target) >= had + (56 << 20), "{kind}");
            drop(device);
            mounts().unmount(&target).expect("nothing uses it");
            assert_eq!(probed(), found(after));
            filesystem::check(&*tools, kind, &image.path).expect("it is sound");
        });
    }
}

#[test]
fn a_btrfs_too_small_to_be_resized_is_named_unless_it_need_not_be() {
    sandbox(|dir| {
        let tools = Tools::new(Gate::open());
        let (image, target) = mounted(dir, Filesystem::Btrfs, 128 << 20);
        let device = devices()
            .find(image.id())
            .expect("looked")
            .expect("attached");
        let grow = || filesystem::grow(&*tools, Filesystem::Btrfs, &device.path, &target);
        grow().expect("it has that size");

        image.file.set_len(192 << 20).expect("holes cost nothing");
        devices().grow(&device).expect("its file has grown");

        let error = grow().expect_err("the kernel refuses").to_string();
        assert!(error.contains("256MiB or more, not to 192MiB"), "{error}");
    });
}

#[test]
fn an_ext4_at_rest_is_grown_and_the_others_wait_until_they_are_mounted() {
    sandbox(|dir| {
        let tools = Tools::new(Gate::open());
        for kind in Filesystem::ALL {
            let image = Image::new(dir.join(kind.name()), size_of(kind));
            filesystem::make(&*tools, kind, &image.path).expect("it is blank");
            let larger = size_of(kind) + (64 << 20);
            image.file.set_len(larger).expect("holes cost nothing");

            let grown = [(); 2].map(|()| {
                filesystem::grow_at_rest(&*tools, kind, &image.path).expect("it is sound")
            });

            let found = filesystem::probe(&image.file).expect("it can be read");
            assert_eq!(grown, [kind == Filesystem::Ext4; 2]);
            assert_eq!(
                found.map(|found| found.size == Bytes(larger)),
                Some(grown[0])
            );
        }
    });
}

#[test]
fn a_filesystem_is_made_only_where_nothing_is() {
    sandbox(|dir| {
        let tools = Tools::new(Gate::open());
        for kind in Filesystem::ALL {
            let image = Image::new(dir.join(kind.name()), size_of(kind));
            image
                .file
                .write_all_at(b"x", size_of(kind) - 1)
                .expect("it can be written");

            let refused = filesystem::make(&*tools, kind, &image.path);

            let error = format!("{:#}", refused.expect_err("it is not blank"));
            assert!(error.contains("is not blank"), "{error}");
            assert_eq!(
                filesystem::probe(&image.file).expect("it can be read"),
                None
            );
        }
    });
}

#[test]
fn an_ext4_with_damage_that_can_be_mended_is_mended_and_other_damage_is_named() {
    sandbox(|dir| {
        let tools = Tools::new(Gate::open());
        let image = Image::new(dir.join("image"), 64 << 20);
        filesystem::make(&*tools, Filesystem::Ext4, &image.path).expect("it is blank");
        let check = || filesystem::check(&*tools, Filesystem::Ext4, &image.path);
        for (field, value) in [("free_blocks_count", "7"), ("state", "2")] {
            let damage = format!("set_super_value {field} {value}");
            let debugfs = Command::new("debugfs").args(["-w", "-R", &damage]);
            tools.run(&debugfs.arg(&image.path)).expect("it is there");
        }

        check().expect("the count of free blocks can be counted again");

        check().expect("it was mended");
        image
            .file
            .write_all_at(&[0; 8 << 10], 0)
            .expect("it can be written");
        let error = format!("{:#}", check().expect_err("it has no superblock"));
        assert!(error.contains("e2fsck -f"), "{error}");
    });
}

/// Of what it left clean e2fsck reads no more than the superblock, as we do without it.
#[test]
fn an_ext4_is_checked_unless_it_was_left_clean() {
    sandbox(|dir| {
        let (image, target) = mounted(dir, Filesystem::Ext4, 64 << 20);
        let needs_a_check = |path: &Path| filesystem::check(&Refuses, Filesystem::Ext4, path);
        let copy = |name: &str| image.copy(dir.join(name));
        fs::write(target.join("row"), "written").expect("there is room");
        rustix::fs::syncfs(File::open(&target).expect("it is mounted")).expect("it can be written");
        let cut_off = copy("cut off");

        mounts().unmount(&target).expect("nothing uses it");

        needs_a_check(&cut_off.path).expect_err("it has a log to replay");
        needs_a_check(&image.path).expect("it was unmounted");
        for (field, value) in [
            ("state", "0"),
            ("state", "3"),
            ("error_count", "1"),
            ("last_orphan", "12"),
            ("checkinterval", "1"),
            ("max_mnt_count", "1"),
            ("feature_ro_compat", "0x1046b"),
        ] {
            let changed = copy(field);
            let change = format!("set_super_value {field} {value}");
            let debugfs = Command::new("debugfs").args(["-w", "-R", &change]);
            let tools = Tools::new(Gate::open());
            tools.run(&debugfs.arg(&changed.path)).expect("it is there");
            needs_a_check(&changed.path).expect_err(field);
            fs::remove_file(&changed.path).expect("it is there");
        }
    });
}

struct Refuses;

impl Runner for Refuses {
    fn run(&self, command: &Command) -> anyhow::Result<String> {
        anyhow::bail!("{command:?} is not wanted")
    }
}

/// The source is mounted, so that its clone has a log to replay.
#[test]
fn a_clone_is_mounted_beside_its_source_each_with_its_own_content() {
    for kind in Filesystem::ALL {
        sandbox(|dir| {
            let (source, target) = mounted(dir, kind, size_of(kind));
            fs::write(target.join("file"), "before").expect("there is room");
            rustix::fs::syncfs(File::open(&target).expect("it is there")).expect("it syncs");
            let logged = File::create(target.join("logged")).expect("there is room");
            logged.sync_all().expect("it syncs");
            let first = source.copy(dir.join("clone.img"));
            filesystem::renew_identity(&Gate::open(), kind, &first.path).expect("it is sound");
            let clones = [first.copy(dir.join("second.img")), first];
            filesystem::renew_identity(&Gate::open(), kind, &clones[0].path).expect("it is sound");

            // A kernel since 6.7 mounts btrfs beside its like, but not the older ones.
            let id = |image: &Image| {
                let mut id = [0; 16];
                image
                    .file
                    .read_exact_at(&mut id, 0x10020)
                    .expect("it is larger");
                id
            };
            let ids = [&source, &clones[0], &clones[1]].map(id);
            assert!(kind != Filesystem::Btrfs || (ids[0] != ids[1] && ids[1] != ids[2]));
            for (number, clone) in clones.iter().enumerate() {
                let beside = dir.join(format!("clone-{number}"));
                mount(clone, kind, &beside);
                fs::write(target.join("file"), "after").expect("there is room");

                let content = fs::read_to_string(beside.join("file")).expect("it was cloned");
                assert_eq!(content, "before", "{kind}");
                assert!(beside.join("logged").exists(), "{kind}");
                fs::write(beside.join("file"), "clone").expect("there is room");
                let content = fs::read_to_string(target.join("file")).expect("it is there");
                assert_eq!(content, "after", "{kind}");
            }
        });
    }
}

#[test]
fn options_of_the_filesystem_hold_and_wrong_ones_say_why() {
    sandbox(|dir| {
        let image = Image::new(dir.join("image"), 64 << 20);
        let tools = Tools::new(Gate::open());
        filesystem::make(&*tools, Filesystem::Ext4, &image.path).expect("it is blank");
        let device = devices()
            .attach(&image.file, false, true)
            .expect("attaches");
        let options = |words: &str| MountOptions::parse(&[words.to_owned()]).expect("legal");
        let target = dir.join("target");
        let old = Mounts::with_old_calls(Gate::open(), dir.join("scratch"));

        for mounts in [mounts(), old] {
            let mount =
                |words| mounts.mount(&device.path, Filesystem::Ext4, &target, &options(words));
            let wrong = mount("ro,commit=30,nonsense=1").expect_err("there is no such option");
            assert!(format!("{wrong:#}").contains("nonsense"), "{wrong:#}");

            mount("ro,noatime,commit=30").expect("all are known");

            let all = mounts.all().expect("readable");
            let here = all
                .iter()
                .find(|entry| entry.target == target)
                .expect("mounted");
            assert!(here.read_only && here.filesystem == "ext4");
            assert!(mount("ro").is_err(), "it is a mount already");
            mounts.unmount(&target).expect("nothing uses it");
        }
    });
}

#[test]
fn a_device_that_is_in_use_in_passing_is_mounted_when_that_is_over() {
    for kind in Filesystem::ALL {
        sandbox(|dir| {
            let image = Image::new(dir.join("image"), size_of(kind));
            let tools = Tools::new(Gate::open());
            filesystem::make(&*tools, kind, &image.path).expect("it is blank");
            let device = devices().attach(&image.file, false, true);
            let device = device.expect("attaches");
            let mount = |target: &str| {
                let (target, options) = (dir.join(target), MountOptions::default());
                mounts().mount(&device.path, kind, &target, &options)
            };
            // As a tool has that another thread is just starting.
            let alone = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
            let claim = || rustix::fs::open(&device.path, alone, Mode::empty());

            let claimed = claim().expect("nobody has it");
            let refused = mount("first").expect_err("it stays in use");
            let passing = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                drop(claimed);
            });
            mount("second").expect("it is free in time");

            assert_eq!(refused.downcast_ref(), Some(&Errno::BUSY), "{refused:#}");
            passing.join().expect("it only waits");
        });
    }
}
