//! One suite for every kind of pool, through the verbs of the driver.

mod copies;
mod fake;
mod full;
mod kept;
mod lvm;
mod meanwhile;
mod shown;
#[path = "../support/mod.rs"]
mod support;
mod trial;
mod volumes;
mod zfs;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial as Test};
use orlop::host::namespace;
use orlop::volume::Filesystem::{Btrfs, Ext4, Xfs};
use support::form::Form;
use support::home::Ground;
use support::{skipped, takes_long};
use trial::{Claim, Trial};

/// Pools on one ground, with volumes of one form, under a name.
type Kind = (&'static str, Ground, Form);

/// The kinds that this machine's kernel has.
const HERE: [Kind; 13] = [
    ("memory", Ground::Memory, Form::TREE),
    ("full_disks", Ground::Small("ext4"), Form::TREE),
    ("trees_on_ext4", EXT4, Form::TREE),
    ("trees_on_xfs", XFS, Form::TREE),
    ("trees_on_tmpfs", Ground::Directory("tmpfs"), Form::TREE),
    ("images_of_ext4_on_ext4", EXT4, Form::image(Ext4)),
    ("images_of_xfs_on_ext4", EXT4, Form::image(Xfs)),
    ("images_of_btrfs_on_ext4", EXT4, Form::image(Btrfs)),
    ("images_of_ext4_on_xfs", XFS, Form::image(Ext4)),
    ("block_volumes_on_ext4", EXT4, Form::BLOCK),
    ("block_volumes_on_xfs", XFS, Form::BLOCK),
    ("subvolumes", Ground::Btrfs, Form::TREE),
    ("images_of_xfs_on_btrfs", Ground::Btrfs, Form::image(Xfs)),
];

/// What is claimed in a guest where tests may not take long: a command there takes seconds.
const SAMPLE: [&str; 4] = [
    "a_snapshot_keeps_the_content_of_its_moment",
    "a_volume_in_use_is_not_deleted_also_after_a_restart",
    "a_record_that_can_not_be_read_is_told_and_hides_no_other",
    "a_target_that_is_not_ours_is_left_alone",
];

/// Those for which `tests/machine` has a guest.
const IN_A_GUEST: [Kind; 10] = [
    ("thin_volumes", THIN, Form::device(Ext4)),
    ("thin_block_volumes", THIN, Form::BLOCK),
    ("thick_volumes", THICK, Form::device(Ext4)),
    (
        "encrypted_thin_volumes",
        THIN,
        Form::device(Ext4).encrypted(),
    ),
    ("datasets", Ground::Zfs, Form::TREE),
    ("encrypted_datasets", Ground::Zfs, Form::TREE.encrypted()),
    ("zvols_with_ext4", Ground::Zfs, Form::device(Ext4)),
    ("zvols", Ground::Zfs, Form::BLOCK),
    ("quota_trees_on_xfs", Ground::Quota("xfs"), Form::QUOTA),
    ("quota_trees_on_ext4", Ground::Quota("ext4"), Form::QUOTA),
];

/// The same with other filesystems; all that is claimed of them only where tests may take long.
const IN_A_GUEST_TOO: [Kind; 6] = [
    ("thin_volumes_with_xfs", THIN, Form::device(Xfs)),
    ("thin_volumes_with_btrfs", THIN, Form::device(Btrfs)),
    ("thick_volumes_with_xfs", THICK, Form::device(Xfs)),
    ("thick_volumes_with_btrfs", THICK, Form::device(Btrfs)),
    ("zvols_with_xfs", Ground::Zfs, Form::device(Xfs)),
    ("zvols_with_btrfs", Ground::Zfs, Form::device(Btrfs)),
];

/// What is claimed of those otherwise: nobody but us freezes btrfs.
const SAMPLE_TOO: [&str; 2] = [
    "thin_volumes_with_btrfs::a_snapshot_of_a_volume_in_use_is_whole",
    "thick_volumes_with_btrfs::a_snapshot_of_a_volume_in_use_is_whole",
];

const EXT4: Ground = Ground::Directory("ext4");
const XFS: Ground = Ground::Directory("xfs");
const THIN: Ground = Ground::Lvm { thin: true };
const THICK: Ground = Ground::Lvm { thin: false };

fn main() -> ExitCode {
    let here = HERE.iter().flat_map(tests);
    let sampled = |kinds: &'static [Kind], sample: &'static [&'static str]| {
        let is_one = |test: &Test| sample.iter().any(|claim| test.name().ends_with(claim));
        let tests = kinds.iter().flat_map(tests);
        tests.filter(move |test| takes_long() || is_one(test))
    };
    let in_a_guest = sampled(&IN_A_GUEST, &SAMPLE).chain(sampled(&IN_A_GUEST_TOO, &SAMPLE_TOO));
    let in_a_guest = in_a_guest.map(|test| test.with_ignored_flag(true));
    libtest_mimic::run(&Arguments::from_args(), here.chain(in_a_guest).collect()).exit_code()
}

/// Each claim about a kind as a test.
fn tests(&(kind, ground, form): &Kind) -> impl Iterator<Item = Test> {
    claims_on(ground).into_iter().map(move |(name, claim)| {
        Test::test(format!("{kind}::{name}"), move || {
            holds(ground, form, claim);
            Ok(())
        })
    })
}

/// What is claimed of pools on this ground.
fn claims_on(ground: Ground) -> Vec<Claim> {
    let own = match ground {
        Ground::Memory => return [volumes::CLAIMS, copies::CLAIMS].concat(),
        Ground::Small(_) => return full::CLAIMS.to_vec(),
        Ground::Directory(_) | Ground::Quota(_) | Ground::Btrfs => kept::CLAIMS_OF_FOLDERS,
        Ground::Lvm { .. } => lvm::CLAIMS,
        Ground::Zfs => zfs::CLAIMS,
    };
    [
        volumes::CLAIMS,
        copies::CLAIMS,
        shown::CLAIMS,
        meanwhile::CLAIMS,
        kept::CLAIMS,
        own,
    ]
    .concat()
}

/// Tries a claim on a new pool, in mounts that end with it.
fn holds(ground: Ground, form: Form, claim: fn(&mut Trial)) {
    if !rustix::process::geteuid().is_root() {
        return skipped(&format!("a claim about {ground:?}"), "mounting needs root");
    }
    let desk = tempfile::tempdir().expect("a temporary directory can be made");
    namespace::in_own_mounts(|| {
        let Some(home) = ground.make() else {
            return;
        };
        let place = home.path(desk.path()).join("pool");
        claim(&mut Trial::new(home, form, place, desk.path().join("desk")));
    })
    .expect("root may make a mount namespace");
}

/// Claims with their names.
macro_rules! claims {
    ($($claim:ident),* $(,)?) => { &[$((stringify!($claim), $claim)),*] };
}
use claims;
