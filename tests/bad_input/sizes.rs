//! Sizes that can not be.

use orlop::csi::proto::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, NodeExpandVolumeRequest,
};
use tonic::Code::{InvalidArgument, OutOfRange, ResourceExhausted};

use crate::calls::{self, MIB, text};
use crate::{House, call};

fn range(required_bytes: i64, limit_bytes: i64) -> CapacityRange {
    CapacityRange {
        required_bytes,
        limit_bytes,
    }
}

#[tokio::test]
async fn a_size_that_can_not_be_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let ids = [&house.tree, &house.image, &house.device];
    let kinds = [
        calls::volume("new", 0),
        calls::image("new", 0, "ext4"),
        calls::image("new", 0, "xfs"),
        calls::device("new", 0),
    ];
    let mut cases = Vec::new();

    for (capacity_range, word) in [
        (range(2 * MIB, MIB), "below required_bytes"),
        (range(-1, 0), "not negative"),
        (range(0, -1), "not negative"),
        (range(i64::MIN, i64::MIN), "not negative"),
    ] {
        for kind in kinds.clone() {
            let create = CreateVolumeRequest {
                capacity_range: Some(capacity_range),
                ..kind
            };
            cases.push(call!(house, controller.create_volume(create)).is(InvalidArgument, word));
        }
        for id in ids {
            let expand = ControllerExpandVolumeRequest {
                volume_id: id.clone(),
                capacity_range: Some(capacity_range),
                ..Default::default()
            };
            cases.push(
                call!(house, controller.controller_expand_volume(expand)).is(InvalidArgument, word),
            );
        }
        let confirm = NodeExpandVolumeRequest {
            volume_id: house.tree.clone(),
            volume_path: text(&house.staged),
            capacity_range: Some(capacity_range),
            ..Default::default()
        };
        cases.push(call!(house, node.node_expand_volume(confirm)).is(InvalidArgument, word));
    }

    house.answers(cases).await;
}

#[tokio::test]
async fn a_size_beyond_all_disks_is_refused() {
    let Some(house) = House::new().await else {
        return;
    };
    let most = range(i64::MAX, 0);
    let kinds = [
        calls::image("new", 0, "ext4"),
        calls::image("new", 0, "btrfs"),
        calls::device("new", 0),
    ];
    let mut cases = Vec::new();

    for kind in kinds {
        let create = CreateVolumeRequest {
            capacity_range: Some(most),
            ..kind
        };
        cases.push(
            call!(house, controller.create_volume(create))
                .is(OutOfRange, "more than a volume can hold"),
        );
    }
    for (id, code, word) in [
        (&house.tree, ResourceExhausted, "has room for"),
        (&house.image, OutOfRange, "more than a volume can hold"),
        (&house.device, OutOfRange, "more than a volume can hold"),
    ] {
        let expand = ControllerExpandVolumeRequest {
            volume_id: id.clone(),
            capacity_range: Some(most),
            ..Default::default()
        };
        cases.push(call!(house, controller.controller_expand_volume(expand)).is(code, word));
        let expand = ControllerExpandVolumeRequest {
            volume_id: id.clone(),
            capacity_range: Some(range(1 << 60, 0)),
            ..Default::default()
        };
        cases.push(
            call!(house, controller.controller_expand_volume(expand))
                .is(ResourceExhausted, "has room for"),
        );
    }
    for kind in [
        calls::volume("new", 1 << 60),
        calls::volume("new", i64::MAX),
        calls::image("new", 1 << 60, "ext4"),
        calls::device("new", 1 << 60),
    ] {
        cases.push(
            call!(house, controller.create_volume(kind)).is(ResourceExhausted, "has room for"),
        );
    }

    house.answers(cases).await;
}

#[tokio::test]
async fn a_size_below_the_least_is_refused_and_none_is_made_smaller() {
    let Some(house) = House::new().await else {
        return;
    };
    let within = |kind, limit| CreateVolumeRequest {
        capacity_range: Some(range(0, limit)),
        ..kind
    };
    let expand = |id: &String, least, limit| ControllerExpandVolumeRequest {
        volume_id: id.clone(),
        capacity_range: Some(range(least, limit)),
        ..Default::default()
    };
    let smaller = CreateVolumeRequest {
        volume_content_source: Some(calls::of_volume(&house.image)),
        ..calls::image("new", MIB, "ext4")
    };
    let smaller = CreateVolumeRequest {
        capacity_range: Some(range(MIB, 2 * MIB)),
        ..smaller
    };
    let confirm = NodeExpandVolumeRequest {
        volume_id: house.tree.clone(),
        volume_path: text(&house.staged),
        capacity_range: Some(range(1 << 40, 0)),
        ..Default::default()
    };

    house
        .answers(vec![
            call!(
                house,
                controller.create_volume(within(calls::image("new", 0, "xfs"), 299 * MIB))
            )
            .is(OutOfRange, "the least is 300MiB"),
            call!(
                house,
                controller.create_volume(within(calls::image("new", 0, "btrfs"), 100 * MIB))
            )
            .is(OutOfRange, "the least is 256MiB"),
            call!(
                house,
                controller.create_volume(within(calls::device("new", 0), 4095))
            )
            .is(OutOfRange, "the least is 4KiB"),
            call!(
                house,
                controller.create_volume(CreateVolumeRequest {
                    capacity_range: Some(range(4097, 8191)),
                    ..calls::device("new", 0)
                })
            )
            .is(OutOfRange, "multiples of 4KiB"),
            call!(house, controller.create_volume(smaller)).is(OutOfRange, "the least is 16MiB"),
            call!(
                house,
                controller.controller_expand_volume(expand(&house.image, MIB, 2 * MIB))
            )
            .is(OutOfRange, "the least is 16MiB"),
            call!(
                house,
                controller.controller_expand_volume(expand(&house.device, 0, MIB))
            )
            .is(OutOfRange, "the least is 16MiB"),
            call!(
                house,
                controller.controller_expand_volume(ControllerExpandVolumeRequest {
                    capacity_range: None,
                    ..expand(&house.tree, 0, 0)
                })
            )
            .is(InvalidArgument, "give required_bytes"),
            call!(house, node.node_expand_volume(confirm))
                .is(OutOfRange, "ControllerExpandVolume first"),
        ])
        .await;
}
