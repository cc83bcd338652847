//! Volumes that a person mounts by the command line.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};

use orlop::host::namespace;

use crate::person::Person;
use crate::support::skipped;

/// Lets a person work where mounts are nobody else's; skips the test, and says so, without the right to that.
pub(crate) fn with_mounts(test: impl FnOnce(Person) + Send) {
    if !rustix::process::geteuid().is_root() {
        skipped("mounting by the command line", "it needs root");
        return;
    }
    namespace::in_own_mounts(|| test(Person::new(&[]))).expect("root may make a mount namespace");
}

#[test]
fn a_volume_that_is_mounted_twice_is_staged_until_the_last_unmount() {
    with_mounts(|person| {
        person.runs("volume create data --size 1GiB");

        let first = person.runs("volume mount default/data ~/one");
        person.runs("volume mount default/data ~/two --read-only");
        fs::write(person.path("one/row"), "42").expect("it is writable");
        let denied = fs::write(person.path("two/row"), "43");
        let seen = fs::read_to_string(person.path("two/row"));
        let shown = person.runs("volume inspect default/data -o json").json();
        let refused = person.tries("volume rm default/data");
        person.runs("volume unmount default/data ~/one");
        let after_one = person.path("staging/default/data").join("row").exists();
        person.runs("volume unmount default/data ~/two");
        let after_both = person.path("staging/default/data").exists();
        let removed = person.runs("volume rm default/data");

        assert!(first.out.ends_with("one\n"), "{first:?}");
        assert!(denied.is_err() && seen.is_ok_and(|row| row == "42"));
        let mounts = shown["mounts"].as_array().expect("a list");
        assert_eq!(mounts.len(), 3, "{shown}");
        assert!(shown["bytes"]["total"].as_u64() > Some(0), "{shown}");
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("orlop volume unmount"), "{refused:?}");
        assert!(after_one && !after_both);
        assert!(!person.path("one").exists() && !person.path("two").exists());
        assert_eq!(removed.out, "default/data removed\n");
    });
}

#[test]
fn a_block_volume_is_mounted_as_a_device() {
    with_mounts(|person| {
        person.runs("volume create raw --size 8MiB --block");

        person.runs("volume mount default/raw ~/device");
        let kind = fs::metadata(person.path("device")).map(|found| found.file_type());
        let shown = person.runs("volume inspect default/raw");
        person.runs("volume unmount default/raw ~/device");

        assert!(kind.is_ok_and(|kind| kind.is_block_device()));
        assert!(shown.out.contains("device"), "{}", shown.out);
        person.runs("volume rm default/raw");
    });
}

#[test]
fn a_volume_is_mounted_where_a_symlink_and_dots_lead() {
    with_mounts(|person| {
        person.runs("volume create data --size 1MiB");
        fs::create_dir(person.path("real")).expect("it is new");
        symlink(person.path("real"), person.path("link")).expect("it is new");

        let mounted = person.runs("volume mount default/data ~/link/../link/at/");
        fs::write(person.path("real/at/row"), "42").expect("it is mounted there");
        person.runs("volume unmount default/data ~/link/at");

        assert!(mounted.out.ends_with("/real/at\n"), "{mounted:?}");
        assert!(!person.path("real/at").exists());
    });
}

#[test]
fn a_mount_that_fails_leaves_nothing_staged() {
    with_mounts(|person| {
        person.runs("volume create data --size 1MiB");
        fs::write(person.path("file"), "no directory").expect("it is new");

        let failed = person.tries("volume mount default/data ~/file");

        assert_eq!(failed.code, 1, "{failed:?}");
        assert!(!person.path("staging/default/data").exists());
        person.runs("volume rm default/data");
    });
}

#[test]
fn a_mount_that_would_hide_the_pool_is_refused() {
    with_mounts(|person| {
        person.runs("volume create data --size 1MiB");

        for path in ["~/data", "~/data/default", "~/data/default/volumes/x"] {
            let refused = person.tries(&format!("volume mount default/data {path}"));

            assert_eq!(refused.code, 2, "{refused:?}");
            assert!(refused.err.contains("choose a path outside"), "{refused:?}");
        }
        person.runs("volume inspect default/data");
    });
}

#[test]
fn what_a_snapshot_holds_is_back_in_a_larger_volume() {
    with_mounts(|person| {
        person.runs("volume create data --size 1GiB");
        person.runs("volume mount default/data ~/mnt");
        fs::write(person.path("mnt/row"), "42").expect("it is mounted");

        let taken = person.runs("snapshot create default/data monday");
        fs::remove_file(person.path("mnt/row")).expect("it was written");
        let restored = person.runs("snapshot restore default/data@monday back --size 2GiB");
        person.runs("volume mount default/back ~/back");
        let row = fs::read_to_string(person.path("back/row"));
        let table = person.runs("snapshot ls --volume default/data").rows();
        let shown = person.runs("volume inspect default/back");

        assert_eq!(taken.out, "default/data@monday taken: 1GiB\n");
        assert_eq!(
            restored.out,
            "default/back restored from default/data@monday: 2GiB\n"
        );
        assert!(row.is_ok_and(|row| row == "42"));
        assert_eq!(table[0], ["ID", "VOLUME", "SIZE", "CREATED", "READY"]);
        assert_eq!(
            table[1][..3],
            ["default/data@monday", "default/data", "1GiB"]
        );
        assert!(
            shown.out.contains("snapshot default/data@monday"),
            "{}",
            shown.out
        );
        person.runs("snapshot rm default/data@monday");
        assert!(person.runs("snapshot ls -o name").out.is_empty());
    });
}
