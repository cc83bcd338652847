//! What the guest is for: a kernel that has what this machine's may lack.

use std::fs::File;

use crate::support::run;

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn zfs_makes_a_pool() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("disk");
    File::create(&file)
        .and_then(|file| file.set_len(256 << 20))
        .expect("a sparse file can be made");
    let file = file.display().to_string();
    run("modprobe", ["zfs"]).expect("the guest has the modules");

    run("zpool", ["create", "-O", "mountpoint=none", "born", &file]).expect("a pool can be made");
    let health = run("zpool", ["list", "-Ho", "health", "born"]).expect("it is there");
    run("zpool", ["destroy", "born"]).expect("nobody uses it");

    assert_eq!(health.trim(), "ONLINE");
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn the_device_mapper_has_thin_pools_and_encryption() {
    run(
        "modprobe",
        ["-a", "dm_thin_pool", "dm_snapshot", "dm_crypt", "dm_flakey"],
    )
    .expect("the guest has the modules");

    let targets = run("dmsetup", ["targets"]).expect("the device mapper answers");

    for target in ["thin-pool", "snapshot-origin", "crypt", "flakey"] {
        assert!(targets.contains(target), "{target} is not in {targets}");
    }
}
