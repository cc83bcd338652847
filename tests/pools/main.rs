//! One suite for every kind of pool, through the verbs of the driver.

mod copies;
mod fake;
mod full;
mod kept;
mod lvm;
mod shown;
#[path = "../support/mod.rs"]
mod support;
mod trial;
mod volumes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use orlop::host::namespace;
use orlop::volume::Filesystem;
use support::home::{Ground, Home};
use support::skipped;
use support::verbs::Form;
use trial::{Claim, Trial};

const EXT4: Ground = Ground::Directory("ext4");
const XFS: Ground = Ground::Directory("xfs");

#[test]
fn a_pool_in_memory_conforms() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");

    try_all(
        &Arc::new(Home::Memory),
        Form::TREE,
        dir.path(),
        &[volumes::CLAIMS, copies::CLAIMS],
    );
}

#[test]
fn trees_on_ext4_conform() {
    folders_conform(EXT4, Form::TREE);
}

#[test]
fn trees_on_xfs_conform() {
    folders_conform(XFS, Form::TREE);
}

#[test]
fn trees_on_tmpfs_conform() {
    folders_conform(Ground::Directory("tmpfs"), Form::TREE);
}

#[test]
fn images_of_ext4_on_ext4_conform() {
    folders_conform(EXT4, Form::image(Filesystem::Ext4));
}

#[test]
fn images_of_xfs_on_ext4_conform() {
    folders_conform(EXT4, Form::image(Filesystem::Xfs));
}

#[test]
fn images_of_btrfs_on_ext4_conform() {
    folders_conform(EXT4, Form::image(Filesystem::Btrfs));
}

#[test]
fn images_of_ext4_on_xfs_conform() {
    folders_conform(XFS, Form::image(Filesystem::Ext4));
}

#[test]
fn block_volumes_on_ext4_conform() {
    folders_conform(EXT4, Form::BLOCK);
}

#[test]
fn block_volumes_on_xfs_conform() {
    folders_conform(XFS, Form::BLOCK);
}

#[test]
fn subvolumes_conform() {
    folders_conform(Ground::Btrfs, Form::TREE);
}

#[test]
fn images_of_xfs_on_btrfs_conform() {
    folders_conform(Ground::Btrfs, Form::image(Filesystem::Xfs));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn thin_volumes_with_ext4_conform() {
    logical_volumes_conform(true, Form::device(Filesystem::Ext4));
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn thin_block_volumes_conform() {
    logical_volumes_conform(true, Form::BLOCK);
}

#[test]
#[ignore = "tests/machine runs it in a guest"]
fn thick_volumes_with_ext4_conform() {
    logical_volumes_conform(false, Form::device(Filesystem::Ext4));
}

fn folders_conform(ground: Ground, form: Form) {
    conforms(
        ground,
        form,
        &[
            volumes::CLAIMS,
            copies::CLAIMS,
            shown::CLAIMS,
            kept::CLAIMS,
            kept::CLAIMS_OF_FOLDERS,
        ],
    );
}

fn logical_volumes_conform(thin: bool, form: Form) {
    if !support::takes_long() {
        let how = "a command of LVM takes seconds in a guest: `make test-long` tries them";
        return skipped(&format!("all claims about {form:?} on LVM"), how);
    }
    conforms(
        Ground::Lvm { thin },
        form,
        &[
            volumes::CLAIMS,
            copies::CLAIMS,
            shown::CLAIMS,
            kept::CLAIMS,
            lvm::CLAIMS,
        ],
    );
}

/// Tries all claims on pools of this kind, in mounts that end with the test.
fn conforms(ground: Ground, form: Form, all: &[&[Claim]]) {
    if !rustix::process::geteuid().is_root() {
        return skipped(&format!("pools on {ground:?}"), "mounting needs root");
    }
    let desk = tempfile::tempdir().expect("a temporary directory can be made");
    namespace::in_own_mounts(|| {
        if let Some(home) = ground.make() {
            try_all(&Arc::new(home), form, desk.path(), all);
        }
    })
    .expect("root may make a mount namespace");
}

fn try_all(home: &Arc<Home>, form: Form, desk: &Path, all: &[&[Claim]]) {
    let holds = |(name, claim): &&Claim| {
        let place = home.path(desk).join(name);
        let desk = desk.join(format!("{name}.desk"));
        let tried = catch_unwind(AssertUnwindSafe(|| {
            claim(&mut Trial::new(Arc::clone(home), form, place, desk));
        }));
        tried.is_ok()
    };
    let claims = all.iter().copied().flatten();
    let broken: Vec<_> = claims
        .filter(|claim| !holds(claim))
        .map(|(name, _)| name)
        .collect();
    assert!(
        broken.is_empty(),
        "of {form:?} it does not hold that {broken:?}"
    );
}

/// Claims with their names.
macro_rules! claims {
    ($($claim:ident),* $(,)?) => { &[$((stringify!($claim), $claim)),*] };
}
use claims;
