//! What the probes find on filesystems whose abilities are known.

use std::fs;

use orlop::host::command::Tools;
use orlop::host::gate::Gate;
use orlop::host::probe::{self, ProjectQuota};
use orlop::host::subvolume::QuotaMode;
use orlop::volume::Filesystem;

use crate::image::{mounted, size_of};
use crate::sandbox::sandbox;

#[test]
fn shared_blocks_are_found_where_the_filesystem_has_them_and_nothing_is_left() {
    sandbox(|dir| {
        for (filesystem, shares) in [
            (Filesystem::Ext4, false),
            (Filesystem::Xfs, true),
            (Filesystem::Btrfs, true),
        ] {
            let (_image, top) = mounted(dir, filesystem, size_of(filesystem));
            let count = || fs::read_dir(&top).map_or(0, Iterator::count);
            let before = count();

            let found = probe::shares_blocks(&Gate::open(), &top);

            assert_eq!(found.expect("it can be written"), shares, "{filesystem}");
            assert_eq!(count(), before, "{filesystem}");
        }
    });
}

#[test]
fn a_filesystem_without_quotas_has_none_on() {
    sandbox(|dir| {
        let (_ext4, ext4) = mounted(dir, Filesystem::Ext4, size_of(Filesystem::Ext4));
        let (_btrfs, btrfs) = mounted(dir, Filesystem::Btrfs, size_of(Filesystem::Btrfs));

        let projects = probe::project_quota(&ext4).expect("it can be opened");
        let [not_btrfs, counts] = [&ext4, &btrfs].map(|top| probe::btrfs_quota(top));

        assert_eq!(projects, ProjectQuota::Off);
        assert_eq!(not_btrfs.expect("it can be opened"), None);
        assert_eq!(counts.expect("it can be opened"), Some(QuotaMode::Off));
    });
}

#[test]
fn a_tool_tells_its_version_wherever_it_prints_it() {
    let tools = Tools::new(Gate::open());
    for tool in [
        "mkfs.ext4",
        "e2fsck",
        "resize2fs",
        "mkfs.xfs",
        "xfs_growfs",
        "mkfs.btrfs",
        "btrfs",
    ] {
        let version = probe::version(&*tools, tool).expect("the tests need it");

        assert!(
            version.starts_with(|c: char| c.is_ascii_digit()),
            "{tool}: {version}"
        );
    }
    assert!(probe::version(&*tools, "no-such-tool").is_err());
}
