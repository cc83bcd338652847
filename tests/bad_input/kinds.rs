//! The nonsense that gets as far as a pool, on each kind of volume that needs a guest.

use orlop::csi::proto::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerModifyVolumeRequest,
    CreateVolumeRequest, DeleteVolumeRequest, NodeStageVolumeRequest, VolumeCapability,
};
use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ResourceExhausted};

use crate::calls::{self, MIB, text};
use crate::every::{about_a_volume, taking_back};
use crate::support::home::Ground;
use crate::{Case, House, call, odd_ids};

type Pairs = &'static [(&'static str, &'static str)];

/// A kind of volume.
#[derive(Clone, Copy)]
struct Kind {
    ground: Ground,
    /// The parameters of a class of them.
    class: Pairs,
    /// Those of another class in the same pool.
    other: Pairs,
    /// What no class there can say further, and a word of why not.
    impossible: &'static [(&'static str, &'static str, &'static str)],
    /// A size that no volume of the kind has, between two that it can have; none if it can have any.
    between: Option<(i64, i64)>,
}

const LVM: Kind = Kind {
    ground: Ground::Lvm { thin: true },
    class: &[],
    other: &[("csi.storage.k8s.io/fstype", "xfs")],
    impossible: &[
        ("layout", "tree", "is of devices"),
        ("layout", "image", "is of devices"),
        ("wipe", "twice", "twice"),
        ("wipe", "zero", "would fill the thin pool"),
        ("type", "raid1", "type"),
        ("compression", "lz4", "compression"),
        ("maxInodes", "1000", "maxInodes"),
    ],
    between: Some((4 * MIB + 1, 8 * MIB - 1)),
};
const THICK: Kind = Kind {
    ground: Ground::Lvm { thin: false },
    impossible: &[
        ("layout", "tree", "is of devices"),
        ("wipe", "twice", "twice"),
        ("type", "raid7", "raid7"),
        ("stripes", "0", "no number from 1 to 128"),
        ("stripes", "many", "no number from 1 to 128"),
        ("stripeSize", "5KiB", "no power of two"),
        ("mirrors", "-1", "no number from 1 to 128"),
        ("compression", "lz4", "compression"),
    ],
    ..LVM
};
const DATASET: Kind = Kind {
    ground: Ground::Zfs,
    class: &[("layout", "tree")],
    other: &[("csi.storage.k8s.io/fstype", "ext4")],
    impossible: &[
        ("layout", "image", "has no images"),
        ("csi.storage.k8s.io/fstype", "ext4", "is on zfs"),
        ("compression", "perhaps", "is none of"),
        ("recordsize", "3KiB", "a power of two"),
        ("volblocksize", "4KiB", "only devices have one"),
        ("mountpoint", "/etc", "mountpoint"),
        ("sharenfs", "on", "sharenfs"),
        ("wipe", "zero", "wipe"),
    ],
    between: None,
};
const ZVOL: Kind = Kind {
    class: DATASET.other,
    other: &[("layout", "tree")],
    impossible: &[
        ("layout", "image", "has no images"),
        ("compression", "perhaps", "is none of"),
        ("volblocksize", "3KiB", "a power of two"),
        ("recordsize", "4KiB", "only trees have one"),
        ("volmode", "none", "volmode"),
    ],
    between: Some((4 * MIB + 1, 4 * MIB + 4095)),
    ..DATASET
};
const QUOTA: Kind = Kind {
    ground: Ground::Quota("xfs"),
    class: &[("layout", "tree"), ("requireQuota", "true")],
    other: &[("layout", "image")],
    impossible: &[
        ("layout", "device", "has no devices of its own"),
        ("maxInodes", "-1", "is no number of inodes"),
        ("maxInodes", "0", "is no number of inodes"),
        ("encryption", "true", "layout: image"),
        ("compression", "lz4", "compression"),
        ("wipe", "zero", "wipe"),
    ],
    between: None,
};

