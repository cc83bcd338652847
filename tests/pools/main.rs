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
mod zfs;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial as Test};
use orlop::host::namespace;
use orlop::volume::Filesystem::{Btrfs, Ext4, Xfs};
use support::home::Ground;
use support::verbs::Form;
use support::{skipped, takes_long};
use trial::{Claim, Trial};

/// Pools of one kind, with volumes of one form, about which claims are made.
struct Kind {
    name: &'static str,
    ground: Ground,
    form: Form,
    claims: &'static [&'static [Claim]],
}

/// The kinds that this machine's kernel has.
const HERE: [Kind; 13] = [
    Kind {
        name: "memory",
        ground: Ground::Memory,
        form: Form::TREE,
        claims: &[volumes::CLAIMS, copies::CLAIMS],
    },
    Kind {
        name: "full_disks",
        ground: Ground::Small("ext4"),
        form: Form::TREE,
        claims: &[full::CLAIMS],
    },
    folders("trees_on_ext4", EXT4, Form::TREE),
    folders("trees_on_xfs", XFS, Form::TREE),
    folders("trees_on_tmpfs", Ground::Directory("tmpfs"), Form::TREE),
    folders("images_of_ext4_on_ext4", EXT4, Form::image(Ext4)),
    folders("images_of_xfs_on_ext4", EXT4, Form::image(Xfs)),
    folders("images_of_btrfs_on_ext4", EXT4, Form::image(Btrfs)),
    folders("images_of_ext4_on_xfs", XFS, Form::image(Ext4)),
    folders("block_volumes_on_ext4", EXT4, Form::BLOCK),
    folders("block_volumes_on_xfs", XFS, Form::BLOCK),
    folders("subvolumes", Ground::Btrfs, Form::TREE),
    folders("images_of_xfs_on_btrfs", Ground::Btrfs, Form::image(Xfs)),
];

/// What is claimed in a guest where tests may not take long: a command there takes seconds.
const SAMPLE: [&str; 4] = [
    "a_snapshot_keeps_the_content_of_its_moment",
    "a_volume_in_use_is_not_deleted_also_after_a_restart",
    "a_record_that_can_not_be_read_is_told_and_hides_no_other",
    "a_target_that_is_not_ours_is_left_alone",
];

/// Those for which `tests/machine` has a guest.
const IN_A_GUEST: [Kind; 9] = [
    lvm("thin_volumes", true, Form::device(Ext4)),
    lvm("thin_block_volumes", true, Form::BLOCK),
    lvm("thick_volumes", false, Form::device(Ext4)),
    lvm(
        "encrypted_thin_volumes",
        true,
        Form::device(Ext4).encrypted(),
    ),
    zfs("datasets", Form::TREE),
    zfs("zvols_with_ext4", Form::device(Ext4)),
    zfs("zvols", Form::BLOCK),
    folders("quota_trees_on_xfs", Ground::Quota("xfs"), Form::QUOTA),
    folders("quota_trees_on_ext4", Ground::Quota("ext4"), Form::QUOTA),
];

const EXT4: Ground = Ground::Directory("ext4");
const XFS: Ground = Ground::Directory("xfs");

const fn folders(name: &'static str, ground: Ground, form: Form) -> Kind {
    Kind {
        name,
        ground,
        form,
        claims: &[
            volumes::CLAIMS,
            copies::CLAIMS,
            shown::CLAIMS,
            kept::CLAIMS,
            kept::CLAIMS_OF_FOLDERS,
        ],
    }
}

const fn lvm(name: &'static str, thin: bool, form: Form) -> Kind {
    Kind {
        name,
        ground: Ground::Lvm { thin },
        form,
        claims: &[
            volumes::CLAIMS,
            copies::CLAIMS,
            shown::CLAIMS,
            kept::CLAIMS,
            lvm::CLAIMS,
        ],
    }
}

const fn zfs(name: &'static str, form: Form) -> Kind {
    Kind {
        name,
        ground: Ground::Zfs,
        form,
        claims: &[
            volumes::CLAIMS,
            copies::CLAIMS,
            shown::CLAIMS,
            kept::CLAIMS,
            zfs::CLAIMS,
        ],
    }
}

fn main() -> ExitCode {
    let here = HERE.iter().flat_map(Kind::tests);
    let in_a_guest = IN_A_GUEST.iter().flat_map(Kind::tests);
    let sampled =
        |test: &Test| takes_long() || SAMPLE.iter().any(|claim| test.name().ends_with(claim));
    let in_a_guest = in_a_guest
        .filter(sampled)
        .map(|test| test.with_ignored_flag(true));
    libtest_mimic::run(&Arguments::from_args(), here.chain(in_a_guest).collect()).exit_code()
}

impl Kind {
    /// Each claim as a test.
    fn tests(&self) -> impl Iterator<Item = Test> {
        let (kind, ground, form) = (self.name, self.ground, self.form);
        let claims = self.claims.iter().copied().flatten();
        claims.map(move |(name, claim)| {
            Test::test(format!("{kind}::{name}"), move || {
                holds(ground, form, *claim);
                Ok(())
            })
        })
    }
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
