//! One suite for every kind of pool, through the verbs of the driver.

mod copies;
mod fake;
mod full;
mod kept;
mod shown;
#[path = "../support/mod.rs"]
mod support;
mod trial;
mod volumes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use orlop::host::namespace;
use orlop::volume::Filesystem;
use support::verbs::Form;
use support::{LoopFs, skipped};
use trial::{Claim, Kind, Trial};

/// The size of the filesystem below each pool.
const HOME: u64 = 4 << 30;

const fn directory(home: &'static str, form: Form) -> Kind {
    Kind {
        home: Some(home),
        form,
        btrfs: false,
    }
}

#[test]
fn a_pool_in_memory_conforms() {
    let kind = Kind {
        home: None,
        form: Form::TREE,
        btrfs: false,
    };
    let dir = tempfile::tempdir().expect("a temporary directory can be made");

    try_all(
        kind,
        dir.path(),
        dir.path(),
        &[volumes::CLAIMS, copies::CLAIMS],
    );
}

#[test]
fn trees_on_ext4_conform() {
    conforms(directory("ext4", Form::TREE));
}

#[test]
fn trees_on_xfs_conform() {
    conforms(directory("xfs", Form::TREE));
}

#[test]
fn trees_on_tmpfs_conform() {
    conforms(directory("tmpfs", Form::TREE));
}

#[test]
fn images_of_ext4_on_ext4_conform() {
    conforms(directory("ext4", Form::image(Filesystem::Ext4)));
}

#[test]
fn images_of_xfs_on_ext4_conform() {
    conforms(directory("ext4", Form::image(Filesystem::Xfs)));
}

#[test]
fn images_of_btrfs_on_ext4_conform() {
    conforms(directory("ext4", Form::image(Filesystem::Btrfs)));
}

#[test]
fn images_of_ext4_on_xfs_conform() {
    conforms(directory("xfs", Form::image(Filesystem::Ext4)));
}

#[test]
fn block_volumes_on_ext4_conform() {
    conforms(directory("ext4", Form::BLOCK));
}

#[test]
fn block_volumes_on_xfs_conform() {
    conforms(directory("xfs", Form::BLOCK));
}

#[test]
fn subvolumes_conform() {
    conforms(Kind {
        btrfs: true,
        ..directory("btrfs", Form::TREE)
    });
}

#[test]
fn images_of_xfs_on_btrfs_conform() {
    conforms(Kind {
        btrfs: true,
        ..directory("btrfs", Form::image(Filesystem::Xfs))
    });
}

/// Tries all claims on pools of this kind, in mounts that end with the test.
fn conforms(kind: Kind) {
    let home = kind.home.expect("the fake is tried by itself");
    if !rustix::process::geteuid().is_root() {
        return skipped(&format!("pools on {home}"), "mounting needs root");
    }
    let desk = tempfile::tempdir().expect("a temporary directory can be made");
    let all = [volumes::CLAIMS, copies::CLAIMS, shown::CLAIMS, kept::CLAIMS];
    namespace::in_own_mounts(|| {
        if let Some(home) = LoopFs::of_size(home, HOME) {
            try_all(kind, home.path(), desk.path(), &all);
        }
    })
    .expect("root may make a mount namespace");
}

fn try_all(kind: Kind, home: &Path, desk: &Path, all: &[&[Claim]]) {
    let holds = |(name, claim): &&Claim| {
        let (place, desk) = (home.join(name), desk.join(format!("{name}.desk")));
        let tried = catch_unwind(AssertUnwindSafe(|| {
            claim(&mut Trial::new(kind, place, desk));
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
        "of {:?} it does not hold that {broken:?}",
        kind.form
    );
}

/// Claims with their names.
macro_rules! claims {
    ($($claim:ident),* $(,)?) => { &[$((stringify!($claim), $claim)),*] };
}
use claims;