macro_rules! in_a_guest {
    ($($name:ident: $kind:expr;)*) => {
        $(#[tokio::test] #[ignore = "tests/machine runs it in a guest"] async fn $name() { changes_nothing(&$kind).await; })*
    };
}

in_a_guest! {
    thin_volumes_take_no_nonsense: LVM;
    thick_volumes_take_no_nonsense: THICK;
    encrypted_thin_volumes_take_no_nonsense: Kind { class: &[("encryption", "true")], ..LVM };
    datasets_take_no_nonsense: DATASET;
    zvols_take_no_nonsense: ZVOL;
    quota_trees_on_xfs_take_no_nonsense: QUOTA;
    quota_trees_on_ext4_take_no_nonsense: Kind { ground: Ground::Quota("ext4"), ..QUOTA };
}

async fn changes_nothing(kind: &Kind) {
    let wanted = [
        kind.volume("tree", 16 * MIB),
        with(calls::volume("image", 304 * MIB), kind.other),
        calls::device("device", 16 * MIB),
    ];
    let Some(house) = House::on(kind.ground, wanted).await else {
        return;
    };
    let mut cases = sizes(&house, kind);
    for id in odd_ids() {
        let all = about_a_volume(&house, &id).into_iter();
        cases.extend(all.map(|case| case.is(NotFound, "does not exist")));
        cases.extend(taking_back(&house, &id));
    }
    cases.extend(parameters(&house, kind));
    cases.extend(sources(&house, kind));
    cases.extend(uses(&house, kind));
    house.answers_all(cases).await;
    // An encrypted one keeps its device as long as it is staged.
    let mut client = house.client.clone();
    let unstaged = client.unstage(&house.tree, &house.staged).await;
    unstaged.expect("it is not published");
}

impl Kind {
    fn volume(&self, name: &str, bytes: i64) -> CreateVolumeRequest {
        with(calls::volume(name, bytes), self.class)
    }

    fn is(&self, class: Pairs) -> bool {
        self.class == class
    }
}

fn with(mut request: CreateVolumeRequest, parameters: Pairs) -> CreateVolumeRequest {
    let pairs = parameters.iter();
    let pairs = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    request.parameters.extend(pairs);
    request
}

fn range(required_bytes: i64, limit_bytes: i64) -> CapacityRange {
    CapacityRange {
        required_bytes,
        limit_bytes,
    }
}

fn sizes(house: &House, kind: &Kind) -> Vec<Case> {
    let create = |range| {
        let request = CreateVolumeRequest {
            capacity_range: Some(range),
            ..kind.volume("new", 0)
        };
        call!(house, controller.create_volume(request))
    };
    let grow = |capacity_range| {
        let request = ControllerExpandVolumeRequest {
            volume_id: house.tree.clone(),
            capacity_range,
            ..Default::default()
        };
        call!(house, controller.controller_expand_volume(request))
    };
    let mut cases = vec![
        create(range(-1, 0)).is(InvalidArgument, "not negative"),
        create(range(2 * MIB, MIB)).is(InvalidArgument, "below required_bytes"),
        create(range(1 << 60, 0)).is(ResourceExhausted, "has room for"),
        grow(Some(range(-1, 0))).is(InvalidArgument, "not negative"),
        grow(Some(range(2 * MIB, MIB))).is(InvalidArgument, "below required_bytes"),
        grow(Some(range(1 << 60, 0))).is(ResourceExhausted, "has room for"),
        grow(Some(range(0, MIB))).is(OutOfRange, "the least is"),
        grow(None).is(InvalidArgument, "give required_bytes"),
    ];
    if let Some((least, most)) = kind.between {
        cases.push(create(range(least, most)).is(OutOfRange, "multiples of"));
        cases.push(create(range(0, 1)).is(OutOfRange, "the least is"));
        cases.push(create(range(i64::MAX, 0)).is(OutOfRange, "more than a volume can hold"));
        cases.push(grow(Some(range(i64::MAX, 0))).is(OutOfRange, "more than a volume can hold"));
    }
    cases
}

fn parameters(house: &House, kind: &Kind) -> Vec<Case> {
    let impossible = kind.impossible.iter().map(|(key, value, word)| {
        let mut request = kind.volume("new", 16 * MIB);
        let pair = ((*key).to_owned(), (*value).to_owned());
        request.parameters.extend([pair]);
        call!(house, controller.create_volume(request)).is(InvalidArgument, word)
    });
    let unheard = ControllerModifyVolumeRequest {
        volume_id: house.tree.clone(),
        mutable_parameters: [("iops".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    let unheard = call!(house, controller.controller_modify_volume(unheard));
    impossible
        .chain([unheard.is(InvalidArgument, "iops")])
        .collect()
}

fn sources(house: &House, kind: &Kind) -> Vec<Case> {
    let from_volume = |id: &str, request| CreateVolumeRequest {
        volume_content_source: Some(calls::of_volume(id)),
        ..request
    };
    let restored = |request| CreateVolumeRequest {
        volume_content_source: Some(calls::of_snapshot(&house.snapshot)),
        ..request
    };
    let device = calls::device("new", 16 * MIB);
    let smaller = CreateVolumeRequest {
        capacity_range: Some(range(MIB, 2 * MIB)),
        ..kind.volume("new", 0)
    };
    let other = with(calls::volume("new", 304 * MIB), kind.other);
    [
        (from_volume(&house.tree, device.clone()), InvalidArgument),
        (restored(device), InvalidArgument),
        (
            from_volume(&house.device, kind.volume("new", 16 * MIB)),
            InvalidArgument,
        ),
        (from_volume(&house.tree, other.clone()), InvalidArgument),
        (restored(other), InvalidArgument),
        (from_volume(&house.tree, smaller.clone()), OutOfRange),
        (restored(smaller), OutOfRange),
    ]
    .map(|(request, code)| call!(house, controller.create_volume(request)).is(code, ""))
    .into()
}

fn uses(house: &House, kind: &Kind) -> Vec<Case> {
    let stage = |id: &String, capability: VolumeCapability| {
        let request = NodeStageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: text(&house.at.join("elsewhere")),
            volume_capability: Some(capability),
            ..Default::default()
        };
        call!(house, node.node_stage_volume(request))
    };
    let delete = DeleteVolumeRequest {
        volume_id: house.tree.clone(),
        ..Default::default()
    };
    let elsewhere = house.at.join("elsewhere");
    let unstaged = calls::publication(&house.image, &house.staged, &elsewhere);
    let mut cases = vec![
        call!(house, controller.delete_volume(delete)).is(FailedPrecondition, "unstage it first"),
        call!(house, node.node_publish_volume(unstaged)).is(FailedPrecondition, "stage it first"),
        stage(&house.tree, calls::block()).is(InvalidArgument, ""),
        stage(&house.device, calls::mounted()).is(InvalidArgument, "is a block device"),
    ];
    if kind.is(&[("encryption", "true")]) {
        let request = CreateVolumeRequest {
            volume_content_source: Some(calls::of_volume(&house.tree)),
            ..with(calls::volume("new", 16 * MIB), &[("encryption", "false")])
        };
        cases.push(call!(house, controller.create_volume(request)).is(InvalidArgument, "encrypt"));
    }
    cases
}
