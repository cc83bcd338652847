//! A volume group that LVM's own configuration hides, and one that is not there: each is told with what to do.

use std::fs;

use orlop::config;
use orlop::host::gate::Gate;
use orlop::host::{Host, namespace};
use orlop::pool;

use crate::support::home::{Home, VolumeGroup};
use crate::support::run;

/// What hides all disks: a filter, and a devices file that names none.
const HIDING: [(&str, &str); 3] = [
    ("filter", "devices { filter=[\"r|.*|\"] }"),
    ("global filter", "devices { global_filter=[\"r|.*|\"] }"),
    (
        "devices file",
        "devices { use_devicesfile=1 devicesfile=\"none.devices\" }",
    ),
];

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn a_volume_group_that_lvm_is_told_not_to_see_is_told_so() {
    let Some(group) = VolumeGroup::new(false) else {
        return;
    };
    let (disk, name) = (group.device().to_owned(), group.name.clone());
    let home = Home::Lvm(group);
    let pool = |kind| {
        let name = "pool".parse().expect("it is a legal name");
        let config = config::Pool { name, kind };
        pool::open(&config, &Host::new(Gate::open())).map(drop)
    };
    let open = || pool(home.pool("unused".as_ref()));
    let hidden_by = |how: &str| {
        let etc = tempfile::tempdir().expect("a temporary directory can be made");
        fs::create_dir(etc.path().join("devices")).expect("it is new");
        fs::write(etc.path().join("devices/none.devices"), "").expect("there is room");
        fs::write(etc.path().join("lvm.conf"), how).expect("there is room");
        namespace::in_own_mounts(|| {
            let bind = ["--bind".as_ref(), etc.path().as_os_str()];
            run("mount", bind.into_iter().chain(["/etc/lvm".as_ref()])).expect("root may");
            open()
        })
        .expect("root may make a mount namespace")
    };

    open().expect("it is there");
    for (what, how) in HIDING {
        let told = hidden_by(how).expect_err("LVM does not see it");
        let told = format!("{told:#}");
        for says in [&*name, &*disk, "told not to see", "lvmdevices", "filter"] {
            assert!(told.contains(says), "by a {what}: {told}");
        }
    }
    hidden_by("").expect("nothing hides it");
    let config::Kind::Lvm(mut absent) = home.pool("unused".as_ref()) else {
        panic!("it is one of LVM");
    };
    absent.volume_group = "vg-nowhere".to_owned();
    let told = pool(config::Kind::Lvm(absent)).expect_err("it is not there");
    let told = format!("{told:#}");
    assert!(told.contains("has no volume group vg-nowhere"), "{told}");
    assert!(told.contains("vgcreate"), "{told}");
}
